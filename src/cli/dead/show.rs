//! `paperboy dead show`.

use super::{Common, Failure, find, output};
use crate::desk::dead::{cause, host, letter_json};
use crate::domain::history::History;
use crate::store::Store;
use clap::Args;

/// What is printed of a body without `--raw`.
const BODY_SHOWN: usize = 4096;

/// Show one dead letter: why, every attempt, the last answer, the event.
#[derive(Args, Debug)]
pub(in crate::cli) struct Show {
    /// Its id, such as `dl_17`
    pub(super) id: String,
    /// Print the event's bytes as they are, and nothing else
    #[arg(long)]
    pub(super) raw: bool,
}

impl Show {
    pub(super) async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        show(common, store, &self.id, self.raw).await
    }
}

async fn show(common: &Common, store: &Store, id: &str, raw: bool) -> Result<(), Failure> {
    let letter = find(store, id).await?;
    if raw {
        use std::io::Write as _;
        std::io::stdout().write_all(&letter.body).map_err(anyhow::Error::from)?;
        return Ok(());
    }
    let (body, answer) = (String::from_utf8_lossy(&letter.body), String::from_utf8_lossy(&letter.answer));
    if common.json {
        output::json_line(&letter_json(&letter));
        return Ok(());
    }
    let row = &letter.row;
    let line = |name: &str, value: &str| println!("{name:<14} {}", output::printable(value));
    line("dead letter", &format!("dl_{} ({}, {})", row.id, row.kind.as_str(), row.state.as_str()));
    line("reason", &row.reason);
    let named = [
        ("tenant", &row.tenant),
        ("event", &row.event_id),
        ("type", &row.event_type),
        ("subscription", &row.subscription),
        ("document", &row.document_id),
        ("batch", &row.batch_id),
        ("note", &row.note),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            line(name, value);
        }
    }
    if let Some(cause) = cause(row) {
        line("cause", &cause.line(host(row)));
        line("hint", cause.hint());
    }
    line("first seen", &output::moment(row.first_seen_ms));
    line("dead at", &output::moment(row.dead_at_ms));
    line("attempts", &row.attempts.to_string());
    let history = History::parse(&row.history);
    for (place, entry) in history.entries().enumerate() {
        println!(
            "  {:>3}  {}  {:<12} {} ms",
            place + 1,
            output::moment(entry.at_ms()),
            entry.what(),
            entry.elapsed_ms()
        );
    }
    if history.cut() > 0 {
        println!("       ({} attempts in the middle are not kept)", history.cut());
    }
    if !answer.is_empty() {
        println!("last answer:\n{}", output::printable(&answer));
    }
    let shown = &body[..body.floor_char_boundary(BODY_SHOWN)];
    println!("event ({} bytes):\n{}", letter.body.len(), output::printable(shown));
    if shown.len() < body.len() {
        println!("… `--raw` prints all of it");
    }
    Ok(())
}
