//! `paperboy subscription enable|disable`.

use clap::Args;
use serde_json::json;

use super::{id, missing};
use crate::cli::{Common, Failure, output, services};
use crate::config::Config;
use crate::domain::subscription::DisabledBy;
use crate::store::Store;

/// Enable or disable a subscription.
#[derive(Args, Debug)]
pub(in crate::cli) struct Switch {
    /// Its id
    id: String,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Switch {
    pub(super) async fn run(
        self,
        common: &Common,
        config: &Config,
        store: &Store,
        enabled: bool,
    ) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let now = jiff::Timestamp::now().to_string();
        let changed = store.set_enabled(&id, enabled, DisabledBy::Person, &now).await?;
        let counter = changed.ok_or_else(|| missing(&self.id))?;
        services::spread(config, store, counter, !self.no_wait).await?;
        if common.json {
            output::json_line(&json!({ "id": id.as_str(), "enabled": enabled }));
            return Ok(());
        }
        eprintln!("subscription `{id}` is {}", if enabled { "enabled" } else { "disabled" });
        Ok(())
    }
}
