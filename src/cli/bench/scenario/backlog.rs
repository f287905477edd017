//! Many waiting events: they drain as fast as few do, and the worker's memory does not grow with them.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::Crowd;
use crate::cli::bench::figures::{Figure, Round};

/// Times the events of the other scenarios.
const TIMES: usize = 5;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::simple("backlog", sizes.endpoints);
    Scenario {
        name: "backlog",
        plays: vec![
            Play::emptied("steady", &crowd, sizes.events, sizes),
            Play::emptied("backlog", &crowd, sizes.events * TIMES, sizes),
        ],
        columns: &[
            Figure::Deliveries,
            Figure::DeliveriesPerS,
            Figure::WorkerUs,
            Figure::BrokerUs,
            Figure::EarlyRssMib,
            Figure::LateRssMib,
            Figure::PeakRssMib,
        ],
        checks: vec![
            // A tenth is what two benches of one build differ by.
            Check::ratio(
                "throughput, to a short queue",
                Figure::DeliveriesPerS,
                ["backlog", "steady"],
                (Rule::AtLeast, 0.9),
            ),
            Check::new("memory at the end, beside a quarter of the way", Rule::AtMost, "MiB", flat),
        ],
    }
}

/// A tenth and 2 MiB more.
fn flat(round: &Round) -> Option<(f64, f64)> {
    let early_mib = round.get("backlog", Figure::EarlyRssMib)?;
    Some((round.get("backlog", Figure::LateRssMib)?, early_mib * 1.1 + 2.0))
}
