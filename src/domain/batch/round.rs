//! Rounds: when it is sure that no document of a batch still waits unrecorded.
//!
//! A batch may be closed only after everything that was published before it was due has been recorded. What still
//! waits in the queue can be asked of RabbitMQ; what workers have in hand cannot. So whoever sweeps holds a round:
//!
//! 1. **Calling**: every worker says that it has heard of the round. From then on it notices whether it gives anything
//!    back, or loses a consumer: then it spoils the round, because what went back is somebody else's now.
//! 2. The queue is seen empty, and nobody has come meanwhile who could have taken the last of it. Whatever was
//!    published before is recorded, or in the hand of a worker that has heard.
//! 3. **Watching**: every worker that has been awake for a while since ([`Passage`]) and has recorded what it had in
//!    hand says that it is through. Once all are, the batches that were due at step 2 may be closed.
//!
//! A worker that falls silent is waited for as long as RabbitMQ counts more consumers than those of the others: it may
//! be frozen with messages in hand. When they are gone, RabbitMQ has put what it had back into the queue in the same
//! step, and a new round begins. Nothing here compares the clocks of two machines.
//!
//! RabbitMQ also answers "no message, no consumer" of a quorum queue whose leader does not reply in time. So fewer
//! consumers than those of the workers that answer say nothing, and where there are none the queue must be seen empty
//! again and again.

use std::collections::BTreeMap;

/// A worker whose answers do not change for this long while a round goes on is silent.
pub const SILENT_MS: i64 = 3_000;
/// For how long consumers must be those of the others until a silent worker is taken for gone: longer than what the
/// others have told of theirs can be old.
pub const GONE_MS: i64 = 4_000;
const _: () = assert!(GONE_MS > SILENT_MS, "a consumer that is gone already would hide one that is there");
/// How often, and for how long, a queue without consumers must be seen empty.
pub const EMPTY_TIMES: u32 = 4;
pub const EMPTY_MS: i64 = 1_500;
/// A silent worker is taken for gone after this long, whatever RabbitMQ says: somebody else may be looking into the
/// queue, and RabbitMQ itself ends a connection without heartbeats much sooner.
pub const GIVEN_UP_MS: i64 = 120_000;
/// How long a worker watches before it says that it is through: what RabbitMQ had sent it has arrived by then, and it
/// would know of a dead channel.
pub const CALM_MS: i64 = 1_250;
/// A worker that was not awake for longer than this begins to watch anew.
pub const STALL_MS: i64 = 600;

/// What a worker has answered: the last round it has heard of, is through with, has spoiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub heard: i64,
    pub through: i64,
    pub spoiled: i64,
}

/// A worker as whoever sweeps sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRow {
    pub process: String,
    pub standing: Standing,
    /// How many consumers of the events it had at its last answer.
    pub consumers: u32,
    /// Rises with every answer.
    pub beat: i64,
}

/// What RabbitMQ says of the queue of events, both of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub ready: u32,
    pub consumers: u32,
}

/// How things stand, in the order in which it was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub workers: &'a [WorkerRow],
    /// Something that was put off unrecorded may still come back, of a worker that need not be there any more.
    pub is_held: bool,
    pub depth: Depth,
    /// The workers once more.
    pub later: &'a [WorkerRow],
}

/// A round as whoever sweeps holds it. Its times are of one clock that never goes back.
#[derive(Clone, Debug)]
pub struct Round {
    pub number: i64,
    is_watching: bool,
    /// Those who must be through, each with its last beat and when that was new.
    workers: BTreeMap<String, (i64, i64)>,
    /// Since when RabbitMQ has counted no more consumers than those of workers that answer.
    alone_since_ms: Option<i64>,
    /// How often in a row the queue was seen empty and without consumers, and since when.
    empty: Option<(u32, i64)>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again soon.
    Wait,
    /// All have heard and the queue is empty: have them watch.
    Watch,
    /// All are through: what was due when they began to watch may be closed.
    Close,
    /// Something went back to the queue: begin anew.
    Anew,
    /// These workers are gone: forget them and begin anew.
    Forget(Vec<String>),
}

impl Round {
    /// A round that has just begun.
    pub fn new(number: i64, workers: &[WorkerRow], now_ms: i64) -> Round {
        let workers = workers.iter().map(|worker| (worker.process.clone(), (worker.beat, now_ms)));
        Round { number, is_watching: false, workers: workers.collect(), alone_since_ms: None, empty: None }
    }

    /// Whether what was due when the queue was first seen empty is what may be closed: it is being seen again.
    pub fn is_seeing_again(&self) -> bool {
        self.empty.is_some()
    }

    /// What follows from how things stand.
    pub fn judge(&mut self, sight: Sight<'_>, now_ms: i64) -> Next {
        let Sight { workers: rows, is_held, depth, later } = sight;
        let row = |process: &str| rows.iter().find(|row| row.process == process);
        // One that has come meanwhile takes only what is in the queue by now.
        if !self.is_watching {
            for new in rows {
                self.workers.entry(new.process.clone()).or_insert((new.beat, now_ms));
            }
        }
        let mut silent = Vec::new();
        for (process, (beat, since_ms)) in &mut self.workers {
            // It ended and gave back what it had not started.
            let Some(row) = row(process) else { return Next::Anew };
            if row.standing.spoiled >= self.number {
                return Next::Anew;
            }
            if *beat != row.beat {
                (*beat, *since_ms) = (row.beat, now_ms);
            }
            if now_ms - *since_ms > SILENT_MS {
                silent.push((process.clone(), *since_ms));
            }
        }
        if !silent.is_empty() {
            self.empty = None;
            if self.is_watching {
                // Those that came meanwhile belong to the next round: only there can consumers be told apart.
                return Next::Anew;
            }
            return self.judge_silent(silent, rows, depth, now_ms);
        }
        self.alone_since_ms = None;
        let all = |done: fn(&Standing) -> i64| {
            self.workers
                .keys()
                .all(|process| row(process).is_some_and(|row| done(&row.standing) >= self.number))
        };
        if self.is_watching {
            return if all(|standing| standing.through) { Next::Close } else { Next::Wait };
        }
        // It may have taken the last of the queue before that was seen empty.
        let is_joined = later.iter().any(|new| row(&new.process).is_none());
        if is_held || is_joined || !all(|standing| standing.heard) {
            self.empty = None;
            return Next::Wait;
        }
        if !self.is_empty(rows, depth, now_ms) {
            return Next::Wait;
        }
        self.is_watching = true;
        Next::Watch
    }

    /// Says whether the queue is empty, as far as RabbitMQ is to be believed.
    fn is_empty(&mut self, rows: &[WorkerRow], depth: Depth, now_ms: i64) -> bool {
        let theirs: u32 = rows.iter().map(|row| row.consumers).sum();
        if depth.ready > 0 || depth.consumers < theirs {
            self.empty = None;
            return false;
        }
        if depth.consumers > 0 {
            self.empty = None;
            return true;
        }
        let (times, since_ms) = self.empty.get_or_insert((0, now_ms));
        *times += 1;
        *times >= EMPTY_TIMES && now_ms - *since_ms >= EMPTY_MS
    }

    fn judge_silent(
        &mut self,
        silent: Vec<(String, i64)>,
        rows: &[WorkerRow],
        depth: Depth,
        now_ms: i64,
    ) -> Next {
        let speaking = |row: &&WorkerRow| {
            self.workers.get(&row.process).is_some_and(|(_, since_ms)| now_ms - since_ms <= SILENT_MS)
        };
        let theirs: u32 = rows.iter().filter(speaking).map(|row| row.consumers).sum();
        // Fewer is no answer, more may be those of the silent.
        if depth.consumers == theirs {
            self.alone_since_ms.get_or_insert(now_ms);
        } else {
            self.alone_since_ms = None;
        }
        let is_gone = self.alone_since_ms.is_some_and(|alone_ms| now_ms - alone_ms >= GONE_MS);
        let is_given_up = |since_ms: &i64| is_gone || now_ms - since_ms > GIVEN_UP_MS;
        let gone = silent.into_iter().filter(|(_, since_ms)| is_given_up(since_ms));
        let gone: Vec<String> = gone.map(|(process, _)| process).collect();
        if gone.is_empty() { Next::Wait } else { Next::Forget(gone) }
    }
}

/// What a worker sees of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// How often it gave something back or lost a consumer.
    pub turns: u64,
    /// The number that the next recording will have.
    pub next: u64,
    /// The lowest number of a recording that is still under way.
    pub oldest: Option<u64>,
    /// It has put something unrecorded off that may come back until then.
    pub held_until_ms: Option<i64>,
}

/// A worker's part in rounds. Its times are of one clock that never goes back.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    standing: Standing,
    /// Its turns when it heard of the round.
    turns: u64,
    /// Since when it has been watching, awake.
    calm_since_ms: Option<i64>,
    /// What must be recorded, once that is sure.
    until: Option<u64>,
    last_ms: Option<i64>,
}

impl Passage {
    /// Looks at the round that is under way, often; what it answers by now.
    pub fn look(&mut self, round: Option<(i64, bool)>, view: View, now_ms: i64) -> Standing {
        let was_asleep = self.last_ms.is_none_or(|last_ms| now_ms - last_ms > STALL_MS);
        self.last_ms = Some(now_ms);
        let Some((number, is_watching)) = round else {
            self.calm_since_ms = None;
            return self.standing;
        };
        if self.standing.heard != number {
            self.standing.heard = number;
            (self.turns, self.calm_since_ms, self.until) = (view.turns, None, None);
            // It began to watch without us: nobody waits for our answer.
            if is_watching {
                self.standing.spoiled = number;
            }
            return self.standing;
        }
        if self.turns != view.turns {
            self.standing.spoiled = number;
        }
        if !is_watching || self.standing.spoiled == number || self.standing.through == number {
            return self.standing;
        }
        if was_asleep && self.until.is_none() {
            self.calm_since_ms = None;
        }
        let calm_since_ms = *self.calm_since_ms.get_or_insert(now_ms);
        if now_ms - calm_since_ms < CALM_MS {
            return self.standing;
        }
        let until = *self.until.get_or_insert(view.next);
        let is_recorded = view.oldest.is_none_or(|oldest| oldest >= until);
        let is_held = view.held_until_ms.is_some_and(|held_ms| held_ms > now_ms);
        if is_recorded && !is_held {
            self.standing.through = number;
        }
        self.standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(process: &str, heard: i64, through: i64, beat: i64) -> WorkerRow {
        let standing = Standing { heard, through, spoiled: 0 };
        WorkerRow { process: process.into(), standing, consumers: 1, beat }
    }

    fn depth(ready: u32, consumers: u32) -> Depth {
        Depth { ready, consumers }
    }

    /// Nobody has come meanwhile.
    fn judge(round: &mut Round, rows: &[WorkerRow], depth: Depth, now_ms: i64) -> Next {
        round.judge(Sight { workers: rows, is_held: false, depth, later: rows }, now_ms)
    }

    #[test]
    fn a_round_closes_once_the_queue_was_empty_and_all_are_through() {
        let mut round = Round::new(7, &[worker("a", 0, 0, 0), worker("b", 0, 0, 0)], 0);
        let both = |heard, through| [worker("a", 7, 7, 1), worker("b", heard, through, 1)];
        assert_eq!(judge(&mut round, &both(6, 6), depth(0, 2), 100), Next::Wait, "one has not heard");
        assert_eq!(
            judge(&mut round, &both(7, 6), depth(1, 2), 200),
            Next::Wait,
            "something waits in the queue"
        );
        assert_eq!(judge(&mut round, &both(7, 6), depth(0, 2), 300), Next::Watch);
        assert_eq!(judge(&mut round, &both(7, 6), depth(0, 2), 400), Next::Wait, "one is not through");
        assert_eq!(
            judge(&mut round, &both(7, 7), depth(9, 2), 500),
            Next::Close,
            "what came later is of no concern"
        );
    }

    #[test]
    fn what_goes_back_to_the_queue_begins_it_anew() {
        let mut round = Round::new(7, &[worker("a", 0, 0, 0), worker("b", 0, 0, 0)], 0);
        assert_eq!(judge(&mut round, &[worker("a", 7, 0, 1)], depth(0, 1), 100), Next::Anew, "one ended");
        let mut spoiled = worker("b", 7, 0, 1);
        spoiled.standing.spoiled = 7;
        assert_eq!(judge(&mut round, &[worker("a", 7, 0, 1), spoiled], depth(0, 2), 100), Next::Anew);
    }

    #[test]
    fn a_silent_worker_is_waited_for_while_rabbitmq_counts_its_consumer() {
        let rows = |beat| [worker("a", 7, 0, beat), worker("b", 0, 0, 0), worker("c", 0, 0, 0)];
        let mut round = Round::new(7, &rows(0), 0);
        let mut at = |ms: i64, consumers| judge(&mut round, &rows(ms), depth(0, consumers), ms);
        assert_eq!(at(3_000, 2), Next::Wait);
        // Frozen: its consumer is there for as long as its connection.
        for ms in (3_500..60_000).step_by(500) {
            assert_eq!(at(ms, 2), Next::Wait);
        }
        // Its connection ends: only then, and only when that has lasted.
        assert_eq!(at(60_000, 1), Next::Wait);
        assert_eq!(at(61_000, 2), Next::Wait);
        assert_eq!(at(61_500, 1), Next::Wait);
        // No answer of RabbitMQ's.
        assert_eq!(at(63_000, 0), Next::Wait);
        assert_eq!(at(63_500, 1), Next::Wait);
        assert_eq!(at(67_499, 1), Next::Wait);
        assert_eq!(at(67_500, 1), Next::Forget(vec!["b".into(), "c".into()]));
    }

    #[test]
    fn a_silent_worker_is_given_up_in_the_end() {
        let mut round = Round::new(7, &[worker("a", 0, 0, 0)], 0);
        let mut at = |ms| judge(&mut round, &[worker("a", 0, 0, 0)], depth(0, 1), ms);
        assert_eq!((at(119_000), at(121_000)), (Next::Wait, Next::Forget(vec!["a".into()])));
    }

    #[test]
    fn one_that_falls_silent_while_it_watches_begins_it_anew() {
        let mut round = Round::new(7, &[worker("a", 0, 0, 0)], 0);
        let row = [worker("a", 7, 0, 1)];
        assert_eq!(judge(&mut round, &row, depth(0, 1), 100), Next::Watch);
        assert_eq!(judge(&mut round, &row, depth(0, 1), 3_101), Next::Anew);
    }

    #[test]
    fn a_worker_that_is_frozen_is_not_hidden_by_what_another_told_before_it_fell_silent() {
        // The consumer of `a` goes after its last answer, at 3 s; the one that RabbitMQ counts then is that of `b`.
        let rows = |beat| [worker("a", 7, 0, beat), worker("b", 7, 0, 0)];
        let mut round = Round::new(7, &rows(0), 0);
        for ms in (0..60_000).step_by(100) {
            let counted = if ms <= 3_000 { 2 } else { 1 };
            let next = judge(&mut round, &rows(ms.min(3_000)), depth(1, counted), ms);
            assert_eq!(next, Next::Wait, "{ms}");
        }
    }

    #[test]
    fn fewer_consumers_than_those_of_the_workers_are_no_answer() {
        let rows = [worker("a", 7, 0, 1), worker("b", 7, 0, 1)];
        let mut round = Round::new(7, &rows, 0);
        for ms in (0..2_900).step_by(100) {
            assert_eq!(judge(&mut round, &rows, depth(0, if ms % 200 == 0 { 0 } else { 1 }), ms), Next::Wait);
        }
        assert_eq!(judge(&mut round, &rows, depth(0, 2), 2_900), Next::Watch);
    }

    #[test]
    fn without_consumers_the_queue_must_be_seen_empty_again_and_again() {
        let idle = WorkerRow { consumers: 0, ..worker("a", 7, 0, 1) };
        for rows in [vec![], vec![idle]] {
            let mut round = Round::new(7, &rows, 0);
            let mut at = |ms, ready| judge(&mut round, &rows, depth(ready, 0), ms);
            assert_eq!((at(100, 0), at(600, 0), at(1_000, 0)), (Next::Wait, Next::Wait, Next::Wait));
            assert_eq!(at(1_100, 1), Next::Wait, "it was not");
            for ms in [1_200, 1_300, 1_400, 1_500, 2_699] {
                assert_eq!(at(ms, 0), Next::Wait);
            }
            assert_eq!(at(2_700, 0), Next::Watch);

            let mut round = Round::new(7, &rows, 0);
            let mut at = |ms| judge(&mut round, &rows, depth(0, 0), ms);
            assert_eq!((at(0), at(2_000), at(2_500)), (Next::Wait, Next::Wait, Next::Wait), "seldom");
            assert_eq!(at(2_900), Next::Watch);
        }
        let mut round = Round::new(7, &[], 0);
        let nobody: Vec<Next> = (0..12).map(|n| judge(&mut round, &[], depth(0, 0), n * 150)).collect();
        assert_eq!(nobody.last(), Some(&Next::Close));
    }

    #[test]
    fn one_that_comes_while_the_queue_is_looked_at_may_have_taken_the_last_of_it() {
        let (old, new) = (worker("a", 7, 0, 1), worker("b", 0, 0, 0));
        let both = [old.clone(), new.clone()];
        for before in [&both[..1], &both[..0]] {
            let mut round = Round::new(7, before, 0);
            for ms in (0..2_000).step_by(100) {
                let depth = depth(0, 2);
                let sight = Sight { workers: before, is_held: false, depth, later: &both };
                assert_eq!(round.judge(sight, ms), Next::Wait);
            }
        }
        // It is waited for as soon as it is known.
        let mut round = Round::new(7, &both[..1], 0);
        assert_eq!(judge(&mut round, &both, depth(0, 2), 100), Next::Wait);
        assert_eq!(judge(&mut round, &[old, worker("b", 7, 0, 1)], depth(0, 2), 200), Next::Watch);
    }

    #[test]
    fn what_a_worker_put_off_is_waited_for_after_its_end() {
        let rows = [worker("a", 7, 0, 1)];
        let mut round = Round::new(7, &rows, 0);
        let mut at = |ms, is_held| {
            round.judge(Sight { workers: &rows, is_held, depth: depth(0, 1), later: &rows }, ms)
        };
        assert_eq!((at(100, true), at(200, true), at(300, false)), (Next::Wait, Next::Wait, Next::Watch));
    }

    const NOTHING: View = View { turns: 4, next: 10, oldest: None, held_until_ms: None };

    /// Looks every 200 ms from `from_ms` on while the round is watched; when it was through.
    fn through_at(passage: &mut Passage, from_ms: i64, view: impl Fn(i64) -> View) -> Option<i64> {
        (from_ms..from_ms + 10_000)
            .step_by(200)
            .find(|ms| passage.look(Some((7, true)), view(*ms), *ms).through == 7)
    }

    #[test]
    fn a_worker_is_through_when_it_was_calm_and_all_it_had_is_recorded() {
        let mut passage = Passage::default();
        assert_eq!(passage.look(Some((7, false)), NOTHING, 0), Standing { heard: 7, through: 0, spoiled: 0 });
        assert_eq!(through_at(&mut passage, 200, |_| NOTHING), Some(1_600));

        let mut passage = Passage::default();
        passage.look(Some((7, false)), NOTHING, 0);
        // Number 9 is under way until 5 s; what comes after is of no concern.
        let view = |ms| View { oldest: Some(if ms < 5_000 { 9 } else { 10 }), ..NOTHING };
        assert_eq!(through_at(&mut passage, 200, view), Some(5_000));
    }

    #[test]
    fn a_worker_that_was_frozen_watches_anew() {
        let mut passage = Passage::default();
        passage.look(Some((7, false)), NOTHING, 0);
        passage.look(Some((7, true)), NOTHING, 200);
        assert_eq!(passage.look(Some((7, true)), NOTHING, 9_000).through, 0);
        assert_eq!(through_at(&mut passage, 9_200, |_| NOTHING), Some(10_400));
    }

    #[test]
    fn a_worker_that_gave_something_back_spoils_the_round_and_no_other() {
        let mut passage = Passage::default();
        passage.look(Some((7, false)), NOTHING, 0);
        let gave = View { turns: 5, ..NOTHING };
        assert_eq!(passage.look(Some((7, true)), gave, 200).spoiled, 7);
        assert_eq!(through_at(&mut passage, 400, |_| NOTHING), None);
        assert_eq!(
            passage.look(Some((8, false)), gave, 20_000),
            Standing { heard: 8, through: 0, spoiled: 7 }
        );
        let late =
            (20_200..30_000).step_by(200).find(|ms| passage.look(Some((8, true)), gave, *ms).through == 8);
        assert_eq!(late, Some(21_600));
    }

    #[test]
    fn a_worker_that_put_something_off_waits_until_it_may_be_back() {
        let mut passage = Passage::default();
        passage.look(Some((7, false)), NOTHING, 0);
        let view = |_| View { held_until_ms: Some(7_000), ..NOTHING };
        assert_eq!(through_at(&mut passage, 200, view), Some(7_000));
    }

    #[test]
    fn a_worker_that_missed_the_call_is_not_through() {
        let mut passage = Passage::default();
        assert_eq!(passage.look(Some((7, true)), NOTHING, 0).spoiled, 7);
    }
}
