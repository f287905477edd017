//! `paperboy dead groups`.

use clap::Args;
use serde_json::{Value, json};

use super::which::Which;
use super::{Common, Failure, output};
use crate::domain::cause::Cause;
use crate::store::{DeadFilter, DeadGroup, Store};

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
    which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// At most this many, largest first
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

impl Groups {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let filter = DeadFilter { limit: self.limit, ..self.which.filter(self.subscription.as_deref())? };
        let groups = store.dead_groups(&filter).await?;
        if common.json {
            groups.iter().for_each(|group| output::json_line(&group_json(group)));
            return Ok(());
        }
        let header =
            ["letters", "again", "tenants", "kind", "host", "class", "status", "first", "last", "example"];
        output::table(&header, groups.iter().map(cells).collect(), "no dead letters");
        Ok(())
    }
}

fn cells(group: &DeadGroup) -> Vec<String> {
    let or_dash = |text: Option<String>| text.map_or("-".to_owned(), |text| output::printable(&text));
    vec![
        group.letters.to_string(),
        group.again.to_string(),
        group.tenants.to_string(),
        group.kind.as_str().to_owned(),
        or_dash(group.host.clone()),
        or_dash(group.class.clone()),
        or_dash(group.status.map(|status| status.to_string())),
        output::moment(group.first_ms),
        output::moment(group.last_ms),
        format!("dl_{}", group.example),
    ]
}

fn group_json(group: &DeadGroup) -> Value {
    let cause = group.class.as_deref().and_then(Cause::parse);
    json!({
        "letters": group.letters,
        "again": group.again,
        "tenants": group.tenants,
        "kind": group.kind.as_str(),
        "host": group.host,
        "class": group.class,
        "status": group.status,
        "cause": cause.map(|cause| cause.line(group.host.as_deref().unwrap_or("the receiver"))),
        "hint": cause.map(Cause::hint),
        "first": output::moment(group.first_ms),
        "last": output::moment(group.last_ms),
        "example": format!("dl_{}", group.example),
    })
}
