//! Counters that alarms watch are there from the start: to Prometheus a series that begins with 1 has not risen.

use crate::domain::retry::Reason;

/// A counter and its labels, as `docs/operations.md` names them in its alarms.
const WATCHED: [(&str, &str, &[&str]); 9] = [
    ("paperboy_batch_documents_total", "joined", &["in_time", "late"]),
    ("paperboy_batch_unrecorded_total", "", &[]),
    ("paperboy_calls_total", "ending", &["busy", "interrupted", "unavailable"]),
    ("paperboy_dead_total", "reason", &[]),
    ("paperboy_deferred_total", "cause", &["busy", "lack", "store", "unknown"]),
    ("paperboy_delivery_log_dropped_total", "", &[]),
    ("paperboy_disabled_total", "why", &["failing", "gone"]),
    ("paperboy_returned_total", "", &[]),
    ("paperboy_unconfirmed_total", "", &[]),
];

/// Lets each begin at 0.
pub(super) fn begin() {
    for (name, label, values) in WATCHED {
        match (label, values) {
            ("", _) => metrics::counter!(name).increment(0),
            ("reason", _) => Reason::ALL
                .iter()
                .for_each(|reason| metrics::counter!(name, label => reason.as_str()).increment(0)),
            (_, values) => {
                values.iter().for_each(|value| metrics::counter!(name, label => *value).increment(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rise_that_an_alarm_waits_for_begins_at_nothing() {
        let document = std::fs::read_to_string("docs/operations.md").unwrap();
        let alarms = document.split("### Alarms").nth(1).unwrap().split("\n#").next().unwrap();
        let names = alarms.split("increase(").skip(1).map(|rest| rest.split(['[', '{']).next().unwrap());
        let named: BTreeSet<&str> = names.collect();
        assert_eq!(named, WATCHED.map(|(name, ..)| name).into());
        for (name, label, values) in WATCHED {
            let row = document.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
            assert!(row.contains(label), "{row}");
            assert!(values.iter().all(|value| row.contains(value)), "{row}");
        }
    }
}
