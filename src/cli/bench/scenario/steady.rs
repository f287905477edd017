//! The worker beside the floor: a full queue, then a steady rate.

use std::time::Duration;

use super::{Pace, Play, Rate, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::contender::Contender;
use crate::cli::bench::crowd::Crowd;
use crate::cli::bench::figures::{Figure, Round};

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::simple("steady", sizes.endpoints);
    let pace = Pace { rate: Rate::Fixed(sizes.rate), length: Duration::from_secs(sizes.latency_s.into()) };
    let play = |worker: Contender| Play {
        worker,
        pace: Some(pace),
        ..Play::emptied(worker.as_str(), &crowd, sizes.events, sizes)
    };
    let single = ["paperboy", "floor_single"];
    let coalesced = ["paperboy", "floor_coalesced"];
    let told = (Rule::Told, 0.0);
    Scenario {
        name: "steady",
        plays: Contender::ALL.map(play).into(),
        columns: &[
            Figure::DeliveriesPerS,
            Figure::WorkerUs,
            Figure::ReceiverUs,
            Figure::BrokerUs,
            Figure::P50Ms,
            Figure::P99Ms,
            Figure::PeakRssMib,
        ],
        checks: vec![
            Check::ratio(
                "worker CPU per delivery, to the coalescing floor",
                Figure::WorkerUs,
                coalesced,
                (Rule::AtMost, 1.25),
            ),
            Check::ratio(
                "throughput, to the coalescing floor",
                Figure::DeliveriesPerS,
                coalesced,
                (Rule::AtLeast, 0.85),
            ),
            Check::new("p99 at a steady rate, beside the coalescing floor's", Rule::AtMost, "ms", p99),
            Check::ratio("worker CPU per delivery, to the single floor", Figure::WorkerUs, single, told),
            Check::ratio("throughput, to the single floor", Figure::DeliveriesPerS, single, told),
        ],
    }
}

/// 1.3 times the floor's and a millisecond.
fn p99(round: &Round) -> Option<(f64, f64)> {
    let floor_ms = round.get("floor_coalesced", Figure::P99Ms)?;
    Some((round.get("paperboy", Figure::P99Ms)?, 1.3 * floor_ms + 1.0))
}
