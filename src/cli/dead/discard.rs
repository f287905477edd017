//! `paperboy dead discard`.

use clap::Args;

use super::which::Chosen;
use super::{Common, Failure, decided, output, services};
use crate::desk::Desk;
use crate::domain::retry::Reason;
use crate::store::{DeadState, dead};

/// Give dead letters up for good.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead discard dl_17 --reason 'the customer sent it again'
  paperboy dead discard --all --host old.example.com --note 'moved' --dry-run")]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Why, for whoever looks later; with ids, `--reason` says it too
    #[arg(long)]
    pub(super) note: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Only say what would be discarded
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl Discard {
    pub(super) async fn run(mut self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        self.take_note()?;
        let rows = self.chosen.rows(&desk.store).await?;
        if self.dry_run {
            decided::would(common, "discard", rows.len() as u64);
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(rows.len(), "dead letter")), self.yes)?;
        let discarded = desk.discard(&services::caller(), &rows, self.note.as_deref()).await?;
        decided::tell(common, DeadState::Discarded, discarded);
        Ok(())
    }

    /// Reads `--reason` as what it means beside ids and beside filters.
    pub(super) fn take_note(&mut self) -> Result<(), Failure> {
        if !self.chosen.ids.is_empty() {
            // Letters that are named need no filter: the word is the person's own reason.
            let reason = self.chosen.which.reason.take();
            self.note = self.note.take().or(reason);
        } else if let Some(reason) = &self.chosen.which.reason
            && !is_reason(reason)
        {
            return Err(Failure::usage(format!("no dead letter has the reason `{reason}`")).hint(
                "with `--all`, `--reason` is why letters died; say with `--note` why they are discarded",
            ));
        }
        Ok(())
    }
}

fn is_reason(text: &str) -> bool {
    let word = text.split(':').next().unwrap_or_default();
    word == dead::UNDRAINABLE || Reason::parse(word).is_some()
}
