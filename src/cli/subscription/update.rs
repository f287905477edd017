//! `paperboy subscription update`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{addresses, documents, id, missing, save};
use crate::cli::{Common, Failure, output};
use crate::config::Config;
use crate::store::{Store, Versioned};

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
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let patch = self.patch()?;
        let Versioned { spec: before, version } =
            store.versioned_subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        let mut spec = before.patched(patch).map_err(documents::refused)?;
        let status = if spec == before { "unchanged" } else { "updated" };
        let tenant = spec.tenant.clone();
        if spec != before {
            spec.updated_at = Some(jiff::Timestamp::now().to_string());
            addresses::warn(config, std::iter::once(&spec));
            save::one(config, store, Versioned { spec, version }, !self.no_wait).await?;
        }
        if common.json {
            output::json_line(&json!({ "id": id.as_str(), "tenant": tenant, "status": status }));
        } else {
            eprintln!("subscription `{id}` is {status}");
        }
        Ok(())
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
