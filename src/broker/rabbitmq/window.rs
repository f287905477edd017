//! How many messages a consumer may hold, by the size of those it has lately seen. Pure.
//!
//! A prefetch counts messages, memory counts bytes. So the window is the configured share, or as many of the largest
//! body lately seen as fit its share of the bytes, whichever is less. It begins small, since the first messages may
//! be of any size, and grows fourfold whenever a window full of messages has shown that more would fit beside what is
//! in hand; it shrinks at once, and then grows again only after a minute without such a body.

use std::time::{Duration, Instant};

/// After it had to shrink a window stays as it is for this long.
const STEADY: Duration = Duration::from_secs(60);
const GROWTH: u16 = 4;
/// Channels of one queue that may wait for messages which take their time, beside the one that takes.
const LEFT_CHANNELS_MAX: usize = 4;

/// The window of one consumer.
#[derive(Debug)]
pub(super) struct Window {
    share: u16,
    bytes_max: u64,
    places: u16,
    /// The largest body since the window was set, or looked at last.
    largest: u64,
    /// Messages seen since then.
    seen: u32,
    shrunk_at: Option<Instant>,
}

/// That the window is another now, and the consumer to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What has been fetched and not started goes back: there may be too much of it.
    Shrunk,
    Grown,
}

impl Window {
    /// At most `share` messages of together about `bytes_max` bytes; a message may have `body_bytes_max`.
    pub(super) fn new(share: u16, bytes_max: u64, body_bytes_max: u64) -> Window {
        let places = places(share, bytes_max, body_bytes_max);
        Window { share, bytes_max, places, largest: 0, seen: 0, shrunk_at: None }
    }

    /// The messages it may hold now, at least one.
    pub(super) fn places(&self) -> u16 {
        self.places
    }

    /// Whether a channel may be left with what is in hand, and a whole window taken on another: not where bodies are
    /// large, not where channels were left already with so many messages in hand.
    pub(super) fn may_be_doubled(&self, channels: usize, in_hand: usize) -> bool {
        let is_whole = self.places == self.share;
        is_whole && channels <= LEFT_CHANNELS_MAX && in_hand < 2 * usize::from(self.places)
    }

    /// Makes room for what is in hand still from before a pause: where bodies are large, it is not held beside a whole
    /// window. It grows again as it does from its beginning.
    pub(super) fn resume(&mut self, in_hand: usize) {
        if self.places < self.share {
            let in_hand = u16::try_from(in_hand).unwrap_or(u16::MAX);
            self.set(self.places.saturating_sub(in_hand).max(1));
        }
    }

    /// Notes the size of a message that came. `in_hand` tells how many there are, on whichever channel.
    pub(super) fn see(
        &mut self,
        body_bytes: usize,
        now: Instant,
        in_hand: impl FnOnce() -> usize,
    ) -> Option<Change> {
        let body_bytes = body_bytes as u64;
        self.largest = self.largest.max(body_bytes);
        self.seen = self.seen.saturating_add(1);
        let fits = places(self.share, self.bytes_max, self.largest);
        if fits < self.places {
            self.set(fits);
            self.shrunk_at = Some(now);
            return Some(Change::Shrunk);
        }
        // The cheapest question first: this is asked for every message.
        if self.places == self.share {
            return None;
        }
        if fits == self.places {
            // As large as the window is made for: the minute begins anew, and what came before it is forgotten.
            self.shrunk_at = Some(now);
            self.set(fits);
            return None;
        }
        if self.seen < u32::from(self.places) {
            return None;
        }
        if self.shrunk_at.is_some_and(|at| now.duration_since(at) < STEADY) {
            return None;
        }
        // A new consumer takes a whole window, and what is in hand stays so beside it.
        let beside = (self.bytes_max / self.largest.max(1)).saturating_sub(in_hand() as u64);
        let grown = fits.min(self.places.saturating_mul(GROWTH));
        let grown = grown.min(u16::try_from(beside).unwrap_or(u16::MAX));
        let is_more = grown > self.places;
        // If not, another window full of messages is looked at, which may be smaller.
        self.set(grown.max(self.places));
        is_more.then_some(Change::Grown)
    }

    fn set(&mut self, places: u16) {
        self.places = places;
        self.largest = 0;
        self.seen = 0;
    }
}

fn places(share: u16, bytes_max: u64, body_bytes: u64) -> u16 {
    let fit = bytes_max / body_bytes.max(1);
    u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, share.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn feed(window: &mut Window, count: usize, body_bytes: usize, now: Instant) -> Vec<Change> {
        (0..count).filter_map(|_| window.see(body_bytes, now, || 0)).collect()
    }

    #[test]
    fn begins_with_what_fits_of_the_largest_there_may_be_and_grows_while_bodies_are_small() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        assert_eq!(window.places(), 10);
        assert_eq!(feed(&mut window, 10, 777, now), [Change::Grown]);
        assert_eq!(window.places(), 40);
        assert_eq!(feed(&mut window, 200, 777, now), [Change::Grown, Change::Grown]);
        assert_eq!(window.places(), 308);
        assert_eq!(feed(&mut window, 10_000, 777, now), []);
    }

    #[test]
    fn shrinks_at_once_and_stays_small_for_a_minute() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        feed(&mut window, 500, 777, now);
        assert_eq!(feed(&mut window, 1, 8 << 20, now), [Change::Shrunk]);
        assert_eq!(window.places(), 20);
        assert_eq!(feed(&mut window, 500, 777, now + STEADY / 2), []);
        assert_eq!(feed(&mut window, 1, 777, now + STEADY), [Change::Grown]);
        assert_eq!(window.places(), 80);
    }

    #[test]
    fn what_is_in_hand_after_a_pause_is_held_within_a_window_of_large_bodies() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        feed(&mut window, 500, 777, now);
        window.resume(150);
        assert_eq!(window.places(), 308, "small ones are held beside a whole one");
        feed(&mut window, 1, 2 << 20, now);
        assert_eq!(window.places(), 80);
        window.resume(30);
        assert_eq!(window.places(), 50);
        let later = now + STEADY;
        let seen: Vec<Change> = (0..50).filter_map(|_| window.see(2 << 20, later, || 50)).collect();
        assert_eq!((seen, window.places()), (vec![], 50), "those from before are still there: 30 fit beside");
        let seen: Vec<Change> = (0..50).filter_map(|_| window.see(2 << 20, later, || 0)).collect();
        assert_eq!((seen, window.places()), (vec![Change::Grown], 80));
        window.resume(1000);
        assert_eq!(window.places(), 1);
    }

    #[test]
    fn a_body_as_large_again_begins_the_minute_anew_and_is_forgotten_after_it() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        feed(&mut window, 500, 777, now);
        assert_eq!(feed(&mut window, 1, 8 << 20, now), [Change::Shrunk]);
        assert_eq!(feed(&mut window, 1, 8 << 20, now + STEADY / 2), []);
        assert_eq!(feed(&mut window, 500, 777, now + STEADY), []);
        assert_eq!(feed(&mut window, 500, 777, now + STEADY * 3 / 2), [Change::Grown; 2]);
        assert_eq!(window.places(), 308);
    }

    #[test]
    fn grows_no_further_than_what_fits() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        feed(&mut window, 1_000, 1 << 20, now);
        assert_eq!(window.places(), 160);
    }

    #[test]
    fn what_is_in_hand_counts_where_bodies_are_large() {
        let now = Instant::now();
        let mut window = Window::new(308, 160 * MIB, 16 * MIB);
        feed(&mut window, 10, 1 << 20, now);
        assert_eq!(window.places(), 40);
        // All that was taken waits for its receiver.
        let changes = |window: &mut Window, in_hand: usize| {
            (0..200).filter_map(|_| window.see(1 << 20, now, || in_hand)).collect::<Vec<_>>()
        };
        assert_eq!(changes(&mut window, 120), []);
        assert_eq!(changes(&mut window, 50), [Change::Grown]);
        assert_eq!(window.places(), 110);
        assert_eq!(changes(&mut window, 110), []);
        assert_eq!(changes(&mut window, 0), [Change::Grown]);
        assert_eq!(window.places(), 160);
    }

    #[test]
    fn channels_are_left_while_few_small_messages_are_in_hand() {
        let mut window = Window::new(100, 160 * MIB, MIB);
        assert!(window.may_be_doubled(1, 199) && window.may_be_doubled(4, 0));
        assert!(!window.may_be_doubled(1, 200), "three windows at the most");
        assert!(!window.may_be_doubled(5, 0));
        window.see(16 << 20, Instant::now(), || 0);
        assert!(!window.may_be_doubled(1, 1), "they are large");
    }

    #[test]
    fn one_message_is_always_taken() {
        assert_eq!(Window::new(1, 0, 16 * MIB).places(), 1);
        let mut window = Window::new(8, 1, 0);
        window.see(100, Instant::now(), || 0);
        assert_eq!(window.places(), 1);
    }

    proptest! {
        #[test]
        fn what_it_allows_fits_as_long_as_bodies_are_as_lately(
            share in 1_u16..2_000,
            bytes_max in 1_u64..(1 << 30),
            bodies in proptest::collection::vec((1_usize..(16 << 20), 0_u64..30, 0_usize..2_000), 1..300),
        ) {
            let mut window = Window::new(share, bytes_max, 16 * MIB);
            let mut now = Instant::now();
            for (body_bytes, pause_s, in_hand) in bodies {
                now += Duration::from_secs(pause_s);
                let before = window.places();
                let change = window.see(body_bytes, now, || in_hand);
                prop_assert!((1..=share).contains(&window.places()));
                prop_assert_eq!(change.is_some(), window.places() != before);
                let in_hand = if change == Some(Change::Grown) { in_hand as u64 } else { 0 };
                let is_within = (u64::from(window.places()) + in_hand) * body_bytes as u64 <= bytes_max;
                prop_assert!(is_within || window.places() == 1);
            }
        }
    }
}
