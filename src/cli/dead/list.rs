//! `paperboy dead list`.

use clap::Args;

use super::which::Which;
use serde_json::Value;

use super::{Common, Failure, number, output};
use crate::desk::dead::row_json;
use crate::store::{DeadFilter, DeadState, Store, dead};

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
    pub(super) state: String,
    /// At most this many (50; with `--from-queue` 100 of each queue, whose first 1000 can be seen)
    #[arg(long)]
    pub(super) limit: Option<u32>,
    /// Start before this id (the last of the page before)
    #[arg(long, value_name = "ID")]
    pub(super) before: Option<String>,
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
        print(common, &rows.iter().map(row_json).collect::<Vec<_>>());
        output::bounded(rows.len(), filter.limit);
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
        ["id", "kind", "reason", "cause", "tenant", "event", "type", "subscription", "attempts", "dead at"];
    output::table(&header, rows.iter().map(cells).collect(), "no dead letters");
}

fn cells(row: &Value) -> Vec<String> {
    let cell = |name: &str| match &row[name] {
        Value::String(text) => output::printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    // The status says more than the class that is made of it.
    let cause = if row["status"].is_null() { cell("class") } else { cell("status") };
    let [id, kind, reason] = ["id", "kind", "reason"].map(cell);
    let rest = ["tenant", "event", "type", "subscription", "attempts", "dead_at"].map(cell);
    [id, kind, reason, cause].into_iter().chain(rest).collect()
}
