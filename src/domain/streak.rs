//! An unbroken row of failed attempts of one subscription: when it is worth telling, and when it is enough.
//!
//! Several processes deliver to one subscription, so a row is put together of what each of them has [`Seen`],
//! a batch at a time. Time is an argument throughout, and the clocks it comes from may be wrong: a stamp that
//! cannot fit a row makes the row begin anew, or counts without moving its ends. What is in doubt lasts shorter.

use crate::domain::cause::Cause;

/// How far the clocks of two hosts may be apart, in milliseconds, and attempts end in another order than they were
/// noted.
const APART_MS: i64 = 60_000;

/// When a row of failures is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long nothing but failures came, in milliseconds; at least 1.
    pub after_ms: i64,
    /// How many failures there must be for anything to be said: a subscription that gets an event a day is not
    /// judged by the first two.
    pub failures_min: u64,
}

/// What one process saw of one subscription since it last told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The last success.
    pub delivered_ms: Option<i64>,
    /// The failures after it.
    pub failures: Option<Failures>,
    /// The receiver said 410, and its subscription wants to be disabled then: when the last such attempt began.
    pub gone_ms: Option<i64>,
}

/// Failures without a success between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    pub first_ms: i64,
    pub last_ms: i64,
    pub count: u64,
    /// Of the last one.
    pub cause: Cause,
    pub status: Option<u16>,
}

/// A row of failures that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    pub since_ms: i64,
    pub last_ms: i64,
    pub failures: u64,
    /// Somebody was told that it fails.
    pub is_told: bool,
}

/// What is to be done about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Nothing,
    /// Say that it fails: half of the time is over.
    Tell,
    Disable,
}

impl Seen {
    pub fn delivered(&mut self, at_ms: i64) {
        self.delivered_ms = Some(self.delivered_ms.map_or(at_ms, |known| known.max(at_ms)));
        self.failures = None;
    }

    pub fn failed(&mut self, at_ms: i64, cause: Cause, status: Option<u16>) {
        let one = Failures { first_ms: at_ms, last_ms: at_ms, count: 1, cause, status };
        self.failures = Some(match self.failures {
            Some(known) => known.and(&one),
            None => one,
        });
    }

    /// An attempt that began then was answered 410.
    pub fn gone(&mut self, begun_ms: i64) {
        self.gone_ms = self.gone_ms.max(Some(begun_ms));
    }

    /// This, and what was seen after it.
    #[must_use]
    pub fn then(mut self, later: Seen) -> Seen {
        self.gone_ms = self.gone_ms.max(later.gone_ms);
        if let Some(at_ms) = later.delivered_ms {
            self.delivered(at_ms);
        }
        if let Some(failures) = later.failures {
            self.failures = Some(self.failures.map_or(failures, |known| known.and(&failures)));
        }
        self
    }
}

impl Failures {
    fn and(self, later: &Failures) -> Failures {
        // Of one process and noted one after the other: its clock was set back.
        if later.last_ms < self.last_ms.saturating_sub(APART_MS) {
            return *later;
        }
        Failures {
            // Attempts end in another order than they begin.
            first_ms: self.first_ms.min(later.first_ms),
            last_ms: self.last_ms.max(later.last_ms),
            count: self.count.saturating_add(later.count),
            cause: later.cause,
            status: later.status,
        }
    }
}

impl Streak {
    /// The row after what was seen, none where it ended or never began.
    ///
    /// It begins anew where nothing was heard of it for as long as is enough, or where its last failure lies as far
    /// in the future of this one: either a clock was wrong, or nobody can say what was in between.
    #[must_use]
    pub fn after(before: Option<Streak>, seen: &Seen, rules: &Rules) -> Option<Streak> {
        let before = before.filter(|_| seen.delivered_ms.is_none());
        let Some(mut failures) = seen.failures else { return before };
        if failures.last_ms.saturating_sub(failures.first_ms) >= rules.after_ms {
            failures.first_ms = failures.last_ms;
        }
        let anew = Streak {
            since_ms: failures.first_ms,
            last_ms: failures.last_ms,
            failures: failures.count,
            // Whoever was told that it fails wants to hear that it is well again.
            is_told: before.is_some_and(|before| before.is_told),
        };
        let Some(before) = before else { return Some(anew) };
        let gap_ms = failures.first_ms.saturating_sub(before.last_ms);
        let back_ms = before.last_ms.saturating_sub(failures.last_ms);
        if gap_ms.max(back_ms) >= rules.after_ms {
            return Some(anew);
        }
        // By a host whose clock is behind: counted, and no reason to begin earlier.
        let earliest_ms = before.since_ms.saturating_sub(APART_MS.min(rules.after_ms / 10));
        let is_behind = failures.first_ms < earliest_ms;
        Some(Streak {
            since_ms: if is_behind { before.since_ms } else { before.since_ms.min(failures.first_ms) },
            last_ms: before.last_ms.max(failures.last_ms),
            failures: before.failures.saturating_add(failures.count),
            is_told: before.is_told,
        })
    }

    /// What is to be done about it now. Only failures bring this about: who gets no events is left alone.
    pub fn deed(&self, rules: &Rules) -> Deed {
        let lasted_ms = self.last_ms.saturating_sub(self.since_ms);
        if self.failures < rules.failures_min {
            Deed::Nothing
        } else if lasted_ms >= rules.after_ms {
            Deed::Disable
        } else if !self.is_told && lasted_ms >= rules.after_ms / 2 {
            Deed::Tell
        } else {
            Deed::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { after_ms: 1000, failures_min: 5 };
    /// Longer than any history here lasts.
    const PATIENT: Rules = Rules { after_ms: 100_000, failures_min: 5 };
    const HOUR_MS: i64 = 3_600_000;
    const DAY: Rules = Rules { after_ms: 24 * HOUR_MS, failures_min: 10 };

    fn streak(failures: u64, lasted_ms: i64) -> Streak {
        Streak { since_ms: 7, last_ms: 7 + lasted_ms, failures, is_told: false }
    }

    #[test]
    fn half_of_the_time_is_told_and_the_whole_is_enough() {
        assert_eq!(streak(5, 499).deed(&RULES), Deed::Nothing);
        assert_eq!(streak(5, 500).deed(&RULES), Deed::Tell);
        assert_eq!(Streak { is_told: true, ..streak(5, 500) }.deed(&RULES), Deed::Nothing);
        assert_eq!(Streak { is_told: true, ..streak(5, 1000) }.deed(&RULES), Deed::Disable);
        assert_eq!(streak(5, 1000).deed(&RULES), Deed::Disable);
    }

    #[test]
    fn a_handful_of_failures_is_the_least() {
        assert_eq!(streak(4, 100_000).deed(&RULES), Deed::Nothing);
    }

    fn failed_at(stamps: impl IntoIterator<Item = i64>) -> Seen {
        let mut seen = Seen::default();
        stamps.into_iter().for_each(|at_ms| seen.failed(at_ms, Cause::ServerError, Some(500)));
        seen
    }

    fn row(batches: impl IntoIterator<Item = Seen>) -> Streak {
        batches.into_iter().fold(None, |streak, seen| Streak::after(streak, &seen, &DAY)).unwrap()
    }

    #[test]
    fn a_clock_that_is_behind_moves_no_beginning() {
        let now_ms = 1_000 * HOUR_MS;
        let right = || failed_at(now_ms..now_ms + 20);
        for behind_ms in [2 * HOUR_MS, 23 * HOUR_MS, 25 * HOUR_MS, 900 * HOUR_MS] {
            let behind = || failed_at([now_ms - behind_ms]);
            let hour_on = failed_at([now_ms + HOUR_MS]);
            let row = row([right(), behind(), right(), behind(), hour_on]);
            assert!(row.since_ms >= now_ms, "{behind_ms}: {row:?}");
            assert_ne!(row.deed(&DAY), Deed::Disable);
        }
        // Attempts of several hosts come in another order by a moment.
        assert_eq!(row([right(), failed_at([now_ms - 40_000])]).since_ms, now_ms - 40_000);
    }

    #[test]
    fn a_clock_that_jumps_disables_nobody_and_is_forgotten() {
        let now_ms = 1_000 * HOUR_MS;
        let well = || failed_at(now_ms..now_ms + 20);
        let ahead_ms = now_ms + 700 * HOUR_MS;
        let jumped = || failed_at([ahead_ms]);
        assert_eq!(row([well(), jumped()]).deed(&DAY), Deed::Nothing);
        // Within what one process saw, to there and back.
        assert_eq!(row([failed_at((now_ms..now_ms + 20).chain([ahead_ms]))]).deed(&DAY), Deed::Nothing);
        assert_eq!(row([failed_at([ahead_ms].into_iter().chain(now_ms..now_ms + 20))]).since_ms, now_ms);
        let back = row([well(), jumped(), failed_at([now_ms + 50])]);
        assert_eq!((back.since_ms, back.last_ms, back.failures), (now_ms + 50, now_ms + 50, 1));
    }

    #[test]
    fn a_row_begins_anew_after_a_gap_and_whoever_was_told_stays_told() {
        let told = Streak { since_ms: 0, last_ms: 13 * HOUR_MS, failures: 99, is_told: true };
        let at = |at_ms| Streak::after(Some(told), &failed_at([at_ms]), &DAY).unwrap();
        assert_eq!((at(37 * HOUR_MS - 1).since_ms, at(37 * HOUR_MS - 1).deed(&DAY)), (0, Deed::Disable));
        let anew = at(37 * HOUR_MS);
        assert_eq!((anew.since_ms, anew.failures, anew.is_told), (37 * HOUR_MS, 1, true));
    }

    /// What happened to one subscription, at rising moments.
    fn history() -> impl Strategy<Value = Vec<(i64, bool)>> {
        let step = (0..400_i64, prop::bool::weighted(0.15));
        prop::collection::vec(step, 1..60).prop_map(|steps| {
            let mut now_ms = 0;
            steps
                .into_iter()
                .map(|(pause_ms, is_success)| {
                    now_ms += pause_ms;
                    (now_ms, is_success)
                })
                .collect()
        })
    }

    fn note(seen: &mut Seen, (at_ms, is_success): (i64, bool)) {
        match is_success {
            true => seen.delivered(at_ms),
            false => seen.failed(at_ms, Cause::ServerError, Some(500)),
        }
    }

    /// The row as somebody would count it who sees everything at once.
    fn counted(history: &[(i64, bool)]) -> Option<(i64, i64, u64)> {
        let after = history.iter().rposition(|(_, is_success)| *is_success).map_or(0, |place| place + 1);
        let row = &history[after..];
        Some((row.first()?.0, row.last()?.0, row.len() as u64))
    }

    fn told(streak: Option<Streak>) -> Option<(i64, i64, u64)> {
        streak.map(|streak| (streak.since_ms, streak.last_ms, streak.failures))
    }

    proptest! {
        #[test]
        fn no_stamp_of_a_wrong_clock_makes_a_row_older_than_what_the_right_one_saw(
            behind_ms in 1..2_000 * HOUR_MS,
            stamps in prop::collection::vec((0..2000_i64, prop::bool::weighted(0.2)), 1..60),
        ) {
            let start_ms = 5_000 * HOUR_MS;
            let (mut now_ms, mut streak) = (start_ms, None);
            for (pause_ms, is_behind) in stamps {
                now_ms += pause_ms;
                let stamp_ms = if is_behind && streak.is_some() { now_ms - behind_ms } else { now_ms };
                streak = Streak::after(streak, &failed_at([stamp_ms]), &DAY);
                prop_assert_ne!(streak.unwrap().deed(&DAY), Deed::Disable);
            }
        }

        #[test]
        fn however_it_is_cut_into_batches_the_row_is_the_same(
            history in history(),
            cuts in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut streak = None;
            let mut batch = Seen::default();
            for (step, is_cut) in history.iter().zip(&cuts) {
                note(&mut batch, *step);
                if *is_cut {
                    streak = Streak::after(streak, &std::mem::take(&mut batch), &PATIENT);
                }
            }
            streak = Streak::after(streak, &batch, &PATIENT);
            prop_assert_eq!(told(streak), counted(&history));
        }

        #[test]
        fn what_could_not_be_written_loses_nothing_when_it_is_put_before_what_came_since(
            history in history(),
            cut in 0..60_usize,
        ) {
            let (before, after) = history.split_at(cut.min(history.len()));
            let of = |part: &[(i64, bool)]| {
                let mut seen = Seen::default();
                part.iter().for_each(|step| note(&mut seen, *step));
                seen
            };
            prop_assert_eq!(of(before).then(of(after)), of(&history));
        }

        #[test]
        fn nothing_is_disabled_that_was_delivered_to_within_the_time(history in history()) {
            let mut streak = None;
            for step in 0..history.len() {
                let mut seen = Seen::default();
                note(&mut seen, history[step]);
                streak = Streak::after(streak, &seen, &RULES);
                let deed = streak.map_or(Deed::Nothing, |streak| streak.deed(&RULES));
                let now_ms = history[step].0;
                let known = &history[..=step];
                let lately = |(at_ms, is_success): &(i64, bool)| *is_success && now_ms - at_ms < RULES.after_ms;
                let row = counted(known);
                let is_enough = row.is_some_and(|(first_ms, last_ms, count)| {
                    count >= RULES.failures_min && last_ms - first_ms >= RULES.after_ms
                });
                prop_assert_eq!(deed == Deed::Disable, is_enough);
                prop_assert!(deed != Deed::Disable || !known.iter().any(lately));
            }
        }
    }
}
