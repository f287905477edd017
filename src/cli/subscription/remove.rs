//! `paperboy subscription remove`.

use clap::Args;
use serde_json::json;

use super::{id, missing};
use crate::cli::{Common, Failure, output, services};
use crate::config::Config;
use crate::store::Store;

/// Remove a subscription.
#[derive(Args, Debug)]
pub(in crate::cli) struct Remove {
    /// Its id
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Remove {
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let id = id(&self.id)?;
        // As it may be shown: a record that nothing opens any more can go too.
        let spec = store.shown_subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        let url = output::printable(spec.request.url.as_deref().unwrap_or("-"));
        let what = format!("subscription `{id}` of tenant `{}` to {url}", spec.tenant.unwrap_or_default());
        if self.dry_run {
            eprintln!("would remove {what}");
            return Ok(());
        }
        output::confirm(&format!("remove {what}?"), self.yes)?;
        let counter = store.remove_subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        services::spread(config, store, counter, !self.no_wait).await?;
        if common.json {
            output::json_line(&json!({ "id": id.as_str(), "status": "removed" }));
            return Ok(());
        }
        eprintln!("removed {what}");
        Ok(())
    }
}
