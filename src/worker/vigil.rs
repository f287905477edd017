//! Notes in memory which subscriptions fail, and that one which is known to fail was delivered to.
//!
//! Whoever keeps the rows of failures takes what was noted about once a second. A success of a subscription that
//! nobody knows as failing is one load, unless it is that of a retry: no lock, no allocation. Those that are known stand in a table of flags by a
//! hash of their id; two that share a flag cost a look at the lock and nothing else.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::name::SubscriptionId;
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::retry::OnGone;
use crate::domain::statuses::Seen as Status;
use crate::domain::streak::Seen;
use crate::domain::subscription::Subscription;

/// A power of two.
const FLAGS: usize = 4096;

/// What was noted since it was last taken; shared by everything that delivers.
#[derive(Debug)]
pub struct Vigil {
    /// Whether rows of failures are counted; else only what is gone is noted.
    counts: bool,
    /// Whether any flag is up.
    is_any: AtomicBool,
    flags: Box<[AtomicBool]>,
    seen: Mutex<BTreeMap<SubscriptionId, Seen>>,
}

impl Vigil {
    pub fn new(counts: bool) -> Vigil {
        let flags = (0..FLAGS).map(|_| AtomicBool::new(false)).collect();
        Vigil { counts, is_any: AtomicBool::new(false), flags, seen: Mutex::default() }
    }

    /// A subscription was delivered to, by this attempt, counted from 1.
    pub(super) fn delivered(&self, subscription: &Subscription, attempt: u32, at_ms: i64) {
        // A retry follows a failure, which another process may have seen too lately for it to be known here.
        // Whoever raises a flag later than this load saw a failure later than this success.
        let is_retry = attempt > 1 && self.counts;
        let is_known =
            || self.is_any.load(Ordering::Relaxed) && self.flag(&subscription.id).load(Ordering::Relaxed);
        if is_retry || is_known() {
            self.seen().entry(subscription.id.clone()).or_default().delivered(at_ms);
        }
    }

    /// An attempt failed that counts.
    pub(super) fn failed(&self, subscription: &Subscription, outcome: &Outcome, answer: &Answer, at_ms: i64) {
        let is_gone =
            matches!(outcome, Outcome::Gone { .. }) && subscription.retry.on_gone == OnGone::Disable;
        if !self.counts && !is_gone {
            return;
        }
        let mut seen = self.seen();
        let one = seen.entry(subscription.id.clone()).or_default();
        if is_gone {
            one.gone(at_ms.saturating_sub_unsigned(answer.elapsed_ms));
        }
        if self.counts {
            let status = match answer.seen {
                Status::Status(status) => Some(status),
                Status::Failure(_) => None,
            };
            one.failed(at_ms, answer.cause(), status);
            self.raise(&subscription.id);
        }
    }

    /// What was noted since the last time.
    pub fn take(&self) -> BTreeMap<SubscriptionId, Seen> {
        std::mem::take(&mut self.seen())
    }

    /// Puts back what could not be written, before what was noted meanwhile.
    pub fn put_back(&self, earlier: BTreeMap<SubscriptionId, Seen>) {
        let mut seen = self.seen();
        for (id, earlier) in earlier {
            let later = seen.remove(&id).unwrap_or_default();
            seen.insert(id, earlier.then(later));
        }
    }

    /// These are known to fail, by any process, and nobody else but who failed here since.
    pub fn know(&self, failing: &[SubscriptionId]) {
        // Under the lock nobody notes a failure whose flag could be missed.
        let seen = self.seen();
        let mut wanted = vec![false; FLAGS];
        for id in failing.iter().chain(seen.keys()) {
            wanted[place(id)] = true;
        }
        for (flag, wanted) in self.flags.iter().zip(&wanted) {
            flag.store(*wanted, Ordering::Relaxed);
        }
        self.is_any.store(wanted.contains(&true), Ordering::Relaxed);
    }

    fn raise(&self, id: &SubscriptionId) {
        self.flag(id).store(true, Ordering::Relaxed);
        self.is_any.store(true, Ordering::Relaxed);
    }

    fn flag(&self, id: &SubscriptionId) -> &AtomicBool {
        &self.flags[place(id)]
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<SubscriptionId, Seen>> {
        // Whole at every moment: a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(id: &SubscriptionId) -> usize {
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    usize::try_from(hasher.finish() % FLAGS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::cause::Cause;
    use crate::domain::spec::SubscriptionSpec;

    fn subscription(id: &str, on_gone: &str) -> Subscription {
        let document = json!({
            "id": id, "tenant": "acme", "events": ["#"], "signatures": [],
            "request": {"url": "https://h.example/x"}, "retry": {"on_gone": on_gone},
        });
        SubscriptionSpec::read(document).unwrap().check().unwrap()
    }

    fn fail(vigil: &Vigil, subscription: &Subscription, status: u16, at_ms: i64) {
        let answer = Answer {
            seen: Status::Status(status),
            cause: None,
            retry_after: None,
            elapsed_ms: 1,
            excerpt: Vec::new(),
            is_our_fault: false,
            whole: None,
        };
        let outcome = Outcome::judge(&subscription.success, &answer);
        vigil.failed(subscription, &outcome, &answer, at_ms);
    }

    #[test]
    fn a_success_of_whoever_does_not_fail_costs_nothing_and_leaves_nothing() {
        let (well, ill) = (subscription("sub_1", "dead"), subscription("sub_2", "dead"));
        let vigil = Vigil::new(true);
        let count = || {
            let used =
                allocation_counter::measure(|| (0..1000).for_each(|at_ms| vigil.delivered(&well, 1, at_ms)));
            used.count_total
        };
        assert_eq!(count(), 0);
        fail(&vigil, &ill, 500, 1);
        assert_eq!(count(), 0, "also while others fail");
        assert_eq!(vigil.take().keys().map(SubscriptionId::as_str).collect::<Vec<_>>(), ["sub_2"]);
    }

    #[test]
    fn a_success_ends_what_failed_here_and_what_fails_elsewhere() {
        let (here, there) = (subscription("sub_1", "dead"), subscription("sub_2", "dead"));
        let vigil = Vigil::new(true);
        fail(&vigil, &here, 503, 1);
        vigil.delivered(&here, 1, 2);
        vigil.delivered(&there, 1, 3);
        let seen = vigil.take();
        assert_eq!((seen.len(), seen[&here.id].delivered_ms, seen[&here.id].failures), (1, Some(2), None));
        vigil.know(std::slice::from_ref(&there.id));
        vigil.delivered(&here, 1, 4);
        vigil.delivered(&there, 1, 5);
        let seen = vigil.take();
        assert_eq!((seen.len(), seen[&there.id].delivered_ms), (1, Some(5)));
    }

    #[test]
    fn a_success_of_a_retry_is_noted_whatever_is_known_where_rows_are_counted() {
        let there = subscription("sub_1", "dead");
        let vigil = Vigil::new(true);
        vigil.delivered(&there, 2, 5);
        assert_eq!(vigil.take()[&there.id].delivered_ms, Some(5));
        let vigil = Vigil::new(false);
        vigil.delivered(&there, 2, 5);
        assert!(vigil.take().is_empty());
    }

    #[test]
    fn what_failed_since_stays_known_whatever_the_store_says() {
        let ill = subscription("sub_1", "dead");
        let vigil = Vigil::new(true);
        fail(&vigil, &ill, 500, 1);
        vigil.know(&[]);
        vigil.delivered(&ill, 1, 2);
        assert_eq!(vigil.take()[&ill.id].delivered_ms, Some(2));
    }

    #[test]
    fn what_is_put_back_stands_before_what_came_since() {
        let ill = subscription("sub_1", "dead");
        let vigil = Vigil::new(true);
        fail(&vigil, &ill, 500, 1);
        let earlier = vigil.take();
        fail(&vigil, &ill, 404, 2);
        vigil.put_back(earlier);
        let failures = vigil.take()[&ill.id].failures.unwrap();
        assert_eq!((failures.first_ms, failures.count, failures.cause), (1, 2, Cause::NotFound));
    }

    #[test]
    fn gone_is_noted_for_those_that_want_to_be_disabled_then_and_nothing_else_where_nobody_counts() {
        let vigil = Vigil::new(false);
        fail(&vigil, &subscription("sub_1", "disable"), 410, 7);
        fail(&vigil, &subscription("sub_2", "dead"), 410, 1);
        fail(&vigil, &subscription("sub_3", "disable"), 500, 1);
        let seen = vigil.take();
        assert_eq!(seen.len(), 1);
        let only = seen.values().next().unwrap();
        assert_eq!((only.gone_ms, only.failures), (Some(6), None), "when the attempt began");
    }
}
