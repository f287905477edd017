//! `paperboy dead discard`.

use clap::Args;

use super::which::{Chosen, PAGE};
use super::{Common, Failure, decided, output};
use crate::domain::retry::Reason;
use crate::store::{DeadState, Store, dead};

/// Give dead letters up for good.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead discard dl_17 --reason 'the customer sent it again'
  paperboy dead discard --all --host old.example.com --note 'moved' --dry-run")]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why, for whoever looks later; with ids, `--reason` says it too
    #[arg(long)]
    note: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what would be discarded
    #[arg(long)]
    dry_run: bool,
}

impl Discard {
    pub(super) async fn run(mut self, common: &Common, store: &Store) -> Result<(), Failure> {
        if !self.chosen.ids.is_empty() {
            // Letters that are named need no filter: the word is the person's own reason.
            let reason = self.chosen.which.reason.take();
            self.note = self.note.or(reason);
        } else if let Some(reason) = &self.chosen.which.reason
            && !is_reason(reason)
        {
            return Err(Failure::usage(format!("no dead letter has the reason `{reason}`")).hint(
                "with `--all`, `--reason` is why letters died; say with `--note` why they are discarded",
            ));
        }
        let rows = self.chosen.rows(store).await?;
        if self.dry_run {
            eprintln!("would discard {}", output::count(rows.len(), "dead letter"));
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(rows.len(), "dead letter")), self.yes)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut discarded = 0;
        // In pages, so that nobody waits long for the store.
        for ids in ids.chunks(PAGE as usize) {
            discarded += store.dead_mark(ids, DeadState::Discarded, self.note.as_deref(), now_ms).await?;
        }
        decided::tell(common, DeadState::Discarded, discarded);
        Ok(())
    }
}

fn is_reason(text: &str) -> bool {
    let word = text.split(':').next().unwrap_or_default();
    word == dead::UNDRAINABLE || Reason::parse(word).is_some()
}
