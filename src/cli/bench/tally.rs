//! What the receiver has counted since it was last asked to begin anew.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::event::Stamp;
use super::histogram::Histogram;

/// Events whose deliveries are told from repeated ones; larger numbers are not looked at.
const NUMBERS_MAX: u64 = 20_000_000;

/// Counts of the endpoints that are asked for, and of the bad one.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) good: Group,
    pub(super) bad: Group,
}

/// Counts of deliveries, as they come.
#[derive(Default)]
pub(super) struct Group {
    received: u64,
    repeated: u64,
    /// The first delivery and the last; of the first also the time of day.
    span: Option<(Instant, Instant)>,
    first_us: Option<u64>,
    latency: Option<Histogram>,
    /// A bit for each number that came, by path.
    seen: HashMap<Vec<u8>, Vec<u64>>,
    open: u64,
    open_max: u64,
}

/// The same, as it is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) good: Counts,
    pub(super) bad: Counts,
}

/// One group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) received: u64,
    /// Of these, those that had come before.
    pub(super) repeated: u64,
    /// When the first came, in Unix microseconds.
    pub(super) first_us: Option<u64>,
    /// From the first delivery to the last.
    pub(super) span_us: u64,
    /// Requests that waited for their answer at one moment, at most; none of endpoints that answer at once.
    pub(super) open_max: u64,
    /// Planned moment to arrival, if it was asked for.
    pub(super) latency: Vec<(usize, u32)>,
}

impl Tally {
    /// Forgets all but the requests that are open.
    pub(super) fn begin_anew(&mut self) {
        for group in [&mut self.good, &mut self.bad] {
            *group = Group { open: group.open, open_max: group.open, ..Group::default() };
        }
    }

    pub(super) fn counted(&self, with_latency: bool) -> Counted {
        Counted { good: self.good.counted(with_latency), bad: self.bad.counted(with_latency) }
    }
}

impl Group {
    /// Counts one delivery at this path.
    pub(super) fn count(&mut self, path: &str, stamp: Option<Stamp>, at: Instant, now_us: u64) {
        self.received += 1;
        let (first, _) = self.span.unwrap_or((at, at));
        self.span = Some((first, at));
        self.first_us.get_or_insert(now_us);
        let Some(Stamp { sent_us, number }) = stamp else { return };
        self.latency.get_or_insert_with(Histogram::new).add(now_us.saturating_sub(sent_us));
        if number < NUMBERS_MAX {
            self.repeated += u64::from(self.was_seen(path, number));
        }
    }

    /// A request waits for its answer.
    pub(super) fn open(&mut self) {
        self.open += 1;
        self.open_max = self.open_max.max(self.open);
    }

    /// It waits no longer.
    pub(super) fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn was_seen(&mut self, path: &str, number: u64) -> bool {
        // Looked up without a copy of the path: it is known for all but the first.
        if !self.seen.contains_key(path.as_bytes()) {
            self.seen.insert(path.as_bytes().to_vec(), Vec::new());
        }
        let Some(bits) = self.seen.get_mut(path.as_bytes()) else { return false };
        let (place, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
        if bits.len() <= place {
            bits.resize(place + 1, 0);
        }
        let was = bits[place] & bit != 0;
        bits[place] |= bit;
        was
    }

    fn counted(&self, with_latency: bool) -> Counts {
        let span = self.span.map(|(first, last)| last.duration_since(first)).unwrap_or_default();
        let latency = self.latency.as_ref().filter(|_| with_latency);
        Counts {
            received: self.received,
            repeated: self.repeated,
            first_us: self.first_us,
            span_us: u64::try_from(span.as_micros()).unwrap_or(u64::MAX),
            open_max: self.open_max,
            latency: latency.map(Histogram::filled).unwrap_or_default(),
        }
    }
}

impl Counts {
    /// Different deliveries.
    pub(super) fn distinct(&self) -> u64 {
        self.received.saturating_sub(self.repeated)
    }

    /// Deliveries per second from the first to the last.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(super) fn per_second(&self) -> Option<f64> {
        let intervals = self.received.saturating_sub(1) as f64;
        (self.span_us > 0).then(|| (intervals * 1e6 / self.span_us as f64).round())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn speed_is_taken_from_the_first_to_the_last() {
        let mut tally = Tally::default();
        let begun = Instant::now();
        for number in 0..=10 {
            let at = begun + Duration::from_millis(number * 100);
            tally.good.count("/good/at-once/0/0", Some(Stamp { sent_us: 1_000, number }), at, 1_500);
        }
        let counted = tally.counted(true);
        assert_eq!((counted.good.received, counted.good.span_us, counted.bad.received), (11, 1_000_000, 0));
        assert_eq!((counted.good.per_second(), counted.bad.per_second()), (Some(10.0), None));
        let p99_ms = Histogram::from_filled(&counted.good.latency).percentile_ms(99, 11);
        assert!((p99_ms - 0.5).abs() < 0.01, "{p99_ms}");
    }

    #[test]
    fn a_number_that_comes_to_the_same_path_again_is_repeated() {
        let mut group = Group::default();
        for (path, number) in [("/a", 7), ("/b", 7), ("/a", 700), ("/a", 7)] {
            group.count(path, Some(Stamp { sent_us: 0, number }), Instant::now(), 1);
        }
        let counts = group.counted(false);
        assert_eq!((counts.received, counts.repeated, counts.distinct()), (4, 1, 3));
    }

    #[test]
    fn what_is_open_outlives_a_new_beginning() {
        let mut tally = Tally::default();
        tally.bad.open();
        tally.bad.open();
        tally.bad.close();
        assert_eq!(tally.counted(false).bad.open_max, 2);
        tally.begin_anew();
        assert_eq!(tally.counted(false).bad.open_max, 1);
    }
}
