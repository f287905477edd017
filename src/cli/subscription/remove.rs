//! `paperboy subscription remove`.

use clap::Args;
use serde_json::{Value, json};

use super::{id, save};
use crate::cli::remote::{Remote, segment};
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;

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
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let (id, caller) = (id(&self.id)?, services::caller());
        let spec = desk.show_subscription(&caller, id.as_str()).await?.spec;
        let Some(what) = self.asked(common, &json!(spec.tenant), &json!(spec.request.url))? else {
            return Ok(());
        };
        let warning = desk.remove_subscription(&caller, id.as_str(), None, !self.no_wait).await?;
        save::print_warning(warning.as_ref());
        self.print(common, &what);
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let path = format!("/v1/subscriptions/{}", segment(&self.id));
        let document = remote.get(&path).await?;
        let Some(what) = self.asked(common, &document["tenant"], &document["request"]["url"])? else {
            return Ok(());
        };
        remote.delete(&path, !self.no_wait).await?;
        self.print(common, &what);
        Ok(())
    }

    /// What is to be removed, once that is meant; none in a dry run.
    fn asked(&self, common: &Common, tenant: &Value, url: &Value) -> Result<Option<String>, Failure> {
        let url = output::printable(url.as_str().unwrap_or("-"));
        let tenant = tenant.as_str().unwrap_or_default();
        let what = format!("subscription `{}` of tenant `{tenant}` to {url}", self.id);
        if self.dry_run {
            if common.json {
                output::json_line(&json!({ "id": self.id, "dry_run": true }));
            } else {
                eprintln!("would remove {what}");
            }
            return Ok(None);
        }
        output::confirm(&format!("remove {what}?"), self.yes)?;
        Ok(Some(what))
    }

    fn print(&self, common: &Common, what: &str) {
        if common.json {
            output::json_line(&json!({ "id": self.id, "status": "removed" }));
        } else {
            eprintln!("removed {what}");
        }
    }
}
