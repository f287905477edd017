//! `paperboy dead list`.

use clap::Args;

use super::which::Which;
use super::{Common, Failure, number, output, row_json};
use crate::store::{DeadFilter, DeadRow, DeadState, Store, dead};

/// List dead letters.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead list --tenant acme --reason exhausted
  paperboy dead list --host erp.example.com --class tls --since 24h
  paperboy dead list --from-queue --limit 20      without a store; hands everything back")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pub(super) which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    pub(super) subscription: Option<String>,
    /// open, replayed, discarded or all
    #[arg(long, default_value = "open")]
    state: String,
    /// At most this many (50; with `--from-queue` 100 of each queue, whose first 1000 can be seen)
    #[arg(long)]
    pub(super) limit: Option<u32>,
    /// Start before this id (the last of the page before)
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Look at the dead queues themselves, oldest first; works while nobody drains them (`dead.drain = false`)
    #[arg(long, conflicts_with_all = ["state", "before", "host", "class", "status", "since", "until", "batch", "event_type"])]
    pub(super) from_queue: bool,
}

/// Reads `--state`; none is all of them.
pub(super) fn state(text: &str) -> Result<Option<DeadState>, Failure> {
    if text == "all" {
        return Ok(None);
    }
    let state = DeadState::parse(text).ok_or_else(|| {
        Failure::usage(format!("`{text}` is not a state"))
            .hint("write `open`, `replayed`, `discarded` or `all`")
    });
    state.map(Some)
}

impl List {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let filter = DeadFilter {
            state: state(&self.state)?,
            limit: self.limit.unwrap_or(dead::LIST_LIMIT),
            before_id: self.before.as_deref().map(number).transpose()?,
            ..self.which.filter(self.subscription.as_deref())?
        };
        let rows = store.dead_list(&filter).await?;
        if common.json {
            rows.iter().for_each(|row| output::json_line(&row_json(row)));
            return Ok(());
        }
        let header = [
            "id",
            "kind",
            "reason",
            "cause",
            "tenant",
            "event",
            "type",
            "subscription",
            "attempts",
            "dead at",
        ];
        output::table(&header, rows.iter().map(cells).collect(), "no dead letters");
        Ok(())
    }
}

fn cells(row: &DeadRow) -> Vec<String> {
    let or_dash = |text: &Option<String>| output::printable(text.as_deref().unwrap_or("-"));
    vec![
        format!("dl_{}", row.id),
        row.kind.as_str().to_owned(),
        output::printable(&row.reason),
        // The status says more than the class that is made of it.
        row.status.map_or_else(|| or_dash(&row.class), |status| status.to_string()),
        or_dash(&row.tenant),
        or_dash(&row.event_id),
        or_dash(&row.event_type),
        or_dash(&row.subscription),
        row.attempts.to_string(),
        output::moment(row.dead_at_ms),
    ]
}
