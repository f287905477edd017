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
mod place;
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
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = match self {
            Command::Add(add) => add.run(common, &config, &store).await,
            Command::Import(import) => import.run(common, &config, &store).await,
            Command::Apply(apply) => Box::pin(apply.run(common, &config, &store)).await,
            Command::Export(export) => export.run(common, &store).await,
            Command::List(list) => list.run(common, &store).await,
            Command::Show { id } => show::run(common, &store, &id).await,
            Command::Update(update) => update.run(common, &config, &store).await,
            Command::Test(test) => Box::pin(test.run(common, &config, &store)).await,
            Command::RotateSecret(rotate) => rotate.run(common, &config, &store).await,
            Command::Remove(remove) => remove.run(common, &config, &store).await,
            Command::Enable(switch) => switch.run(common, &config, &store, true).await,
            Command::Disable(switch) => switch.run(common, &config, &store, false).await,
            Command::Other(words) => Err(refuse(&words)),
        };
        store.close().await;
        done
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

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
    Ok(bytes)
}
