//! The figures of one worker in one run, and what several runs come to.

use serde::Serialize;

/// One worker, one run. A cost that could not be seen is none.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// Deliveries counted by the receiver while the queue was emptied.
    pub(super) deliveries: u64,
    pub(super) deliveries_per_s: f64,
    /// CPU time per delivery, in µs.
    pub(super) worker_us: Option<f64>,
    pub(super) receiver_us: Option<f64>,
    pub(super) broker_us: Option<f64>,
    /// Events of the open loop, and how long they took from publish to arrival.
    pub(super) paced: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// The worker's peak.
    pub(super) peak_rss_mib: Option<f64>,
}

/// What of two workers is compared, first over second.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ratios {
    pub(super) worker_cpu: Option<f64>,
    pub(super) throughput: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Figures {
    /// Each figure's median.
    pub(super) fn median(runs: &[Figures]) -> Option<Figures> {
        let of = |figure: &dyn Fn(&Figures) -> Option<f64>| median(runs.iter().filter_map(figure).collect());
        Some(Figures {
            deliveries: runs.first()?.deliveries,
            deliveries_per_s: of(&|run| Some(run.deliveries_per_s))?,
            worker_us: of(&|run| run.worker_us),
            receiver_us: of(&|run| run.receiver_us),
            broker_us: of(&|run| run.broker_us),
            paced: runs.first()?.paced,
            p50_ms: of(&|run| Some(run.p50_ms))?,
            p99_ms: of(&|run| Some(run.p99_ms))?,
            peak_rss_mib: of(&|run| run.peak_rss_mib),
        })
    }
}

impl Ratios {
    /// The medians of the ratios within each run: what disturbs a run disturbs both.
    pub(super) fn median(ours: &[Figures], floor: &[Figures]) -> Ratios {
        let of = |figure: &dyn Fn(&Figures) -> Option<f64>| {
            let pairs = ours.iter().zip(floor);
            let ratios = pairs.filter_map(|(ours, floor)| Some(figure(ours)? / figure(floor)?));
            median(ratios.filter(|ratio| ratio.is_finite()).collect()).map(round)
        };
        Ratios {
            worker_cpu: of(&|run| run.worker_us),
            throughput: of(&|run| Some(run.deliveries_per_s)),
            p99: of(&|run| Some(run.p99_ms)),
        }
    }
}

/// Two digits behind the point: more would pretend.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(round(f64::midpoint(values[middle - 1], values[middle]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(deliveries_per_s: f64, worker_us: Option<f64>) -> Figures {
        Figures {
            deliveries: 1,
            deliveries_per_s,
            worker_us,
            receiver_us: None,
            broker_us: None,
            paced: 1,
            p50_ms: 1.0,
            p99_ms: 2.0,
            peak_rss_mib: None,
        }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let runs = [run(1.0, Some(30.0)), run(3.0, None), run(2.0, Some(10.0))];
        let median = Figures::median(&runs).unwrap();
        assert_eq!((median.deliveries_per_s, median.worker_us, median.broker_us), (2.0, Some(20.0), None));
        assert!(Figures::median(&[]).is_none());
    }

    #[test]
    fn ratios_are_taken_within_a_run() {
        let ours = [run(50.0, Some(20.0)), run(10.0, Some(20.0)), run(80.0, Some(20.0))];
        let floor = [run(100.0, Some(10.0)), run(100.0, None), run(100.0, Some(10.0))];
        let ratios = Ratios::median(&ours, &floor);
        assert_eq!((ratios.throughput, ratios.worker_cpu, ratios.p99), (Some(0.5), Some(2.0), Some(1.0)));
    }
}
