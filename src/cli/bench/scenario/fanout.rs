//! One event for a hundred subscriptions, beside one for each.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::Figure;

const SUBSCRIPTIONS: usize = 100;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let one = Crowd::simple("fanout-one", sizes.endpoints);
    let hundred =
        Crowd::new("fanout-hundred", vec![Tenant { good: SUBSCRIPTIONS, ..Tenant::simple(Manner::AtOnce) }]);
    let to_one = [("fanout_100"), ("steady")];
    Scenario {
        name: "fanout",
        plays: vec![
            Play::emptied("steady", &one, sizes.events, sizes),
            Play::emptied("fanout_100", &hundred, (sizes.events / SUBSCRIPTIONS).max(1), sizes),
        ],
        columns: &[
            Figure::Deliveries,
            Figure::DeliveriesPerS,
            Figure::WorkerUs,
            Figure::ReceiverUs,
            Figure::BrokerUs,
            Figure::PeakRssMib,
        ],
        checks: vec![
            Check::ratio(
                "worker CPU per delivery, to one subscription",
                Figure::WorkerUs,
                to_one,
                (Rule::AtMost, 1.7),
            ),
            Check::ratio(
                "throughput, to one subscription",
                Figure::DeliveriesPerS,
                to_one,
                (Rule::Told, 0.0),
            ),
        ],
    }
}
