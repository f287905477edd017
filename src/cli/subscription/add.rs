//! `paperboy subscription add`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::documents::{self, Faults};
use super::fields::Fields;
use super::{addresses, save};
use crate::cli::failure::Problem;
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::desk::subscriptions::New;
use crate::domain::secret::Secret;

/// Add subscriptions.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy subscription add --tenant acme --url https://erp.example.com/ocr/:id --events 'document.*'
  paperboy subscription add --file subscriptions.toml
  paperboy subscription add --file - < one.json")]
pub(in crate::cli) struct Add {
    /// JSON or TOML: one subscription or a list; `-` for JSON or TOML on standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tenant", "url", "events", "secret", "name", "scope"])]
    file: Option<PathBuf>,
    /// Whose events
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// The secret to sign with (`whsec_…`); else one is made and shown once
    #[arg(long)]
    secret: Option<String>,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Add {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let documents = self.documents()?;
        let now = jiff::Timestamp::now().to_string();
        let mut faults = Faults::of(documents.len());
        let mut new = Vec::with_capacity(documents.len());
        for (place, document) in documents.into_iter().enumerate() {
            new.extend(faults.keep(place + 1, New::complete(document, &now)?));
        }
        faults.into_failure()?;
        addresses::warn(desk, new.iter().map(|new| &new.spec));
        let counter = desk.add(&services::caller(), &new, None).await.map_err(save::failure)?;
        services::spread(desk, counter, !self.no_wait).await;
        for New { spec, secret, .. } in new {
            print(common, &spec.id.unwrap_or_default(), &json!(spec.tenant), secret.as_ref());
        }
        Ok(())
    }

    /// One request for each, so one that is refused leaves those before it added; these are printed.
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        for document in self.documents()? {
            let created = remote.create_subscription(&document, !self.no_wait).await?;
            let secret = created["secret"].as_str().map(Secret::from);
            print(common, created["id"].as_str().unwrap_or_default(), &created["tenant"], secret.as_ref());
        }
        Ok(())
    }

    fn documents(&self) -> Result<Vec<Value>, Failure> {
        match &self.file {
            Some(path) => documents::read(path),
            None => Ok(vec![self.document()?]),
        }
    }

    fn document(&self) -> Result<Value, Failure> {
        let mut missing = Vec::new();
        for (flag, is_missing) in [
            ("--tenant", self.tenant.is_none()),
            ("--url", self.fields.url.is_none()),
            ("--events", self.fields.events.is_empty()),
        ] {
            if is_missing {
                missing.push(Problem { message: format!("`{flag}` is missing"), hint: None });
            }
        }
        if let Some(last) = missing.last_mut() {
            last.hint = Some("give `--tenant`, `--url` and `--events`, or `--file FILE`".into());
            return Err(Failure::refused(missing));
        }
        let mut document = self.fields.document()?;
        document["tenant"] = json!(self.tenant);
        if let Some(secret) = &self.secret {
            document["signatures"] = json!([{ "scheme": "standard", "secrets": [secret] }]);
        }
        Ok(document)
    }
}

fn print(common: &Common, id: &str, tenant: &Value, secret: Option<&Secret>) {
    if common.json {
        let secret = secret.map(Secret::expose);
        output::json_line(&json!({ "id": id, "tenant": tenant, "secret": secret }));
    } else {
        println!("{id}");
        secret.into_iter().for_each(save::print_secret);
    }
}
