//! Reading the rest of an answer nobody waits for, so that its connection can be used again.

use std::{sync::Arc, time::Duration};

use reqwest::Response;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Answers drained at once; the connections of further ones are closed.
const DRAINS_MAX: usize = 256;
/// Bytes read of one answer before its connection is closed instead.
const BYTES_MAX: u64 = 64 * 1024;
/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Time [`Drains::close`] waits: longer than any drain takes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The side tasks that read answers to their end.
pub(super) struct Drains {
    tasks: TaskTracker,
    free: Arc<Semaphore>,
}

impl Drains {
    pub(super) fn new() -> Drains {
        Drains { tasks: TaskTracker::new(), free: Arc::new(Semaphore::new(DRAINS_MAX)) }
    }

    /// Takes the rest of an answer over and returns at once. An answer dropped unread closes its connection.
    pub(super) fn take(&self, mut answer: Response) {
        if answer.content_length().is_some_and(|bytes| bytes == 0 || bytes > BYTES_MAX)
            || self.tasks.is_closed()
        {
            return;
        }
        let Ok(place) = self.free.clone().try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let _place = place;
            let read = async {
                let mut bytes = 0;
                while let Ok(Some(chunk)) = answer.chunk().await {
                    bytes += chunk.len() as u64;
                    if bytes > BYTES_MAX {
                        break;
                    }
                }
            };
            // Whether it came to its end or not, nothing is left to do: the answer was judged by its head.
            let _ = tokio::time::timeout(TIMEOUT, read).await;
        });
    }

    /// Takes nothing more and waits for the tasks, which end by themselves.
    pub(super) async fn close(&self) {
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await;
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.tasks.len()
    }
}
