//! What is measured of one worker under one load, and what several rounds come to.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// One thing that can be measured. What could not be is absent, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    /// Deliveries that arrived while a queue was emptied.
    Deliveries,
    DeliveriesPerS,
    /// CPU time per delivery, in µs.
    WorkerUs,
    ReceiverUs,
    BrokerUs,
    /// From the start of the worker's process until it said it was ready, and until its first delivery arrived.
    ReadyMs,
    FirstMs,
    /// Deliveries to healthy endpoints that the open loop asked for, and how many of them came within its time.
    OfferedPerS,
    ArrivedPercent,
    /// The same a second, until the last event was published.
    CarriedPerS,
    /// From the planned time to arrival. Infinite where so many never came.
    P50Ms,
    P99Ms,
    /// How late the producer was itself, behind its plan.
    ProducerP99Ms,
    /// Attempts that the bad endpoint saw.
    BadAttempts,
    /// Places that slow endpoints hold, on average over the open loop.
    HeldBySlow,
    /// Messages handed back or delivered twice, in a hundred.
    RedeliveredPercent,
    /// Rows of the delivery log that were written while the worker was there, and those that were dropped.
    LogWritten,
    LogDropped,
    /// Dead letters that arrived while the open loop lasted.
    Replayed,
    /// Requests that were unanswered at one moment, at most.
    InFlight,
    /// Messages that the worker may have in hand, at the end.
    Places,
    /// The worker's memory with nothing to do; when a quarter was delivered; at the end; at its highest.
    IdleRssMib,
    EarlyRssMib,
    LateRssMib,
    PeakRssMib,
}

impl Figure {
    /// The name in JSON.
    pub(super) fn key(self) -> &'static str {
        self.names().0
    }

    /// The head of a column.
    pub(super) fn title(self) -> &'static str {
        self.names().1
    }

    /// Digits behind the point for people.
    pub(super) fn digits(self) -> usize {
        self.names().2
    }

    fn names(self) -> (&'static str, &'static str, usize) {
        match self {
            Figure::Deliveries => ("deliveries", "deliveries", 0),
            Figure::DeliveriesPerS => ("deliveries_per_s", "deliveries/s", 0),
            Figure::WorkerUs => ("worker_us", "worker µs", 1),
            Figure::ReceiverUs => ("receiver_us", "receiver µs", 1),
            Figure::BrokerUs => ("broker_us", "broker µs", 1),
            Figure::ReadyMs => ("ready_ms", "ready ms", 0),
            Figure::FirstMs => ("first_ms", "first ms", 0),
            Figure::OfferedPerS => ("offered_per_s", "offered/s", 0),
            Figure::CarriedPerS => ("carried_per_s", "carried/s", 0),
            Figure::ArrivedPercent => ("arrived_percent", "arrived %", 1),
            Figure::P50Ms => ("p50_ms", "p50 ms", 2),
            Figure::P99Ms => ("p99_ms", "p99 ms", 2),
            Figure::ProducerP99Ms => ("producer_p99_ms", "producer p99 ms", 2),
            Figure::BadAttempts => ("bad_attempts", "bad attempts", 0),
            Figure::HeldBySlow => ("held_by_slow", "held by slow", 0),
            Figure::RedeliveredPercent => ("redelivered_percent", "redelivered %", 2),
            Figure::LogWritten => ("log_written", "rows written", 0),
            Figure::LogDropped => ("log_dropped", "rows dropped", 0),
            Figure::Replayed => ("replayed", "replayed", 0),
            Figure::InFlight => ("in_flight", "in flight", 0),
            Figure::Places => ("places", "places", 0),
            Figure::IdleRssMib => ("idle_rss_mib", "idle MiB", 1),
            Figure::EarlyRssMib => ("early_rss_mib", "early MiB", 1),
            Figure::LateRssMib => ("late_rss_mib", "late MiB", 1),
            Figure::PeakRssMib => ("peak_rss_mib", "peak MiB", 1),
        }
    }
}

/// The figures of one worker under one load.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    /// Keeps a figure, if it could be seen.
    pub(super) fn set(&mut self, figure: Figure, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.0.insert(figure, round(value));
        }
    }

    pub(super) fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    /// Each figure's median, of the rounds that have it.
    pub(super) fn median<'a>(rounds: impl Iterator<Item = &'a Figures>) -> Figures {
        let mut all = BTreeMap::<Figure, Vec<f64>>::new();
        for (figure, value) in rounds.flat_map(|figures| &figures.0) {
            all.entry(*figure).or_default().push(*value);
        }
        Figures(all.into_iter().filter_map(|(figure, values)| Some((figure, median(values)?))).collect())
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON knows no infinity: what never came is null.
        serializer.collect_map(self.0.iter().map(|(figure, value)| (figure.key(), value)))
    }
}

/// One round of a scenario: the figures of each of its plays, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Round(BTreeMap<&'static str, Figures>);

impl Round {
    pub(super) fn add(&mut self, play: &'static str, figures: Figures) {
        self.0.insert(play, figures);
    }

    pub(super) fn play(&self, play: &str) -> Option<&Figures> {
        self.0.get(play)
    }

    pub(super) fn get(&self, play: &str, figure: Figure) -> Option<f64> {
        self.play(play)?.get(figure)
    }
}

/// Two digits behind the point: more would pretend.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The middle one; between the two middle ones of an even number.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(Figure, f64)]) -> Figures {
        let mut figures = Figures::default();
        pairs.iter().for_each(|(figure, value)| figures.set(*figure, *value));
        figures
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let rounds = [
            figures(&[(Figure::DeliveriesPerS, 1.0), (Figure::WorkerUs, 30.0)]),
            figures(&[(Figure::DeliveriesPerS, 3.0)]),
            figures(&[(Figure::DeliveriesPerS, 2.0), (Figure::WorkerUs, 10.0)]),
        ];
        let median = Figures::median(rounds.iter());
        assert_eq!(median, figures(&[(Figure::DeliveriesPerS, 2.0), (Figure::WorkerUs, 20.0)]));
        assert_eq!(Figures::median([].iter()), Figures::default());
    }

    #[test]
    fn what_never_came_is_null() {
        let json = serde_json::to_string(&figures(&[(Figure::P50Ms, 1.234), (Figure::P99Ms, f64::INFINITY)]));
        assert_eq!(json.unwrap(), r#"{"p50_ms":1.23,"p99_ms":null}"#);
    }
}
