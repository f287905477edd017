//! What every `serve` says of itself each two seconds, where all commands of the deployment can read it.
//!
//! It stands in Redis for ten seconds: a process that was killed is seen no longer than that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use redis::RedisError;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Failure;
use crate::api::Readiness;
use crate::cache::redis::Redis;
use crate::config::Role;
use crate::domain::places;
use crate::worker::Places;
use crate::worker::balance::{Account, Balance, Ending};

const EVERY: Duration = Duration::from_secs(2);
/// Slow endpoints that one process tells of.
const SLOW_SHOWN: usize = 10;
const LIFE: Duration = Duration::from_secs(10);

/// One process, as it last said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    /// Its own, for as long as it runs.
    pub(super) id: String,
    /// all, worker or api.
    pub(super) role: String,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) started_ms: i64,
    /// When it said this.
    pub(super) at_ms: i64,
    /// Whether it moves dead letters into the store.
    pub(super) drains: bool,
    /// What keeps it from its work; empty when it is ready.
    pub(super) faults: Vec<String>,
    /// The check values of the secrets keys it holds; none said by an older version.
    #[serde(default)]
    pub(super) keys: Vec<String>,
    /// What is wrong beside that and keeps it from nothing else.
    #[serde(default)]
    pub(super) troubles: Vec<String>,
    /// None in a process that delivers nothing.
    pub(super) balance: Option<Counts>,
    /// The slow endpoints that hold most of its places.
    #[serde(default)]
    pub(super) slow: Vec<SlowEndpoint>,
}

/// An endpoint that answers slowly or not at all, as one process knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlowEndpoint {
    pub(super) subscription: String,
    pub(super) tenant: String,
    /// Messages in hand for it.
    pub(super) held: usize,
    /// What its answers take, lately; at most 1,000 are counted, none before the first.
    pub(super) pace_ms: Option<u64>,
}

/// What a process took and what became of it, since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) taken: u64,
    /// By ending.
    pub(super) settled: BTreeMap<String, u64>,
    pub(super) in_hand: u64,
    pub(super) given_back: u64,
}

impl From<places::SlowEndpoint> for SlowEndpoint {
    fn from(slow: places::SlowEndpoint) -> SlowEndpoint {
        SlowEndpoint {
            subscription: slow.subscription.to_string(),
            tenant: slow.tenant.to_string(),
            held: slow.held,
            pace_ms: slow.pace_ms,
        }
    }
}

impl Heartbeat {
    /// A process with its place, as people look for it.
    pub(super) fn place(&self) -> String {
        format!("{} on `{}` (pid {})", self.role, self.host, self.pid)
    }
}

impl From<Account> for Counts {
    fn from(account: Account) -> Counts {
        let settled = account.settled.into_iter().map(|(ending, count)| (ending.to_owned(), count)).collect();
        Counts { taken: account.taken, settled, in_hand: account.in_hand, given_back: account.given_back }
    }
}

impl Counts {
    /// Both together.
    pub(super) fn add(&mut self, other: &Counts) {
        self.taken += other.taken;
        self.in_hand += other.in_hand;
        self.given_back += other.given_back;
        for (ending, count) in &other.settled {
            *self.settled.entry(ending.clone()).or_default() += count;
        }
    }

    pub(super) fn settled_in_all(&self) -> u64 {
        self.settled.values().sum()
    }

    /// Taken is settled, in hand or given back.
    pub(super) fn adds_up(&self) -> bool {
        self.taken == self.settled_in_all() + self.in_hand + self.given_back
    }

    /// The endings in their usual order; those of another version last.
    pub(super) fn by_ending(&self) -> Vec<(&str, u64)> {
        let known = Ending::ALL.map(Ending::as_str);
        let place = |ending: &str| known.iter().position(|known| *known == ending).unwrap_or(known.len());
        let mut endings: Vec<_> =
            self.settled.iter().map(|(ending, count)| (ending.as_str(), *count)).collect();
        endings.sort_by_key(|(ending, _)| place(ending));
        endings
    }
}

/// Says what this process is and does, for as long as it runs.
pub(super) struct Pulse {
    redis: Redis,
    card: Heartbeat,
    readiness: Readiness,
    delivers: Option<(Arc<Balance>, Arc<Places>)>,
    stop: CancellationToken,
}

impl Pulse {
    /// Of a process that starts now; with its balance and places where it delivers.
    pub(super) fn new(
        redis: Redis,
        role: Role,
        drains: bool,
        readiness: Readiness,
        delivers: Option<(Arc<Balance>, Arc<Places>)>,
        stop: CancellationToken,
    ) -> Result<Pulse, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let card = Heartbeat {
            id: HEXLOWER.encode(&random),
            role: role.as_str().to_owned(),
            host: host(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: now_ms,
            at_ms: now_ms,
            drains,
            faults: Vec::new(),
            keys: Vec::new(),
            troubles: Vec::new(),
            balance: None,
            slow: Vec::new(),
        };
        Ok(Pulse { redis, card, readiness, delivers, stop })
    }

    /// The same, saying which secrets keys the process holds.
    pub(super) fn holding(mut self, key_checks: Vec<String>) -> Pulse {
        self.card.keys = key_checks;
        self
    }

    /// Takes the process off the board: it ends well and need not be waited for.
    pub(super) fn farewell(&self) -> impl Future<Output = ()> + use<> {
        let (redis, id) = (self.redis.clone(), self.card.id.clone());
        async move {
            // Else it is forgotten after ten seconds.
            let _ = redis.forget_process(&id).await;
        }
    }

    /// Beats until it is dropped.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_heard = true;
        loop {
            ticks.tick().await;
            let beaten = self.beat().await;
            match &beaten {
                Ok(()) if !is_heard => info!("`paperboy status` sees this process again"),
                Err(error) if is_heard => warn!("`paperboy status` does not see this process: {error}"),
                _ => {}
            }
            is_heard = beaten.is_ok();
        }
    }

    async fn beat(&mut self) -> Result<(), RedisError> {
        self.card.at_ms = jiff::Timestamp::now().as_millisecond();
        if let Some((balance, places)) = &self.delivers {
            self.card.balance = Some(balance.account().into());
            self.card.slow = places.slowest(SLOW_SHOWN).into_iter().map(SlowEndpoint::from).collect();
        }
        let told = |told: Vec<(&str, String)>| {
            told.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
        };
        self.card.faults = match self.stop.is_cancelled() {
            true => vec!["stopping".to_owned()],
            false => told(self.readiness.faults()),
        };
        self.card.troubles = told(self.readiness.troubles());
        let text = serde_json::to_string(&self.card).unwrap_or_default();
        self.redis.tell_process(&self.card.id, &text, LIFE).await
    }
}

/// Every process that was heard of in the last ten seconds, by role, host and pid.
pub(super) async fn heard(redis: &Redis) -> Result<Vec<Heartbeat>, RedisError> {
    let texts = redis.processes().await?;
    // A process of another version may say it otherwise; the rest is still worth seeing.
    let mut heard: Vec<Heartbeat> = texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    heard.sort_by(|one, other| (&one.role, &one.host, one.pid).cmp(&(&other.role, &other.host, other.pid)));
    Ok(heard)
}

/// The name of this machine or container.
fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Queue;

    #[test]
    fn sums_of_balances_that_add_up_add_up() {
        let balance = Arc::new(Balance::default());
        balance.take(Queue::Events).settled(Ending::Delivered);
        balance.take(Queue::Events).given_back();
        let _in_hand = balance.take(Queue::Retries);
        let one = Counts::from(balance.account());
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.taken, sum.settled["delivered"], sum.in_hand, sum.given_back), (6, 2, 2, 2));
        assert!(sum.adds_up());
        sum.in_hand -= 1;
        assert!(!sum.adds_up());
    }

    #[test]
    fn endings_keep_their_order_and_unknown_ones_come_last() {
        let settled = [("dead", 1), ("answered", 2), ("delivered", 3)];
        let settled = settled.iter().map(|(ending, count)| ((*ending).to_owned(), *count)).collect();
        let counts = Counts { settled, ..Counts::default() };
        assert_eq!(counts.by_ending(), [("delivered", 3), ("dead", 1), ("answered", 2)]);
    }
}
