//! What it costs to find the one subscription of many that wants an event.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::Figure;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let play = |name, subscriptions: usize| {
        let tenant = Tenant { idle: subscriptions - 1, ..Tenant::simple(Manner::AtOnce) };
        Play::emptied(name, &Crowd::new(name, vec![tenant]), sizes.events, sizes)
    };
    let told = (Rule::Told, 0.0);
    Scenario {
        name: "matching",
        plays: vec![play("matching_1", 1), play("matching_100", 100), play("matching_1000", 1_000)],
        columns: &[Figure::DeliveriesPerS, Figure::WorkerUs, Figure::BrokerUs, Figure::PeakRssMib],
        checks: vec![
            Check::ratio(
                "worker CPU per delivery, 100 to 1",
                Figure::WorkerUs,
                ["matching_100", "matching_1"],
                told,
            ),
            Check::ratio(
                "worker CPU per delivery, 1,000 to 1",
                Figure::WorkerUs,
                ["matching_1000", "matching_1"],
                told,
            ),
        ],
    }
}
