//! `paperboy dead groups`.

use clap::Args;
use serde_json::Value;

use super::which::Which;
use super::{Common, Failure, output};
use crate::desk::dead::group_json;
use crate::store::{DeadFilter, Store};

/// Count dead letters that died of the same.
#[derive(Args, Debug)]
#[command(
    after_help = "A group is a receiver's host, a cause and a status; `again` counts letters that had been replayed before.

Examples:
  paperboy dead groups
  paperboy dead groups --tenant acme --since 24h
  paperboy dead list --host erp.example.com --class tls_expired     the letters of a group"
)]
pub(in crate::cli) struct Groups {
    #[command(flatten)]
    pub(super) which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    pub(super) subscription: Option<String>,
    /// At most this many, largest first
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u32,
}

impl Groups {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let filter = DeadFilter { limit: self.limit, ..self.which.filter(self.subscription.as_deref())? };
        let groups = store.dead_groups(&filter).await?;
        print(common, &groups.iter().map(group_json).collect::<Vec<_>>());
        output::bounded(groups.len(), self.limit);
        Ok(())
    }
}

/// Groups as they are told here and over the API.
pub(super) fn print(common: &Common, groups: &[Value]) {
    if common.json {
        groups.iter().for_each(output::json_line);
        return;
    }
    output::table(&COLUMNS, groups.iter().map(cells).collect(), "no dead letters");
}

const COLUMNS: [&str; 10] =
    ["letters", "again", "tenants", "kind", "host", "class", "status", "first", "last", "example"];

fn cells(group: &Value) -> Vec<String> {
    let cell = |name: &str| match &group[name] {
        Value::String(text) => output::printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    COLUMNS.iter().map(|name| cell(name)).collect()
}
