//! `paperboy dead replay`.

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::which::Chosen;
use super::{Common, Failure, decided, output};
use crate::cli::replaying::{Finish, Replaying, owner};
use crate::cli::{log, services};
use crate::config::{Config, LogConfig, LogKeep};
use crate::desk::Desk;
use crate::desk::replays::CANARIES_MAX;
use crate::domain::name::SubscriptionId;
use crate::store::replays::{Choice, NewReplay, ReplayJob};
use crate::store::{DeadState, Store};

/// Jobs that may hold what nobody else may send.
const JOBS_LOOKED_AT: u32 = 100;

/// Send dead letters on their way again.
#[derive(Args, Debug)]
#[command(
    after_help = "A replay is a job: ended or killed, the same command goes on where it was; `paperboy dead jobs` lists, pauses
and cancels. A letter that dies again is listed under a new id and never replayed by itself.

Examples:
  paperboy dead replay dl_17
  paperboy dead replay --all --tenant acme --reason exhausted --dry-run
  paperboy dead replay --all --host erp.example.com --class tls --canary 5 --rate 50
  paperboy dead replay --all --host erp.example.com --detach"
)]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Send to this other subscription of the same tenant
    #[arg(long, value_name = "NEW")]
    pub(super) subscription: Option<String>,
    /// Only say what would be sent
    #[arg(long)]
    pub(super) dry_run: bool,
    /// So many letters first, and the rest only if the first attempt of each is delivered
    #[arg(long, value_name = "LETTERS", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(CANARIES_MAX)))]
    pub(super) canary: u32,
    /// Letters a second, 0 for as many as go
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200)]
    pub(super) rate: u32,
    /// Leave it to a running `serve` of role `all` or `api`
    #[arg(long)]
    pub(super) detach: bool,
}

impl Replay {
    pub(super) async fn run(self, common: &Common, config: &Config, desk: &Desk) -> Result<(), Failure> {
        let store = &desk.store;
        if self.canary > 0 && config.delivery_log.keep == LogKeep::Off {
            return Err(Failure::usage("`--canary` needs the delivery log, and `delivery_log` is `off`")
                .hint("set it to `all` or `failures`, or replay a few letters by their ids first"));
        }
        let choice = self.choice(store).await?;
        if self.dry_run {
            let count = match &choice {
                Choice::Letters(letters) => letters.len() as u64,
                Choice::Filter(filter) => store.dead_count(filter).await?,
            };
            decided::would(common, "replay", count);
            return Ok(());
        }
        let what = NewReplay {
            asked: format!("{:?} to {:?}", self.chosen, self.subscription),
            subscription: self.subscription.clone(),
            rate: self.rate,
            canary: self.canary,
            detached: self.detach,
            tenant: None,
        };
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let Some(job) = store.replay_begin(&what, &choice, now_ms).await? else {
            for other in store.replay_jobs(None, JOBS_LOOKED_AT).await?.iter().filter(|job| job.waiting > 0) {
                eprintln!("{} letters wait in replay {} and are left to it", other.waiting, other.id);
            }
            decided::tell(common, DeadState::Replayed, 0);
            return Ok(());
        };
        let tenant = self.chosen.which.tenant.as_deref();
        desk.note_job(&services::caller(), "dead_letter.replay", &job, tenant).await?;
        if self.detach {
            if common.json {
                output::json_line(&json!({ "job": job.id, "letters": job.waiting }));
            } else {
                let count = output::count(usize::try_from(job.waiting).unwrap_or(usize::MAX), "dead letter");
                eprintln!(
                    "replay {} of {count} is left to `paperboy serve`; `paperboy dead jobs` shows it",
                    job.id
                );
            }
            return Ok(());
        }
        work(common, config, store, &job).await
    }

    async fn choice(&self, store: &Store) -> Result<Choice, Failure> {
        let target = match &self.subscription {
            Some(id) => Some(target(store, id).await?),
            None => None,
        };
        self.chosen.check()?;
        if self.chosen.all {
            let filter = self.chosen.filter()?;
            if let Some((id, tenant)) = &target
                && let Some(letter) = store.dead_of_another_tenant(&filter, tenant).await?
            {
                return Err(foreign(letter, id));
            }
            return Ok(Choice::Filter(Box::new(filter)));
        }
        let rows = self.chosen.rows(store).await?;
        if let Some((id, tenant)) = &target
            && let Some(row) = rows.iter().find(|row| row.tenant.as_deref() != Some(tenant))
        {
            return Err(foreign(row.id, id));
        }
        if let Some(row) = rows.iter().find(|row| row.state == DeadState::Replayed) {
            return Err(Failure::world(format!("dead letter `dl_{}` was replayed already", row.id))
                .hint("if it died again it is listed under a new id"));
        }
        Ok(Choice::Letters(rows.iter().map(|row| row.id).collect()))
    }
}

fn foreign(letter: i64, subscription: &str) -> Failure {
    Failure::world(format!(
        "dead letter `dl_{letter}` belongs to another tenant than subscription `{subscription}`"
    ))
    .hint("a tenant's events go to that tenant's subscriptions only")
}

async fn target(store: &Store, id: &str) -> Result<(String, String), Failure> {
    let parsed = SubscriptionId::parse(id)
        .map_err(|fault| Failure::usage(format!("`{id}` is not a subscription's id: {fault}")))?;
    let spec = store
        .subscription(&parsed)
        .await?
        .ok_or_else(|| Failure::world(format!("there is no subscription `{id}`")))?;
    Ok((id.to_owned(), spec.tenant.unwrap_or_default()))
}

/// Works on the job until it is done, and tells how it went.
async fn work(common: &Common, config: &Config, store: &Store, job: &ReplayJob) -> Result<(), Failure> {
    log::start(&LogConfig { filter: "warn".into(), ..config.log.clone() });
    if job.sent > 0 {
        eprintln!("replay {} goes on: {} of {} were sent", job.id, job.sent, job.total());
    }
    let broker = services::broker(config).await?;
    let bar = output::progress_of(usize::try_from(job.waiting).unwrap_or(usize::MAX), "letters");
    let mut replayed = 0;
    let (owner, stop) = (owner(), CancellationToken::new());
    let replaying = Replaying { store, broker: &broker, owner, stop, turn: None };
    let finish = replaying.work(job, |letter| {
        replayed += 1;
        bar.inc(1);
        if common.json {
            output::json_line(&json!({ "id": format!("dl_{letter}"), "status": "replayed" }));
        }
    });
    let finish = finish.await;
    bar.finish_and_clear();
    broker.close().await;
    let id = job.id;
    let rest = format!("{replayed} were sent and are marked; run it again for the rest");
    match finish? {
        Finish::Done => {
            decided::tell(common, DeadState::Replayed, replayed);
            Ok(())
        }
        Finish::Decided(state) => {
            Err(Failure::world(format!("replay {id} was {} meanwhile", state.as_str())).hint(rest))
        }
        Finish::Stopped(why) => Err(Failure::world(format!("replay {id} stopped: {why}"))
            .hint(format!("`paperboy dead groups` shows the cause; {rest}"))),
        Finish::Taken => Err(Failure::world(format!("another process works on replay {id}"))
            .hint("`paperboy dead jobs` shows how far it is")),
        Finish::Broken(why) => Err(Failure::world(format!("replay {id} stopped: {why}")).hint(rest)),
        Finish::Ended | Finish::Turned => Err(Failure::world(format!("replay {id} was ended")).hint(rest)),
    }
}
