//! The life of an event, told from the rows of the delivery log and its dead letters; pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::row_json;
use crate::desk::moment::precise;
use crate::domain::cause::Cause;
use crate::store::deliveries::{DeliveryRow, What};
use crate::store::{DeadRow, DeadState};

/// The host of each subscription that is still there.
pub type Receivers = BTreeMap<String, String>;

/// A replay in the log and the mark on its letter are written one after the other.
const REPLAY_APART_MS: u64 = 60_000;

/// What is known of one event.
pub struct Life<'a> {
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
pub fn lives<'a>(rows: &'a [DeliveryRow], letters: &'a [DeadRow]) -> Vec<Life<'a>> {
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
        && letter.tenant.as_deref() == Some(&row.tenant)
        && letter.state_at_ms.is_some_and(|at_ms| row.at_ms.abs_diff(at_ms) < REPLAY_APART_MS)
}

/// The letter that a row of a delivery given up led to.
fn letter_of<'a>(row: &DeliveryRow, letters: &'a [DeadRow]) -> Option<&'a DeadRow> {
    letters.iter().find(|letter| {
        letter.event_id.as_deref() == Some(&row.event_id)
            && letter.tenant.as_deref() == Some(&row.tenant)
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
    pub fn subscriptions(&self) -> impl Iterator<Item = &'a str> {
        self.deliveries.keys().filter_map(|subscription| *subscription)
    }

    /// Everything of it, entry by entry; what failed says why and what can be done.
    pub fn json(&self, receivers: &Receivers) -> Value {
        let deliveries = self.deliveries.iter().map(|(subscription, entries)| {
            let host = subscription.and_then(|id| receivers.get(id)).map(String::as_str);
            let named = host.unwrap_or("the receiver");
            json!({
                "subscription": subscription,
                "host": host,
                "entries": entries.iter().map(|entry| entry.json(named)).collect::<Vec<_>>(),
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
    fn json(&self, host: &str) -> Value {
        match &self.happening {
            Happening::Logged(row, letter) => {
                let mut value = row_json(row);
                let cause = row.class.as_deref().and_then(Cause::parse);
                value["cause"] = json!(cause.map(|cause| cause.line(host)));
                value["hint"] = json!(cause.map(Cause::hint));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dead::Kind;
    use crate::store::deliveries::Cursor;

    fn row(tenant: &str) -> DeliveryRow {
        DeliveryRow {
            place: Cursor::parse("20261122.1").unwrap(),
            at_ms: 1_795_338_007_120,
            what: What::Dead,
            event_id: "evt_1".into(),
            event_type: "a.b".into(),
            tenant: tenant.into(),
            document_id: None,
            batch_id: None,
            subscription: None,
            attempt: 1,
            cycle: 0,
            status: Some(503),
            class: None,
            reason: None,
            elapsed_ms: None,
            wait: None,
            received_ms: None,
            worker: "w".into(),
        }
    }

    fn letter(id: i64, tenant: &str) -> DeadRow {
        DeadRow {
            id,
            kind: Kind::Event,
            reason: "exhausted".into(),
            tenant: Some(tenant.into()),
            event_id: Some("evt_1".into()),
            event_type: Some("a.b".into()),
            subscription: None,
            document_id: None,
            batch_id: None,
            cycle: 0,
            attempts: 1,
            history: String::new(),
            body_bytes: 2,
            first_seen_ms: 1_795_338_007_000,
            dead_at_ms: 1_795_338_007_120,
            state: DeadState::Open,
            state_at_ms: None,
            note: None,
            host: None,
            class: None,
            status: None,
            replays: 0,
        }
    }

    #[test]
    fn two_tenants_with_one_event_id_have_each_their_own_letter() {
        let rows = [row("acme"), row("bolt")];
        let letters = [letter(1, "bolt"), letter(2, "acme")];
        let told: Vec<Value> =
            lives(&rows, &letters).iter().map(|life| life.json(&Receivers::default())).collect();
        let of = |tenant: &str| told.iter().find(|life| life["tenant"] == tenant).unwrap();
        for (tenant, letter) in [("acme", "dl_2"), ("bolt", "dl_1")] {
            let entries = of(tenant)["deliveries"][0]["entries"].as_array().unwrap();
            assert_eq!((entries.len(), &entries[0]["dead_letter"]), (1, &json!(letter)), "{tenant}");
        }
    }
}
