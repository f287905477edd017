//! The life of an event as people read it; pure, made of what the API tells too.

use serde_json::Value;

use super::output;
use crate::domain::cause::Cause;

/// The width of a moment with what follows it.
const INDENT: &str = "                          ";

/// One life as lines; a unit of waiting lasts `unit_ms`.
pub(super) fn text(life: &Value, unit_ms: u32) -> String {
    let mut lines = Vec::new();
    let facts = [
        ("event", &life["event"]),
        ("type", &life["type"]),
        ("tenant", &life["tenant"]),
        ("document", &life["document_id"]),
        ("batch", &life["batch_id"]),
    ];
    for (name, value) in facts {
        lines.extend(value.as_str().map(|value| format!("{name:<14} {}", output::printable(value))));
    }
    lines.push(String::new());
    if let Some(received) = life["received_at"].as_str() {
        lines.push(format!("{}  received", output::printable(received)));
    }
    let matched: Vec<&str> = list(&life["matched"]).filter_map(Value::as_str).collect();
    if !matched.is_empty() {
        let count = output::count(matched.len(), "subscription");
        lines.push(format!("{INDENT}for {count}: {}", output::printable(&matched.join(", "))));
    }
    for delivery in list(&life["deliveries"]) {
        of_delivery(delivery, unit_ms, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn of_delivery(delivery: &Value, unit_ms: u32, lines: &mut Vec<String>) {
    let host = delivery["host"].as_str();
    if let Some(id) = delivery["subscription"].as_str() {
        let place = host.map_or_else(|| "is no more".to_owned(), |host| format!("to {host}"));
        lines.push(format!("\n{} {}", output::printable(id), output::printable(&place)));
    }
    let host = host.unwrap_or("the receiver");
    let mut last_cause = None;
    for entry in list(&delivery["entries"]) {
        let (told, cause) = of_entry(entry, host, unit_ms);
        last_cause = cause;
        let moment = format!("{}  ", output::printable(entry["at"].as_str().unwrap_or_default()));
        lines.extend(told.into_iter().enumerate().map(|(place, line)| {
            let before = if place == 0 { &moment } else { INDENT };
            format!("{before}{}", output::printable(&line))
        }));
    }
    // Only where the story has not ended well meanwhile.
    lines.extend(last_cause.map(|cause: Cause| format!("{INDENT}hint: {}", cause.hint())));
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The lines of an entry, and why it is still not well after it.
fn of_entry(entry: &Value, host: &str, unit_ms: u32) -> (Vec<String>, Option<Cause>) {
    let waits =
        || output::duration(entry["next_wait"].as_u64().unwrap_or_default().saturating_mul(unit_ms.into()));
    let cause = entry["class"].as_str().and_then(Cause::parse);
    let because = || cause.map(|cause| format!(": {}", cause.line(host))).unwrap_or_default();
    let of_letter = || entry["dead_letter"].as_str().map(|id| format!(" ({id})")).unwrap_or_default();
    let note = || entry["note"].as_str().map(|note| format!(": {note}")).unwrap_or_default();
    match entry["what"].as_str().unwrap_or_default() {
        "delivered" => (vec![format!("{}: delivered", attempt(entry))], None),
        "retry" => {
            (vec![format!("{}{}", attempt(entry), because()), format!("next attempt in {}", waits())], cause)
        }
        "answered" => {
            (vec![format!("{}{}", attempt(entry), because()), "interactive: sent once".to_owned()], cause)
        }
        "dead" if entry["ms"].is_u64() => {
            (vec![format!("{}{}", attempt(entry), because()), given_up(entry)], cause)
        }
        "dead" => (vec![format!("{}{}", given_up(entry), because())], cause),
        "deferred" => (vec![format!("put off for {}; no attempt was used", waits())], None),
        word @ ("replayed" | "discarded") => {
            (vec![format!("{word} by a person{}{}", of_letter(), note())], None)
        }
        "unmatched" => (vec!["nobody has subscribed to it: let go".to_owned()], None),
        // Of a newer version.
        other => (vec![other.to_owned()], None),
    }
}

fn attempt(entry: &Value) -> String {
    let status = entry["status"].as_u64().map(|status| status.to_string());
    let seen = status.or_else(|| entry["class"].as_str().map(str::to_owned)).unwrap_or_default();
    let number = entry["attempt"].as_u64().unwrap_or_default();
    format!("attempt {number:<2} {seen} in {} ms", entry["ms"].as_u64().unwrap_or_default())
}

fn given_up(entry: &Value) -> String {
    let reason = entry["reason"].as_str().unwrap_or("unknown");
    match entry["dead_letter"].as_str() {
        Some(letter) => format!("given up: {reason} (dead letter {letter})"),
        None => format!("given up: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::deliveries::life::{Receivers, lives};
    use crate::store::dead::Kind;
    use crate::store::deliveries::{Cursor, DeliveryRow, What};
    use crate::store::{DeadRow, DeadState};

    const NINE: i64 = 1_795_338_007_120;

    fn row(after_ms: i64, what: What, attempt: u32) -> DeliveryRow {
        DeliveryRow {
            place: Cursor::parse("20261122.1").unwrap(),
            at_ms: NINE + after_ms,
            what,
            event_id: "evt_1".into(),
            event_type: "document.processed".into(),
            tenant: "acme".into(),
            document_id: Some("a7046a49".into()),
            batch_id: None,
            subscription: Some("sub_erp".into()),
            attempt,
            cycle: 0,
            status: None,
            class: None,
            reason: None,
            elapsed_ms: None,
            wait: None,
            received_ms: Some(NINE),
            worker: "host:1".into(),
        }
    }

    fn letter(cycle: u32, state: DeadState) -> DeadRow {
        DeadRow {
            id: 17,
            kind: Kind::Delivery,
            reason: "exhausted".into(),
            tenant: Some("acme".into()),
            event_id: Some("evt_1".into()),
            event_type: Some("document.processed".into()),
            subscription: Some("sub_erp".into()),
            document_id: Some("a7046a49".into()),
            batch_id: None,
            cycle,
            attempts: 3,
            history: String::new(),
            body_bytes: 2,
            first_seen_ms: NINE,
            dead_at_ms: NINE + 20_000,
            state,
            state_at_ms: (state != DeadState::Open).then_some(NINE + 60_000),
            note: None,
            host: None,
            class: None,
            status: None,
            replays: 0,
        }
    }

    /// Two attempts with a deferral between them, then the end.
    fn story() -> Vec<DeliveryRow> {
        let text = |text: &str| Some(text.to_owned());
        let failed = |row, status, class: &str| DeliveryRow {
            status,
            class: text(class),
            elapsed_ms: Some(41),
            ..row
        };
        vec![
            DeliveryRow { wait: Some(2), ..failed(row(5, What::Retry, 1), Some(503), "unavailable") },
            DeliveryRow { wait: Some(4), ..row(2_100, What::Deferred, 1) },
            DeliveryRow { wait: Some(4), ..failed(row(6_200, What::Retry, 2), None, "tls_expired") },
            DeliveryRow {
                reason: text("exhausted"),
                ..failed(row(10_300, What::Dead, 3), Some(500), "server_error")
            },
            DeliveryRow {
                cycle: 3,
                status: Some(204),
                elapsed_ms: Some(7),
                ..row(60_100, What::Delivered, 1)
            },
        ]
    }

    fn receivers() -> Receivers {
        Receivers::from([("sub_erp".to_owned(), "erp.example.com".to_owned())])
    }

    fn told(rows: &[DeliveryRow], letters: &[DeadRow], receivers: &Receivers) -> String {
        text(&lives(rows, letters)[0].json(receivers), 1000)
    }

    #[test]
    fn the_life_of_a_document_reads_from_its_arrival_to_its_replay() {
        let (rows, letters) = (story(), [letter(0, DeadState::Replayed)]);
        assert_eq!(lives(&rows, &letters).len(), 1);
        assert_eq!(
            told(&rows, &letters, &receivers()),
            "event          evt_1
type           document.processed
tenant         acme
document       a7046a49

2026-11-22T09:00:07.120Z  received
                          for 1 subscription: sub_erp

sub_erp to erp.example.com
2026-11-22T09:00:07.125Z  attempt 1  503 in 41 ms: erp.example.com is not available at the moment
                          next attempt in 2 s
2026-11-22T09:00:09.220Z  put off for 4 s; no attempt was used
2026-11-22T09:00:13.320Z  attempt 2  tls_expired in 41 ms: the certificate of erp.example.com has expired
                          next attempt in 4 s
2026-11-22T09:00:17.420Z  attempt 3  500 in 41 ms: erp.example.com failed while it handled the request
                          given up: exhausted (dead letter dl_17)
2026-11-22T09:01:07.120Z  replayed by a person (dl_17)
2026-11-22T09:01:07.220Z  attempt 1  204 in 7 ms: delivered
"
        );
    }

    #[test]
    fn what_is_still_wrong_ends_with_a_hint() {
        let rows = &story()[..3];
        let text = told(rows, &[], &receivers());
        assert!(
            text.ends_with("hint: renew the certificate; deliveries can be replayed afterwards\n"),
            "{text}"
        );
    }

    #[test]
    fn a_letter_tells_what_the_log_has_forgotten() {
        let letters = [letter(0, DeadState::Discarded)];
        let text = told(&[], &letters, &Receivers::new());
        assert!(text.contains("given up: exhausted (dead letter dl_17)"), "{text}");
        assert!(text.contains("discarded by a person (dl_17)"), "{text}");
        assert!(text.contains("sub_erp is no more"), "{text}");
    }

    #[test]
    fn tenants_whose_events_share_an_id_share_nothing_else() {
        let rows = [row(60_000, What::Replayed, 0)];
        let letters = [DeadRow { tenant: Some("other".into()), ..letter(0, DeadState::Replayed) }];
        let lives = lives(&rows, &letters);
        let told: Vec<String> = lives.iter().map(|life| text(&life.json(&receivers()), 1000)).collect();
        assert_eq!(told.len(), 2);
        let of = |tenant: &str| told.iter().find(|text| text.contains(tenant)).unwrap();
        assert!(!of("acme").contains("dl_17") && of("acme").contains("replayed by a person\n"), "{told:?}");
        assert!(of("other").contains("replayed by a person (dl_17)"), "{told:?}");
    }

    #[test]
    fn an_event_that_nobody_wanted_says_so() {
        let rows = [DeliveryRow { subscription: None, ..row(1, What::Unmatched, 0) }];
        let text = told(&rows, &[], &receivers());
        assert!(text.contains("nobody has subscribed to it: let go"), "{text}");
        assert!(!text.contains("for 0"), "{text}");
    }

    #[test]
    fn a_strangers_bytes_do_not_drive_the_terminal() {
        let rows = [DeliveryRow { document_id: Some("\u{1b}[31m".into()), ..row(1, What::Delivered, 1) }];
        assert!(!told(&rows, &[], &receivers()).contains('\u{1b}'));
    }
}
