//! `paperboy dead export`.

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use super::which::{PAGE, Which};
use super::{Failure, list, output};
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
    pub(super) which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    pub(super) subscription: Option<String>,
    /// open, replayed, discarded or all
    #[arg(long, default_value = "open")]
    pub(super) state: String,
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
    let mut value = crate::desk::dead::letter_json(letter);
    without_lossy_body(&mut value);
    value
}

/// A body that is no text stands there as its bytes only.
pub(super) fn without_lossy_body(letter: &mut Value) {
    if let Value::Object(letter) = letter
        && letter.contains_key("body_base64")
    {
        letter.remove("body");
    }
}
