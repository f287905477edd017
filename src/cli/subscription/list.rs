//! `paperboy subscription list`.

use clap::Args;
use serde_json::Value;

use super::{id, tenant};
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output};
use crate::store::{ListFilter, Store};

/// List subscriptions.
#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Start after this id (the last of the page before)
    #[arg(long)]
    after: Option<String>,
}

impl List {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let filter = ListFilter {
            tenant: self.tenant.as_deref().map(tenant).transpose()?,
            after: self.after.as_deref().map(id).transpose()?,
            limit: self.limit,
            ..ListFilter::default()
        };
        let specs = store.list_subscriptions(&filter).await?;
        let documents = specs.iter().map(|spec| serde_json::to_value(spec.masked()));
        print(common, &documents.collect::<Result<Vec<Value>, _>>().map_err(anyhow::Error::from)?);
        output::bounded(specs.len(), self.limit);
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let query = [("tenant", self.tenant), ("cursor", self.after)];
        let rows = remote.list("/v1/subscriptions", &query, self.limit).await?;
        print(common, &rows);
        output::bounded(rows.len(), self.limit);
        Ok(())
    }
}

fn print(common: &Common, documents: &[Value]) {
    if common.json {
        documents.iter().for_each(output::json_line);
        return;
    }
    let text = |value: &Value| output::printable(value.as_str().unwrap_or("-"));
    let rows = documents.iter().map(|document| {
        let events = document["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
        vec![
            text(&document["id"]),
            text(&document["tenant"]),
            text(&document["name"]),
            enabled(document).to_owned(),
            events.collect::<Vec<_>>().join(" "),
            text(&document["request"]["url"]),
        ]
    });
    output::table(&["id", "tenant", "name", "enabled", "events", "url"], rows.collect(), "no subscriptions");
}

fn enabled(document: &Value) -> &'static str {
    match (&document["enabled"], &document["disabled_by"]) {
        (Value::Bool(false), Value::String(by)) if by == "paperboy" => "no, by paperboy",
        (Value::Bool(false), _) => "no",
        _ => "yes",
    }
}
