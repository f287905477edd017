//! How many messages of each queue this process may have in hand now.

use std::sync::atomic::{AtomicU16, Ordering};

use super::Queue;

/// The prefetch in force, by queue. The intake sets it, whoever shares the places out reads it.
#[derive(Debug, Default)]
pub struct Windows([AtomicU16; Queue::ALL.len()]);

impl Windows {
    /// The places of a queue.
    pub fn of(&self, queue: Queue) -> usize {
        usize::from(self.0[queue as usize].load(Ordering::Relaxed))
    }

    /// Says how many there are from now on.
    pub fn set(&self, queue: Queue, places: u16) {
        self.0[queue as usize].store(places, Ordering::Relaxed);
    }
}
