//! `paperboy batch …`: documents that belong together. One command a file.

mod close;
mod list;
mod show;

use clap::Subcommand;

use super::remote::{Remote, segment};
use super::{Common, Failure, services};
use crate::domain::name::Tenant;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List batches, newest first
    List(list::List),
    /// Show a batch with its documents
    Show(show::Show),
    /// Say that no document of a batch follows; it is closed in a moment
    Close(close::Close),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Some(remote) = Remote::of(common)? {
            return match self {
                Command::List(list) => list.run_remote(common, &remote).await,
                Command::Show(show) => show.run_remote(common, &remote).await,
                Command::Close(close) => close.run_remote(common, &remote).await,
            };
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let desk = services::desk(&config, store.clone())?;
        let done = match self {
            Command::List(list) => list.run(common, &desk).await,
            Command::Show(show) => show.run(common, &desk).await,
            Command::Close(close) => close.run(common, &desk).await,
        };
        store.close().await;
        done
    }
}

fn tenant(text: &str) -> Result<Tenant, Failure> {
    Tenant::parse(text).map_err(|fault| Failure::usage(format!("`{text}` is not a tenant: {fault}")))
}

/// Where a batch is over the API.
fn path(id: &str, action: &str, tenant: Option<&Tenant>) -> String {
    let query = tenant.map(|tenant| format!("?tenant={tenant}")).unwrap_or_default();
    format!("/v1/batches/{}{action}{query}", segment(id))
}
