//! What a bench found: a table and a line of judgement for each limit, or one JSON object.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Sizes;
use super::check::{Judged, Rule, Verdict};
use super::contender::Contender;
use super::figures::{Figures, Round};
use super::scenario::{Play, Scenario};
use crate::cli::output;

/// Every figure of every round of every scenario.
pub(super) struct Report {
    pub(super) played: Vec<Played>,
    /// `broker.prefetch`.
    pub(super) prefetch: u16,
    /// What the machine was busy with before: a hint that others work here too.
    pub(super) load_before: Option<f64>,
}

/// A scenario and its rounds.
pub(super) struct Played {
    pub(super) scenario: Scenario,
    pub(super) rounds: Vec<Round>,
}

/// A load average above this disturbs what is measured.
const BUSY: f64 = 1.0;
/// A debug build measures the compiler's patience.
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Report {
    /// The words of limits that do not hold.
    pub(super) fn failed(&self) -> Vec<String> {
        let judged =
            self.played.iter().flat_map(|played| played.judged().map(move |judged| (played, judged)));
        let failed = judged.filter(|(_, judged)| judged.verdict == Verdict::Fail);
        failed.map(|(played, judged)| format!("{}: {}", played.scenario.name, judged.what)).collect()
    }

    pub(super) fn json(&self, sizes: &Sizes) -> Value {
        let scenarios: Map<_, _> =
            self.played.iter().map(|played| (played.scenario.name.to_owned(), played.json())).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "build": BUILD,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "load_before": self.load_before,
            "prefetch": self.prefetch,
            "sizes": sizes,
            "scenarios": scenarios,
        })
    }

    /// What was played how.
    pub(super) fn print_footer(&self, sizes: &Sizes) {
        let Sizes { events, endpoints, body_bytes, rounds, rate, .. } = sizes;
        println!(
            "medians of {rounds}; {events} events of {body_bytes} bytes for {endpoints} endpoints, `broker.prefetch` {}; \
             `steady` follows {rate}/s",
            self.prefetch
        );
        if let Some(load) = self.load_before.filter(|load| *load >= BUSY) {
            println!("the machine was busy (load average {load:.1}): trust ratios of CPU time, not times");
        }
        if BUILD == "debug" {
            println!("a debug build: these figures and words mean little; `cargo build --release`");
        }
    }
}

impl Played {
    pub(super) fn print(&self) {
        println!("{}", self.scenario.name);
        let medians: Vec<(&Play, Figures)> =
            self.scenario.plays.iter().map(|play| (play, self.median(play.name))).collect();
        let has = |figure| medians.iter().any(|(_, figures)| figures.get(figure).is_some());
        let columns: Vec<_> = self.scenario.columns.iter().copied().filter(|figure| has(*figure)).collect();
        let mut header = vec![""];
        header.extend(columns.iter().map(|figure| figure.title()));
        let row = |(play, figures): &(&Play, Figures)| {
            let cells = columns.iter().map(|figure| shown(figures.get(*figure), figure.digits()));
            std::iter::once(title(play)).chain(cells).collect()
        };
        output::table(&header, medians.iter().map(row).collect(), "nothing was measured");
        for judged in self.judged() {
            println!("{}", line(&judged));
        }
        println!();
    }

    fn judged(&self) -> impl Iterator<Item = Judged> {
        self.scenario.checks.iter().map(|check| check.judge(&self.rounds))
    }

    fn median(&self, play: &str) -> Figures {
        Figures::median(self.rounds.iter().filter_map(|round| round.play(play)))
    }

    fn json(&self) -> Value {
        let one = |play: &Play| {
            let rounds: Vec<_> = self.rounds.iter().filter_map(|round| round.play(play.name)).collect();
            (play.name.to_owned(), json!({ "median": self.median(play.name), "rounds": rounds }))
        };
        let plays: Map<_, _> = self.scenario.plays.iter().map(one).collect();
        json!({ "plays": plays, "checks": self.judged().collect::<Vec<_>>() })
    }
}

/// A play as people read it: the floor by its name.
fn title(play: &Play) -> String {
    match play.worker {
        Contender::Paperboy => play.name.replace('_', " "),
        floor => floor.title().to_owned(),
    }
}

/// One line of judgement.
fn line(judged: &Judged) -> String {
    let Judged { what, verdict, value, rule, limit, unit } = judged;
    let mut line = format!("  {:<12}  {what}: {}", verdict.word(), with_unit(*value, unit));
    let side = match rule {
        Rule::AtMost => "at most",
        Rule::AtLeast => "at least",
        Rule::Told => return line,
    };
    if limit.is_some() {
        // Writing to a string cannot fail.
        let _ = write!(line, " ({side} {})", with_unit(*limit, unit));
    }
    line
}

fn with_unit(value: Option<f64>, unit: &str) -> String {
    match unit {
        "×" => format!("× {}", shown(value, 2)),
        "" => shown(value, 0),
        unit => format!("{} {unit}", shown(value, 1)),
    }
}

fn shown(value: Option<f64>, digits: usize) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.is_infinite() => "never".to_owned(),
        Some(value) => format!("{value:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_word_and_ends_with_its_limit() {
        let judged = |verdict, rule, value, unit| {
            line(&Judged { what: "p99", verdict, value, rule, limit: Some(50.0), unit })
        };
        let passed = judged(Verdict::Pass, Rule::AtMost, Some(12.345), "ms");
        assert_eq!(passed.trim(), "pass          p99: 12.3 ms (at most 50.0 ms)");
        let never = judged(Verdict::Fail, Rule::AtMost, Some(f64::INFINITY), "ms");
        assert_eq!(never.trim(), "FAIL          p99: never ms (at most 50.0 ms)");
        assert_eq!(judged(Verdict::Told, Rule::Told, Some(1.5), "×").trim(), "told          p99: × 1.50");
        assert_eq!(
            judged(Verdict::NotMeasured, Rule::AtLeast, None, "").trim(),
            "not measured  p99: - (at least 50)"
        );
    }
}
