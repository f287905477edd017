//! `paperboy dead jobs`: replays that run, wait or are done.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::store::Store;
use crate::store::replays::{JobState, ReplayJob};

/// Replays as jobs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead jobs
  paperboy dead jobs pause 3
  paperboy dead jobs resume 3       leaves it to a running `serve`")]
pub(in crate::cli) struct Jobs {
    #[command(subcommand)]
    action: Option<Action>,
    /// At most this many, newest first
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Hold a replay where it is
    Pause { id: i64 },
    /// Let it go on, by a running `serve` of role `all` or `api`
    Resume { id: i64 },
    /// End it; letters that were not sent are open as before
    Cancel { id: i64 },
}

impl Jobs {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let store = &desk.store;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let (id, done, changed) = match self.action {
            None => return self.list(common, store, now_ms).await,
            Some(Action::Pause { id }) => {
                (id, "replay.pause", store.replay_set_state(id, JobState::Paused, None, now_ms).await?)
            }
            Some(Action::Resume { id }) => (id, "replay.resume", store.replay_resume(id, now_ms).await?),
            Some(Action::Cancel { id }) => {
                (id, "replay.cancel", store.replay_set_state(id, JobState::Cancelled, None, now_ms).await?)
            }
        };
        let job = store.replay_job(id).await?;
        let job = job.ok_or_else(|| {
            Failure::world(format!("there is no replay {id}")).hint("`paperboy dead jobs` lists them")
        })?;
        if !changed {
            return Err(Failure::world(format!("replay {id} is {} already", job.state.as_str())));
        }
        desk.note_job(&services::caller(), done, &job).await?;
        if common.json {
            output::json_line(&job_json(&job, now_ms));
        } else {
            eprintln!("replay {id} is {}: {} of {} were sent", shown(&job, now_ms), job.sent, job.total());
        }
        Ok(())
    }

    async fn list(&self, common: &Common, store: &Store, now_ms: i64) -> Result<(), Failure> {
        let jobs = store.replay_jobs(self.limit).await?;
        if common.json {
            jobs.iter().for_each(|job| output::json_line(&job_json(job, now_ms)));
            return Ok(());
        }
        let cells = jobs.iter().map(|job| {
            vec![
                job.id.to_string(),
                shown(job, now_ms).to_owned(),
                job.sent.to_string(),
                job.waiting.to_string(),
                job.skipped.to_string(),
                job.what.subscription.clone().unwrap_or_else(|| "-".to_owned()),
                output::moment(job.created_at_ms),
                output::printable(job.told.as_deref().unwrap_or("-")),
            ]
        });
        let header = ["replay", "state", "sent", "waiting", "skipped", "to", "since", "why"];
        output::table(&header, cells.collect(), "no replays");
        Ok(())
    }
}

/// Its state as people mean it: one that nobody works on does not run.
fn shown(job: &ReplayJob, now_ms: i64) -> &'static str {
    match job.state {
        JobState::Running if job.lease_until_ms < now_ms && job.what.detached => "left to serve",
        JobState::Running if job.lease_until_ms < now_ms => "interrupted",
        state => state.as_str(),
    }
}

fn job_json(job: &ReplayJob, now_ms: i64) -> Value {
    json!({
        "id": job.id,
        "state": shown(job, now_ms).replace(' ', "_"),
        "sent": job.sent,
        "waiting": job.waiting,
        "skipped": job.skipped,
        "subscription": job.what.subscription,
        "rate": job.what.rate,
        "canary": job.what.canary,
        "detached": job.what.detached,
        "created_at": output::moment(job.created_at_ms),
        "why": job.told,
    })
}
