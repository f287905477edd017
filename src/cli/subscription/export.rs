//! `paperboy subscription export`: files that `apply` takes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::{id, plan};
use crate::cli::{Common, Failure, output, services};
use crate::desk::note;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::Store;

/// Write subscriptions as files that `apply` takes.
#[derive(Args, Debug)]
#[command(
    after_help = "Secrets are written as `***`, which `apply` reads as the secret that is there: such files may be kept
anywhere, and fit this store. With `--with-secrets` they fit any store and are as secret as what they hold.

Examples:
  paperboy subscription export > subscriptions.toml
  paperboy subscription export --tenant acme --dir subscriptions/"
)]
pub(in crate::cli) struct Export {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// How to write them
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
    /// Into this folder, one file a tenant, instead of standard output
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the secrets themselves
    #[arg(long)]
    with_secrets: bool,
    /// Do not ask before files are written over
    #[arg(long)]
    yes: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Toml,
    Json,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Format::Toml => "toml",
            Format::Json => "json",
        }
    }

    fn write(self, specs: &[SubscriptionSpec]) -> Result<String, Failure> {
        match self {
            Format::Json => Ok(serde_json::to_string_pretty(specs).map_err(anyhow::Error::from)? + "\n"),
            Format::Toml => toml::to_string(&File { subscriptions: specs }).map_err(|_| {
                let is_fault = |spec: &&SubscriptionSpec| toml::to_string(spec).is_err();
                let which = specs.iter().find(is_fault).and_then(|spec| spec.id.as_deref()).unwrap_or("?");
                Failure::world(format!(
                    "subscription `{which}` holds a `null` or a number that TOML cannot write"
                ))
                .hint("write JSON: `--format json`")
            }),
        }
    }
}

/// A file of several, as TOML has it.
#[derive(Serialize)]
struct File<'a> {
    subscriptions: &'a [SubscriptionSpec],
}

impl Export {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let format = if common.json { Format::Json } else { self.format };
        let mut specs = plan::all(store, self.tenant.as_deref()).await?;
        if self.with_secrets {
            specs = with_secrets(store, specs).await?;
            secrets_leave(store, specs.len(), self.tenant.as_deref()).await?;
        }
        let mut tenants: BTreeMap<String, Vec<SubscriptionSpec>> = BTreeMap::new();
        for mut spec in specs {
            // It would differ after every change, and says nothing.
            spec.updated_at = None;
            let tenant = spec.tenant.clone().unwrap_or_default();
            tenants.entry(tenant).or_default().push(spec);
        }
        match &self.dir {
            None => print!("{}", format.write(&tenants.into_values().flatten().collect::<Vec<_>>())?),
            Some(dir) => self.write_files(dir, format, &tenants)?,
        }
        Ok(())
    }

    fn write_files(
        &self,
        dir: &Path,
        format: Format,
        tenants: &BTreeMap<String, Vec<SubscriptionSpec>>,
    ) -> Result<(), Failure> {
        let cannot = |path: &Path, error: std::io::Error| {
            Failure::world(format!("cannot write `{}`: {error}", path.display()))
        };
        let mut files = Vec::with_capacity(tenants.len());
        for (tenant, specs) in tenants {
            let path = dir.join(format!("{tenant}.{}", format.ending()));
            files.push((path, format.write(specs)?, specs.len()));
        }
        let there = files.iter().filter(|(path, ..)| path.exists()).count();
        if there > 0 {
            let files = output::count(there, "file");
            output::confirm(&format!("write over {files} in `{}`?", dir.display()), self.yes)?;
        }
        std::fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
        for (path, text, count) in files {
            // Nobody else's to read, should secrets be in it; a file that is there keeps its mode otherwise.
            let mode = if self.with_secrets { 0o600 } else { 0o644 };
            if self.with_secrets && path.exists() {
                std::fs::remove_file(&path).map_err(|error| cannot(&path, error))?;
            }
            let opened =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path);
            let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| cannot(&path, error))?;
            eprintln!("wrote {} to `{}`", output::count(count, "subscription"), path.display());
        }
        Ok(())
    }
}

/// The same subscriptions with their secrets in clear.
async fn with_secrets(
    store: &Store,
    masked: Vec<SubscriptionSpec>,
) -> Result<Vec<SubscriptionSpec>, Failure> {
    let mut open = Vec::with_capacity(masked.len());
    for spec in masked {
        // One that is removed meanwhile is not there to be written.
        open.extend(store.subscription(&id(spec.id.as_deref().unwrap_or_default())?).await?);
    }
    Ok(open)
}

/// Secrets leave the store in clear: whoever runs this is told; what is to be kept of it belongs here.
async fn secrets_leave(store: &Store, count: usize, tenant: Option<&str>) -> Result<(), Failure> {
    // Written first: what cannot be noted does not leave.
    let detail = json!({ "subscriptions": count });
    store.note(&[note(&services::caller(), "subscription.export_secrets", tenant, "*", detail)]).await?;
    let whose = tenant.map_or("all tenants".to_owned(), |tenant| format!("tenant `{tenant}`"));
    eprintln!(
        "warning: this holds the secrets of {} of {whose} in clear: keep it as you keep them",
        output::count(count, "subscription")
    );
    Ok(())
}
