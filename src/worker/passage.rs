//! A worker's answers to rounds: whether it is through with what it had in hand. Decided by
//! [`crate::domain::batch::round::Passage`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::clock;
use super::membership::Hands;
use crate::broker::{Queue, Windows};
use crate::domain::batch::round::{Passage, Standing, View};
use crate::store::batches::{Phase, RoundStore};

/// How often a round is looked for, and at.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is answered while nothing changes.
const BEAT: Duration = Duration::from_secs(1);
/// For how long a look at a round keeps consumers, if no other follows.
const ANSWERED: Duration = Duration::from_secs(1);

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
    let mut kept: Option<Instant> = None;
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
        if let Err(error) = keep_hold(&store, &process, &hands, &mut kept).await {
            complain(Some(error));
            continue;
        }
        // Before what is in hand is looked at: the round must not be newer than that.
        let round = match store.round().await {
            Ok(round) => round.map(|(number, phase)| (number, phase == Phase::Watching)),
            Err(error) => {
                complain(Some(error));
                continue;
            }
        };
        // Before it is answered: a consumer that ends from now on spoils it.
        windows.answers_round(round.map(|_| std::time::Instant::now() + ANSWERED));
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
    windows.answers_round(None);
    // What was put off comes back when this process is gone.
    if let Err(error) = keep_hold(&store, &process, &hands, &mut kept).await {
        warn!("nobody will wait for the events with a batch that this process put off: {error:#}");
    }
}

/// Writes down until when something that was put off unrecorded may come back, as soon as the store takes it.
async fn keep_hold(
    store: &impl RoundStore,
    process: &str,
    hands: &Hands,
    kept: &mut Option<Instant>,
) -> anyhow::Result<()> {
    let (_, _, held_until) = hands.look();
    let Some(until) = held_until.filter(|until| Some(*until) > *kept) else { return Ok(()) };
    let left_ms = i64::try_from((until - Instant::now()).as_millis()).unwrap_or(i64::MAX);
    store.worker_holds(process, clock::now_ms().saturating_add(left_ms)).await?;
    *kept = Some(until);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A store with a round under way; what was held and answered.
    #[derive(Clone, Default)]
    struct Paper {
        round: Arc<Mutex<Option<(i64, Phase)>>>,
        refusals: Arc<Mutex<u32>>,
        held: Arc<Mutex<Vec<i64>>>,
    }

    impl RoundStore for Paper {
        async fn round(&self) -> anyhow::Result<Option<(i64, Phase)>> {
            Ok(*self.round.lock().unwrap())
        }

        async fn worker_answers(&self, _: &str, _: Standing, _: u32) -> anyhow::Result<()> {
            Ok(())
        }

        async fn worker_holds(&self, process: &str, until_ms: i64) -> anyhow::Result<()> {
            assert_eq!(process, "me");
            let mut refusals = self.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                anyhow::bail!("the store is away");
            }
            self.held.lock().unwrap().push(until_ms);
            Ok(())
        }
    }

    /// Answers for two seconds of the test's clock, then ends between two looks.
    async fn answer(paper: &Paper, hands: &Arc<Hands>, windows: &Arc<Windows>, during: impl FnOnce()) {
        let stop = CancellationToken::new();
        let (hands, windows) = (Arc::clone(hands), Arc::clone(windows));
        let task = tokio::spawn(answer_rounds(paper.clone(), "me".into(), hands, windows, stop.clone()));
        tokio::time::advance(Duration::from_millis(1)).await;
        sleep(Duration::from_millis(2_090)).await;
        during();
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn consumers_of_events_stay_while_a_round_is_answered() {
        let (paper, hands, windows) = (Paper::default(), Arc::default(), Arc::new(Windows::default()));
        let may_end = || windows.may_end(Queue::Events, std::time::Instant::now());
        answer(&paper, &hands, &windows, || assert!(may_end())).await;
        *paper.round.lock().unwrap() = Some((7, Phase::Calling));
        answer(&paper, &hands, &windows, || assert!(!may_end())).await;
        assert!(may_end(), "nobody answers any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_put_off_is_written_down_with_the_first_write_that_works() {
        let (paper, hands, windows) = (Paper::default(), Arc::<Hands>::default(), Arc::default());
        hands.hold(Duration::from_secs(60));
        *paper.refusals.lock().unwrap() = 3;
        let before_ms = clock::now_ms();
        answer(&paper, &hands, &windows, || {}).await;
        let held = paper.held.lock().unwrap().clone();
        // The clock of the wall goes on meanwhile, that of the test is ahead of it by at most two seconds.
        assert!(matches!(held[..], [until_ms] if until_ms - before_ms > 50_000), "{held:?}");
        // Put off at the very end it is written down too, and nothing is twice.
        let ending = Arc::clone(&hands);
        answer(&paper, &hands, &windows, || ending.hold(Duration::from_secs(90))).await;
        assert_eq!(paper.held.lock().unwrap().len(), 3, "once more by the new task, once at its end");
    }
}
