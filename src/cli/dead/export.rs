//! `paperboy dead export`.

use std::io::Write as _;

use clap::Args;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::which::{PAGE, Which};
use super::{Failure, list, output};
use crate::desk::dead::row_json;
use crate::store::{DeadFilter, DeadLetterFull, Store};

/// Print whole dead letters, one JSON object a line.
#[derive(Args, Debug)]
#[command(
    after_help = "`body` is the event as text; where it is not UTF-8, `body_base64` holds its bytes instead.

Examples:
  paperboy dead export --tenant acme > acme.ndjson
  paperboy dead export | jq -r .body | paperboy publish -"
)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// open, replayed, discarded or all
    #[arg(long, default_value = "open")]
    state: String,
}

impl Export {
    pub(super) async fn run(self, store: &Store) -> Result<(), Failure> {
        let mut filter = DeadFilter {
            state: list::state(&self.state)?,
            limit: PAGE,
            ..self.which.filter(self.subscription.as_deref())?
        };
        let mut exported = 0;
        loop {
            let page = store.dead_list(&filter).await?;
            filter.before_id = page.last().map(|row| row.id);
            let mut out = std::io::stdout().lock();
            for row in &page {
                // Forgotten since the page was read.
                let Some(letter) = store.dead_show(row.id).await? else { continue };
                writeln!(out, "{}", letter_json(&letter)).map_err(anyhow::Error::from)?;
                exported += 1;
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        eprintln!("exported {}", output::count(exported, "dead letter"));
        Ok(())
    }
}

/// Everything of a letter.
pub(super) fn letter_json(letter: &DeadLetterFull) -> Value {
    let mut value = row_json(&letter.row);
    match std::str::from_utf8(&letter.body) {
        Ok(text) => value["body"] = json!(text),
        Err(_) => value["body_base64"] = json!(BASE64.encode(&letter.body)),
    }
    value["answer"] = json!(String::from_utf8_lossy(&letter.answer));
    value["headers"] = serde_json::from_slice(&letter.headers).unwrap_or(Value::Null);
    value
}
