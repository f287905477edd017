//! `paperboy deliveries list`.

use clap::Args;
use serde_json::Value;

use super::{Common, Failure, Moment, moment, output};
use crate::desk::deliveries::row_json;
use crate::desk::now_ms;
use crate::store::Store;
use crate::store::deliveries::{Cursor, DeliveryFilter, LIST_LIMIT, StatusRange, What};

/// List attempts and what else befell deliveries.
///
/// Quick by event, document or subscription. Anything else looks at every row: of the last 24 hours, unless `--since` says
/// otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy deliveries list --tenant acme --failures --since 1h
  paperboy deliveries list --class tls --limit 10
  paperboy deliveries list --document a7046a49 --json")]
pub(in crate::cli) struct List {
    /// Only this tenant's
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    pub(super) subscription: Option<String>,
    /// Only this event
    #[arg(long, value_name = "ID")]
    pub(super) event: Option<String>,
    /// Only this document
    #[arg(long, value_name = "ID")]
    pub(super) document: Option<String>,
    /// Only this batch
    #[arg(long, value_name = "ID")]
    pub(super) batch: Option<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) kind: Option<String>,
    /// Only this cause: dns, connect, tls, tls_expired, timeout, server_error and so on; `tls` finds all of TLS
    #[arg(long)]
    pub(super) class: Option<String>,
    /// Only answers with this status, such as `503` or `5xx`
    #[arg(long)]
    pub(super) status: Option<String>,
    /// Only delivered, retry, dead, deferred, replayed, unmatched or answered
    #[arg(long)]
    pub(super) what: Option<String>,
    /// Only failed attempts, deliveries given up and calls not taken
    #[arg(long)]
    pub(super) failures: bool,
    /// Not before this moment: `2026-11-22T09:00:00Z`, or an age such as `15m`, `24h`, `7d`; without an event, a document or
    /// a subscription 24h
    #[arg(long, value_parser = moment)]
    pub(super) since: Option<Moment>,
    /// Before this moment
    #[arg(long, value_parser = moment)]
    pub(super) until: Option<Moment>,
    /// At most this many
    #[arg(long, default_value_t = LIST_LIMIT)]
    pub(super) limit: u32,
    /// Start after this place (`next` of the page before)
    #[arg(long, value_name = "PLACE")]
    pub(super) after: Option<String>,
}

/// Said behind a list that might have more.
pub(super) const BOUNDED: &str = "only 24 hours were looked at: `--since 7d` goes further back";

impl List {
    /// Whether it goes back a day because nobody says otherwise.
    pub(super) fn is_bounded(&self) -> bool {
        let is_quick = self.event.is_some() || self.document.is_some() || self.subscription.is_some();
        self.since.is_none() && !is_quick
    }

    fn filter(self) -> Result<DeliveryFilter, Failure> {
        let status = self.status.map(|text| {
            StatusRange::parse(&text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a status")).hint("write `503` or `5xx`")
            })
        });
        let what = self.what.map(|text| {
            What::parse(&text).ok_or_else(|| {
                let known = What::ALL.map(|what| format!("`{}`", what.as_str())).join(", ");
                Failure::usage(format!("`{text}` is nothing that befalls a delivery"))
                    .hint(format!("write one of {known}"))
            })
        });
        let after = self.after.map(|text| {
            Cursor::parse(&text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a place in the delivery log"))
                    .hint("places look like `20261122.1234`; a full page ends with the next one")
            })
        });
        Ok(DeliveryFilter {
            tenant: self.tenant,
            subscription: self.subscription,
            event: self.event,
            document: self.document,
            batch: self.batch,
            kind: self.kind,
            class: self.class,
            status: status.transpose()?,
            what: what.transpose()?,
            since_ms: self.since.map(|moment| moment.unix_ms),
            until_ms: self.until.map(|moment| moment.unix_ms),
            failures: self.failures,
            limit: self.limit,
            after: after.transpose()?,
        })
    }

    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let is_bounded = self.is_bounded();
        let filter = self.filter()?.bounded(now_ms());
        let page = store.deliveries(&filter).await?;
        print(common, &page.rows.iter().map(row_json).collect::<Vec<_>>());
        if let Some(next) = page.next {
            eprintln!("there are more: `--after {next}`");
        } else if is_bounded && !common.json {
            eprintln!("{BOUNDED}");
        }
        Ok(())
    }
}

/// Rows as they are told here and over the API.
pub(super) fn print(common: &Common, rows: &[Value]) {
    if common.json {
        rows.iter().for_each(output::json_line);
        return;
    }
    let header =
        ["at", "what", "tenant", "event", "type", "document", "subscription", "nr", "seen", "ms", "wait"];
    output::table(&header, rows.iter().map(cells).collect(), "no deliveries");
}

fn cells(row: &Value) -> Vec<String> {
    let cell = |name: &str| match &row[name] {
        Value::String(text) => output::printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    // A status, or the cause that left us without one, or the reason.
    let seen = ["status", "class", "reason"].into_iter().find(|name| !row[*name].is_null());
    let before =
        ["at", "what", "tenant", "event", "type", "document_id", "subscription", "attempt"].map(cell);
    let after = [cell(seen.unwrap_or("status")), cell("ms"), cell("next_wait")];
    before.into_iter().chain(after).collect()
}
