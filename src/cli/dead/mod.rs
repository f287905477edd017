//! `paperboy dead list|groups|show|export|replay|jobs|discard`: one command a file.

mod decided;
mod discard;
mod export;
mod from_queue;
mod groups;
mod jobs;
mod list;
mod replay;
mod show;
mod which;

use std::ffi::OsString;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Common, Failure, output, services};
use crate::domain::cause::Cause;
use crate::domain::history::History;
use crate::store::{DeadLetterFull, DeadRow, Store};

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
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = match self {
            Command::List(list) => list.run(common, &store).await,
            Command::Groups(groups) => groups.run(common, &store).await,
            Command::Show(show) => show.run(common, &store).await,
            Command::Export(export) => export.run(&store).await,
            Command::Replay(replay) => replay.run(common, &config, &store).await,
            Command::Jobs(jobs) => jobs.run(common, &store).await,
            Command::Discard(discard) => discard.run(common, &store).await,
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
    id.strip_prefix("dl_").unwrap_or(id).parse().map_err(|_| wrong())
}

async fn find(store: &Store, id: &str) -> Result<DeadLetterFull, Failure> {
    let missing =
        || Failure::world(format!("there is no dead letter `{id}`")).hint("`paperboy dead list` shows them");
    store.dead_show(number(id)?).await?.ok_or_else(missing)
}

/// Why it died, as far as an attempt was to blame.
fn cause(row: &DeadRow) -> Option<Cause> {
    row.class
        .as_deref()
        .and_then(Cause::parse)
        .filter(|_| row.attempts > 0 || row.class.as_deref() == Some("template"))
}

fn host(row: &DeadRow) -> &str {
    row.host.as_deref().unwrap_or("the receiver")
}

fn history_json(history: &str) -> Value {
    let entries = History::parse(history);
    let json = entries
        .entries()
        .map(|entry| json!({ "at": output::moment(entry.at_ms()), "seen": entry.what(), "ms": entry.elapsed_ms() }));
    json.collect()
}

fn row_json(row: &DeadRow) -> Value {
    json!({
        "id": format!("dl_{}", row.id),
        "kind": row.kind.as_str(),
        "reason": row.reason,
        "tenant": row.tenant,
        "event": row.event_id,
        "type": row.event_type,
        "subscription": row.subscription,
        "document_id": row.document_id,
        "batch_id": row.batch_id,
        "cycle": row.cycle,
        "attempts": row.attempts,
        "history": history_json(&row.history),
        "body_bytes": row.body_bytes,
        "first_seen": output::moment(row.first_seen_ms),
        "dead_at": output::moment(row.dead_at_ms),
        "state": row.state.as_str(),
        "note": row.note,
        "host": row.host,
        "class": row.class,
        "status": row.status,
        "replays": row.replays,
        "cause": cause(row).map(|cause| cause.line(host(row))),
        "hint": cause(row).map(Cause::hint),
    })
}
