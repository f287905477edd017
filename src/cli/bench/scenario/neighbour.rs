//! One bad endpoint of ten, which a tenth of the events go to: what the others feel of it.
//!
//! An open loop: events are published at planned times whatever happens, and times count from the plan. The baseline
//! is the same load without a bad endpoint. The load is a part of what a short open loop carries, which offers what an
//! emptied queue gave: publishing costs too, more than delivering, where the producer and RabbitMQ share the machine.

use std::time::Duration;

use super::{Pace, Play, Rate, Scenario};
use crate::cli::bench::Sizes;
use crate::cli::bench::check::{Check, Rule};
use crate::cli::bench::crowd::{Crowd, Manner, Tenant};
use crate::cli::bench::figures::{Figure, Round};

/// Endpoints in all: a tenth of the events is for each.
const ENDPOINTS: usize = 10;
/// A subscription's default, where the loop lasts two of them.
const TIMEOUT_S_MAX: u32 = 30;
/// Events that warm a worker up, as a part of the usual ones.
const WARM_UP_PART: usize = 30;
/// The loop that tells what this machine carries is so much shorter.
const PROBE_PART: u32 = 4;
/// What has to arrive within the loop's time.
const ARRIVED_PERCENT: f64 = 95.0;

pub(super) fn hang(sizes: &Sizes) -> Scenario {
    scenario("hang", Manner::Hang, sizes)
}

pub(super) fn slow(sizes: &Sizes) -> Scenario {
    scenario("slow", Manner::After(timeout_s(sizes) * 1000 * 2 / 3), sizes)
}

pub(super) fn drip(sizes: &Sizes) -> Scenario {
    scenario("drip", Manner::Drip, sizes)
}

/// How long a delivery may take.
fn timeout_s(sizes: &Sizes) -> u32 {
    (sizes.seconds / 2).clamp(1, TIMEOUT_S_MAX)
}

fn scenario(name: &'static str, manner: Manner, sizes: &Sizes) -> Scenario {
    let timeout_s = timeout_s(sizes);
    let crowd = |word, good_beside_bad| {
        let bad = Tenant { good: good_beside_bad, bad: Some(manner), ..Tenant::simple(Manner::AtOnce) };
        let mut tenants = vec![Tenant::simple(Manner::AtOnce); ENDPOINTS - 1];
        tenants.push(bad);
        Crowd { timeout_s, ..Crowd::new(format!("{name}-{word}"), tenants) }
    };
    let calm = Crowd::simple(format!("{name}-calm"), ENDPOINTS);
    let (apart, together) = (crowd("apart", 0), crowd("together", 1));
    let length = Duration::from_secs(sizes.seconds.into());
    let probe =
        Pace { rate: Rate::PercentOf(100, "steady", Figure::DeliveriesPerS), length: length / PROBE_PART };
    let pace = Pace { rate: Rate::PercentOf(sizes.load_percent, "probe", Figure::CarriedPerS), length };
    let warm_up = (sizes.events / WARM_UP_PART).max(1);
    let paced = |name, crowd, pace| Play {
        pace: Some(pace),
        is_warm_up: true,
        ..Play::emptied(name, crowd, warm_up, sizes)
    };
    let time_outs = f64::from(sizes.seconds) / f64::from(timeout_s);
    let mut checks = vec![
        Check::new("an open loop carries, of the full queue's rate", Rule::Told, "%", carried),
        Check::figure(
            "without a bad one: arrived in time",
            Figure::ArrivedPercent,
            "baseline",
            (Rule::Told, 0.0),
            "%",
        ),
    ];
    checks.extend(felt(
        "apart",
        time_outs,
        [
            "the bad one's tenant is its own: arrived in time at the others",
            "the bad one's tenant is its own: p99 of the others",
            "the bad one's tenant is its own: redelivered",
            "the bad one's tenant is its own: its attempts, one a place and time-out",
        ],
    ));
    checks.extend(felt(
        "together",
        time_outs,
        [
            "its tenant has a good one too: arrived in time at all good ones",
            "its tenant has a good one too: p99 of all good ones",
            "its tenant has a good one too: redelivered",
            "its tenant has a good one too: its attempts, one a place and time-out",
        ],
    ));
    checks.push(Check::ratio(
        "saturated: throughput of the others, to a queue without a bad one",
        Figure::DeliveriesPerS,
        ["saturated", "steady"],
        (Rule::Told, 0.0),
    ));
    Scenario {
        name,
        plays: vec![
            Play::emptied("steady", &calm, sizes.events, sizes),
            paced("probe", &calm, probe),
            paced("baseline", &calm, pace),
            paced("apart", &apart, pace),
            paced("together", &together, pace),
            Play { fill_bad: true, ..Play::emptied("saturated", &apart, sizes.events, sizes) },
        ],
        columns: &[
            Figure::DeliveriesPerS,
            Figure::OfferedPerS,
            Figure::CarriedPerS,
            Figure::ArrivedPercent,
            Figure::P50Ms,
            Figure::P99Ms,
            Figure::ProducerP99Ms,
            Figure::WorkerUs,
            Figure::BrokerUs,
            Figure::BadAttempts,
            Figure::HeldBySlow,
            Figure::RedeliveredPercent,
        ],
        checks,
    }
}

fn carried(round: &Round) -> Option<(f64, f64)> {
    let full = round.get("steady", Figure::DeliveriesPerS)?;
    Some((round.get("probe", Figure::CarriedPerS)? * 100.0 / full, 0.0))
}

/// What is judged of one play: arrived, p99, redelivered, attempts.
fn felt(
    play: &'static str,
    time_outs: f64,
    [arrived, late, redelivered, attempts]: [&'static str; 4],
) -> [Check; 4] {
    [
        Check::new(arrived, Rule::AtLeast, "%", move |round| {
            could_be_carried(round)?;
            Some((round.get(play, Figure::ArrivedPercent)?, ARRIVED_PERCENT))
        }),
        // Twice the baseline's, but never less than 50 ms.
        Check::new(late, Rule::AtMost, "ms", move |round| {
            could_be_carried(round)?;
            let limit_ms = (2.0 * round.get("baseline", Figure::P99Ms)?).max(50.0);
            Some((round.get(play, Figure::P99Ms)?, limit_ms))
        }),
        Check::figure(redelivered, Figure::RedeliveredPercent, play, (Rule::AtMost, 1.0), "%"),
        Check::new(attempts, Rule::AtLeast, "", move |round| {
            let held = round.get(play, Figure::HeldBySlow)?;
            Some((round.get(play, Figure::BadAttempts)?, (held * time_outs).floor().max(1.0)))
        }),
    ]
}

/// None where the machine did not carry the load without a bad endpoint either: nothing can be told then.
fn could_be_carried(round: &Round) -> Option<()> {
    (round.get("baseline", Figure::ArrivedPercent)? >= ARRIVED_PERCENT).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::check::Verdict;
    use crate::cli::bench::figures::Figures;

    /// A round with these of baseline and play: arrived %, p99 ms, places held by slow ones; and attempts at the bad
    /// one.
    fn round(baseline: [f64; 3], play: [f64; 3], attempts: f64) -> Round {
        let mut round = Round::default();
        for (name, [arrived, p99_ms, held]) in [("baseline", baseline), ("apart", play)] {
            let mut figures = Figures::default();
            figures.set(Figure::ArrivedPercent, arrived);
            figures.set(Figure::P99Ms, p99_ms);
            figures.set(Figure::HeldBySlow, held);
            figures.set(Figure::BadAttempts, attempts);
            figures.set(Figure::RedeliveredPercent, 0.0);
            round.add(name, figures);
        }
        round
    }

    fn verdicts(round: Round) -> [Verdict; 4] {
        felt("apart", 2.0, ["arrived", "p99", "redelivered", "attempts"])
            .map(|check| check.judge(std::slice::from_ref(&round)).verdict)
    }

    #[test]
    fn good_ones_that_feel_nothing_pass() {
        let calm = [99.9, 10.0, 0.0];
        assert_eq!(verdicts(round(calm, [95.0, 50.0, 150.0], 300.0)), [Verdict::Pass; 4]);
        let busy = [99.9, 40.0, 0.0];
        assert_eq!(verdicts(round(busy, [95.0, 80.0, 0.0], 1.0)), [Verdict::Pass; 4]);
    }

    #[test]
    fn what_is_felt_fails() {
        let verdicts = verdicts(round([99.9, 10.0, 0.0], [94.9, 50.1, 150.0], 299.0));
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Fail, Verdict::Pass, Verdict::Fail]);
    }

    #[test]
    fn nothing_is_told_where_the_machine_carries_no_such_load() {
        let verdicts = verdicts(round([80.0, f64::INFINITY, 0.0], [50.0, f64::INFINITY, 0.0], 300.0));
        assert_eq!(verdicts[..2], [Verdict::NotMeasured; 2]);
    }
}
