//! What is played and what must hold, as data: each scenario is a list of plays and a list of checks.
//!
//! A round plays every play once, in order; rounds follow each other, so that what disturbs a machine for a while
//! disturbs both sides of a comparison.

mod backlog;
mod fanout;
mod large;
mod log;
mod matching;
mod memory;
mod neighbour;
mod replay;
mod start;
mod steady;

use std::time::Duration;

use clap::ValueEnum;

use super::Sizes;
use super::check::Check;
use super::contender::Contender;
use super::crowd::Crowd;
use super::figures::{Figure, Round};
use super::letters::Replay;

/// A scenario's word on the command line.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A full queue, then a steady rate, beside the floor
    Steady,
    /// From a process's start to ready, and to its first delivery
    Start,
    /// An idle worker, and one with 2,000 deliveries in flight
    Memory,
    /// One subscription and a hundred for each event
    Fanout,
    /// 1, 100 and 1,000 subscriptions of a tenant, one of which matches
    Matching,
    /// 300,000 waiting events
    Backlog,
    /// Events of 1 MiB
    Large,
    /// One endpoint of ten never answers
    Hang,
    /// One endpoint of ten answers after 20 s
    Slow,
    /// One endpoint of ten never ends its answer's body
    Drip,
    /// The delivery log, with a full queue and at 1,000/s
    Log,
    /// Dead letters that are sent again beside what is live
    Replay,
    /// Everything
    All,
}

/// One scenario.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) plays: Vec<Play>,
    /// What people see of each play; JSON has everything.
    pub(super) columns: &'static [Figure],
    pub(super) checks: Vec<Check>,
}

/// One worker under one load: it empties a queue that was filled before it started, then (if there is a pace)
/// follows it.
#[derive(Clone)]
pub(super) struct Play {
    /// Its own within a scenario.
    pub(super) name: &'static str,
    pub(super) worker: Contender,
    pub(super) crowd: Crowd,
    /// Events in the queue at first.
    pub(super) fill: usize,
    /// Whether some of these are for the bad endpoint.
    pub(super) fill_bad: bool,
    /// These only warm the worker up: what they cost is not kept.
    pub(super) is_warm_up: bool,
    pub(super) pace: Option<Pace>,
    /// How long the worker is left alone before its memory is read.
    pub(super) idle: Option<Duration>,
    pub(super) body_bytes: usize,
    /// `broker.prefetch`, where it is not the caller's.
    pub(super) prefetch: Option<usize>,
    /// `delivery_log`, where it is not the caller's or `off`.
    pub(super) log: Option<&'static str>,
    /// What is sent again beside the open loop.
    pub(super) replay: Option<Replay>,
}

/// An open loop.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) rate: Rate,
    pub(super) length: Duration,
}

/// Events a second.
#[derive(Clone, Copy)]
pub(super) enum Rate {
    Fixed(u32),
    /// So many percent of what another play of the round came to in this figure.
    PercentOf(u32, &'static str, Figure),
}

impl Rate {
    /// Events a second; none where the round has nothing to tell it from.
    pub(super) fn per_second(self, round: &Round) -> Option<f64> {
        match self {
            Rate::Fixed(rate) => Some(f64::from(rate)),
            Rate::PercentOf(percent, play, figure) => {
                Some((round.get(play, figure)? * f64::from(percent) / 100.0).max(1.0))
            }
        }
    }
}

impl Play {
    /// A full queue of the usual events.
    pub(super) fn emptied(name: &'static str, crowd: &Crowd, fill: usize, sizes: &Sizes) -> Play {
        Play {
            name,
            worker: Contender::Paperboy,
            crowd: crowd.clone(),
            fill,
            fill_bad: false,
            is_warm_up: false,
            pace: None,
            idle: None,
            body_bytes: sizes.body_bytes,
            prefetch: None,
            log: None,
            replay: None,
        }
    }

    /// A worker with nothing to do.
    pub(super) fn idle(name: &'static str, sizes: &Sizes) -> Play {
        let idle = Some(Duration::from_secs(sizes.idle_s.into()));
        Play { idle, ..Play::emptied(name, &Crowd::new(name, Vec::new()), 0, sizes) }
    }

    /// Everybody who subscribes.
    pub(super) fn crowds(&self) -> impl Iterator<Item = &Crowd> {
        std::iter::once(&self.crowd).chain(self.replay.as_ref().map(|replay| &replay.crowd))
    }
}

impl Word {
    /// The scenarios that these words name, each once, in the order of the list.
    pub(super) fn chosen(words: &[Word], sizes: &Sizes) -> Vec<Scenario> {
        let is_chosen = |word: &Word| words.contains(word) || words.contains(&Word::All);
        let chosen = Word::value_variants().iter().filter(|word| is_chosen(word));
        chosen.filter_map(|word| word.scenario(sizes)).collect()
    }

    fn scenario(self, sizes: &Sizes) -> Option<Scenario> {
        Some(match self {
            Word::Steady => steady::scenario(sizes),
            Word::Start => start::scenario(sizes),
            Word::Memory => memory::scenario(sizes),
            Word::Fanout => fanout::scenario(sizes),
            Word::Matching => matching::scenario(sizes),
            Word::Backlog => backlog::scenario(sizes),
            Word::Large => large::scenario(sizes),
            Word::Hang => neighbour::hang(sizes),
            Word::Slow => neighbour::slow(sizes),
            Word::Drip => neighbour::drip(sizes),
            Word::Log => log::scenario(sizes),
            Word::Replay => replay::scenario(sizes),
            Word::All => return None,
        })
    }
}
