//! `paperboy subscription enable|disable`.

use clap::Args;
use serde_json::json;

use super::save;
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;

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
    pub(super) async fn run(self, common: &Common, desk: &Desk, enabled: bool) -> Result<(), Failure> {
        let id = super::id(&self.id)?;
        let changed = desk.switch(&services::caller(), id.as_str(), enabled, !self.no_wait).await?;
        save::print_warning(changed.warning.as_ref());
        self.print(common, enabled);
        Ok(())
    }

    pub(super) async fn run_remote(
        self,
        common: &Common,
        remote: &Remote,
        enabled: bool,
    ) -> Result<(), Failure> {
        remote.change_subscription(&self.id, &json!({ "enabled": enabled }), !self.no_wait).await?;
        self.print(common, enabled);
        Ok(())
    }

    fn print(&self, common: &Common, enabled: bool) {
        if common.json {
            output::json_line(&json!({ "id": self.id, "enabled": enabled }));
        } else {
            eprintln!("subscription `{}` is {}", self.id, if enabled { "enabled" } else { "disabled" });
        }
    }
}
