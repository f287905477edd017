//! Which dead letters a command is about.

use clap::Args;

use super::{Failure, find};
use crate::cli::deliveries::{Moment, moment};
use crate::store::dead::Kind;
use crate::store::deliveries::StatusRange;
use crate::store::{DeadFilter, DeadRow, Store};

/// Letters read at a time.
pub(super) const PAGE: u32 = 500;

/// What letters are chosen by.
#[derive(Args, Debug, Clone, Default)]
pub(super) struct Which {
    /// Only this tenant's
    #[arg(long)]
    pub(super) tenant: Option<String>,
    /// Only this reason: exhausted, permanent, disabled, gone, starved, poison, unreadable,
    /// undrainable
    #[arg(long)]
    pub(super) reason: Option<String>,
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
    pub(super) event_type: Option<String>,
    /// Only `delivery` or only `event`
    #[arg(long)]
    pub(super) kind: Option<String>,
    /// Only this receiver
    #[arg(long)]
    pub(super) host: Option<String>,
    /// Only this cause, such as timeout, tls_expired or server_error; `tls` finds all of TLS
    #[arg(long)]
    pub(super) class: Option<String>,
    /// Only this last status, such as `503` or `5xx`
    #[arg(long)]
    pub(super) status: Option<String>,
    /// Died not before this moment: `2026-11-22T09:00:00Z`, or an age such as `15m`, `24h`, `7d`
    #[arg(long, value_parser = moment)]
    pub(super) since: Option<Moment>,
    /// Died before this moment
    #[arg(long, value_parser = moment)]
    pub(super) until: Option<Moment>,
}

impl Which {
    /// The flag of one that is given, if any is.
    fn one_given(&self) -> Option<&'static str> {
        let flags = [
            ("--tenant", self.tenant.is_some()),
            ("--reason", self.reason.is_some()),
            ("--event", self.event.is_some()),
            ("--document", self.document.is_some()),
            ("--batch", self.batch.is_some()),
            ("--type", self.event_type.is_some()),
            ("--kind", self.kind.is_some()),
            ("--host", self.host.is_some()),
            ("--class", self.class.is_some()),
            ("--status", self.status.is_some()),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
        ];
        flags.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    pub(super) fn filter(&self, subscription: Option<&str>) -> Result<DeadFilter, Failure> {
        let kind = self.kind.as_deref().map(|text| {
            Kind::parse(text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a kind of dead letter"))
                    .hint("write `delivery` or `event`")
            })
        });
        let status = self.status.as_deref().map(|text| {
            StatusRange::parse(text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a status")).hint("write `503` or `5xx`")
            })
        });
        Ok(DeadFilter {
            kind: kind.transpose()?,
            tenant: self.tenant.clone(),
            subscription: subscription.map(str::to_owned),
            reason: self.reason.clone(),
            event_id: self.event.clone(),
            event_type: self.event_type.clone(),
            document_id: self.document.clone(),
            batch_id: self.batch.clone(),
            host: self.host.clone(),
            class: self.class.clone(),
            status: status.transpose()?,
            since_ms: self.since.as_ref().map(|moment| moment.unix_ms),
            until_ms: self.until.as_ref().map(|moment| moment.unix_ms),
            ..DeadFilter::default()
        })
    }
}

/// The dead letters that a command changes.
#[derive(Args, Debug)]
pub(super) struct Chosen {
    /// Their ids
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Every open one that the filters leave
    #[arg(long, conflicts_with = "ids")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) which: Which,
    /// Only those that were for this subscription
    #[arg(long, value_name = "ID")]
    pub(super) from: Option<String>,
}

impl Chosen {
    pub(super) fn filter(&self) -> Result<DeadFilter, Failure> {
        self.which.filter(self.from.as_deref())
    }

    /// Letters are named, or filtered: whoever does both may think that one narrows the other.
    ///
    /// # Errors
    /// Neither or both.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.ids.is_empty() && !self.all {
            return Err(Failure::usage("no dead letter is named")
                .hint("name ids such as `dl_17`, or `--all` with filters"));
        }
        let flag = self.which.one_given().or(self.from.as_ref().map(|_| "--from"));
        match flag.filter(|_| !self.ids.is_empty()) {
            Some(flag) => Err(Failure::usage(format!("`{flag}` does not narrow letters that are named"))
                .hint("name ids, or `--all` with filters")),
            None => Ok(()),
        }
    }

    /// The named ones, or every open one the filters leave, oldest last.
    pub(super) async fn rows(&self, store: &Store) -> Result<Vec<DeadRow>, Failure> {
        self.check()?;
        let mut rows: Vec<DeadRow> = Vec::new();
        for id in &self.ids {
            let row = find(store, id).await?.row;
            // Named twice is meant once.
            if rows.iter().all(|known| known.id != row.id) {
                rows.push(row);
            }
        }
        if self.all {
            let mut filter = DeadFilter { limit: PAGE, ..self.filter()? };
            loop {
                let page = store.dead_list(&filter).await?;
                filter.before_id = page.last().map(|row| row.id);
                let is_last = page.len() < PAGE as usize;
                rows.extend(page);
                if is_last {
                    break;
                }
            }
        }
        Ok(rows)
    }
}
