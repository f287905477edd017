//! How old what a process knows may become.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How fresh a directory keeps itself.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// A change is used everywhere within this.
    pub refresh: Duration,
    /// With Redis and store away, known tenants are served this long.
    pub max_stale: Duration,
}

/// When Redis or the store last said what changed. Read for every delivery, without a lock.
pub(super) struct Contact {
    start: Instant,
    /// After `start`.
    last_ms: AtomicU64,
}

impl Contact {
    /// Now.
    pub(super) fn new() -> Contact {
        Contact { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// One of them has answered.
    pub(super) fn made(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long both have been silent.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
