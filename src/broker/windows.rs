//! How many messages of each queue this process may have in hand now, and who takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::Queue;

/// The prefetch in force, by queue. The intake sets it, whoever shares the places out reads it.
#[derive(Debug, Default)]
pub struct Windows {
    places: [AtomicU16; Queue::ALL.len()],
    turns: [AtomicU64; Queue::ALL.len()],
    consumers: [AtomicU32; Queue::ALL.len()],
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
