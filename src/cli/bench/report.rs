//! What a bench found: a table for people, one JSON object for scripts.

use serde_json::{Value, json};

use super::Bench;
use super::contender::Contender;
use super::figures::{Figures, Ratios};
use crate::cli::output;

/// Every figure of every run.
pub(super) struct Report {
    /// By contender, in the order of [`Contender::ALL`].
    pub(super) runs: [Vec<Figures>; Contender::ALL.len()],
    /// Paperboy's worker before it was given anything.
    pub(super) idle_rss_mib: Option<f64>,
    pub(super) prefetch: u16,
}

/// A debug build measures the compiler's patience.
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Report {
    pub(super) fn print(&self, bench: &Bench, as_json: bool) {
        if as_json {
            output::json_line(&self.json(bench));
        } else {
            self.table(bench);
        }
    }

    fn of(&self, contender: Contender) -> &[Figures] {
        &self.runs[contender as usize]
    }

    fn ratios(&self, floor: Contender) -> Ratios {
        Ratios::median(self.of(Contender::Paperboy), self.of(floor))
    }

    fn json(&self, bench: &Bench) -> Value {
        let one = |contender: Contender| {
            let runs = self.of(contender);
            (contender.as_str().to_owned(), json!({ "median": Figures::median(runs), "runs": runs }))
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "build": BUILD,
            "events": bench.events,
            "endpoints": bench.endpoints,
            "body_bytes": bench.body_bytes,
            "runs": bench.runs,
            "rate": bench.rate,
            "prefetch": self.prefetch,
            "workers": Contender::ALL.map(one).into_iter().collect::<serde_json::Map<_, _>>(),
            "ratios": {
                "to_floor_single": self.ratios(Contender::FloorSingle),
                "to_floor_coalesced": self.ratios(Contender::FloorCoalesced),
            },
            "idle_rss_mib": self.idle_rss_mib,
        })
    }

    fn table(&self, bench: &Bench) {
        const HEADER: [&str; 8] =
            ["", "deliveries/s", "worker µs", "receiver µs", "broker µs", "p50 ms", "p99 ms", "peak RSS MiB"];
        let mut rows = Vec::new();
        for contender in Contender::ALL {
            let Some(median) = Figures::median(self.of(contender)) else { continue };
            rows.push(vec![
                contender.title().to_owned(),
                format!("{:.0}", median.deliveries_per_s),
                shown(median.worker_us, 1),
                shown(median.receiver_us, 1),
                shown(median.broker_us, 1),
                format!("{:.2}", median.p50_ms),
                format!("{:.2}", median.p99_ms),
                shown(median.peak_rss_mib, 1),
            ]);
        }
        for floor in [Contender::FloorSingle, Contender::FloorCoalesced] {
            let Ratios { worker_cpu, throughput, p99 } = self.ratios(floor);
            let none = String::new;
            let times = |ratio| format!("× {}", shown(ratio, 2));
            rows.push(vec![
                format!("paperboy / {}", floor.title()),
                times(throughput),
                times(worker_cpu),
                none(),
                none(),
                none(),
                times(p99),
                none(),
            ]);
        }
        output::table(&HEADER, rows, "nothing was measured");
        let Bench { events, endpoints, body_bytes, runs, rate, .. } = bench;
        println!(
            "\n{events} events of {body_bytes} bytes for {endpoints} endpoints, prefetch {}; latency at {rate}/s; medians of {runs}",
            self.prefetch
        );
        println!("idle worker: {} MiB RSS after {} s", shown(self.idle_rss_mib, 1), bench.idle_s);
        if BUILD == "debug" {
            println!("a debug build: these figures mean little; `cargo build --release`");
        }
    }
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
