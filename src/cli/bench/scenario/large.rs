//! Large events: memory is bounded by what is in hand, not by what waits.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::contender::Contender;
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::{Figure, Round};

const MIB: usize = 1024 * 1024;
/// So that everything a worker has taken is in flight at once.
const ANSWER_MS: u32 = 1_000;
/// One large event for so many usual ones, and no more than this many.
const FEWER: usize = 150;
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
            Check::new("an idle worker's and body + 64 KiB for each place", Rule::AtMost, "MiB", bounded),
            Check::ratio(
                "worker CPU per delivery, to the coalescing floor",
                Figure::WorkerUs,
                ["paperboy", "floor_coalesced"],
                (Rule::Told, 0.0),
            ),
        ],
    }
}

fn bounded(round: &Round) -> Option<(f64, f64)> {
    let places = round.get("paperboy", Figure::Places)?;
    let limit_mib = round.get("idle", Figure::IdleRssMib)? + places * (1.0 + 64.0 / 1024.0);
    Some((round.get("paperboy", Figure::PeakRssMib)?, limit_mib))
}
