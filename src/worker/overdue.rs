//! The end of the grace: whatever still runs gives its message back.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Whether the grace is over.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    is_over: AtomicBool,
    token: CancellationToken,
}

impl Overdue {
    pub(super) fn cancel(&self) {
        // Before anybody is woken, who then looks at it.
        self.is_over.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// What comes of `work`; none where the grace is over before. To be the whole of a task, whose waker never
    /// changes: so the end is asked to wake it only once, and not each time something else does, which would take a
    /// lock that all deliveries share.
    pub(super) async fn unless<W: Future>(&self, mut work: Pin<&mut W>) -> Option<W::Output> {
        let mut cancelled = pin!(self.token.cancelled());
        let mut is_registered = false;
        std::future::poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if is_registered && !self.is_over.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            is_registered = true;
            cancelled.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn finished_work_is_told_even_late() {
        let overdue = Overdue::default();
        assert_eq!(overdue.unless(pin!(async { 7 })).await, Some(7));
        overdue.cancel();
        assert_eq!(overdue.unless(pin!(async { 7 })).await, Some(7));
        assert_eq!(overdue.unless(pin!(std::future::pending::<()>())).await, None);
    }

    #[tokio::test]
    async fn the_end_wakes_what_waits_for_something_else() {
        let (overdue, bell) = (Arc::new(Overdue::default()), Arc::new(Notify::new()));
        let work = {
            let (overdue, bell) = (Arc::clone(&overdue), Arc::clone(&bell));
            tokio::spawn(async move {
                let work = async {
                    for _ in 0..3 {
                        bell.notified().await;
                    }
                };
                overdue.unless(pin!(work)).await
            })
        };
        for _ in 0..2 {
            sleep(Duration::from_millis(5)).await;
            bell.notify_one();
        }
        sleep(Duration::from_millis(5)).await;
        assert!(!work.is_finished());
        overdue.cancel();
        assert_eq!(timeout(Duration::from_secs(5), work).await.unwrap().unwrap(), None);
    }
}
