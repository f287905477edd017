//! How many messages of each queue this process may have in hand now, and who takes them.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::Queue;

/// The prefetch in force, by queue. The intake sets it, whoever shares the places out reads it.
#[derive(Debug, Default)]
pub struct Windows {
    places: [AtomicU16; Queue::ALL.len()],
    turns: [AtomicU64; Queue::ALL.len()],
    consumers: [AtomicU32; Queue::ALL.len()],
    /// A round for batches is answered, until then if nobody says more.
    round_until: Mutex<Option<Instant>>,
}

impl Windows {
    /// The places of a queue.
    pub fn of(&self, queue: Queue) -> usize {
        usize::from(self.places[queue as usize].load(Ordering::Relaxed))
    }

    /// Says how many there are from now on.
    pub fn set(&self, queue: Queue, places: u16) {
        self.places[queue as usize].store(places, Ordering::Relaxed);
    }

    /// How often a consumer of this queue has ended: what it had fetched and nobody had started went back.
    pub fn turns(&self, queue: Queue) -> u64 {
        self.turns[queue as usize].load(Ordering::SeqCst)
    }

    /// Says that a consumer ends; before anything of it goes back.
    pub fn turn(&self, queue: Queue) {
        self.turns[queue as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// Says until when a round for batches is being answered, which the end of a consumer of events would spoil.
    pub fn answers_round(&self, until: Option<Instant>) {
        *self.round_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether a consumer of this queue may be ended for no more than that another would be cheaper.
    pub fn may_end(&self, queue: Queue, now: Instant) -> bool {
        match queue {
            Queue::Events => {
                let until = *self.round_until.lock().unwrap_or_else(PoisonError::into_inner);
                until.is_none_or(|until| until <= now)
            }
            // Whoever called waits for what has been taken: there is little of it, and it is settled at once.
            Queue::Calls => false,
            Queue::Deliveries | Queue::Retries | Queue::DeadDeliveries | Queue::DeadEvents => true,
        }
    }

    /// Consumers of this queue in this process.
    pub fn consumers(&self, queue: Queue) -> u32 {
        self.consumers[queue as usize].load(Ordering::SeqCst)
    }

    /// Counts a consumer as long as what is returned lives.
    pub fn consuming(self: &Arc<Self>, queue: Queue) -> Consuming {
        self.consumers[queue as usize].fetch_add(1, Ordering::SeqCst);
        Consuming { windows: Arc::clone(self), queue }
    }
}

/// A consumer that is counted; its end is a turn.
#[derive(Debug)]
pub struct Consuming {
    windows: Arc<Windows>,
    queue: Queue,
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.windows.turn(self.queue);
        self.windows.consumers[self.queue as usize].fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn consumers_of_events_stay_while_a_round_is_answered_and_not_for_ever() {
        let (windows, now) = (Windows::default(), Instant::now());
        assert!(windows.may_end(Queue::Events, now));
        windows.answers_round(Some(now + Duration::from_secs(1)));
        assert!(!windows.may_end(Queue::Events, now));
        assert!(windows.may_end(Queue::Retries, now), "it is about events only");
        assert!(windows.may_end(Queue::Events, now + Duration::from_secs(1)), "nobody answers any more");
        windows.answers_round(None);
        assert!(windows.may_end(Queue::Events, now));
        assert!(!windows.may_end(Queue::Calls, now));
    }

    #[test]
    fn a_consumer_that_ends_is_told_before_it_is_counted_no_more() {
        let windows = Arc::new(Windows::default());
        let consuming = windows.consuming(Queue::Events);
        assert_eq!((windows.consumers(Queue::Events), windows.turns(Queue::Events)), (1, 0));
        drop(consuming);
        assert_eq!((windows.consumers(Queue::Events), windows.turns(Queue::Events)), (0, 1));
    }
}
