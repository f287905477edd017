//! What batches must do in every store: once in an SQLite file, once in PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use paperboy::domain::batch::{BatchId, DocumentId, Joined, Signal, State, Told};
use paperboy::domain::name::{EventType, Tenant};
use paperboy::store::Store;
use paperboy::store::batches::{BatchFilter, Phase};
use serde_json::Value;

use crate::support::home::{Home, on_both_engines};

on_both_engines! {
    processes_that_record_at_once_count_every_document_once,
    only_the_round_that_is_under_way_closes,
    one_process_sweeps_until_its_lease_ends,
    batches_are_forgotten_by_age_unless_something_is_still_to_be_told,
    what_is_to_be_told_is_read_by_bytes_and_not_kept_once_it_was,
    what_a_worker_put_off_is_held_after_its_end,
}

const NOW: i64 = 1_795_338_007_120;

fn signal(batch: &str, document: &str, kind: &str) -> Signal {
    Signal {
        tenant: Tenant::parse("acme").unwrap(),
        batch: BatchId::parse(batch).unwrap(),
        kind: EventType::parse(kind).unwrap(),
        at_ms: NOW,
        document: Some(Told {
            id: DocumentId::parse(document).unwrap(),
            is_finished: kind == "document.processed",
        }),
        closes: false,
        scope: None,
        idle_ms: 30_000,
    }
}

async fn all(store: &Store) -> Vec<(String, State, u64, u64, u64)> {
    let rows = store.batches(&BatchFilter { limit: 100, ..BatchFilter::default() }).await.unwrap();
    let row = rows.into_iter().map(|row| {
        let batch = row.batch;
        (row.id.to_string(), batch.state, batch.documents, batch.finished, batch.late)
    });
    let mut rows: Vec<_> = row.collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

/// Closes and completes what is due, as whoever sweeps.
async fn sweep(store: &Store, owner: &str, now_ms: i64) -> usize {
    assert!(store.lease_sweep(owner, now_ms, now_ms + 1_000).await.unwrap());
    let round = store.begin_round(owner).await.unwrap().unwrap();
    let due = store.batches_due(now_ms, 100).await.unwrap();
    assert!(store.watch_round(owner, round).await.unwrap());
    let closed = store.close_batches(owner, round, &due, now_ms, now_ms).await.unwrap().unwrap();
    let done = store.batches_done(100).await.unwrap();
    store.complete_batches(&done, 1 << 20, now_ms).await.unwrap();
    closed
}

async fn processes_that_record_at_once_count_every_document_once(home: Home) {
    home.migrate().await;
    // Each says everything, in an order of its own and in groups, so that they hold the same batches at once.
    let mut tasks = Vec::new();
    for process in 0..4_usize {
        let store = home.open().await;
        tasks.push(tokio::spawn(async move {
            let mut signals: Vec<Signal> = Vec::new();
            for n in 0..240_usize {
                let n = (n * 7 + process * 61) % 240;
                let kind = if (n + process) % 2 == 0 { "document.processed" } else { "document.received" };
                signals.push(signal(&format!("b_{}", n % 8), &format!("d_{n}"), kind));
            }
            let mut joined = 0;
            for group in signals.chunks(16) {
                let told = store.record_signals(group, NOW).await.unwrap();
                joined += told.iter().filter(|joined| **joined == Joined::InTime).count();
            }
            joined
        }));
    }
    let mut joined = 0;
    for task in tasks {
        joined += task.await.unwrap();
    }
    assert_eq!(joined, 240);
    let expected: Vec<_> = (0..8).map(|n| (format!("b_{n}"), State::Open, 30, 30, 0)).collect();
    assert_eq!(all(&home.open().await).await, expected);
}

async fn only_the_round_that_is_under_way_closes(home: Home) {
    let store = home.migrate().await;
    store.record_signals(&[signal("b", "d", "document.processed")], NOW).await.unwrap();
    assert!(store.batches_due(NOW + 29_999, 9).await.unwrap().is_empty());
    let later = NOW + 30_000;
    let due = store.batches_due(later, 9).await.unwrap();
    assert_eq!(due.len(), 1);

    assert_eq!(store.begin_round("a").await.unwrap(), None, "without the right to sweep");
    assert!(store.lease_sweep("a", later, later + 10).await.unwrap());
    let round = store.begin_round("a").await.unwrap().unwrap();
    assert_eq!(store.round().await.unwrap(), Some((round, Phase::Calling)));
    let close = async |owner, round| store.close_batches(owner, round, &due, later, later).await.unwrap();
    assert_eq!(close("a", round).await, None, "nobody watches yet");
    assert!(store.watch_round("a", round).await.unwrap());
    assert_eq!(store.round().await.unwrap(), Some((round, Phase::Watching)));
    // Somebody else has taken over meanwhile, and begun another.
    assert!(store.lease_sweep("b", later + 11, later + 20).await.unwrap());
    assert_eq!(close("a", round).await, None);
    let next = store.begin_round("b").await.unwrap().unwrap();
    assert!(next > round && !store.watch_round("a", round).await.unwrap());
    assert!(store.watch_round("b", next).await.unwrap());
    assert_eq!((close("b", round).await, close("b", next).await), (None, Some(1)));
    store.end_round("b", next).await.unwrap();
    assert_eq!((store.round().await.unwrap(), close("b", next).await), (None, None));

    // What joined after it was seen due keeps a batch open.
    store.record_signals(&[signal("c", "d", "document.processed")], NOW).await.unwrap();
    let due = store.batches_due(later, 9).await.unwrap();
    let newer = Signal { at_ms: later, ..signal("c", "e", "document.processed") };
    store.record_signals(&[newer], NOW).await.unwrap();
    let round = store.begin_round("b").await.unwrap().unwrap();
    assert!(store.watch_round("b", round).await.unwrap());
    assert_eq!(store.close_batches("b", round, &due, later, later).await.unwrap(), Some(0));
}

async fn one_process_sweeps_until_its_lease_ends(home: Home) {
    let store = home.migrate().await;
    assert!(store.lease_sweep("a", 100, 200).await.unwrap());
    assert!(store.lease_sweep("a", 150, 250).await.unwrap());
    assert!(!store.lease_sweep("b", 250, 350).await.unwrap());
    assert!(store.lease_sweep("b", 251, 351).await.unwrap());
    store.release_sweep("a").await.unwrap();
    assert!(!store.lease_sweep("a", 252, 352).await.unwrap(), "what is another's cannot be given back");
    store.release_sweep("b").await.unwrap();
    assert!(store.lease_sweep("a", 253, 353).await.unwrap());
}

async fn what_is_to_be_told_is_read_by_bytes_and_not_kept_once_it_was(home: Home) {
    let store = home.migrate().await;
    assert!(!store.is_outbox_waiting().await.unwrap());
    let signals = [1, 2, 3].map(|n| signal(&format!("b_{n}"), "d", "document.processed"));
    store.record_signals(&signals, NOW).await.unwrap();
    assert_eq!(sweep(&store, "a", NOW + 30_000).await, 3);
    assert!(store.is_outbox_waiting().await.unwrap());
    let all = store.outbox_waiting(0, 9, 1 << 20).await.unwrap();
    assert_eq!(all.len(), 3);
    let two = all[0].body.len() + all[1].body.len();
    let waiting = async |after, limit, bytes_max| {
        let rows = store.outbox_waiting(after, limit, bytes_max).await.unwrap();
        rows.into_iter().map(|row| row.number).collect::<Vec<_>>()
    };
    let [first, second, third] = [0, 1, 2].map(|place: usize| all[place].number);
    assert_eq!(waiting(0, 9, two).await, [first, second]);
    assert_eq!(waiting(0, 9, two - 1).await, [first]);
    assert_eq!(waiting(0, 9, 1).await, [first], "one, whatever its size");
    assert_eq!(waiting(0, 2, 1 << 20).await, [first, second]);
    assert_eq!(waiting(first, 9, 1 << 20).await, [second, third]);
    store.outbox_sent(&[first, third], NOW).await.unwrap();
    assert_eq!(waiting(0, 9, 1 << 20).await, [second]);
    store.outbox_sent(&[second], NOW).await.unwrap();
    assert!(!store.is_outbox_waiting().await.unwrap());
}

async fn what_a_worker_put_off_is_held_after_its_end(home: Home) {
    let store = home.migrate().await;
    store.worker_begins("w").await.unwrap();
    assert!(!store.is_held(0).await.unwrap());
    store.worker_holds("w", 1_000).await.unwrap();
    store.worker_holds("w", 2_000).await.unwrap();
    store.worker_ends("w").await.unwrap();
    assert!(store.workers().await.unwrap().is_empty());
    store.forget_holds(1_999).await.unwrap();
    assert!(store.is_held(1_999).await.unwrap() && !store.is_held(2_000).await.unwrap());
    store.forget_holds(2_000).await.unwrap();
    assert!(!store.is_held(0).await.unwrap());
}

async fn batches_are_forgotten_by_age_unless_something_is_still_to_be_told(home: Home) {
    let store = home.migrate().await;
    let signals = [signal("done", "d", "document.processed"), signal("stuck", "d", "document.received")];
    store.record_signals(&signals, NOW).await.unwrap();
    let later = NOW + 30_000;
    assert_eq!(sweep(&store, "a", later).await, 2);
    let states: Vec<State> = all(&store).await.into_iter().map(|row| row.1).collect();
    assert_eq!(states, [State::Completed, State::Closed]);
    // Late, and told of.
    assert_eq!(store.record_signals(&[signal("done", "x", "a")], later).await.unwrap(), [Joined::Late]);
    assert_eq!(store.record_signals(&[signal("done", "x", "a")], later).await.unwrap(), [Joined::Before]);
    let outbox = store.outbox_waiting(0, 9, 1 << 20).await.unwrap();
    let kinds: Vec<&str> = outbox.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["batch.completed", "batch.late_document"]);
    for row in &outbox {
        let body: Value = serde_json::from_slice(&row.body).unwrap();
        assert_eq!(
            (body["id"].as_str(), body["batch_id"].as_str()),
            (Some(row.event_id.as_str()), Some("done"))
        );
    }
    assert_eq!(store.forget_batches(later, 9).await.unwrap(), (0, 0), "not old");
    assert_eq!(store.forget_batches(later + 1, 9).await.unwrap(), (0, 1), "one is still to be told of");
    let numbers: Vec<i64> = outbox.iter().map(|row| row.number).collect();
    store.outbox_sent(&numbers, later).await.unwrap();
    assert!(store.outbox_waiting(0, 9, 1 << 20).await.unwrap().is_empty());
    assert_eq!(store.forget_batches(later + 1, 9).await.unwrap(), (1, 0));
    assert!(all(&store).await.is_empty());
    // Named again it is another batch.
    let again = store.record_signals(&[signal("done", "d", "a")], later).await.unwrap();
    assert_eq!(again, [Joined::InTime]);
}
