//! `paperboy deliveries list`.

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failure, Moment, moment, output, precise};
use crate::store::Store;
use crate::store::deliveries::{Cursor, DeliveryFilter, DeliveryRow, LIST_LIMIT, StatusRange, What};

/// List attempts and what else befell deliveries.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy deliveries list --tenant acme --failures --since 1h
  paperboy deliveries list --class tls --limit 10
  paperboy deliveries list --document a7046a49 --json")]
pub(in crate::cli) struct List {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// Only this event
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only this document
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// Only this batch
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only this cause: dns, connect, tls, tls_expired, timeout, server_error and so on; `tls` finds all of TLS
    #[arg(long)]
    class: Option<String>,
    /// Only answers with this status, such as `503` or `5xx`
    #[arg(long)]
    status: Option<String>,
    /// Only delivered, retry, dead, deferred, replayed, unmatched or answered
    #[arg(long)]
    what: Option<String>,
    /// Only failed attempts and deliveries given up
    #[arg(long)]
    failures: bool,
    /// Not before this moment: `2026-11-22T09:00:00Z`, or an age such as `15m`, `24h`, `7d`
    #[arg(long, value_parser = moment)]
    since: Option<Moment>,
    /// Before this moment
    #[arg(long, value_parser = moment)]
    until: Option<Moment>,
    /// At most this many
    #[arg(long, default_value_t = LIST_LIMIT)]
    limit: u32,
    /// Start after this place (`next` of the page before)
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
}

impl List {
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
        let page = store.deliveries(&self.filter()?).await?;
        if common.json {
            page.rows.iter().for_each(|row| output::json_line(&row_json(row)));
        } else {
            let header = [
                "at",
                "what",
                "tenant",
                "event",
                "type",
                "document",
                "subscription",
                "nr",
                "seen",
                "ms",
                "wait",
            ];
            output::table(&header, page.rows.iter().map(cells).collect(), "no deliveries");
        }
        if let Some(next) = page.next {
            eprintln!("there are more: `--after {next}`");
        }
        Ok(())
    }
}

fn cells(row: &DeliveryRow) -> Vec<String> {
    let or_dash = |text: &Option<String>| output::printable(text.as_deref().unwrap_or("-"));
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    vec![
        precise(row.at_ms),
        row.what.as_str().to_owned(),
        output::printable(&row.tenant),
        output::printable(&row.event_id),
        output::printable(&row.event_type),
        or_dash(&row.document_id),
        or_dash(&row.subscription),
        row.attempt.to_string(),
        seen(row),
        number(row.elapsed_ms),
        number(row.wait.map(u64::from)),
    ]
}

/// A status, or the cause that left us without one, or the reason.
fn seen(row: &DeliveryRow) -> String {
    let status = row.status.map(|status| status.to_string());
    status.or_else(|| row.class.clone()).or_else(|| row.reason.clone()).unwrap_or_else(|| "-".to_owned())
}

pub(super) fn row_json(row: &DeliveryRow) -> Value {
    json!({
        "place": row.place.to_string(),
        "at": precise(row.at_ms),
        "what": row.what.as_str(),
        "tenant": row.tenant,
        "event": row.event_id,
        "type": row.event_type,
        "document_id": row.document_id,
        "batch_id": row.batch_id,
        "subscription": row.subscription,
        "attempt": row.attempt,
        "cycle": row.cycle,
        "status": row.status,
        "class": row.class,
        "reason": row.reason,
        "ms": row.elapsed_ms,
        "next_wait": row.wait,
        "received_at": row.received_ms.map(precise),
        "worker": row.worker,
    })
}
