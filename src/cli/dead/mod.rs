//! `paperboy dead list|groups|show|export|replay|jobs|discard`: one command a file.

mod decided;
mod discard;
mod export;
mod from_queue;
mod groups;
mod jobs;
mod list;
mod remote;
mod replay;
mod show;
mod which;

use std::ffi::OsString;

use clap::Subcommand;

use super::remote::Remote;
use super::{Common, Failure, output, services};
use crate::store::{DeadLetterFull, Store};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List dead letters, newest first
    List(Box<list::List>),
    /// Count dead letters that died of the same: receiver, cause and status
    Groups(Box<groups::Groups>),
    /// Show one dead letter: why, every attempt, the last answer, the event
    Show(show::Show),
    /// Print whole dead letters, one JSON object a line
    Export(Box<export::Export>),
    /// Send dead letters on their way again
    Replay(Box<replay::Replay>),
    /// Replays that run, wait or are done: list, pause, resume, cancel
    Jobs(jobs::Jobs),
    /// Give dead letters up for good; they stay listed with `--state discarded`
    Discard(Box<discard::Discard>),
    /// Words that are none.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Command::Other(words) = &self {
            return Err(refuse(words));
        }
        if let Command::List(list) = &self
            && list.from_queue
        {
            return list.look_into_queues(common).await;
        }
        if let Some(remote) = Remote::of(common)? {
            return self.run_remote(common, &remote).await;
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let desk = services::desk(&config, store.clone())?;
        let done = match self {
            Command::List(list) => list.run(common, &store).await,
            Command::Groups(groups) => groups.run(common, &store).await,
            Command::Show(show) => show.run(common, &store).await,
            Command::Export(export) => export.run(&store).await,
            Command::Replay(replay) => replay.run(common, &config, &desk).await,
            Command::Jobs(jobs) => jobs.run(common, &desk).await,
            Command::Discard(discard) => discard.run(common, &desk).await,
            Command::Other(words) => Err(refuse(&words)),
        };
        store.close().await;
        done
    }
}

fn refuse(words: &[OsString]) -> Failure {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    Failure::usage(format!("`{word}` is not a command of `paperboy dead`"))
        .hint("`paperboy dead --help` lists them")
}

fn number(id: &str) -> Result<i64, Failure> {
    let wrong =
        || Failure::usage(format!("`{id}` is not the id of a dead letter")).hint("ids look like `dl_17`");
    crate::desk::dead::number(id).ok_or_else(wrong)
}

async fn find(store: &Store, id: &str) -> Result<DeadLetterFull, Failure> {
    let missing =
        || Failure::world(format!("there is no dead letter `{id}`")).hint("`paperboy dead list` shows them");
    store.dead_show(number(id)?).await?.ok_or_else(missing)
}
