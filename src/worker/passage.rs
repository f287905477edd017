//! A worker's answers to rounds: whether it is through with what it had in hand. Decided by
//! [`crate::domain::batch::round::Passage`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::membership::Hands;
use crate::broker::{Queue, Windows};
use crate::domain::batch::round::{Passage, Standing, View};
use crate::store::batches::{Phase, RoundStore};

/// How often a round is looked for, and at.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is answered while nothing changes.
const BEAT: Duration = Duration::from_secs(1);

/// Answers rounds under this name until `stop`.
pub async fn answer_rounds(
    store: impl RoundStore,
    process: String,
    hands: Arc<Hands>,
    windows: Arc<Windows>,
    stop: CancellationToken,
) {
    let began = Instant::now();
    let mut passage = Passage::default();
    let mut told: Option<(Standing, u32, Instant)> = None;
    let mut is_well = true;
    // Once per trouble, not once per look.
    let mut complain = |error: Option<anyhow::Error>| {
        if let Some(error) = &error
            && is_well
        {
            warn!("rounds for batches are not answered: {error:#}");
        }
        is_well = error.is_none();
    };
    while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
        // Before what is in hand is looked at: the round must not be newer than that.
        let round = match store.round().await {
            Ok(round) => round.map(|(number, phase)| (number, phase == Phase::Watching)),
            Err(error) => {
                complain(Some(error));
                continue;
            }
        };
        let ms = |at: Instant| i64::try_from((at - began).as_millis()).unwrap_or(i64::MAX);
        let (next, oldest, held_until) = hands.look();
        let turns = hands.turns() + windows.turns(Queue::Events);
        let view = View { turns, next, oldest, held_until_ms: held_until.map(ms) };
        let standing = passage.look(round, view, ms(Instant::now()));
        if round.is_none() {
            complain(None);
            continue;
        }
        let consumers = windows.consumers(Queue::Events);
        let is_news = told
            .is_none_or(|(known, count, at)| (known, count) != (standing, consumers) || at.elapsed() >= BEAT);
        if is_news {
            match store.worker_answers(&process, standing, consumers).await {
                Ok(()) => {
                    told = Some((standing, consumers, Instant::now()));
                    complain(None);
                }
                Err(error) => complain(Some(error)),
            }
        }
    }
}
