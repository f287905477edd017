//! Steps to broker calls, in the only safe order: publish, wait for that publish's own confirm, and only
//! then may the caller acknowledge.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use super::balance::Ending;
use super::step::Step;
use crate::broker::{Broker, Outgoing, Receipt, Target, Unconfirmed};

/// The longest pause before an unconfirmed publish is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Carries a step out; `None` means the message must be handed back.
///
/// An unconfirmed publish is tried again while the source is still ours (a lost connection takes both), and
/// for at most `patience`: long alarms end by handing each message back alone.
pub(super) async fn carry_out(
    broker: &impl Broker,
    step: Step,
    receipt: &Receipt,
    patience: Duration,
) -> Option<Ending> {
    match step {
        Step::Done(ending) => Some(ending),
        Step::HandBack => None,
        Step::Publish(copies, ending) => {
            all_confirmed(broker, copies, receipt, patience).await.then_some(ending)
        }
        Step::Copies(copies, room) => {
            let are_safe = all_confirmed(broker, copies, receipt, patience).await;
            drop(room);
            are_safe.then_some(Ending::FannedOut)
        }
    }
}

/// Publishes these until each is confirmed; false when nobody waits for them any more.
pub(super) async fn all_confirmed(
    broker: &impl Broker,
    copies: Vec<(Target, Outgoing)>,
    receipt: &Receipt,
    patience: Duration,
) -> bool {
    let publishes = copies.into_iter().map(|(target, copy)| confirmed(broker, target, copy, receipt));
    // In a box: most messages publish nothing, and should not carry room for it.
    Box::pin(async move {
        tokio::select! {
            confirmed = join_all(publishes) => confirmed.into_iter().all(|safe| safe),
            // What still waits to be published would make a second line of a source that others have by now.
            () = receipt.gone() => false,
            () = sleep(patience) => false,
        }
    })
    .await
}

/// Publishes until it is confirmed; false when the source has gone, or the publisher.
async fn confirmed(broker: &impl Broker, target: Target, copy: Outgoing, receipt: &Receipt) -> bool {
    let mut pauses = None;
    // Once the broker hands the source out again, publishing would make a second line of it.
    while receipt.is_live() {
        match broker.publish(target, copy.clone()).await {
            Ok(()) => return true,
            Err(Unconfirmed::Closed) => return false,
            Err(error) => {
                metrics::counter!("paperboy_unconfirmed_total").increment(1);
                warn!(target_queue = ?target, "a publish is not confirmed and is tried again: {error}");
            }
        }
        sleep(pauses.get_or_insert_with(republish_pauses).next().unwrap_or(PAUSE_MAX)).await;
    }
    false
}

/// Without end, up to [`PAUSE_MAX`].
fn republish_pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::broker::Tags;

    /// Refuses everything for one target.
    struct Refusing {
        target: Target,
        published: Mutex<Vec<Target>>,
    }

    impl Broker for Refusing {
        async fn publish(&self, target: Target, _: Outgoing) -> Result<(), Unconfirmed> {
            if target == self.target {
                return Err(Unconfirmed::Refused);
            }
            self.published.lock().unwrap().push(target);
            Ok(())
        }
    }

    fn copy(target: Target) -> (Target, Outgoing) {
        (target, Outgoing::new(Bytes::from_static(b"{}"), Tags::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn one_unconfirmed_copy_of_seven_keeps_the_source() {
        let broker = Refusing { target: Target::Delay(3), published: Mutex::default() };
        let (line, _settled) = unbounded_channel();
        let receipt = Receipt::new(1, line);
        let copies = (0..7).map(|level| copy(Target::Delay(level))).collect();
        let step = Step::Publish(copies, Ending::FannedOut);
        let ending = carry_out(&broker, step, &receipt, Duration::from_secs(600)).await;
        assert_eq!(ending, None);
        assert_eq!(broker.published.lock().unwrap().len(), 6);
    }

    /// Never answers, like a connection under an alarm; tells who no longer waits.
    struct Silent(std::sync::Arc<()>);

    impl Broker for Silent {
        async fn publish(&self, _: Target, _: Outgoing) -> Result<(), Unconfirmed> {
            let _waiting = std::sync::Arc::clone(&self.0);
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_on_for_a_source_that_has_gone() {
        let broker = Silent(std::sync::Arc::default());
        let (line, settled) = unbounded_channel();
        let receipt = Receipt::new(1, line);
        let step = Step::Publish((0..3).map(|level| copy(Target::Delay(level))).collect(), Ending::Retried);
        let carried = carry_out(&broker, step, &receipt, Duration::from_secs(600));
        let lost = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(std::sync::Arc::strong_count(&broker.0), 4);
            drop(settled);
            tokio::time::Instant::now()
        };
        let (ending, lost_at) = tokio::join!(carried, lost);
        assert_eq!((ending, lost_at.elapsed()), (None, Duration::ZERO));
        assert_eq!(std::sync::Arc::strong_count(&broker.0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_published_for_a_source_that_is_handed_out_again() {
        let broker = Refusing { target: Target::Delay(3), published: Mutex::default() };
        let (line, settled) = unbounded_channel();
        let receipt = Receipt::new(1, line);
        drop(settled);
        let step = Step::Publish(vec![copy(Target::Retries)], Ending::Retried);
        assert_eq!(carry_out(&broker, step, &receipt, Duration::from_secs(600)).await, None);
        assert_eq!(broker.published.lock().unwrap().len(), 0);
    }
}
