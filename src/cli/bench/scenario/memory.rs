//! What a worker holds in memory: with nothing to do, and with many deliveries waiting for their answers.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::{Figure, Round};

const IN_FLIGHT: usize = 2_000;
const BODY_BYTES: usize = 1024;
/// Long enough for all to be open at once, short enough to be over within the grace of a stop.
const ANSWER_MS: u32 = 3_000;
const ENDPOINTS: usize = 20;
/// `broker.prefetch`, of which fresh events have 60 %: no endpoint comes near the share that is put off.
const PREFETCH: usize = 8_000;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::new("in-flight", vec![Tenant::simple(Manner::After(ANSWER_MS)); ENDPOINTS]);
    let in_flight = Play {
        body_bytes: BODY_BYTES,
        prefetch: Some(PREFETCH),
        ..Play::emptied("in_flight", &crowd, sizes.events.min(IN_FLIGHT), sizes)
    };
    Scenario {
        name: "memory",
        plays: vec![Play::idle("idle", sizes), in_flight],
        columns: &[Figure::InFlight, Figure::IdleRssMib, Figure::PeakRssMib],
        checks: vec![
            Check::figure("an idle worker", Figure::IdleRssMib, "idle", (Rule::AtMost, 30.0), "MiB"),
            Check::new("30 MiB and 20 KiB for each delivery in flight", Rule::AtMost, "MiB", in_flight_rss),
        ],
    }
}

fn in_flight_rss(round: &Round) -> Option<(f64, f64)> {
    let in_flight = round.get("in_flight", Figure::InFlight)?;
    Some((round.get("in_flight", Figure::PeakRssMib)?, 30.0 + in_flight * 20.0 / 1024.0))
}
