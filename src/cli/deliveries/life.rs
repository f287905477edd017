//! The life of an event, told from the rows of the delivery log and its dead letters; pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::list::row_json;
use super::{output, precise};
use crate::domain::cause::Cause;
use crate::store::deliveries::{DeliveryRow, What};
use crate::store::{DeadRow, DeadState};

/// The host of each subscription that is still there.
pub(super) type Receivers = BTreeMap<String, String>;

/// A replay in the log and the mark on its letter are written one after the other.
const REPLAY_APART_MS: u64 = 60_000;
/// The width of a moment with what follows it.
const INDENT: &str = "                          ";

/// What is known of one event.
pub(super) struct Life<'a> {
    event: &'a str,
    kind: Option<&'a str>,
    tenant: Option<&'a str>,
    document: Option<&'a str>,
    batch: Option<&'a str>,
    received_ms: Option<i64>,
    /// By subscription; without one what befell the event as a whole.
    deliveries: BTreeMap<Option<&'a str>, Vec<Entry<'a>>>,
}

/// One thing that befell a delivery.
struct Entry<'a> {
    at_ms: i64,
    happening: Happening<'a>,
}

enum Happening<'a> {
    /// A row of the log, and the dead letter it led to.
    Logged(&'a DeliveryRow, Option<&'a DeadRow>),
    /// A dead letter that the log says nothing of.
    Dead(&'a DeadRow),
    /// What a person decided about a letter.
    Decided(&'a DeadRow),
}

/// The lives of all events that occur, in the order of their first moment. Rows are oldest first.
pub(super) fn lives<'a>(rows: &'a [DeliveryRow], letters: &'a [DeadRow]) -> Vec<Life<'a>> {
    let mut lives: BTreeMap<(Option<&str>, &str), Life<'a>> = BTreeMap::new();
    for row in rows {
        let key = (Some(row.tenant.as_str()), row.event_id.as_str());
        let life = lives.entry(key).or_insert_with(|| Life::new(&row.event_id, Some(&row.tenant)));
        life.kind = Some(&row.event_type);
        life.document = life.document.or(row.document_id.as_deref());
        life.batch = life.batch.or(row.batch_id.as_deref());
        life.received(row.received_ms.unwrap_or(row.at_ms));
        let letter = match row.what {
            What::Dead => letter_of(row, letters),
            What::Replayed => letters.iter().find(|letter| is_replay_of(row, letter)),
            _ => None,
        };
        life.add(row.subscription.as_deref(), row.at_ms, Happening::Logged(row, letter));
    }
    for letter in letters {
        let Some(event) = letter.event_id.as_deref() else { continue };
        let key = (letter.tenant.as_deref(), event);
        let life = lives.entry(key).or_insert_with(|| Life::new(event, letter.tenant.as_deref()));
        life.kind = life.kind.or(letter.event_type.as_deref());
        life.document = life.document.or(letter.document_id.as_deref());
        life.batch = life.batch.or(letter.batch_id.as_deref());
        if letter.cycle == 0 {
            life.received(letter.first_seen_ms);
        }
        let subscription = letter.subscription.as_deref();
        let of_it = |row: &&DeliveryRow| letter_of(row, letters).is_some_and(|found| found.id == letter.id);
        if !rows.iter().filter(|row| row.what == What::Dead).any(|row| of_it(&row)) {
            life.add(subscription, letter.dead_at_ms, Happening::Dead(letter));
        }
        let Some(at_ms) = letter.state_at_ms else { continue };
        if !rows.iter().any(|row| is_replay_of(row, letter)) {
            life.add(subscription, at_ms, Happening::Decided(letter));
        }
    }
    let mut lives: Vec<Life<'_>> = lives.into_values().collect();
    for life in &mut lives {
        life.deliveries.values_mut().for_each(|entries| entries.sort_by_key(|entry| entry.at_ms));
    }
    lives.sort_by_key(|life| life.received_ms);
    lives
}

/// Whether a row tells of the replay that a letter is marked with; it may have gone to another subscription.
fn is_replay_of(row: &DeliveryRow, letter: &DeadRow) -> bool {
    row.what == What::Replayed
        && letter.state == DeadState::Replayed
        && letter.event_id.as_deref() == Some(&row.event_id)
        && letter.state_at_ms.is_some_and(|at_ms| row.at_ms.abs_diff(at_ms) < REPLAY_APART_MS)
}

/// The letter that a row of a delivery given up led to.
fn letter_of<'a>(row: &DeliveryRow, letters: &'a [DeadRow]) -> Option<&'a DeadRow> {
    letters.iter().find(|letter| {
        letter.event_id.as_deref() == Some(&row.event_id)
            && letter.subscription == row.subscription
            && letter.cycle == row.cycle
    })
}

impl<'a> Life<'a> {
    fn new(event: &'a str, tenant: Option<&'a str>) -> Life<'a> {
        let deliveries = BTreeMap::new();
        Life { event, kind: None, tenant, document: None, batch: None, received_ms: None, deliveries }
    }

    fn received(&mut self, at_ms: i64) {
        self.received_ms = Some(self.received_ms.map_or(at_ms, |known| known.min(at_ms)));
    }

    fn add(&mut self, subscription: Option<&'a str>, at_ms: i64, happening: Happening<'a>) {
        self.deliveries.entry(subscription).or_default().push(Entry { at_ms, happening });
    }

    /// Every subscription that it went or was to go to.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &'a str> {
        self.deliveries.keys().filter_map(|subscription| *subscription)
    }

    /// As people read it; a unit of waiting lasts `unit_ms`.
    pub(super) fn text(&self, receivers: &Receivers, unit_ms: u32) -> String {
        let mut lines = Vec::new();
        let facts = [
            ("event", Some(self.event)),
            ("type", self.kind),
            ("tenant", self.tenant),
            ("document", self.document),
            ("batch", self.batch),
        ];
        for (name, value) in facts {
            lines.extend(value.map(|value| format!("{name:<14} {}", output::printable(value))));
        }
        lines.push(String::new());
        if let Some(received_ms) = self.received_ms {
            lines.push(format!("{}  received", precise(received_ms)));
        }
        let matched: Vec<&str> = self.subscriptions().collect();
        if !matched.is_empty() {
            let count = output::count(matched.len(), "subscription");
            lines.push(format!("{INDENT}for {count}: {}", output::printable(&matched.join(", "))));
        }
        for (subscription, entries) in &self.deliveries {
            let host = subscription.and_then(|id| receivers.get(id)).map(String::as_str);
            if let Some(id) = subscription {
                let place = host.map_or_else(|| "is no more".to_owned(), |host| format!("to {host}"));
                lines.push(format!("\n{} {}", output::printable(id), output::printable(&place)));
            }
            let host = host.unwrap_or("the receiver");
            let mut last_cause = None;
            for entry in entries {
                let (told, cause) = entry.told(host, unit_ms);
                last_cause = cause;
                let moment = format!("{}  ", precise(entry.at_ms));
                let told = told.into_iter().enumerate();
                lines.extend(told.map(|(place, line)| {
                    let before = if place == 0 { &moment } else { INDENT };
                    format!("{before}{}", output::printable(&line))
                }));
            }
            // Only where the story has not ended well meanwhile.
            lines.extend(last_cause.map(|cause: Cause| format!("{INDENT}hint: {}", cause.hint())));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    pub(super) fn json(&self, receivers: &Receivers) -> Value {
        let deliveries = self.deliveries.iter().map(|(subscription, entries)| {
            json!({
                "subscription": subscription,
                "host": subscription.and_then(|id| receivers.get(id)),
                "entries": entries.iter().map(Entry::json).collect::<Vec<_>>(),
            })
        });
        json!({
            "event": self.event,
            "type": self.kind,
            "tenant": self.tenant,
            "document_id": self.document,
            "batch_id": self.batch,
            "received_at": self.received_ms.map(precise),
            "matched": self.subscriptions().collect::<BTreeSet<_>>(),
            "deliveries": deliveries.collect::<Vec<_>>(),
        })
    }
}

impl Entry<'_> {
    /// Its lines, and why it is still not well after it.
    fn told(&self, host: &str, unit_ms: u32) -> (Vec<String>, Option<Cause>) {
        match &self.happening {
            Happening::Logged(row, letter) => told_row(row, *letter, host, unit_ms),
            Happening::Dead(letter) => (vec![given_up(Some(&letter.reason), Some(letter))], None),
            Happening::Decided(letter) => {
                let word = if letter.state == DeadState::Replayed { "replayed" } else { "discarded" };
                let note = letter.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
                (vec![format!("{word} by a person (dl_{}){note}", letter.id)], None)
            }
        }
    }

    fn json(&self) -> Value {
        match &self.happening {
            Happening::Logged(row, letter) => {
                let mut value = row_json(row);
                value["dead_letter"] = json!(letter.map(|letter| format!("dl_{}", letter.id)));
                value
            }
            Happening::Dead(letter) => json!({
                "at": precise(self.at_ms), "what": "dead", "reason": letter.reason,
                "dead_letter": format!("dl_{}", letter.id),
            }),
            Happening::Decided(letter) => json!({
                "at": precise(self.at_ms), "what": letter.state.as_str(), "note": letter.note,
                "dead_letter": format!("dl_{}", letter.id),
            }),
        }
    }
}

fn told_row(
    row: &DeliveryRow,
    letter: Option<&DeadRow>,
    host: &str,
    unit_ms: u32,
) -> (Vec<String>, Option<Cause>) {
    let wait = |units: Option<u32>| {
        output::duration(u64::from(units.unwrap_or_default()).saturating_mul(unit_ms.into()))
    };
    let cause = row.class.as_deref().and_then(Cause::parse);
    match row.what {
        What::Delivered => (vec![format!("{}: delivered", attempt(row))], None),
        What::Retry => {
            let next = format!("next attempt in {}", wait(row.wait));
            (vec![format!("{}{}", attempt(row), because(cause, host)), next], cause)
        }
        What::Dead => {
            let end = given_up(row.reason.as_deref(), letter);
            match row.elapsed_ms {
                Some(_) => (vec![format!("{}{}", attempt(row), because(cause, host)), end], cause),
                None => (vec![format!("{end}{}", because(cause, host))], cause),
            }
        }
        What::Deferred => (vec![format!("put off for {}; no attempt was used", wait(row.wait))], None),
        What::Replayed => {
            let letter = letter.map(|letter| format!(" (dl_{})", letter.id)).unwrap_or_default();
            (vec![format!("replayed by a person{letter}")], None)
        }
        What::Answered => (
            vec![format!("{}{}", attempt(row), because(cause, host)), "interactive: sent once".to_owned()],
            cause,
        ),
        What::Unmatched => (vec!["nobody has subscribed to it: let go".to_owned()], None),
    }
}

fn attempt(row: &DeliveryRow) -> String {
    let seen = row.status.map(|status| status.to_string()).or_else(|| row.class.clone());
    let ms = row.elapsed_ms.unwrap_or_default();
    format!("attempt {:<2} {} in {ms} ms", row.attempt, seen.unwrap_or_default())
}

fn because(cause: Option<Cause>, host: &str) -> String {
    cause.map(|cause| format!(": {}", cause.line(host))).unwrap_or_default()
}

fn given_up(reason: Option<&str>, letter: Option<&DeadRow>) -> String {
    let reason = reason.unwrap_or("unknown");
    match letter {
        Some(letter) => format!("given up: {reason} (dead letter dl_{})", letter.id),
        None => format!("given up: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dead::Kind;
    use crate::store::deliveries::Cursor;

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

    #[test]
    fn the_life_of_a_document_reads_from_its_arrival_to_its_replay() {
        let (rows, letters) = (story(), [letter(0, DeadState::Replayed)]);
        let lives = lives(&rows, &letters);
        assert_eq!(lives.len(), 1);
        assert_eq!(
            lives[0].text(&receivers(), 1000),
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
        let text = lives(rows, &[])[0].text(&receivers(), 1000);
        assert!(
            text.ends_with("hint: renew the certificate; deliveries can be replayed afterwards\n"),
            "{text}"
        );
    }

    #[test]
    fn a_letter_tells_what_the_log_has_forgotten() {
        let letters = [letter(0, DeadState::Discarded)];
        let text = lives(&[], &letters)[0].text(&Receivers::new(), 1000);
        assert!(text.contains("given up: exhausted (dead letter dl_17)"), "{text}");
        assert!(text.contains("discarded by a person (dl_17)"), "{text}");
        assert!(text.contains("sub_erp is no more"), "{text}");
    }

    #[test]
    fn an_event_that_nobody_wanted_says_so() {
        let rows = [DeliveryRow { subscription: None, ..row(1, What::Unmatched, 0) }];
        let text = lives(&rows, &[])[0].text(&receivers(), 1000);
        assert!(text.contains("nobody has subscribed to it: let go"), "{text}");
        assert!(!text.contains("for 0"), "{text}");
    }

    #[test]
    fn a_strangers_bytes_do_not_drive_the_terminal() {
        let rows = [DeliveryRow { document_id: Some("\u{1b}[31m".into()), ..row(1, What::Delivered, 1) }];
        assert!(!lives(&rows, &[])[0].text(&receivers(), 1000).contains('\u{1b}'));
    }
}
