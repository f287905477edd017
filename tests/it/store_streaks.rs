//! What rows of failures and the notices of them must do in every store: once in an SQLite file, once in PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use paperboy::domain::cause::Cause;
use paperboy::domain::name::{SubscriptionId, Tenant};
use paperboy::domain::spec::SubscriptionSpec;
use paperboy::domain::streak::{Rules, Seen};
use paperboy::domain::subscription::DisabledBy;
use paperboy::store::notices::Outbox as _;
use paperboy::store::streaks::Why;
use paperboy::store::{AuditFilter, Store};
use serde_json::{Value, json};

use crate::support::home::{Home, on_both_engines};

on_both_engines! {
    a_row_of_two_processes_is_told_disables_once_and_is_forgotten,
    one_success_of_any_process_ends_the_row_and_is_told_if_the_row_was,
    of_many_processes_at_once_exactly_one_disables_and_tells,
    gone_disables_only_whoever_still_wants_that,
    gone_from_before_a_change_disables_nobody,
    whoever_is_enabled_again_or_removed_begins_anew,
    what_was_under_way_when_it_was_disabled_begins_no_row,
    a_notice_is_taken_by_one_until_its_lease_ends,
}

// 2026-11-22T09:00:07.120Z
const NINE: i64 = 1_795_338_007_120;
const RULES: Rules = Rules { after_ms: 10_000, failures_min: 5 };

async fn a_row_of_two_processes_is_told_disables_once_and_is_forgotten(home: Home) {
    let (one, other) = (with_one(&home, "dead").await, home.open().await);
    assert_eq!(note(&one, failures(3, 0, 2_000)).await, 0);
    assert_eq!(note(&other, failures(2, 1_000, 4_999)).await, 0);
    assert!(notices(&one).await.is_empty(), "not half of the time yet");
    assert_eq!(note(&other, failures(1, 5_000, 5_000)).await, 0);
    assert_eq!(note(&one, failures(1, 6_000, 6_000)).await, 0);
    let told = notices(&one).await;
    assert_eq!(told.len(), 1, "told once");
    let (time, disables_at) = ("2026-11-22T09:00:07.120Z", "2026-11-22T09:00:17.120Z");
    let id = told[0]["id"].as_str().unwrap();
    assert!(id.starts_with("ntc_"), "{id}");
    assert_eq!(
        told[0],
        json!({
            "id": id, "type": "subscription.failing", "time": told[0]["time"], "tenant": "acme",
            "subscription": "sub_1", "name": "ERP", "host": "erp.example.com", "since": time, "failures": 6,
            "class": "unavailable", "cause": "erp.example.com is not available at the moment",
            "hint": Cause::Unavailable.hint(), "disables_at": disables_at,
        })
    );
    let known = one.failing(&id_of("sub_1")).await.unwrap().unwrap();
    assert_eq!((known.failures, known.since_ms, known.is_told), (7, NINE, true));

    assert_eq!(note(&other, failures(1, 10_000, 10_000)).await, 1);
    let before = one.tenant_version(&Tenant::parse("acme").unwrap()).await.unwrap();
    let counter = disable(&one, Why::Failing).await.unwrap();
    assert!(counter > before, "every process reads it again");
    assert_eq!(disable(&other, Why::Failing).await, None);
    let spec = one.subscription(&id_of("sub_1")).await.unwrap().unwrap();
    assert_eq!((spec.enabled, spec.disabled_by), (Some(false), Some(DisabledBy::Paperboy)));
    let told = notices(&one).await.remove(0);
    assert_eq!(
        (&told["type"], &told["why"], &told["failures"], &told["since"]),
        (&json!("subscription.disabled"), &json!("failing"), &json!(8), &json!(time))
    );
    let audit = one.audit(&AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
    let line = &audit[0];
    assert_eq!((line.actor.as_str(), line.action.as_str()), ("paperboy", "subscription.disable"));
    assert_eq!((line.object.as_str(), line.tenant.as_deref(), audit.len()), ("sub_1", Some("acme"), 1));
    assert!(one.known_failing().await.unwrap().is_empty());
}

async fn one_success_of_any_process_ends_the_row_and_is_told_if_the_row_was(home: Home) {
    let store = with_one(&home, "dead").await;
    note(&store, failures(4, 0, 4_000)).await;
    note(&store, delivered(4_500)).await;
    assert!(notices(&store).await.is_empty(), "nobody had been told");
    assert!(store.known_failing().await.unwrap().is_empty());

    note(&store, failures(9, 5_000, 11_000)).await;
    assert_eq!(notices(&store).await.len(), 1);
    // A success, and one more failure behind it.
    let mut seen = delivered(12_000);
    seen.failed(NINE + 13_000, Cause::NotFound, Some(404));
    assert_eq!(note(&store, seen).await, 0);
    let told = notices(&store).await;
    assert_eq!((told.len(), &told[0]["type"]), (1, &json!("subscription.recovered")));
    let row = store.failing(&id_of("sub_1")).await.unwrap().unwrap();
    assert_eq!((row.failures, row.since_ms, row.class.as_str()), (1, NINE + 13_000, "not_found"));
    assert!(!row.is_told);
}

async fn of_many_processes_at_once_exactly_one_disables_and_tells(home: Home) {
    let store = with_one(&home, "dead").await;
    note(&store, failures(5, 0, 1_000)).await;
    let mut tasks = Vec::new();
    for process in 0..4 {
        let store = home.open().await;
        tasks.push(tokio::spawn(async move {
            let enough = note(&store, failures(1, 6_000, 10_000 + process)).await;
            let disabled = if enough > 0 { disable(&store, Why::Failing).await.is_some() } else { false };
            store.close().await;
            disabled
        }));
    }
    let mut disabled = 0;
    for task in tasks {
        disabled += usize::from(task.await.unwrap());
    }
    assert_eq!(disabled, 1);
    let told = notices(&store).await;
    let count = |kind: &str| told.iter().filter(|notice| notice["type"] == kind).count();
    assert_eq!(count("subscription.disabled"), 1, "{told:?}");
    assert!(count("subscription.failing") <= 1, "{told:?}");
}

async fn gone_disables_only_whoever_still_wants_that(home: Home) {
    let store = with_one(&home, "dead").await;
    let gone = Why::Gone { begun_ms: NINE };
    assert_eq!(disable(&store, gone).await, None);
    let mut found = store.versioned_subscription(&id_of("sub_1")).await.unwrap().unwrap();
    found.spec.retry.as_mut().unwrap().on_gone = Some("disable".into());
    store.update_subscription(found).await.unwrap();
    assert!(disable(&store, gone).await.is_some());
    assert_eq!(disable(&store, gone).await, None);
    let told = notices(&store).await.remove(0);
    assert_eq!((&told["why"], &told["class"]), (&json!("gone"), &json!("gone")));
}

async fn gone_from_before_a_change_disables_nobody(home: Home) {
    let store = with_one(&home, "disable").await;
    let mut found = store.versioned_subscription(&id_of("sub_1")).await.unwrap().unwrap();
    found.spec.updated_at = Some("2026-11-22T09:00:07.120Z".into());
    store.update_subscription(found).await.unwrap();
    // Begun before it, and by a worker that has not heard of it yet.
    for begun_ms in [NINE - 5_000, NINE + 900] {
        assert_eq!(disable(&store, Why::Gone { begun_ms }).await, None);
    }
    assert!(disable(&store, Why::Gone { begun_ms: NINE + 10_000 }).await.is_some());
}

async fn whoever_is_enabled_again_or_removed_begins_anew(home: Home) {
    let store = with_one(&home, "dead").await;
    note(&store, failures(4, 0, 9_000)).await;
    for enabled in [false, true] {
        store
            .set_enabled(&id_of("sub_1"), enabled, DisabledBy::Person, "2026-11-22T09:01:00Z")
            .await
            .unwrap();
        assert!(store.known_failing().await.unwrap().is_empty(), "{enabled}");
        note(&store, failures(4, 9_500, 9_600)).await;
    }
    let row = store.failing(&id_of("sub_1")).await.unwrap().unwrap();
    assert_eq!((row.failures, row.since_ms), (4, NINE + 9_500));
    // A change of anything else does not.
    let mut found = store.versioned_subscription(&id_of("sub_1")).await.unwrap().unwrap();
    found.spec.name = Some("other".into());
    store.update_subscription(found).await.unwrap();
    assert_eq!(store.known_failing().await.unwrap(), ["sub_1"]);
    store.remove_subscription(&id_of("sub_1")).await.unwrap();
    assert!(store.known_failing().await.unwrap().is_empty());
    assert_eq!(note(&store, failures(9, 0, 20_000)).await, 0, "nobody is disabled who is no more");
}

async fn what_was_under_way_when_it_was_disabled_begins_no_row(home: Home) {
    let store = with_one(&home, "dead").await;
    note(&store, failures(9, 0, 9_000)).await;
    note(&store, failures(1, 10_000, 10_000)).await;
    disable(&store, Why::Failing).await.unwrap();
    assert_eq!(note(&store, failures(9, 21_000, 90_000)).await, 0);
    assert!(store.known_failing().await.unwrap().is_empty());
}

async fn a_notice_is_taken_by_one_until_its_lease_ends(home: Home) {
    let store = with_one(&home, "dead").await;
    note(&store, failures(5, 0, 6_000)).await;
    let taken = store.take_notices(9, NINE, NINE + 100).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert!(home.open().await.take_notices(9, NINE + 100, NINE + 200).await.unwrap().is_empty());
    // By whoever comes after the one that was killed, with the same id.
    assert_eq!(home.open().await.take_notices(9, NINE + 101, NINE + 300).await.unwrap(), taken);
    store.forget_notices(&[taken[0].id.clone()]).await.unwrap();
    assert!(store.take_notices(9, NINE + 999, NINE + 1_000).await.unwrap().is_empty());
}

fn id_of(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

/// A store with one subscription.
async fn with_one(home: &Home, on_gone: &str) -> Store {
    let store = home.migrate().await;
    let document = json!({
        "id": "sub_1", "tenant": "acme", "name": "ERP", "events": ["#"], "enabled": true,
        "request": {"url": "https://u:canary@erp.example.com/canary"}, "signatures": [],
        "retry": {"kind": "none", "on_gone": on_gone},
        "created_at": "2026-11-22T09:00:00Z", "updated_at": "2026-11-22T09:00:00Z",
    });
    let spec: SubscriptionSpec = serde_json::from_value(document).unwrap();
    store.add_subscriptions(vec![spec]).await.unwrap();
    store
}

/// So many failures between these moments after nine.
fn failures(count: u64, first_ms: i64, last_ms: i64) -> Seen {
    let mut seen = Seen::default();
    seen.failed(NINE + first_ms, Cause::Timeout, None);
    (1..count).for_each(|_| seen.failed(NINE + last_ms, Cause::Unavailable, Some(503)));
    if count == 1 {
        seen = Seen::default();
        seen.failed(NINE + last_ms, Cause::Unavailable, Some(503));
    }
    seen
}

fn delivered(at_ms: i64) -> Seen {
    let mut seen = Seen::default();
    seen.delivered(NINE + at_ms);
    seen
}

/// For how many it is enough after this.
async fn note(store: &Store, seen: Seen) -> usize {
    let seen = BTreeMap::from([(id_of("sub_1"), seen)]);
    store.note_seen(&seen, &RULES, NINE).await.unwrap().len()
}

async fn disable(store: &Store, why: Why) -> Option<u64> {
    store.disable_by_paperboy(&id_of("sub_1"), why, Some(&RULES), NINE).await.unwrap()
}

/// The notices that wait, which then wait no more.
async fn notices(store: &Store) -> Vec<Value> {
    let taken = store.take_notices(99, NINE, NINE + 1).await.unwrap();
    let ids: Vec<String> = taken.iter().map(|notice| notice.id.clone()).collect();
    store.forget_notices(&ids).await.unwrap();
    let bodies: Vec<Value> = taken.iter().map(|notice| serde_json::from_str(&notice.body).unwrap()).collect();
    assert!(bodies.iter().all(|body| !body.to_string().contains("canary")), "{bodies:?}");
    bodies
}
