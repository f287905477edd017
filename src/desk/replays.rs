//! Replays as jobs: begin one, look at it, pause, resume and cancel it. Working on one is `serve`'s.

use serde_json::{Value, json};

use super::dead::Chosen;
use super::moment::plain;
use super::{Caller, Desk, Refused, now_ms};
use crate::store::replays::{Choice, JobState, NewReplay, ReplayJob};

/// The most canaries of a replay: the delivery log is asked for each of them while they are watched.
pub const CANARIES_MAX: u32 = 100;

/// A replay that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub chosen: Chosen,
    /// Another subscription of the same tenant.
    pub subscription: Option<String>,
    /// Letters a second, 0 for as many as go.
    pub rate: u32,
    /// So many letters first, 0 for none.
    pub canary: u32,
}

/// What a person does with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Pause,
    Resume,
    Cancel,
}

/// A job as JSON.
pub fn job_json(job: &ReplayJob, now_ms: i64) -> Value {
    json!({
        "id": job.id,
        "state": state(job, now_ms).replace(' ', "_"),
        "sent": job.sent,
        "waiting": job.waiting,
        "skipped": job.skipped,
        "subscription": job.what.subscription,
        "rate": job.what.rate,
        "canary": job.what.canary,
        "detached": job.what.detached,
        "created_at": plain(job.created_at_ms),
        "why": job.told,
    })
}

/// Its state as people mean it: one that nobody works on does not run.
pub fn state(job: &ReplayJob, now_ms: i64) -> &'static str {
    let is_free = job.lease.is_none() || job.lease_until_ms < now_ms;
    match job.state {
        JobState::Running if is_free && job.what.detached => "left to serve",
        JobState::Running if is_free => "interrupted",
        state => state.as_str(),
    }
}

impl Desk {
    /// How many letters a replay would send.
    ///
    /// # Errors
    /// As [`Desk::begin_replay`].
    pub async fn count_replay(&self, caller: &Caller, asked: &Asked) -> Result<u64, Refused> {
        match self.choice(caller, asked).await?.0 {
            Choice::Letters(letters) => Ok(letters.len() as u64),
            Choice::Filter(filter) => Ok(self.store.dead_count(&filter).await?),
        }
    }

    /// Begins a replay that is left to `serve`, or goes on with the one that asked the same; none where no letter is
    /// to be sent.
    ///
    /// # Errors
    /// A letter that is named or the subscription is not there or not the caller's, was replayed already or belongs
    /// to another tenant than the subscription; the store fails.
    pub async fn begin_replay(&self, caller: &Caller, asked: &Asked) -> Result<Option<ReplayJob>, Refused> {
        if asked.canary > 0 && !self.rules.log_is_kept {
            return Err(Refused::fault(
                "canary",
                "needs the delivery log, and `delivery_log` is `off`",
                "replay a few letters by their ids first",
            ));
        }
        let (choice, letters_of) = self.choice(caller, asked).await?;
        let tenant = caller.tenant.as_ref().map(ToString::to_string);
        let what = NewReplay {
            // Whose it is belongs to it: nobody goes on with another's.
            asked: format!("of {tenant:?}: {choice:?} to {:?}", asked.subscription),
            subscription: asked.subscription.clone(),
            rate: asked.rate,
            canary: asked.canary,
            detached: true,
            tenant,
        };
        let job = self.store.replay_begin(&what, &choice, now_ms()).await?;
        if let Some(job) = &job {
            self.note_job(caller, "dead_letter.replay", job, letters_of.as_deref()).await?;
        }
        Ok(job)
    }

    /// The letters that are meant, checked; and whose they are, if all are one tenant's.
    async fn choice(&self, caller: &Caller, asked: &Asked) -> Result<(Choice, Option<String>), Refused> {
        let subscription = asked.subscription.as_deref();
        match &asked.chosen {
            Chosen::Ids(_) => {
                let rows = self.chosen(caller, &asked.chosen).await?;
                self.check_replay(caller, &rows, subscription).await?;
                let first = rows.first().and_then(|row| row.tenant.clone());
                let tenant = first.filter(|first| rows.iter().all(|row| row.tenant.as_ref() == Some(first)));
                Ok((Choice::Letters(rows.iter().map(|row| row.id).collect()), tenant))
            }
            Chosen::Every(filter) => {
                let mut filter = (**filter).clone();
                if let Some(own) = &caller.tenant {
                    filter.tenant = Some(own.to_string());
                }
                if let Some(id) = subscription {
                    let target = self.show_subscription(caller, id).await?;
                    let tenant = target.spec.tenant.unwrap_or_default();
                    if let Some(letter) = self.store.dead_of_another_tenant(&filter, &tenant).await? {
                        return Err(super::dead::of_another_tenant(letter, id));
                    }
                }
                let tenant = filter.tenant.clone();
                Ok((Choice::Filter(Box::new(filter)), tenant))
            }
        }
    }

    /// One job.
    ///
    /// # Errors
    /// There is none of that id that the caller may see, or the store fails.
    pub async fn replay(&self, caller: &Caller, id: &str) -> Result<ReplayJob, Refused> {
        let missing = || Refused::Missing { what: "replay", id: id.to_owned() };
        let number = Some(id).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|id| id.parse().ok()).ok_or_else(missing)?;
        let job = self.store.replay_job(number).await?;
        job.filter(|job| caller.owns(job.what.tenant.as_deref())).ok_or_else(missing)
    }

    /// The newest jobs that are the caller's.
    ///
    /// # Errors
    /// The store fails.
    pub async fn replays(&self, caller: &Caller, limit: u32) -> Result<Vec<ReplayJob>, Refused> {
        let tenant = caller.tenant.as_ref().map(ToString::to_string);
        Ok(self.store.replay_jobs(tenant.as_deref(), limit).await?)
    }

    /// Pauses, resumes or cancels a job; as it is then.
    ///
    /// # Errors
    /// As [`Desk::replay`]; also a job that is at its end already.
    pub async fn turn_replay(&self, caller: &Caller, id: &str, turn: Turn) -> Result<ReplayJob, Refused> {
        let job = self.replay(caller, id).await?;
        let now_ms = now_ms();
        let (action, changed) = match turn {
            Turn::Pause => {
                let set = self.store.replay_set_state(job.id, JobState::Paused, None, now_ms);
                ("replay.pause", set.await?)
            }
            Turn::Resume => ("replay.resume", self.store.replay_resume(job.id, now_ms).await?),
            Turn::Cancel => {
                let set = self.store.replay_set_state(job.id, JobState::Cancelled, None, now_ms);
                ("replay.cancel", set.await?)
            }
        };
        let job = self.replay(caller, id).await?;
        if !changed {
            return Err(Refused::Conflict {
                message: format!("replay {id} is {} already", job.state.as_str()),
                hint: "begin another one for what is left",
            });
        }
        self.note_job(caller, action, &job, job.what.tenant.as_deref()).await?;
        Ok(job)
    }
}
