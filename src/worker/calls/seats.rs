//! Who has how many of something at this moment, and no more than that one may have.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many each has.
pub(super) struct Seats<K>(Mutex<HashMap<K, usize>>);

/// One of them; dropped, it is free again.
pub(super) struct Seat<'a, K: Eq + Hash>(&'a Seats<K>, K);

impl<K> Default for Seats<K> {
    fn default() -> Self {
        Seats(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Seats<K> {
    /// None where somebody has `max` of them.
    pub(super) fn take(&self, who: &K, max: usize) -> Option<Seat<'_, K>> {
        let mut taken = self.taken();
        let count = taken.entry(who.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat(self, who.clone()))
    }
}

impl<K> Seats<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Whole at every moment: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Seat<'_, K> {
    fn drop(&mut self) {
        let mut taken = self.0.taken();
        if let Some(count) = taken.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_that_and_what_is_given_back_is_free() {
        let seats = Seats::default();
        let two: Vec<_> = (0..3).filter_map(|_| seats.take(&"a", 2)).collect();
        assert_eq!((two.len(), seats.take(&"b", 2).is_some()), (2, true), "the other has its own");
        drop(two);
        assert!(seats.take(&"a", 1).is_some());
        assert!(seats.taken().is_empty(), "nobody who has none is remembered");
    }
}
