//! The balance of a process: what it took is what it settled, has in hand or gave back. Exact at any moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use metrics::Counter;

use crate::broker::Queue;

/// How a message ended here; the closed list behind every count of settled messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A receiver took it.
    Delivered,
    /// It waits for its next attempt.
    Retried,
    /// It waits without having used an attempt.
    Deferred,
    /// It went on to the next level of a longer wait.
    Moved,
    /// It is a dead letter now.
    Dead,
    /// It became one delivery per subscription.
    FannedOut,
    /// Nobody wants it.
    NoSubscriber,
    /// It was a call, or interactive, sent once, and its receiver did not take it.
    Answered,
}

impl Ending {
    /// Every ending, in the order of the counters.
    pub const ALL: [Ending; 8] = [
        Ending::Delivered,
        Ending::Retried,
        Ending::Deferred,
        Ending::Moved,
        Ending::Dead,
        Ending::FannedOut,
        Ending::NoSubscriber,
        Ending::Answered,
    ];

    /// The word for it in metrics and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Delivered => "delivered",
            Ending::Retried => "retried",
            Ending::Deferred => "deferred",
            Ending::Moved => "moved",
            Ending::Dead => "dead",
            Ending::FannedOut => "fanned_out",
            Ending::NoSubscriber => "no_subscriber",
            Ending::Answered => "answered",
        }
    }
}

/// Counts of one process since its start.
#[derive(Default)]
pub struct Balance {
    taken: AtomicU64,
    given_back: AtomicU64,
    settled: [AtomicU64; Ending::ALL.len()],
    meters: Meters,
}

/// The counters behind the metrics of the same happenings, looked up when first used and not for every message.
#[derive(Default)]
struct Meters {
    taken: [OnceLock<Counter>; Queue::ALL.len()],
    settled: [OnceLock<Counter>; Ending::ALL.len()],
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.account().fmt(f)
    }
}

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Messages taken from queues.
    pub taken: u64,
    /// Messages given back to their queue.
    pub given_back: u64,
    /// Messages settled, by ending.
    pub settled: Vec<(&'static str, u64)>,
    /// What is left: taken and neither settled nor given back.
    pub in_hand: u64,
}

impl Balance {
    /// Counts a message in; the hand it returns counts it out again, whatever happens.
    pub fn take(self: &Arc<Self>, queue: Queue) -> Hand {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let meter = &self.meters.taken[queue as usize];
        meter
            .get_or_init(|| metrics::counter!("paperboy_taken_total", "queue" => queue.as_str()))
            .increment(1);
        Hand { balance: Arc::clone(self), ended: false }
    }

    /// The counts now.
    pub fn account(&self) -> Account {
        // Endings are read before the takings they belong to, so that in hand is never below zero.
        let given_back = self.given_back.load(Ordering::Acquire);
        let settled: Vec<_> = Ending::ALL
            .iter()
            .map(|ending| (ending.as_str(), self.settled[*ending as usize].load(Ordering::Acquire)))
            .collect();
        let taken = self.taken.load(Ordering::Acquire);
        let out = given_back + settled.iter().map(|(_, count)| count).sum::<u64>();
        Account { taken, given_back, settled, in_hand: taken.saturating_sub(out) }
    }
}

/// One message in hand.
#[derive(Debug)]
pub struct Hand {
    balance: Arc<Balance>,
    ended: bool,
}

impl Hand {
    /// The message is settled.
    pub fn settled(mut self, ending: Ending) {
        self.ended = true;
        self.balance.settled[ending as usize].fetch_add(1, Ordering::Release);
        let meter = &self.balance.meters.settled[ending as usize];
        meter
            .get_or_init(|| metrics::counter!("paperboy_settled_total", "verdict" => ending.as_str()))
            .increment(1);
    }

    /// The message went back to its queue.
    pub fn given_back(self) {
        // Dropping says so.
    }
}

impl Drop for Hand {
    /// A panic on the way gives the message back like any other.
    fn drop(&mut self) {
        if !self.ended {
            self.balance.given_back.fetch_add(1, Ordering::Release);
            metrics::counter!("paperboy_given_back_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_is_settled_plus_in_hand_plus_given_back() {
        let balance = Arc::new(Balance::default());
        let first = balance.take(Queue::Events);
        let second = balance.take(Queue::Events);
        let third = balance.take(Queue::Retries);
        first.settled(Ending::Delivered);
        second.given_back();
        let account = balance.account();
        assert_eq!((account.taken, account.given_back, account.in_hand), (3, 1, 1));
        drop(third);
        assert_eq!(balance.account().given_back, 2);
        assert_eq!(balance.account().in_hand, 0);
    }

    #[test]
    fn every_queue_has_its_own_counter() {
        for (place, queue) in Queue::ALL.iter().enumerate() {
            assert_eq!(*queue as usize, place);
        }
    }

    #[test]
    fn every_ending_has_its_own_counter() {
        for (place, ending) in Ending::ALL.iter().enumerate() {
            assert_eq!(*ending as usize, place);
        }
    }
}
