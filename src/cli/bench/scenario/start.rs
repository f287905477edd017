//! How soon a new worker helps: from its process's start to ready, and to its first delivery.

use super::{Play, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::contender::Contender;
use crate::cli::bench::crowd::Crowd;
use crate::cli::bench::figures::Figure;

pub(super) fn scenario(sizes: &Sizes) -> Scenario {
    let crowd = Crowd::simple("start", sizes.endpoints);
    let play =
        |worker: Contender| Play { worker, ..Play::emptied(worker.as_str(), &crowd, sizes.endpoints, sizes) };
    Scenario {
        name: "start",
        plays: [Contender::FloorCoalesced, Contender::Paperboy].map(play).into(),
        columns: &[Figure::ReadyMs, Figure::FirstMs],
        checks: vec![
            Check::figure("start to ready", Figure::ReadyMs, "paperboy", (Rule::AtMost, 300.0), "ms"),
            Check::figure(
                "start to the first delivery",
                Figure::FirstMs,
                "paperboy",
                (Rule::AtMost, 1000.0),
                "ms",
            ),
        ],
    }
}
