//! Tables for people, JSON for scripts; data on standard output.

use std::io::IsTerminal as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::Failure;

/// One JSON object a line.
pub(super) fn json_line(value: &Value) {
    println!("{value}");
}

/// A table, or a sentence on standard error where there is nothing to show.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
    if rows.is_empty() {
        eprintln!("{nothing}");
        return;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table.add_rows(rows);
    println!("{}", table.trim_fmt());
}

/// Says that a list ends where it was told to, and perhaps not where there is nothing more.
pub(super) fn bounded(rows: usize, limit: u32) {
    if rows >= limit as usize {
        eprintln!("{limit} are shown, there may be more: `--limit`");
    }
}

/// A bar on a terminal, nothing elsewhere; its message stands before it.
pub(super) fn progress(total: usize) -> ProgressBar {
    progress_of(total, "events")
}

/// The same for other things than events.
pub(super) fn progress_of(total: usize, things: &str) -> ProgressBar {
    if total < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{msg}}{{bar:40}} {{pos}}/{{len}} {things}  {{per_sec}}  {{eta}} left");
    let bar = ProgressBar::new(total as u64);
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Asks on a terminal; elsewhere wants `--yes`.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("this cannot be undone and there is nobody to ask")
            .hint("add `--yes`, or look first with `--dry-run`"));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(anyhow::Error::from)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::world("nothing was done")),
    }
}

/// `1 dead letter`, `2 dead letters`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Control characters made visible, so that a stranger's bytes cannot drive a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// A moment in Unix milliseconds as people read it, in UTC to the second.
pub(super) fn moment(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.0}")
}

/// A wait as people say it; levels double, so most are no round number of minutes.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..7_200_000 => format!("{:.1} min", ms as f64 / 60_000.0),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

/// A size as people say it.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_would_drive_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc\0"), "a\\u{1b}[31mb\nc\\u{0}");
    }

    #[test]
    fn waits_are_told_in_words() {
        let told = [20, 2560, 64_000, 128_000, 65_536_000].map(duration);
        assert_eq!(told, ["20 ms", "2.6 s", "64 s", "2.1 min", "18.2 h"]);
    }

    #[test]
    fn sizes_are_told_in_words() {
        let told = [0, 4096, 52_000, 256_000_000, 20_000_000_000].map(bytes);
        assert_eq!(told, ["0 bytes", "4096 bytes", "0.1 MB", "256 MB", "20.0 GB"]);
    }
}
