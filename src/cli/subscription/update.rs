//! `paperboy subscription update`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{addresses, documents, id, save};
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::domain::subscription::SubscriptionSpec;

/// Change a subscription.
#[derive(Args, Debug)]
#[command(
    after_help = "The file is a JSON merge patch (RFC 7396) in JSON or TOML: members it names change, `null` removes
one, lists are replaced as a whole. `***` stands for the secret that is there.

Examples:
  paperboy subscription update sub_1 --url https://erp.example.com/v2/:id
  echo '{\"retry\": {\"max_attempts\": 5}}' | paperboy subscription update sub_1 --file -"
)]
pub(in crate::cli) struct Update {
    /// Its id
    id: String,
    /// JSON or TOML with what changes; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "events", "name", "scope"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Update {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let patch = self.patch()?;
        let edit = |before: &SubscriptionSpec| Ok(before.patched(patch.clone())?);
        let (caller, wait) = (services::caller(), !self.no_wait);
        let changed = desk.change(&caller, id.as_str(), None, "subscription.change", wait, edit).await?;
        if changed.is_changed {
            addresses::warn(desk, std::iter::once(&changed.spec));
        }
        save::print_warning(changed.warning.as_ref());
        let status = if changed.is_changed { "updated" } else { "unchanged" };
        self.print(common, &json!(changed.spec.tenant), status);
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let document = remote.change_subscription(&self.id, &self.patch()?, !self.no_wait).await?;
        self.print(common, &document["tenant"], "updated");
        Ok(())
    }

    fn print(&self, common: &Common, tenant: &Value, status: &str) {
        if common.json {
            output::json_line(&json!({ "id": self.id, "tenant": tenant, "status": status }));
        } else {
            eprintln!("subscription `{}` is {status}", self.id);
        }
    }

    fn patch(&self) -> Result<Value, Failure> {
        let Some(path) = &self.file else {
            let document = self.fields.document()?;
            if document == json!({}) {
                return Err(Failure::usage("there is nothing to change")
                    .hint("give `--url`, `--events`, `--name` or `--scope`, or `--file FILE`"));
            }
            return Ok(document);
        };
        let mut documents = documents::read(path)?;
        match (documents.pop(), documents.len()) {
            (Some(document), 0) => Ok(document),
            (_, more) => {
                let count = if more == 0 { 0 } else { more + 1 };
                Err(Failure::usage(format!("`{}` holds {count} documents instead of one", path.display()))
                    .hint("`paperboy subscription import` changes several"))
            }
        }
    }
}
