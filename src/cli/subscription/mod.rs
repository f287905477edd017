//! `paperboy subscription …`: one command a file.

mod add;
mod addresses;
mod apply;
mod difference;
mod documents;
mod export;
mod fields;
mod import;
mod list;
mod plan;
mod platform;
mod remove;
mod rotate;
mod save;
mod show;
mod switch;
mod test;
mod update;

use std::ffi::OsString;

use clap::Subcommand;

use super::remote::Remote;
use super::{Common, Failure, services};
use crate::domain::name::{SubscriptionId, Tenant};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Add subscriptions from flags or a file; prints ids, and a secret once where it made one
    Add(Box<add::Add>),
    /// Add or change subscriptions from a file; those with a known id are changed
    Import(import::Import),
    /// Make subscriptions what files say: shows what changes, asks, writes all or nothing
    Apply(apply::Apply),
    /// Write subscriptions as files that `apply` takes
    Export(export::Export),
    /// List subscriptions
    List(list::List),
    /// Show one subscription, secrets hidden
    Show {
        /// Its id
        id: String,
    },
    /// Change what is named, leave the rest
    Update(update::Update),
    /// Send one marked event to it, from here, and show request and answer
    Test(test::Test),
    /// Sign with a new secret; the old one signs along for a while
    RotateSecret(rotate::Rotate),
    /// Remove a subscription; its retries under way become dead letters `gone`
    Remove(remove::Remove),
    /// Send to it again
    Enable(switch::Switch),
    /// Stop sending to it; its retries under way become dead letters `disabled`
    Disable(switch::Switch),
    /// Words that are no command.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Command::Other(words) = &self {
            return Err(refuse(words));
        }
        if let Some(remote) = Remote::of(common)? {
            return self.run_remote(common, &remote).await;
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let desk = services::desk(&config, store.clone())?;
        let done = match self {
            Command::Add(add) => add.run(common, &desk).await,
            Command::Import(import) => import.run(common, &desk).await,
            Command::Apply(apply) => Box::pin(apply.run(common, &desk)).await,
            Command::Export(export) => export.run(common, &store).await,
            Command::List(list) => list.run(common, &store).await,
            Command::Show { id } => show::run(common, &store, &id).await,
            Command::Update(update) => update.run(common, &desk).await,
            Command::Test(test) => Box::pin(test.run(common, &config, &desk)).await,
            Command::RotateSecret(rotate) => rotate.run(common, &desk).await,
            Command::Remove(remove) => remove.run(common, &desk).await,
            Command::Enable(switch) => switch.run(common, &desk, true).await,
            Command::Disable(switch) => switch.run(common, &desk, false).await,
            Command::Other(words) => Err(refuse(&words)),
        };
        store.close().await;
        done
    }

    /// The same over the HTTP API of a running process.
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        match self {
            Command::Add(add) => add.run_remote(common, remote).await,
            Command::Import(import) => import.run_remote(common, remote).await,
            Command::Apply(_) => Err(remote.only_here("subscription apply")),
            Command::Export(_) => Err(remote.only_here("subscription export")),
            Command::List(list) => list.run_remote(common, remote).await,
            Command::Show { id } => show::run_remote(common, remote, &id).await,
            Command::Update(update) => update.run_remote(common, remote).await,
            Command::Test(test) => test.run_remote(common, remote).await,
            Command::RotateSecret(rotate) => rotate.run_remote(common, remote).await,
            Command::Remove(remove) => remove.run_remote(common, remote).await,
            Command::Enable(switch) => switch.run_remote(common, remote, true).await,
            Command::Disable(switch) => switch.run_remote(common, remote, false).await,
            Command::Other(words) => Err(refuse(&words)),
        }
    }
}

fn refuse(words: &[OsString]) -> Failure {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    Failure::usage(format!("`{word}` is not a command of `paperboy subscription`"))
        .hint("`paperboy subscription --help` lists them")
}

fn id(text: &str) -> Result<SubscriptionId, Failure> {
    SubscriptionId::parse(text)
        .map_err(|fault| Failure::usage(format!("`{text}` is not a subscription's id: {fault}")))
}

fn tenant(text: &str) -> Result<Tenant, Failure> {
    Tenant::parse(text).map_err(|fault| Failure::usage(format!("`{text}` is not a tenant: {fault}")))
}

fn missing(id: &str) -> Failure {
    Failure::world(format!("there is no subscription `{id}`")).hint("`paperboy subscription list` shows them")
}
