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

    /// The value that `percent` of all are not above; 0 where there are none.
    pub(super) fn percentile_us(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return highest_in(place as u64);
            }
        }
        0
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
        for (percent, expected) in [(1, 1_000), (50, 50_000), (99, 99_000), (100, 100_000)] {
            let got = histogram.percentile_us(percent);
            assert!(got.abs_diff(expected) * 100 <= expected, "p{percent}: {got}");
        }
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

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Histogram::new().percentile_us(99), 0);
    }
}
