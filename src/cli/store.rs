//! `paperboy store migrate|status|rotate-key`.

mod rotate_key;

use clap::Subcommand;
use serde_json::json;

use super::{Common, Failure, output, services};
use crate::store::Store;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make the store, or bring it up to this version
    Migrate,
    /// Show where the store is, its version and what it holds
    Status,
    /// Seal every secret with `secrets.key`, while processes run
    RotateKey(rotate_key::RotateKey),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        match self {
            Command::Migrate => {
                let store = services::migrate_store(&config).await?;
                if common.json {
                    output::json_line(&json!({ "url": store.url().to_string(), "store_id": store.id() }));
                } else {
                    eprintln!("the store at `{}` is up to date", store.url());
                }
                store.close().await;
            }
            Command::RotateKey(rotate) => rotate.run(common, &config).await?,
            Command::Status => {
                let status = Store::status(&config.store.url).await?;
                if common.json {
                    output::json_line(&json!({
                        "url": status.url.to_string(),
                        "exists": status.exists,
                        "applied": status.applied,
                        "pending": status.pending,
                        "store_id": status.store_id,
                        "key_check": status.key_check,
                        "subscriptions": status.subscriptions,
                        "dead_letters": status.dead_letters,
                        "file_bytes": status.file_bytes,
                    }));
                    return Ok(());
                }
                let rows = [
                    ("store", status.url.to_string()),
                    ("there", if status.exists { "yes" } else { "no" }.to_owned()),
                    ("id", status.store_id.unwrap_or_else(|| "-".into())),
                    ("key check", status.key_check.unwrap_or_else(|| "-".into())),
                    ("changes applied", status.applied.len().to_string()),
                    ("changes pending", status.pending.to_string()),
                    ("subscriptions", status.subscriptions.to_string()),
                    ("open dead letters", status.dead_letters.to_string()),
                    ("bytes on disk", status.file_bytes.to_string()),
                ];
                for (name, value) in rows {
                    println!("{name:<18} {value}");
                }
            }
        }
        Ok(())
    }
}
