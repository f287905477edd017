//! `paperboy subscription list`.

use clap::Args;

use super::{id, tenant};
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
        };
        let specs = store.list_subscriptions(&filter).await?;
        if common.json {
            for spec in &specs {
                output::json_line(&serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?);
            }
            return Ok(());
        }
        let rows = specs.iter().map(|spec| {
            vec![
                spec.id.clone().unwrap_or_default(),
                spec.tenant.clone().unwrap_or_default(),
                output::printable(spec.name.as_deref().unwrap_or("-")),
                if spec.enabled != Some(false) { "yes" } else { "no" }.to_owned(),
                spec.events.join(" "),
                output::printable(spec.request.url.as_deref().unwrap_or("-")),
            ]
        });
        output::table(
            &["id", "tenant", "name", "enabled", "events", "url"],
            rows.collect(),
            "no subscriptions",
        );
        Ok(())
    }
}
