//! Learning what changed: every half `refresh` Redis is asked, and the store.
//!
//! Redis answers for a store that is away, the store for a Redis that is away or was not told of a change. What
//! Redis lacks (it was flushed, or a writer could not reach it) is posted there.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::directory::{AWAY, CachedDirectory, STORE_TIMEOUT};
use super::redis::{Posted, Redis};
use crate::store::Changes;

const OLDER_STORE: &str = "the store is older than what Redis has seen of it (restored from a copy?): delete our keys in Redis, so that they are made anew";

/// How far one process has followed the changes.
pub(super) struct Follower<'a> {
    directory: &'a CachedDirectory,
    /// Redis's counter at its last answer.
    redis_seen: u64,
    /// The store's counter at its last answer; only the store raises it.
    store_seen: u64,
    /// Whether Redis answered the last time.
    redis_answers: bool,
    /// Whether Redis has ever been reached and is ours, or there is none.
    has_met: bool,
    /// What only a comparison with the store can tell, and clear.
    is_older: bool,
}

/// When the store was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AfterRedis,
    Unknown,
}

impl<'a> Follower<'a> {
    pub(super) fn new(directory: &'a CachedDirectory) -> Follower<'a> {
        Follower {
            directory,
            redis_seen: 0,
            store_seen: 0,
            // So that the first round compares both.
            redis_answers: true,
            has_met: directory.redis.is_none(),
            is_older: false,
        }
    }

    /// Follows for ever; `wake` makes the next round begin at once.
    pub(super) async fn run(mut self, wake: &Notify) {
        loop {
            let next = Instant::now() + self.pause();
            let fault = self.round().await;
            self.directory.tell(fault);
            tokio::select! {
                () = sleep_until(next) => {}
                () = wake.notified() => {}
            }
        }
    }

    fn pause(&self) -> Duration {
        self.directory.freshness.refresh / 2
    }

    /// Asks both once; what keeps this process from working, if anything.
    async fn round(&mut self) -> Option<String> {
        let (posted, changes) = match self.redis_answers {
            true => {
                let posted = self.posted().await;
                // Read after Redis, a store can be ahead of it, never behind: unless it is an old copy.
                let changes = self.changes(posted.as_ref().ok()).await;
                (posted, changes.map(|changes| (changes, Order::AfterRedis)))
            }
            // Who may not answer again delays the other by nothing.
            false => {
                let (posted, changes) = tokio::join!(self.posted(), self.changes(None));
                (posted, changes.map(|changes| (changes, Order::Unknown)))
            }
        };
        self.redis_answers = posted.is_ok();
        if let Ok((changes, _)) = &changes {
            self.store_seen = changes.counter;
        }
        let no_redis = posted.as_ref().err().cloned().unwrap_or_default();
        if let (Err(no_redis), Err(no_store)) = (&posted, &changes) {
            return self.silence(&format!("Redis: {no_redis}; store: {no_store}"));
        }
        self.directory.contact.made();
        // A store that was not asked after Redis says nothing of what Redis lacks: the next round does.
        let changes =
            changes.ok().filter(|(_, order)| *order == Order::AfterRedis).map(|(changes, _)| changes);
        if let (Some(redis), Ok(posted)) = (&self.directory.redis, posted)
            && let Err(difference) = self.hear(redis, posted, changes).await
        {
            return Some(difference);
        }
        // Never reached: not ready. Reached before: the store answers for it.
        if !self.has_met {
            return Some(format!("Redis cannot be reached: {no_redis}"));
        }
        self.key_fault().or_else(|| self.is_older.then(|| OLDER_STORE.to_owned()))
    }

    /// Nobody answered: known tenants are served on for a while.
    fn silence(&self, problem: &str) -> Option<String> {
        let directory = self.directory;
        if !self.has_met || directory.is_away() || directory.contact.age() > directory.freshness.max_stale {
            return Some(format!("{AWAY}: {problem}"));
        }
        warn!("neither Redis nor the store says what changed: {problem}");
        None
    }

    /// What Redis has to say since it was last asked; used at once if it is ours.
    async fn posted(&self) -> Result<Posted, String> {
        let Some(redis) = &self.directory.redis else { return Err("no `redis.url`".to_owned()) };
        let posted = redis.posted_since(self.redis_seen).await.map_err(|error| error.to_string())?;
        if posted.owner.as_deref() == Some(&self.ours()) {
            self.directory.memory.raise_floors(&posted.tenants);
        }
        Ok(posted)
    }

    /// What the store has to say since it was last asked, and since Redis was last told; used at once.
    async fn changes(&self, posted: Option<&Posted>) -> Result<Changes, String> {
        let since = match posted {
            Some(posted) => self.store_seen.min(posted.counter.unwrap_or(0)),
            None => self.store_seen,
        };
        // With Redis there, a store that is away delays nothing.
        let patience = if posted.is_some() { self.pause().min(STORE_TIMEOUT) } else { STORE_TIMEOUT };
        match timeout(patience, self.directory.store.changes_since(since)).await {
            Ok(Ok(changes)) => {
                self.directory.memory.raise_floors(&changes.tenants);
                Ok(changes)
            }
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// Redis has answered: if it is ours its word counts, and it is told what it lacks.
    ///
    /// # Errors
    /// The difference that keeps this process from working.
    async fn hear(&mut self, redis: &Redis, posted: Posted, changes: Option<Changes>) -> Result<(), String> {
        // The versions of a stranger mean nothing here, and ours nothing there.
        let is_claimed = self.compare(redis, posted.owner, changes.as_ref()).await.inspect_err(|_| {
            self.has_met = false;
        })?;
        self.has_met = true;
        self.directory.memory.raise_floors(&posted.tenants);
        // Flushed, or an older memory: from the beginning.
        self.redis_seen = posted.counter.filter(|counter| *counter >= self.redis_seen).unwrap_or(0);
        let Some(changes) = changes else { return Ok(()) };
        self.is_older = posted.counter.is_some_and(|posted| posted > changes.counter);
        let is_behind = posted.counter != Some(changes.counter);
        if is_claimed
            && is_behind
            && !self.is_older
            && let Err(error) = redis.post(changes.counter, &changes.tenants).await
        {
            debug!("changes cannot be posted to Redis: {error}");
        }
        Ok(())
    }

    /// Whether this Redis belongs to our store, or to nobody.
    ///
    /// # Errors
    /// The difference that keeps this process from working.
    async fn compare(
        &self,
        redis: &Redis,
        owner: Option<String>,
        changes: Option<&Changes>,
    ) -> Result<bool, String> {
        let (store, ours) = (&self.directory.store, self.ours());
        let owner = match owner {
            Some(owner) => owner,
            // An empty store must not claim a Redis: it may be an accident.
            None if changes.is_none_or(|changes| changes.counter == 0)
                || !self.holds_subscription().await =>
            {
                return Ok(false);
            }
            // A Redis that cannot be written to belongs to nobody else either.
            None => redis.claim(&ours).await.unwrap_or_else(|_| ours.clone()),
        };
        let (id, key_check) = owner.split_once(' ').unwrap_or((&owner, ""));
        if id != store.id() {
            return Err(format!(
                "Redis belongs to store {id}, this process has store {}: point `store.url` at the same store as the others (where that one is gone for good, delete our keys in Redis)",
                store.id()
            ));
        }
        if owner != ours && changes.is_some() {
            // The store has just been asked: its key was changed, and Redis was not told.
            if redis.claim_anew(&owner, &ours).await.is_ok() {
                info!("Redis was told of the secrets key that the store has now");
            }
        } else if !store.holds_key(key_check) {
            return Err(other_key(key_check, &store.key_check()));
        }
        Ok(true)
    }

    /// Our store as Redis names it.
    fn ours(&self) -> String {
        format!("{} {}", self.directory.store.id(), self.directory.store.key_check())
    }

    async fn holds_subscription(&self) -> bool {
        let asked = timeout(STORE_TIMEOUT, self.directory.store.has_subscription()).await;
        asked.is_ok_and(|holds| holds.unwrap_or(false))
    }

    /// The store seals with a key that this process does not hold.
    fn key_fault(&self) -> Option<String> {
        let store = &self.directory.store;
        let missing = store.missing_key()?;
        Some(other_key(&missing, &store.key_check()))
    }
}

fn other_key(theirs: &str, ours: &str) -> String {
    format!(
        "secrets are sealed with another key now (key check {theirs}, here {ours}): set `secrets.key` to it, and this one among `secrets.old_keys`"
    )
}
