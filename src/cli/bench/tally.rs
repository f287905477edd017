//! What the receiver has counted since it was last asked to begin anew.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::event;
use super::histogram::Histogram;

/// Counts of deliveries, as they come.
pub(super) struct Tally {
    received: u64,
    /// The first delivery and the last.
    span: Option<(Instant, Instant)>,
    latency: Histogram,
}

/// The same, as it is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) received: u64,
    /// From the first delivery to the last.
    pub(super) span_us: u64,
    /// Publish to arrival.
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally { received: 0, span: None, latency: Histogram::new() }
    }

    /// Counts one delivery with this body.
    pub(super) fn count(&mut self, body: &[u8], at: Instant, now_us: u64) {
        self.received += 1;
        let (first, _) = self.span.unwrap_or((at, at));
        self.span = Some((first, at));
        if let Some(sent_us) = event::sent_us(body) {
            self.latency.add(now_us.saturating_sub(sent_us));
        }
    }

    pub(super) fn counted(&self) -> Counted {
        let span = self.span.map(|(first, last)| last.duration_since(first)).unwrap_or_default();
        Counted {
            received: self.received,
            span_us: u64::try_from(span.as_micros()).unwrap_or(u64::MAX),
            p50_us: self.latency.percentile_us(50),
            p99_us: self.latency.percentile_us(99),
        }
    }
}

impl Counted {
    /// Deliveries per second from the first to the last.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(super) fn per_second(&self) -> f64 {
        let intervals = self.received.saturating_sub(1) as f64;
        if self.span_us == 0 { 0.0 } else { intervals * 1e6 / self.span_us as f64 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn speed_is_taken_from_the_first_to_the_last() {
        let mut tally = Tally::new();
        let begun = Instant::now();
        for nth in 0..=10 {
            let at = begun + Duration::from_millis(nth * 100);
            tally.count(br#"{"data":{"sent_us":1000,"x":1}}"#, at, 1_500);
        }
        let counted = tally.counted();
        assert_eq!((counted.received, counted.span_us), (11, 1_000_000));
        assert!((counted.per_second() - 10.0).abs() < 1e-9);
        assert!(counted.p99_us.abs_diff(500) <= 5, "{counted:?}");
    }
}
