//! Large events: memory is bounded by what is in hand, not by what waits.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::contender::Contender;
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::{Figure, Round};

const MIB: usize = 1024 * 1024;
/// `limits.in_hand_bytes_max` as it is shipped: so many bodies.
const IN_HAND_MIB: f64 = 256.0;
/// So that everything a worker has taken is in flight at once.
const ANSWER_MS: u32 = 1_000;
/// One large event for so many usual ones, and no more than this many: twice as many bring a broker with 512 MB of
/// memory to its alarm.
const FEWER: usize = 250;
const EVENTS_MAX: usize = 1_000;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::new("large", vec![Tenant::simple(Manner::After(ANSWER_MS)); sizes.endpoints]);
    let events = (sizes.events / FEWER).clamp(4, EVENTS_MAX);
    let play = |worker: Contender| Play {
        worker,
        body_bytes: MIB,
        ..Play::emptied(worker.as_str(), &crowd, events, sizes)
    };
    Scenario {
        name: "large",
        plays: vec![Play::idle("idle", sizes), play(Contender::FloorCoalesced), play(Contender::Paperboy)],
        columns: &[
            Figure::Deliveries,
            Figure::DeliveriesPerS,
            Figure::WorkerUs,
            Figure::InFlight,
            Figure::Places,
            Figure::IdleRssMib,
            Figure::PeakRssMib,
        ],
        checks: vec![
            Check::new(
                "an idle worker's, and body + 64 KiB for as many as may be in hand",
                Rule::AtMost,
                "MiB",
                bounded,
            ),
            Check::new("the same, for the places there are in the end", Rule::Told, "MiB", |round| {
                Some((beside_idle(round, round.get("paperboy", Figure::Places)?)?, 0.0))
            }),
            Check::ratio(
                "worker CPU per delivery, to the coalescing floor",
                Figure::WorkerUs,
                ["paperboy", "floor_coalesced"],
                (Rule::Told, 0.0),
            ),
        ],
    }
}

/// What is in hand when a window grows stays so beside the new one, so there may be more than there are places now.
fn bounded(round: &Round) -> Option<(f64, f64)> {
    let limit_mib = beside_idle(round, IN_HAND_MIB)?;
    Some((round.get("paperboy", Figure::PeakRssMib)?, limit_mib))
}

/// An idle worker's memory and that of so many bodies.
fn beside_idle(round: &Round, bodies: f64) -> Option<f64> {
    Some(round.get("idle", Figure::IdleRssMib)? + bodies * (1.0 + 64.0 / 1024.0))
}
