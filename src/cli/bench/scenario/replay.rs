//! What live deliveries feel of dead letters that are sent again beside them.

use std::time::Duration;

use super::{Pace, Play, Rate, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::{Figure, Round};
use crate::cli::bench::letters::Replay;

/// Letters a second: what `paperboy dead replay` does unless told otherwise, and in a hurry.
const USUAL: u32 = 200;
const HURRIED: u32 = 1_000;
/// Events that warm a worker up, as a part of the usual ones.
const WARM_UP_PART: usize = 30;
/// The longest open loop, in seconds: 20,000 letters of the hurried replay.
const LENGTH_S_MAX: u32 = 20;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let live = Crowd::simple("replay-live", sizes.endpoints);
    // Counted apart from what is live.
    let dead = Crowd::new(
        "replay-dead",
        vec![Tenant { good: 0, bad: Some(Manner::AtOnce), ..Tenant::simple(Manner::AtOnce) }],
    );
    let length_s = sizes.seconds.min(LENGTH_S_MAX);
    let pace = Pace { rate: Rate::Fixed(sizes.rate), length: Duration::from_secs(length_s.into()) };
    let calm = |name| Play {
        pace: Some(pace),
        is_warm_up: true,
        ..Play::emptied(name, &live, (sizes.events / WARM_UP_PART).max(1), sizes)
    };
    let beside = |name, rate: u32| Play {
        replay: Some(Replay { crowd: dead.clone(), letters: (rate * length_s) as usize, rate }),
        ..calm(name)
    };
    Scenario {
        name: "replay",
        plays: vec![calm("baseline"), beside("usual", USUAL), beside("hurried", HURRIED)],
        columns: &[
            Figure::OfferedPerS,
            Figure::ArrivedPercent,
            Figure::P50Ms,
            Figure::P99Ms,
            Figure::WorkerUs,
            Figure::BrokerUs,
            Figure::Replayed,
        ],
        checks: vec![
            felt("200 letters/s beside it: p99", "usual"),
            meanwhile("200 letters/s: sent again meanwhile", "usual", USUAL * length_s),
            felt("1,000 letters/s beside it: p99", "hurried"),
            meanwhile("1,000 letters/s: sent again meanwhile", "hurried", HURRIED * length_s),
        ],
    }
}

/// At most twice what it is without a replay.
fn felt(what: &'static str, play: &'static str) -> Check {
    Check::new(what, Rule::AtMost, "ms", move |round| {
        Some((round.get(play, Figure::P99Ms)?, 2.0 * round.get("baseline", Figure::P99Ms)?))
    })
}

/// A replay that hardly went on would not be felt either; the first second is its start.
fn meanwhile(what: &'static str, play: &'static str, letters: u32) -> Check {
    Check::new(what, Rule::AtLeast, "", move |round: &Round| {
        Some((round.get(play, Figure::Replayed)?, f64::from(letters) * 0.8))
    })
}
