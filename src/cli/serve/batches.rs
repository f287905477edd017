//! What a process that delivers does for batches: it writes memberships down and answers rounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::broker::Windows;
use crate::cli::{Failure, replaying};
use crate::config::Config;
use crate::domain::batch::Rules;
use crate::store::Store;
use crate::worker::membership::{self, Memberships};
use crate::worker::passage;

/// The tasks beside the worker; whoever ends the worker ends them after it.
pub(super) struct Joining {
    store: Store,
    process: String,
    stop: CancellationToken,
    keeping: JoinHandle<()>,
    answering: JoinHandle<()>,
}

/// What the configuration says of batches.
pub(in crate::cli) fn rules(config: &Config) -> Rules {
    let unit_ms = i64::from(config.broker.delay_unit_ms);
    let tenants = config.batches.tenants.iter();
    Rules {
        finished: config.batches.finished.clone(),
        idle_ms: i64::from(config.batches.idle_s) * unit_ms,
        tenants: tenants.map(|(tenant, units)| (tenant.clone(), i64::from(*units) * unit_ms)).collect(),
    }
}

/// Before the first event is taken: whoever sweeps must know of every worker.
pub(super) async fn start(
    store: &Store,
    config: &Config,
    windows: &Arc<Windows>,
) -> Result<(Memberships, Joining), Failure> {
    let (process, stop) = (replaying::owner(), CancellationToken::new());
    store.worker_begins(&process).await?;
    let unit = Duration::from_millis(config.broker.delay_unit_ms.into());
    let (memberships, keeper) = membership::line(rules(config), unit);
    let keeping = tokio::spawn(keeper.run(store.clone()));
    let answering = tokio::spawn(passage::answer_rounds(
        store.clone(),
        process.clone(),
        memberships.hands(),
        Arc::clone(windows),
        stop.clone(),
    ));
    Ok((memberships, Joining { store: store.clone(), process, stop, keeping, answering }))
}

impl Joining {
    /// After the worker's last message is settled and its connection closed.
    pub(super) async fn end(self) {
        self.stop.cancel();
        for task in [self.keeping, self.answering] {
            if let Err(error) = task.await {
                warn!("a task for batches failed: {error}");
            }
        }
        if let Err(error) = self.store.worker_ends(&self.process).await {
            warn!(
                "batches are closed a little later, since this process could not take its leave: {error:#}"
            );
        }
    }
}
