//! `paperboy deliveries list|show`.

mod list;
mod remote;
mod show;
mod text;

use std::fmt;

use clap::Subcommand;

use super::remote::Remote;
use super::{Common, Failure, output, services};
use crate::desk::moment::unix_ms;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List attempts and what else befell deliveries, newest first
    List(Box<list::List>),
    /// Show the life of an event or a document: received, every attempt and why, waits, dead, replayed
    Show(show::Show),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Some(remote) = Remote::of(common)? {
            return match self {
                Command::List(list) => list.run_remote(common, &remote).await,
                Command::Show(show) => show.run_remote(common, &remote).await,
            };
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = match self {
            Command::List(list) => list.run(common, &store).await,
            Command::Show(show) => {
                let desk = services::desk(&config, store.clone())?;
                show.run(common, &config, &desk).await
            }
        };
        store.close().await;
        done
    }
}

/// A moment as a person wrote it.
#[derive(Clone)]
pub(super) struct Moment {
    text: String,
    pub(super) unix_ms: i64,
}

impl fmt::Debug for Moment {
    /// As it was written: an age means another moment every time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a moment: RFC 3339, or how long ago (`90s`, `15m`, `24h`, `7d`).
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    Ok(Moment { text: text.to_owned(), unix_ms: unix_ms(text)? })
}
