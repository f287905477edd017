//! What the delivery log costs, with a full queue and at a quiet rate.

use std::time::Duration;

use super::{Pace, Play, Rate, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::Crowd;
use crate::cli::bench::figures::{Figure, Round};

/// The quiet rate.
const EACH_SECOND: u32 = 1_000;
/// Events that warm a worker up, as a part of the usual ones.
const WARM_UP_PART: usize = 30;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::simple("log", sizes.endpoints);
    let keeping = |log, play: Play| Play { log: Some(log), ..play };
    let pace = Pace { rate: Rate::Fixed(EACH_SECOND), length: Duration::from_secs(sizes.seconds.into()) };
    let full = |name| Play::emptied(name, &crowd, sizes.events, sizes);
    let quiet = |name| Play {
        pace: Some(pace),
        is_warm_up: true,
        ..Play::emptied(name, &crowd, (sizes.events / WARM_UP_PART).max(1), sizes)
    };
    Scenario {
        name: "log",
        plays: vec![
            keeping("off", full("off")),
            keeping("all", full("all")),
            keeping("off", quiet("off_quiet")),
            keeping("all", quiet("all_quiet")),
        ],
        columns: &[
            Figure::DeliveriesPerS,
            Figure::OfferedPerS,
            Figure::WorkerUs,
            Figure::P99Ms,
            Figure::LogWritten,
            Figure::LogDropped,
        ],
        checks: vec![
            Check::ratio(
                "a full queue: throughput, to no log",
                Figure::DeliveriesPerS,
                ["all", "off"],
                (Rule::AtLeast, 0.95),
            ),
            Check::ratio(
                "a full queue: worker CPU per delivery, to no log",
                Figure::WorkerUs,
                ["all", "off"],
                (Rule::Told, 0.0),
            ),
            Check::ratio(
                "1,000/s: worker CPU per delivery, to no log",
                Figure::WorkerUs,
                ["all_quiet", "off_quiet"],
                (Rule::AtMost, 1.10),
            ),
            Check::new("1,000/s: rows that were dropped", Rule::AtMost, "", dropped),
        ],
    }
}

/// None where nothing was written: what is not kept is not dropped.
fn dropped(round: &Round) -> Option<(f64, f64)> {
    round.get("all_quiet", Figure::LogWritten).filter(|written| *written > 0.0)?;
    Some((round.get("all_quiet", Figure::LogDropped)?, 0.0))
}
