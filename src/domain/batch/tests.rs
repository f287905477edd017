use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::event::{Event, Hints};
use crate::domain::name::Tenant;
use crate::domain::time::rfc3339;

const NOW: i64 = 1_795_338_007_120;

fn tenant(text: &str) -> Tenant {
    Tenant::parse(text).unwrap()
}

fn rules() -> Rules {
    let finished = ["document.processed", "document.failed"].map(|kind| EventType::parse(kind).unwrap());
    Rules {
        finished: BTreeSet::from(finished),
        idle_ms: 30_000,
        tenants: BTreeMap::from([(tenant("slow"), 60_000)]),
    }
}

fn read(rest: &str) -> Result<Option<Signal>, Unkept> {
    let body = format!(r#"{{"id":"e1","tenant":"acme",{rest}}}"#);
    let hints = Hints { arrived_ms: Some(NOW), ..Hints::default() };
    rules().read(&Event::parse(body.as_bytes(), &hints).unwrap(), NOW)
}

fn signal(kind: &str, document: Option<u8>, at_ms: i64) -> Signal {
    let kind = EventType::parse(kind).unwrap();
    let is_finished = rules().finished.contains(&kind);
    Signal {
        tenant: tenant("acme"),
        batch: BatchId::parse("b_1").unwrap(),
        kind,
        at_ms,
        document: document
            .map(|number| Told { id: DocumentId::parse(&format!("d{number}")).unwrap(), is_finished }),
        closes: false,
        scope: None,
        idle_ms: 30_000,
    }
}

/// A batch with its documents, as a store keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    batch: Batch,
    members: BTreeMap<DocumentId, Option<Member>>,
}

impl Kept {
    fn of(signals: &[Signal]) -> Kept {
        let first = &signals[0];
        let batch = Batch::new(first.at_ms, first.idle_ms, first.scope.clone());
        let mut kept = Kept { batch, members: BTreeMap::new() };
        for signal in signals {
            kept.take(signal);
        }
        kept
    }

    fn take(&mut self, signal: &Signal) -> Joined {
        match &signal.document {
            Some(told) => self.batch.take(signal, self.members.entry(told.id.clone()).or_default()),
            None => self.batch.take(signal, &mut None),
        }
    }
}

#[test]
fn an_event_says_what_it_means_for_its_batch() {
    let joins =
        read(r#""type":"document.received","batch_id":"b","document_id":"d","time":"2026-11-22T09:00:07Z""#);
    let joins = joins.unwrap().unwrap();
    let told = joins.document.unwrap();
    assert_eq!((told.id.as_str(), told.is_finished, joins.at_ms), ("d", false, 1_795_338_007_000));
    assert!(!joins.closes);
    let ends = read(r#""type":"document.failed","batch_id":"b","document_id":"d","close_batch":true"#);
    let ends = ends.unwrap().unwrap();
    assert!(ends.document.unwrap().is_finished && ends.closes);
    let opens = read(r#""type":"batch.opened","batch_id":"b","document_id":"d""#).unwrap().unwrap();
    assert_eq!((opens.document, opens.at_ms), (None, NOW));
    let closes = read(r#""type":"x","batch_id":"b","close_batch":true"#).unwrap().unwrap();
    assert!(closes.closes && closes.document.is_none());
    for nothing in [
        r#""type":"document.processed","document_id":"d""#,
        r#""type":"analytics.completed","batch_id":"b""#,
        r#""type":"batch.completed","batch_id":"b","document_id":"d","close_batch":true"#,
    ] {
        assert_eq!(read(nothing), Ok(None), "{nothing}");
    }
    let long = "x".repeat(201);
    let unkept = read(&format!(r#""type":"a","batch_id":"{long}","document_id":"d""#));
    assert_eq!(unkept, Err(Unkept { field: "batch_id" }));
    assert_eq!(
        read(r#""type":"a","batch_id":"b","document_id":"d\u0000""#),
        Err(Unkept { field: "document_id" })
    );
}

#[test]
fn an_event_without_a_scope_leaves_its_batch_the_scope_it_has() {
    let told = |scope: &str| {
        let rest = format!(r#""type":"a","batch_id":"b","document_id":"d","scope":{scope}"#);
        read(&rest).unwrap().unwrap()
    };
    let bare = read(r#""type":"x","batch_id":"b","close_batch":true"#).unwrap().unwrap();
    assert_eq!((&bare.scope, &told("{}").scope), (&None, &None));
    let scope = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    let of = |signals: &[Signal]| Kept::of(signals).batch.scope;
    let (one, other) = (told(r#"{"inbox":"i7","q":"1"}"#), told(r#"{"inbox":"i7","q":"2"}"#));
    let opened = signal("batch.opened", None, 1);
    assert_eq!(of(&[opened.clone(), bare.clone()]), None);
    let agreed = of(&[opened, bare.clone(), one.clone(), other.clone(), told("{}"), bare]);
    assert_eq!(agreed, scope(&[("inbox", "i7")]));
    // What they do not agree on is not agreed on again.
    assert_eq!(of(&[one.clone(), told(r#"{"inbox":"i8"}"#), one.clone()]), scope(&[]));
    // Neither is anything once a scope was too long to be kept.
    let long = told(&format!(r#"{{"inbox":"i7","x":"{}"}}"#, "x".repeat(SCOPE_BYTES_MAX)));
    assert_eq!(of(&[long, one]), scope(&[]));
}

#[test]
fn a_clock_that_is_ahead_keeps_no_batch_open() {
    let ahead = read(r#""type":"a","batch_id":"b","document_id":"d","time":"2126-11-22T09:00:07Z""#);
    assert_eq!(ahead.unwrap().unwrap().at_ms, NOW);
}

#[test]
fn a_tenant_may_have_an_idle_time_of_its_own() {
    assert_eq!((rules().idle_ms(&tenant("acme")), rules().idle_ms(&tenant("slow"))), (30_000, 60_000));
}

#[test]
fn a_batch_is_due_so_long_after_its_last_document() {
    let kept = Kept::of(&[signal("batch.opened", None, 1)]);
    assert_eq!(kept.batch.due_ms(), None, "a batch without a document waits for its first");
    let mut kept = Kept::of(&[
        signal("document.received", Some(1), 1_000),
        signal("document.received", Some(2), 3_000),
        // No document of its own: it closes nothing later.
        signal("document.processed", Some(1), 9_000),
    ]);
    assert_eq!(kept.batch.due_ms(), Some(33_000));
    assert!(!kept.batch.close(32_999, 40_000));
    assert!(kept.batch.close(33_000, 40_000));
    assert!(!kept.batch.close(33_000, 40_000), "closed is closed");
    assert!(!kept.batch.is_done());
    kept.take(&signal("document.failed", Some(2), 50_000));
    assert!(kept.batch.complete(60_000) && !kept.batch.complete(60_000));
}

#[test]
fn what_comes_after_the_close_is_late_and_does_not_count() {
    let mut kept = Kept::of(&[signal("document.processed", Some(1), 1_000)]);
    kept.batch.close_asked = true;
    assert!(kept.batch.close(0, 2_000));
    assert_eq!(kept.take(&signal("document.processed", Some(2), 1_500)), Joined::Late);
    assert_eq!(kept.take(&signal("document.processed", Some(2), 1_500)), Joined::Before);
    assert_eq!((kept.batch.documents, kept.batch.finished, kept.batch.late), (1, 1, 1));
    assert!(kept.batch.complete(3_000));
    let told = kept.clone();
    assert_eq!(kept.take(&signal("document.failed", Some(1), 9_000)), Joined::Before);
    assert_eq!(kept, told, "what was told stays as it was told");
}

#[test]
fn ids_are_made_of_the_names_and_never_change() {
    let (acme, batch) = (tenant("acme"), BatchId::parse("b_17").unwrap());
    let id = completion_id(&acme, &batch);
    // By Python: uuid.uuid5(uuid.UUID("3c0e5b71-8d24-4f96-a15e-927b06d4c81f"), "acme\0b_17")
    assert_eq!(id, EXPECTED_ID);
    assert_ne!(id, completion_id(&tenant("acme2"), &batch));
    let document = DocumentId::parse("d").unwrap();
    assert_ne!(id, late_id(&acme, &batch, &document));
}

const EXPECTED_ID: &str = "f60288f8-f998-5754-8e42-041c838442b1";

#[test]
fn a_completion_lists_what_has_room_and_counts_the_rest() {
    let signals: Vec<Signal> =
        (0..40).map(|number| signal("document.processed", Some(number), i64::from(number))).collect();
    let mut kept = Kept::of(&signals);
    kept.batch.close_asked = true;
    assert!(kept.batch.close(0, NOW) && kept.batch.complete(NOW));
    let listed: Vec<Listed> = (kept.members.iter())
        .map(|(document, member)| Listed { document: document.clone(), member: member.clone().unwrap() })
        .collect();
    let outcomes = BTreeMap::from([("document.processed".to_owned(), 40)]);
    let (acme, id) = (tenant("acme"), BatchId::parse("b_1").unwrap());
    let completion =
        Completion { tenant: &acme, id: &id, batch: &kept.batch, outcomes: &outcomes, listed: &listed };
    for bytes_max in [1_024, 6_000, 1 << 20] {
        let body = completed_body(&completion, bytes_max);
        assert!(body.len() <= bytes_max.max(2_048), "{} of {bytes_max}", body.len());
        let event = Event::parse(&body, &Hints::default()).unwrap();
        assert_eq!((event.kind.as_str(), &*event.time), (TYPE_COMPLETED, &*rfc3339(NOW)));
        let data: serde_json::Value = serde_json::from_str(event.data.unwrap().get()).unwrap();
        let documents = data["documents"].as_array().unwrap().len() as u64;
        assert_eq!(documents + data["documents_left_out"].as_u64().unwrap(), 40);
        assert_eq!(documents == 40, bytes_max == 1 << 20);
        assert_eq!(data["counts"]["outcomes"]["document.processed"], 40);
    }
}

/// Up to three events of each of up to twelve documents, some of them twice.
fn arrivals() -> impl Strategy<Value = (Vec<Signal>, Vec<Signal>)> {
    let kinds = ["document.received", "document.processed", "document.failed", "document.exported"];
    let one = (0..4_usize, 0..12_u8, 0..50_i64, any::<bool>(), 0..4_u8).prop_map(
        move |(kind, number, at, closes, inbox)| {
            let scope = BTreeMap::from([
                ("inbox".to_owned(), (inbox / 2).to_string()),
                ("q".to_owned(), "1".to_owned()),
            ]);
            let scope = (inbox > 0).then_some(scope);
            Signal { closes: closes && at > 45, scope, ..signal(kinds[kind], Some(number), at * 100) }
        },
    );
    proptest::collection::vec(one, 1..40).prop_flat_map(|signals| {
        let twice: Vec<Signal> = signals.iter().chain(signals.iter().step_by(3)).cloned().collect();
        (Just(signals), Just(twice).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn the_same_events_leave_the_same_batch_whatever_their_order((in_order, shuffled) in arrivals()) {
        let (mut one, mut other) = (Kept::of(&in_order), Kept::of(&shuffled));
        // It may close later where a document's first event came last, and never earlier.
        let first = in_order.iter().fold(BTreeMap::new(), |mut first, signal| {
            let known = first.entry(signal.document.as_ref().unwrap().id.clone()).or_insert(signal.at_ms);
            *known = signal.at_ms.min(*known);
            first
        });
        let earliest = first.values().max().copied();
        prop_assert!(one.batch.last_document_ms >= earliest && other.batch.last_document_ms >= earliest);
        (one.batch.last_document_ms, other.batch.last_document_ms) = (None, None);
        prop_assert_eq!(&one, &other);
        let finished = one.members.values().flatten().filter(|member| member.outcome.is_some()).count();
        prop_assert_eq!((one.batch.documents, one.batch.finished), (first.len() as u64, finished as u64));
    }

    #[test]
    fn told_again_an_event_changes_nothing((_, signals) in arrivals()) {
        let kept = Kept::of(&signals);
        for signal in &signals {
            let mut again = kept.clone();
            prop_assert_eq!(again.take(signal), Joined::Before);
            prop_assert_eq!(&again, &kept);
        }
    }
}
