//! Keeps the rows of failures in the store, and disables a subscription whose row is long enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::desk::Board;
use crate::domain::name::SubscriptionId;
use crate::domain::streak::{Rules, Seen};
use crate::store::Store;
use crate::store::streaks::Why;
use crate::worker::vigil::Vigil;

/// How often what was noted is written.
const PAUSE: Duration = Duration::from_secs(1);

/// Who keeps the rows of failures for one process.
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) board: Arc<dyn Board>,
    pub(super) vigil: Arc<Vigil>,
    /// None: only what is gone is disabled.
    pub(super) rules: Option<Rules>,
}

impl Keeper {
    /// Learns who fails, before anything is delivered: a success of theirs must not go unnoticed.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        if self.rules.is_some() { self.learn().await } else { Ok(()) }
    }

    async fn learn(&self) -> anyhow::Result<()> {
        let known = self.store.known_failing().await?;
        let known: Vec<_> = known.iter().filter_map(|id| SubscriptionId::parse(id).ok()).collect();
        self.vigil.know(&known);
        Ok(())
    }

    /// Writes what was noted until `stop`, then what is left.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut was_well = true;
        if self.rules.is_none()
            && let Err(error) = self.store.forget_streaks().await
        {
            warn!("old rows of failures stay: {error:#}");
        }
        loop {
            let is_last = stop.run_until_cancelled(sleep(PAUSE)).await.is_none();
            let done = self.keep().await;
            if let Err(error) = &done
                && was_well
            {
                warn!("failing subscriptions are noted later: {error:#}");
            }
            was_well = done.is_ok();
            if is_last {
                return;
            }
        }
    }

    async fn keep(&self) -> anyhow::Result<()> {
        let seen = self.vigil.take();
        let gone = |(id, seen): (&SubscriptionId, &Seen)| {
            seen.gone_ms.map(|begun_ms| (id.clone(), Why::Gone { begun_ms }))
        };
        let gone: Vec<_> = seen.iter().filter_map(gone).collect();
        let enough = self.note(seen).await?;
        let enough = enough.into_iter().map(|id| (id, Why::Failing));
        for (id, why) in gone.into_iter().chain(enough) {
            self.disable(&id, why).await;
        }
        if self.rules.is_some() { self.learn().await } else { Ok(()) }
    }

    /// Those for whom it is enough.
    async fn note(&self, seen: BTreeMap<SubscriptionId, Seen>) -> anyhow::Result<Vec<SubscriptionId>> {
        let Some(rules) = self.rules.filter(|_| !seen.is_empty()) else { return Ok(Vec::new()) };
        let noted = self.store.note_seen(&seen, &rules, now_ms()).await;
        if noted.is_err() {
            self.vigil.put_back(seen);
        }
        noted
    }

    async fn disable(&self, id: &SubscriptionId, why: Why) {
        match self.store.disable_by_paperboy(id, why, self.rules.as_ref(), now_ms()).await {
            Ok(Some(counter)) => {
                metrics::counter!("paperboy_disabled_total", "why" => why.as_str()).increment(1);
                warn!(subscription = %id, why = why.as_str(), "disabled subscription `{id}`: its fresh events are dead letters until a person enables it");
                if let Some(warning) = self.board.post(&self.store, counter).await {
                    warn!("{warning}");
                }
            }
            Ok(None) => {
                info!(subscription = %id, "subscription `{id}` is not disabled: that was done, or is no longer due")
            }
            // The next failure brings it up again.
            Err(error) => warn!(subscription = %id, "{error:#}"),
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
