//! What a worker holds in memory: with nothing to do, and with many deliveries waiting for their answers; beside a
//! floor, which holds little more than its HTTP client.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::contender::Contender;
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
    let in_flight = |worker, name| Play {
        worker,
        body_bytes: BODY_BYTES,
        prefetch: Some(PREFETCH),
        ..Play::emptied(name, &crowd, sizes.events.min(IN_FLIGHT), sizes)
    };
    let floor_idle =
        Play { worker: Contender::FloorCoalesced, crowd: crowd.clone(), ..Play::idle("floor_idle", sizes) };
    Scenario {
        name: "memory",
        plays: vec![
            floor_idle,
            in_flight(Contender::FloorCoalesced, "floor_in_flight"),
            Play::idle("idle", sizes),
            in_flight(Contender::Paperboy, "in_flight"),
        ],
        columns: &[Figure::InFlight, Figure::IdleRssMib, Figure::PeakRssMib],
        checks: vec![
            Check::figure("an idle worker", Figure::IdleRssMib, "idle", (Rule::AtMost, 30.0), "MiB"),
            Check::new("30 MiB and 20 KiB for each delivery in flight", Rule::AtMost, "MiB", in_flight_rss),
            Check::new("each delivery in flight", Rule::Told, "KiB", |round| {
                each(round, ["in_flight", "idle"])
            }),
            Check::new("each delivery in flight, of the floor", Rule::Told, "KiB", |round| {
                each(round, ["floor_in_flight", "floor_idle"])
            }),
        ],
    }
}

fn in_flight_rss(round: &Round) -> Option<(f64, f64)> {
    let in_flight = round.get("in_flight", Figure::InFlight)?;
    Some((round.get("in_flight", Figure::PeakRssMib)?, 30.0 + in_flight * 20.0 / 1024.0))
}

/// What each adds to the memory of a worker with nothing to do.
fn each(round: &Round, [in_flight, idle]: [&'static str; 2]) -> Option<(f64, f64)> {
    let more_mib = round.get(in_flight, Figure::PeakRssMib)? - round.get(idle, Figure::IdleRssMib)?;
    Some((more_mib * 1024.0 / round.get(in_flight, Figure::InFlight)?, 0.0))
}
