//! Times counted in buckets, each at most 1/128 wide of its value: bounded memory, any number of values.

/// Buckets per power of two.
const STEPS: u64 = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Powers of two above the first exact buckets; what is larger (about an hour in µs) counts as the largest.
const POWERS: u64 = 25;
const BUCKETS: usize = (STEPS * (POWERS + 1)) as usize;

/// A histogram of microseconds.
pub(super) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], total: 0 }
    }

    pub(super) fn add(&mut self, value_us: u64) {
        self.counts[bucket(value_us)] += 1;
        self.total += 1;
    }

    /// The buckets that hold something, to be sent elsewhere.
    pub(super) fn filled(&self) -> Vec<(usize, u32)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(place, count)| (place, *count)).collect()
    }

    /// What was sent.
    pub(super) fn from_filled(filled: &[(usize, u32)]) -> Histogram {
        let mut histogram = Histogram::new();
        for (place, count) in filled {
            histogram.counts[(*place).min(BUCKETS - 1)] += count;
            histogram.total += u64::from(*count);
        }
        histogram
    }

    /// The value in ms that `percent` of `wanted` values are not above. Values that are wanted and not here never
    /// came: infinite, where they are too many.
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^52")]
    pub(super) fn percentile_ms(&self, percent: u64, wanted: u64) -> f64 {
        let wanted = (wanted.max(self.total) * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return highest_in(place as u64) as f64 / 1000.0;
            }
        }
        f64::INFINITY
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let power = value.ilog2() - STEP_BITS;
    let place = STEPS * (u64::from(power) + 1) + ((value >> power) - STEPS);
    (place as usize).min(BUCKETS - 1)
}

fn highest_in(place: u64) -> u64 {
    if place < STEPS {
        return place;
    }
    let power = place / STEPS - 1;
    ((place % STEPS + STEPS + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_hundredth() {
        let mut histogram = Histogram::new();
        (1..=10_000).for_each(|value| histogram.add(value * 10));
        let sent = Histogram::from_filled(&histogram.filled());
        for (percent, expected_ms) in [(1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            let got_ms = sent.percentile_ms(percent, 10_000);
            assert!((got_ms - expected_ms).abs() <= expected_ms / 100.0, "p{percent}: {got_ms}");
        }
    }

    #[test]
    fn what_never_came_is_later_than_all_that_came() {
        let mut histogram = Histogram::new();
        (0..98).for_each(|_| histogram.add(10));
        assert!(histogram.percentile_ms(98, 100) < 1.0);
        assert!(histogram.percentile_ms(99, 100).is_infinite());
        assert!(Histogram::new().percentile_ms(50, 0).is_infinite());
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..5_000).chain([1 << 20, (1 << 31) + 12_345]) {
            let place = bucket(value) as u64;
            assert!(value <= highest_in(place), "{value}");
            assert!(place == 0 || value > highest_in(place - 1), "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
