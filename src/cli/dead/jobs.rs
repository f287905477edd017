//! `paperboy dead jobs`: replays that run, wait or are done.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Common, Failure, output, services};
use crate::desk::replays::{Turn, job_json};
use crate::desk::{Desk, now_ms};

/// Replays as jobs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead jobs
  paperboy dead jobs pause 3
  paperboy dead jobs resume 3       leaves it to a running `serve`")]
pub(in crate::cli) struct Jobs {
    #[command(subcommand)]
    pub(super) action: Option<Action>,
    /// At most this many, newest first
    #[arg(long, default_value_t = 20)]
    pub(super) limit: u32,
}

#[derive(Subcommand, Debug)]
pub(super) enum Action {
    /// Hold a replay where it is
    Pause { id: i64 },
    /// Let it go on, by a running `serve` of role `all` or `api`
    Resume { id: i64 },
    /// End it; letters that were not sent are open as before
    Cancel { id: i64 },
}

impl Action {
    pub(super) fn turn(&self) -> (i64, Turn) {
        match self {
            Action::Pause { id } => (*id, Turn::Pause),
            Action::Resume { id } => (*id, Turn::Resume),
            Action::Cancel { id } => (*id, Turn::Cancel),
        }
    }
}

impl Jobs {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let caller = services::caller();
        let Some(action) = &self.action else {
            let jobs = desk.replays(&caller, self.limit).await?;
            let now_ms = now_ms();
            print(common, &jobs.iter().map(|job| job_json(job, now_ms)).collect::<Vec<_>>());
            return Ok(());
        };
        let (id, turn) = action.turn();
        let job = desk.turn_replay(&caller, &id.to_string(), turn).await?;
        tell(common, &job_json(&job, now_ms()));
        Ok(())
    }
}

/// How a job stands after it was turned.
pub(super) fn tell(common: &Common, job: &Value) {
    if common.json {
        output::json_line(job);
        return;
    }
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    let all = number("sent") + number("waiting") + number("skipped");
    eprintln!("replay {} is {}: {} of {all} were sent", job["id"], state(job), number("sent"));
}

/// Jobs as they are told here and over the API.
pub(super) fn print(common: &Common, jobs: &[Value]) {
    if common.json {
        jobs.iter().for_each(output::json_line);
        return;
    }
    let text = |value: &Value| output::printable(value.as_str().unwrap_or("-"));
    let cells = jobs.iter().map(|job| {
        vec![
            job["id"].to_string(),
            state(job),
            job["sent"].to_string(),
            job["waiting"].to_string(),
            job["skipped"].to_string(),
            text(&job["subscription"]),
            text(&job["created_at"]),
            text(&job["why"]),
        ]
    });
    let header = ["replay", "state", "sent", "waiting", "skipped", "to", "since", "why"];
    output::table(&header, cells.collect(), "no replays");
}

fn state(job: &Value) -> String {
    output::printable(&job["state"].as_str().unwrap_or_default().replace('_', " "))
}
