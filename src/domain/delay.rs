//! Waiting is done by the broker, in queues whose messages expire after 2^N units.
//!
//! A wait is paid off from the largest level downwards, one hop per binary digit, so a power of two takes
//! exactly one hop. This module only does the arithmetic; it knows neither queues nor how long a unit is.

/// How many delay levels there are: level N holds a message for 2^N units.
pub const LEVELS: u8 = 17;

/// The longest wait in units: one hop through every level.
pub const WAIT_MAX: u32 = (1 << LEVELS) - 1;

/// Splits `wait` units into the next level to go to and the units still to wait after it.
///
/// The level is the largest one that does not overshoot, so nothing is ever early or late by design.
/// `None` means there is nothing left to wait. Waits above [`WAIT_MAX`] (only a forged header holds one)
/// pass the top level several times.
pub fn hop(wait: u32) -> Option<(u8, u32)> {
    let level = wait.checked_ilog2()?.min(u32::from(LEVELS) - 1);
    Some((level as u8, wait - (1 << level)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every hop of a wait, as levels.
    fn levels(mut wait: u32) -> Vec<u8> {
        let mut levels = Vec::new();
        while let Some((level, rest)) = hop(wait) {
            levels.push(level);
            wait = rest;
        }
        levels
    }

    #[test]
    fn a_power_of_two_takes_exactly_one_hop() {
        for level in 0..LEVELS {
            assert_eq!(levels(1 << level), [level]);
        }
    }

    #[test]
    fn any_other_wait_takes_one_hop_per_binary_digit() {
        assert_eq!(levels(13), [3, 2, 0]);
        assert_eq!(levels(WAIT_MAX).len(), usize::from(LEVELS));
    }

    #[test]
    fn nothing_left_is_no_hop() {
        assert_eq!(hop(0), None);
    }

    #[test]
    fn a_wait_beyond_all_levels_still_ends() {
        assert_eq!(hop(WAIT_MAX + 1), Some((16, 65_536)));
        assert!(hop(u32::MAX).is_some_and(|(level, rest)| level == 16 && rest < u32::MAX));
    }

    proptest! {
        #[test]
        fn hops_add_up_to_the_wait(wait in 0..=WAIT_MAX) {
            prop_assert_eq!(levels(wait).iter().map(|level| 1_u32 << level).sum::<u32>(), wait);
        }

        #[test]
        fn each_hop_is_the_largest_that_does_not_overshoot(wait in 1..=WAIT_MAX) {
            let (level, rest) = hop(wait).unwrap();
            prop_assert!(level < LEVELS);
            prop_assert_eq!((1 << level) + rest, wait);
            prop_assert!(level + 1 == LEVELS || 1 << (level + 1) > wait);
        }
    }
}
