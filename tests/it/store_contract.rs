//! What every store must do, through its front door: once in an SQLite file, once in a schema of PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use paperboy::domain::key::{NewKey, Scopes};
use paperboy::domain::name::{SubscriptionId, Tenant};
use paperboy::domain::seal::SealKey;
use paperboy::domain::spec::SubscriptionSpec;
use paperboy::domain::subscription::DisabledBy;
use paperboy::store::dead::{Kind, UNDRAINABLE};
use paperboy::store::{
    AuditFilter, DeadFilter, DeadLetter, DeadState, KeepError, KeptAnswer, KeyRow, ListFilter, Note,
    OpenError, Removal, Save, SaveError, Store, StoreUrl, Versioned,
};
use serde_json::json;
use sqlx::Executor as _;

use crate::support::home::new_key;
pub(crate) use crate::support::home::{Home, on_both_engines};
use crate::support::services::shared;
use crate::support::unique;

on_both_engines! {
    opening_never_makes_a_store,
    an_opened_store_is_the_one_that_was_made,
    processes_racing_to_make_a_store_agree_on_one,
    of_two_keys_racing_for_a_new_store_one_is_refused,
    another_key_is_refused_and_changes_nothing,
    the_store_says_which_key_of_several_seals,
    a_changed_key_is_used_by_processes_that_were_running,
    sealing_anew_that_was_cut_off_goes_on_where_it_ended,
    a_kept_answer_is_given_again_after_the_key_it_was_sealed_with_is_gone,
    a_record_that_no_key_opens_is_left_and_named,
    a_store_of_a_newer_version_is_not_touched,
    changes_that_are_pending_are_told_and_made_by_migrating,
    status_tells_of_a_missing_and_a_used_store,
    a_subscription_comes_back_whole_to_the_worker_and_masked_to_people,
    every_change_raises_the_counter_and_the_tenants_version_and_nothing_lowers_them,
    what_changes_nothing_raises_nothing,
    a_taken_id_adds_none_of_the_others,
    disabling_is_remembered_with_its_author_and_keeps_the_secrets,
    lists_page_by_page_and_tenant_by_tenant,
    a_broken_record_is_named_and_hides_no_other,
    a_record_moved_to_another_tenant_is_broken,
    writers_of_two_processes_wait_for_each_other_and_readers_see_whole_changes,
    changes_that_read_before_they_write_wait_for_each_other_too,
    of_two_changes_to_one_version_the_second_is_told,
    what_is_added_changed_and_removed_together_is_all_or_nothing,
    a_change_of_what_is_removed_meanwhile_is_no_change,
    whoever_saw_a_version_meets_no_earlier_change_later,
    a_letter_that_comes_twice_is_kept_once,
    letters_that_differ_in_any_part_of_their_key_are_all_kept,
    a_refused_letter_is_found_singly_and_kept_as_undrainable,
    a_store_that_is_away_refuses_no_letter,
    shows_a_letter_byte_for_byte,
    lists_letters_by_every_filter_newest_first,
    no_two_replays_get_the_same_number,
    forgets_letters_by_age_a_batch_at_a_time,
    notes_what_was_decided_and_a_replayed_letter_is_never_discarded,
    a_key_comes_back_as_it_was_made_and_every_change_raises_the_counter,
    a_change_and_its_line_of_the_audit_are_written_together_or_not_at_all,
    an_answer_is_kept_for_a_day_and_for_one_creation,
    a_removal_over_another_version_removes_nothing,
    lists_by_name_and_by_what_is_enabled,
}

// ---- making and opening ----------------------------------------------------------------------------

async fn opening_never_makes_a_store(home: Home) {
    for _ in 0..2 {
        let error = Store::open(&home.url, &home.key).await.unwrap_err();
        let missing =
            format!("no store at `{}`: start `paperboy serve` or run `paperboy store migrate`", home.url);
        assert_eq!(error.to_string(), missing);
        assert!(!Store::status(&home.url).await.unwrap().exists);
    }
}

async fn an_opened_store_is_the_one_that_was_made(home: Home) {
    let made = home.migrate().await;
    made.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    let id = made.id().to_owned();
    made.close().await;

    let opened = home.open().await;
    assert_eq!(opened.id(), id);
    assert!(opened.has_subscription().await.unwrap());
    assert_eq!(home.migrate().await.id(), id, "migrating again changes nothing");
}

async fn processes_racing_to_make_a_store_agree_on_one(home: Home) {
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (url, key) = (home.url.clone(), home.key.clone());
            tokio::spawn(async move { Store::migrate(&url, &key).await })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap().unwrap().id().to_owned());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(home.open().await.id(), ids[0]);
}

async fn of_two_keys_racing_for_a_new_store_one_is_refused(home: Home) {
    let keys = [SealKey::from_bytes([1; 32]), SealKey::from_bytes([2; 32])];
    let tasks = keys.map(|key| {
        let url = home.url.clone();
        tokio::spawn(async move { Store::migrate(&url, &key).await })
    });
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, OpenError::KeyMismatch { .. }), "{error:?}"),
        }
    }
    assert_eq!(made, 1);
}

async fn another_key_is_refused_and_changes_nothing(home: Home) {
    let id = home.migrate().await.id().to_owned();
    let other = SealKey::from_bytes([9; 32]);
    for error in [
        Store::open(&home.url, &other).await.unwrap_err(),
        Store::migrate(&home.url, &other).await.unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::KeyMismatch { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains("sealed with another secrets key"), "{told}");
        assert!(told.contains(&home.key.check_value()) && told.contains(&other.check_value()), "{told}");
        assert!(error.hint().unwrap().contains("`secrets.key`"));
    }
    assert_eq!(home.open().await.id(), id);
}

async fn a_store_of_a_newer_version_is_not_touched(home: Home) {
    home.migrate().await;
    home.raw(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .await;
    for result in [Store::open(&home.url, &home.key).await, Store::migrate(&home.url, &home.key).await] {
        assert!(matches!(result.unwrap_err(), OpenError::Newer { version: 9999, .. }));
    }
}

async fn changes_that_are_pending_are_told_and_made_by_migrating(home: Home) {
    home.migrate().await.close().await;
    for table in [
        "meta",
        "counters",
        "tenants",
        "subscriptions",
        "dead_letters",
        "replay_jobs",
        "replay_items",
        "batches",
        "batch_documents",
        "batch_outbox",
        "batch_sweep",
        "batch_workers",
        "batch_holds",
        "api_keys",
        "audit",
        "kept_answers",
        "streaks",
        "notices",
    ] {
        home.raw(&format!("DROP TABLE {table}")).await;
    }
    home.raw("DELETE FROM _sqlx_migrations").await;
    let error = Store::open(&home.url, &home.key).await.unwrap_err();
    assert!(matches!(error, OpenError::PendingMigrations { pending: 1.., .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("`paperboy store migrate`"));
    let status = Store::status(&home.url).await.unwrap();
    assert_eq!((status.exists, status.pending > 0, status.store_id), (true, true, None));
    home.migrate().await;
    home.open().await;
}

async fn status_tells_of_a_missing_and_a_used_store(home: Home) {
    let missing = Store::status(&home.url).await.unwrap();
    assert_eq!((missing.exists, missing.pending > 0, missing.store_id), (false, true, None));

    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    store.keep_dead(&[letter("evt_1"), letter("evt_2")]).await.unwrap();
    store.dead_mark(&[1], DeadState::Discarded, None, 0).await.unwrap();
    let used = Store::status(&home.url).await.unwrap();
    assert_eq!((used.applied.len(), used.pending), (missing.pending, 0));
    assert_eq!((used.subscriptions, used.dead_letters), (2, 1));
    assert_eq!(used.store_id.as_deref(), Some(store.id()));
    assert!(used.file_bytes > 0);
}

// ---- subscriptions ---------------------------------------------------------------------------------

async fn a_subscription_comes_back_whole_to_the_worker_and_masked_to_people(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();

    let whole = store.subscription(&id("sub_1")).await.unwrap().unwrap();
    assert_eq!(text(&whole), text(&spec("acme", "sub_1")));
    let record = store.tenant(&tenant("acme")).await.unwrap();
    assert_eq!(text(record.specs[0].as_ref().unwrap()), text(&whole));

    let listed = store.list_subscriptions(&ListFilter { limit: 9, ..ListFilter::default() }).await.unwrap();
    assert_eq!(text(&listed[0]), text(&spec("acme", "sub_1").masked()));
    assert!(!text(&listed[0]).contains(CANARY));
    assert!(store.subscription(&id("sub_2")).await.unwrap().is_none());
}

async fn every_change_raises_the_counter_and_the_tenants_version_and_nothing_lowers_them(home: Home) {
    let store = home.migrate().await;
    assert_eq!(versions(&store).await, (0, vec![]));
    assert!(!store.has_subscription().await.unwrap());

    let specs = vec![spec("acme", "sub_1"), spec("bolt", "sub_2"), spec("acme", "sub_3")];
    assert_eq!(store.add_subscriptions(specs).await.unwrap(), 1);
    assert_eq!(versions(&store).await, (1, vec![("acme".into(), 1), ("bolt".into(), 1)]));

    let disabled = store.set_enabled(&id("sub_1"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await;
    assert_eq!(disabled.unwrap(), Some(2));
    assert_eq!(store.remove_subscription(&id("sub_2")).await.unwrap(), Some(3));
    assert_eq!(versions(&store).await, (3, vec![("acme".into(), 2), ("bolt".into(), 3)]));

    // The last one gone: the version stays, and a new one rises from there.
    let bolt = store.tenant(&tenant("bolt")).await.unwrap();
    assert_eq!((bolt.version, bolt.specs.len()), (3, 0));
    assert_eq!(store.add_subscriptions(vec![spec("bolt", "sub_2")]).await.unwrap(), 4);
    assert_eq!(store.tenant_version(&tenant("bolt")).await.unwrap(), 4);
    assert_eq!(store.tenant_version(&tenant("nobody")).await.unwrap(), 0);

    let since = store.changes_since(2).await.unwrap();
    assert_eq!((since.counter, since.tenants), (4, vec![("bolt".to_owned(), 4)]));
    assert_eq!(store.changes_since(4).await.unwrap().tenants, vec![]);
}

async fn what_changes_nothing_raises_nothing(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    assert_eq!(store.add_subscriptions(vec![]).await.unwrap(), 1);
    assert_eq!(store.remove_subscription(&id("sub_9")).await.unwrap(), None);
    let unknown = store.set_enabled(&id("sub_9"), true, DisabledBy::Person, "2026-11-23T00:00:00Z").await;
    assert_eq!(unknown.unwrap(), None);
    assert_eq!(versions(&store).await, (1, vec![("acme".into(), 1)]));
}

async fn a_taken_id_adds_none_of_the_others(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    for specs in [
        vec![spec("bolt", "sub_2"), spec("bolt", "sub_1")],
        vec![spec("bolt", "sub_3"), spec("bolt", "sub_3")],
    ] {
        let error = store.add_subscriptions(specs).await.unwrap_err();
        assert!(matches!(&error, SaveError::IdTaken { id } if id == "sub_1" || id == "sub_3"), "{error:?}");
    }
    assert_eq!(versions(&store).await, (1, vec![("acme".into(), 1)]));
    assert_eq!(store.tenant(&tenant("bolt")).await.unwrap().specs.len(), 0);
}

async fn disabling_is_remembered_with_its_author_and_keeps_the_secrets(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();

    store.set_enabled(&id("sub_1"), false, DisabledBy::Paperboy, "2026-11-23T00:00:00Z").await.unwrap();
    let disabled = store.subscription(&id("sub_1")).await.unwrap().unwrap();
    assert_eq!((disabled.enabled, disabled.disabled_by), (Some(false), Some(DisabledBy::Paperboy)));
    assert!(text(&disabled).contains("2026-11-23T00:00:00Z") && text(&disabled).contains(CANARY));
    let listed = store.list_subscriptions(&ListFilter { limit: 1, ..ListFilter::default() }).await.unwrap();
    assert!(listed[0].enabled == Some(false) && !text(&listed[0]).contains(CANARY));

    store.set_enabled(&id("sub_1"), true, DisabledBy::Person, "2026-11-24T00:00:00Z").await.unwrap();
    let enabled = store.subscription(&id("sub_1")).await.unwrap().unwrap();
    assert_eq!((enabled.enabled, enabled.disabled_by), (Some(true), None));
}

async fn lists_page_by_page_and_tenant_by_tenant(home: Home) {
    let store = home.migrate().await;
    let specs = vec![spec("acme", "sub_3"), spec("bolt", "sub_2"), spec("acme", "sub_1")];
    store.add_subscriptions(specs).await.unwrap();
    let ids = async |filter: ListFilter| {
        let specs = store.list_subscriptions(&filter).await.unwrap();
        specs.into_iter().map(|spec| spec.id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(ListFilter { limit: 2, ..ListFilter::default() }).await, ["sub_1", "sub_2"]);
    let next = ListFilter { limit: 2, after: Some(id("sub_2")), ..ListFilter::default() };
    assert_eq!(ids(next).await, ["sub_3"]);
    // By bytes, whatever the database thinks of capitals.
    store.add_subscriptions(vec![spec("bolt", "sub_b"), spec("bolt", "sub_C")]).await.unwrap();
    let last = ListFilter { limit: 9, after: Some(id("sub_3")), ..ListFilter::default() };
    assert_eq!(ids(last).await, ["sub_C", "sub_b"]);
    let acme = ListFilter { limit: 9, tenant: Some(tenant("acme")), ..ListFilter::default() };
    assert_eq!(ids(acme).await, ["sub_1", "sub_3"]);
}

async fn a_broken_record_is_named_and_hides_no_other(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    // A record copied over another does not pass for it.
    let copy = "UPDATE subscriptions SET sealed = (SELECT sealed FROM subscriptions WHERE id = 'sub_2') WHERE id = 'sub_1'";
    home.raw(copy).await;

    let record = store.tenant(&tenant("acme")).await.unwrap();
    assert_eq!(record.specs[0].as_ref().unwrap_err().id, "sub_1");
    assert_eq!(text(record.specs[1].as_ref().unwrap()), text(&spec("acme", "sub_2")));
    let error = store.subscription(&id("sub_1")).await.unwrap_err();
    assert!(format!("{error:#}").contains("`sub_1` cannot be read"), "{error:#}");
}

async fn a_record_moved_to_another_tenant_is_broken(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    home.raw("UPDATE subscriptions SET tenant = 'bolt'").await;
    let record = store.tenant(&tenant("bolt")).await.unwrap();
    assert_eq!(record.specs[0].as_ref().unwrap_err().id, "sub_1");
}

async fn writers_of_two_processes_wait_for_each_other_and_readers_see_whole_changes(home: Home) {
    let stores = [home.migrate().await, home.open().await];
    let reader = home.open().await;
    let tasks: Vec<_> = (0..40)
        .map(|n: usize| {
            let store = stores[n % 2].clone();
            tokio::spawn(
                async move { store.add_subscriptions(vec![spec("acme", &format!("sub_{n}"))]).await },
            )
        })
        .collect();
    // Each change here adds one: version and number of subscriptions never differ.
    loop {
        let record = reader.tenant(&tenant("acme")).await.unwrap();
        assert_eq!(record.version, record.specs.len() as u64);
        if record.version == 40 {
            break;
        }
    }
    let mut counters = Vec::new();
    for task in tasks {
        counters.push(task.await.unwrap().unwrap());
    }
    counters.sort_unstable();
    assert_eq!(counters, (1..=40).collect::<Vec<u64>>());
}

async fn changes_that_read_before_they_write_wait_for_each_other_too(home: Home) {
    let stores = [home.migrate().await, home.open().await];
    stores[0].add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|n: usize| {
            let store = stores[n % 2].clone();
            let change = async move {
                store.set_enabled(&id("sub_1"), n % 4 < 2, DisabledBy::Person, "2026-11-23T00:00:00Z").await
            };
            tokio::spawn(change)
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().is_some());
    }
    assert_eq!(stores[0].changes_since(0).await.unwrap().counter, 41);
}

async fn of_two_changes_to_one_version_the_second_is_told(home: Home) {
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    let read = async |name: &str| store.versioned_subscription(&id(name)).await.unwrap().unwrap();
    let renamed = |mut from: Versioned, name: &str| {
        from.spec.name = Some(name.to_owned());
        from
    };
    let (first, second) = (read("sub_1").await, read("sub_1").await);
    assert_eq!((first.version, &first), (1, &second));
    let untouched = read("sub_2").await;

    assert_eq!(store.update_subscription(renamed(first, "first")).await.unwrap(), 2);
    let error = store.update_subscription(renamed(second.clone(), "second")).await.unwrap_err();
    assert!(matches!(&error, SaveError::Changed { id } if id == "sub_1"), "{error:?}");
    let both = vec![renamed(untouched.clone(), "both"), renamed(second, "both")];
    let error = store.save_subscriptions(vec![spec("bolt", "sub_3")], both).await.unwrap_err();
    assert!(matches!(error, SaveError::Changed { .. }), "{error:?}");
    assert_eq!(read("sub_1").await.spec.name.as_deref(), Some("first"));
    assert_eq!(read("sub_2").await, untouched, "all or none");
    assert_eq!(versions(&store).await, (2, vec![("acme".into(), 2)]));

    let (switched, removed) = (read("sub_1").await, read("sub_2").await);
    store.set_enabled(&id("sub_1"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    store.remove_subscription(&id("sub_2")).await.unwrap();
    for stale in [switched, removed] {
        let error = store.update_subscription(stale).await.unwrap_err();
        assert!(matches!(error, SaveError::Changed { .. }), "{error:?}");
    }
    let fresh = renamed(read("sub_1").await, "again");
    let counter = store.save_subscriptions(vec![spec("bolt", "sub_3")], vec![fresh.clone()]).await.unwrap();
    assert_eq!(read("sub_1").await, Versioned { version: counter, ..fresh });
    assert_eq!(versions(&store).await, (5, vec![("acme".into(), 5), ("bolt".into(), 5)]));
    let listed = store.list_subscriptions(&ListFilter { limit: 1, ..ListFilter::default() }).await.unwrap();
    assert!(listed[0].name.as_deref() == Some("again") && !text(&listed[0]).contains(CANARY));
}

async fn what_is_added_changed_and_removed_together_is_all_or_nothing(home: Home) {
    let store = home.migrate().await;
    let there = ["sub_1", "sub_2", "sub_3"].map(|id| spec("acme", id)).to_vec();
    store.add_subscriptions([there, vec![spec("bolt", "sub_4")]].concat()).await.unwrap();
    let read = async |name: &str| store.versioned_subscription(&id(name)).await.unwrap();
    let of = async |name: &str| read(name).await.unwrap();
    let mut changed = of("sub_1").await;
    changed.spec.name = Some("changed".to_owned());

    let stale = of("sub_3").await;
    store.set_enabled(&id("sub_3"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    let removed = vec![of("sub_2").await, stale];
    let save = |removed: Vec<Versioned>| Save {
        added: vec![spec("acme", "sub_5")],
        changed: vec![changed.clone()],
        removed: removed
            .iter()
            .map(|gone| Removal { id: id(gone.spec.id.as_deref().unwrap()), over: Some(gone.version) })
            .collect(),
        ..Save::default()
    };
    let error = store.save(save(removed)).await.unwrap_err();
    assert!(matches!(&error, SaveError::Changed { id } if id == "sub_3"), "{error:?}");
    assert!(read("sub_2").await.is_some() && read("sub_5").await.is_none());
    assert_ne!(of("sub_1").await.spec.name, changed.spec.name);

    let removed = vec![of("sub_2").await, of("sub_4").await];
    let counter = store.save(save(removed)).await.unwrap();
    assert!(read("sub_2").await.is_none() && read("sub_4").await.is_none() && read("sub_5").await.is_some());
    assert_eq!(of("sub_1").await.spec, changed.spec);
    let now = vec![("acme".into(), counter), ("bolt".into(), counter)];
    assert_eq!(versions(&store).await, (counter, now), "who loses a subscription hears of it");
}

async fn a_change_of_what_is_removed_meanwhile_is_no_change(home: Home) {
    let stores = [home.migrate().await, home.open().await];
    let ids: Vec<_> = (0..30).map(|n| format!("sub_{n}")).collect();
    stores[0].add_subscriptions(ids.iter().map(|id| spec("acme", id)).collect()).await.unwrap();
    for text in &ids {
        let subscription = id(text);
        let (changed, removed) = tokio::join!(
            stores[0].set_enabled(&subscription, false, DisabledBy::Person, "2026-11-23T00:00:00Z"),
            stores[1].remove_subscription(&subscription),
        );
        let (changed, removed) = (changed.unwrap(), removed.unwrap().unwrap());
        assert!(
            changed.is_none_or(|changed| changed < removed),
            "changed at {changed:?}, removed at {removed}"
        );
    }
}

async fn whoever_saw_a_version_meets_no_earlier_change_later(home: Home) {
    const CHANGES: u64 = 60;
    let stores = [home.migrate().await, home.open().await, home.open().await];
    let reader = home.open().await;
    // Each change has a tenant of its own, so that versions and tenants come in pairs.
    let tasks: Vec<_> = (0..CHANGES)
        .map(|n| {
            let store = stores[usize::try_from(n).unwrap() % 3].clone();
            let specs = vec![spec(&format!("t{n}"), &format!("sub_{n}"))];
            tokio::spawn(async move { store.add_subscriptions(specs).await })
        })
        .collect();
    let mut seen = 0;
    let mut versions = BTreeSet::new();
    while seen < CHANGES {
        let changes = reader.changes_since(seen).await.unwrap();
        versions.extend(changes.tenants.iter().map(|(_, version)| *version));
        seen = changes.counter;
        let all: BTreeSet<u64> = (1..=seen).collect();
        assert_eq!(versions, all, "at {seen}");
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

// ---- keys, the audit, kept answers --------------------------------------------------------------------

fn line(object: &str) -> Note {
    let detail = json!({ "fields": ["name"] });
    Note {
        at_ms: 1_000,
        actor: "cli:test".into(),
        action: "test",
        tenant: Some("acme".into()),
        object: object.into(),
        detail,
    }
}

async fn objects(store: &Store) -> Vec<String> {
    let filter = AuditFilter { limit: 99, ..AuditFilter::default() };
    store.audit(&filter).await.unwrap().into_iter().map(|line| line.object).collect()
}

async fn a_key_comes_back_as_it_was_made_and_every_change_raises_the_counter(home: Home) {
    let store = home.migrate().await;
    let new = NewKey::from_random([7; 40]);
    let key = KeyRow {
        id: new.id.clone(),
        hash: new.hash,
        name: Some("upload".into()),
        tenant: Some(tenant("acme")),
        scopes: Scopes::parse("read,publish").unwrap(),
        created_at_ms: 1,
        expires_at_ms: Some(2),
        revoked_at_ms: None,
        used_at_ms: None,
    };
    store.add_key(&key, line("made")).await.unwrap();
    assert_eq!(store.api_keys_and_counter().await.unwrap(), (vec![key.clone()], 1));
    assert!(store.add_key(&key, line("twice")).await.is_err());
    store.note_key_use(&[(new.id.clone(), 9)]).await.unwrap();
    store.note_key_use(&[(new.id.clone(), 5)]).await.unwrap();
    assert!(store.revoke_key(&new.id, 3, line("ended")).await.unwrap());
    assert!(!store.revoke_key(&new.id, 4, line("ended twice")).await.unwrap());
    let ended = KeyRow { revoked_at_ms: Some(3), used_at_ms: Some(9), ..key };
    assert_eq!(store.api_keys_and_counter().await.unwrap(), (vec![ended], 2));
    assert_eq!(store.api_keys_counter().await.unwrap(), 2);
    assert_eq!(objects(&store).await, ["ended", "made"]);
}

async fn a_change_and_its_line_of_the_audit_are_written_together_or_not_at_all(home: Home) {
    let store = home.migrate().await;
    let save = |id: &str, max: Option<u32>| Save {
        added: vec![spec("acme", id)],
        notes: vec![line(id)],
        per_tenant_max: max,
        ..Save::default()
    };
    store.save(save("sub_1", Some(1))).await.unwrap();
    let error = store.save(save("sub_2", Some(1))).await.unwrap_err();
    assert!(matches!(error, SaveError::TooMany { max: 1, .. }), "{error:?}");
    assert!(store.save(save("sub_1", None)).await.is_err());
    assert_eq!(objects(&store).await, ["sub_1"]);
    store
        .note(&[line("later"), Note { tenant: Some("bolt".into()), at_ms: 5_000, ..line("bolt's") }])
        .await
        .unwrap();
    let filter = AuditFilter { tenant: Some(tenant("acme")), limit: 1, ..AuditFilter::default() };
    let page = store.audit(&filter).await.unwrap();
    assert_eq!(
        (page.len(), page[0].object.as_str(), &page[0].detail),
        (1, "later", &json!({ "fields": ["name"] }))
    );
    let next = store.audit(&AuditFilter { before_id: Some(page[0].id), ..filter.clone() }).await.unwrap();
    assert_eq!(next[0].object, "sub_1");
    let since = store
        .audit(&AuditFilter { since_ms: Some(5_000), limit: 9, ..AuditFilter::default() })
        .await
        .unwrap();
    assert_eq!(since.len(), 1);
    assert_eq!(store.forget_audit(5_000, 9).await.unwrap(), 2);
    assert_eq!(objects(&store).await, ["bolt's"]);
}

async fn an_answer_is_kept_for_a_day_and_for_one_creation(home: Home) {
    let store = home.migrate().await;
    let day = paperboy::store::kept::KEPT_MS;
    let save = |id: &str, actor: &str, at_ms: i64| Save {
        added: vec![spec("acme", id)],
        answer: Some(KeptAnswer {
            actor: actor.into(),
            key: "k".into(),
            request: [1; 32],
            answer: id.as_bytes().to_vec().into(),
            at_ms,
        }),
        ..Save::default()
    };
    let counter = store.save(save("sub_1", "key:a", 10)).await.unwrap();
    let error = store.save(save("sub_2", "key:a", 20)).await.unwrap_err();
    assert!(matches!(error, SaveError::Repeated), "{error:?}");
    store.save(save("sub_3", "key:b", 20)).await.unwrap();
    let given = store.kept_answer("key:a", "k", 9 + day).await.unwrap().unwrap();
    assert_eq!((&given.answer[..], given.request, given.version), (&b"sub_1"[..], [1; 32], counter));
    assert!(store.kept_answer("key:a", "k", 10 + day).await.unwrap().is_none());
    assert!(store.kept_answer("key:c", "k", 20).await.unwrap().is_none());
    store.save(save("sub_2", "key:a", 10 + day)).await.unwrap();
    let given = store.kept_answer("key:a", "k", 10 + day).await.unwrap().unwrap();
    assert_eq!(&given.answer[..], b"sub_2");
}

async fn a_removal_over_another_version_removes_nothing(home: Home) {
    let store = home.migrate().await;
    let first = store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    store.set_enabled(&id("sub_1"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    let removal = |over| Save { removed: vec![Removal { id: id("sub_1"), over }], ..Save::default() };
    let error = store.save(removal(Some(first))).await.unwrap_err();
    assert!(matches!(error, SaveError::Changed { .. }), "{error:?}");
    let now = store.shown_subscription(&id("sub_1")).await.unwrap().unwrap().version;
    assert_eq!(store.save(removal(Some(now))).await.unwrap(), now + 1);
    let error = store.save(removal(None)).await.unwrap_err();
    assert!(matches!(error, SaveError::Missing { .. }), "{error:?}");
}

async fn lists_by_name_and_by_what_is_enabled(home: Home) {
    let store = home.migrate().await;
    let named = |id: &str, name: &str| SubscriptionSpec { name: Some(name.into()), ..spec("acme", id) };
    let all = vec![named("sub_1", "100% ERP"), named("sub_2", "a_b! Übersicht"), spec("acme", "sub_3")];
    store.add_subscriptions(all).await.unwrap();
    store.set_enabled(&id("sub_3"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    let ids = async |name: Option<&str>, enabled: Option<bool>| {
        let filter = ListFilter { limit: 9, name: name.map(str::to_owned), enabled, ..ListFilter::default() };
        let specs = store.list_subscriptions(&filter).await.unwrap();
        specs.into_iter().filter_map(|spec| spec.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some("erp"), None).await, ["sub_1"]);
    assert_eq!(ids(Some("%"), None).await, ["sub_1"]);
    assert_eq!(ids(Some("_"), None).await, ["sub_2"]);
    assert_eq!(ids(Some("B!"), None).await, ["sub_2"]);
    assert_eq!(ids(Some("Übersicht"), None).await, ["sub_2"]);
    assert_eq!(ids(None, Some(false)).await, ["sub_3"]);
    assert_eq!(ids(Some("zzz"), None).await, [""; 0]);
}

// ---- dead letters ----------------------------------------------------------------------------------

async fn a_letter_that_comes_twice_is_kept_once(home: Home) {
    let store = home.migrate().await;
    assert_eq!(store.keep_dead(&[letter("evt_1"), letter("evt_1"), letter("evt_2")]).await.unwrap(), 2);
    assert_eq!(store.keep_dead(&[letter("evt_2"), letter("evt_3")]).await.unwrap(), 1);
    assert!(!store.keep_dead_one(&letter("evt_3")).await.unwrap());
    assert_eq!(list(&store, DeadFilter::default()).await, ["evt_3", "evt_2", "evt_1"]);
    assert_eq!(store.keep_dead(&[]).await.unwrap(), 0);
}

async fn letters_that_differ_in_any_part_of_their_key_are_all_kept(home: Home) {
    let store = home.migrate().await;
    let one = letter("evt_1");
    let letters = [
        DeadLetter { kind: Kind::Event, ..one.clone() },
        DeadLetter { tenant: Some("bolt".into()), ..one.clone() },
        DeadLetter { tenant: None, ..one.clone() },
        DeadLetter { tenant: Some(String::new()), ..one.clone() },
        DeadLetter { event_id: None, ..one.clone() },
        DeadLetter { subscription: None, ..one.clone() },
        DeadLetter { cycle: 1, ..one.clone() },
        DeadLetter { body: Bytes::from_static(b"{}"), ..one.clone() },
        one.clone(),
    ];
    assert_eq!(store.keep_dead(&letters).await.unwrap(), letters.len());
    let same = DeadLetter { reason: "gone".into(), attempts: 9, history: "other".into(), ..one };
    assert!(!store.keep_dead_one(&same).await.unwrap());
}

async fn a_refused_letter_is_found_singly_and_kept_as_undrainable(home: Home) {
    let store = home.migrate().await;
    let refused = DeadLetter { reason: String::new(), headers: b"{\"a\":1}".to_vec(), ..letter("evt_2") };
    let batch = [letter("evt_1"), refused.clone(), letter("evt_3")];
    assert!(matches!(store.keep_dead(&batch).await, Err(KeepError::Refused(_))));
    assert_eq!(list(&store, DeadFilter::default()).await, [""; 0], "all or none");

    let mut failed = Vec::new();
    for letter in &batch {
        if let Err(KeepError::Refused(why)) = store.keep_dead_one(letter).await {
            failed.push((letter, why));
        }
    }
    assert_eq!(failed.len(), 1);
    let (letter, why) = &failed[0];
    assert!(store.keep_undrainable(letter, why).await.unwrap());
    assert!(!store.keep_undrainable(letter, why).await.unwrap(), "kept once");

    let rows = store.dead_list(&DeadFilter::default()).await.unwrap();
    assert_eq!((rows.len(), rows[0].reason.as_str(), &rows[0].event_id), (3, UNDRAINABLE, &None));
    assert!(rows[0].history.to_lowercase().contains("check constraint"), "{}", rows[0].history);
    let kept = store.dead_show(rows[0].id).await.unwrap().unwrap();
    assert_eq!(kept.body, refused.body);
    let headers: serde_json::Value = serde_json::from_slice(&kept.headers).unwrap();
    assert_eq!((&headers["undrainable"]["event_id"], &headers["a"]), (&json!("evt_2"), &json!(1)));
}

async fn a_store_that_is_away_refuses_no_letter(home: Home) {
    let store = home.migrate().await;
    store.close().await;
    assert!(matches!(store.keep_dead(&[letter("evt_1")]).await, Err(KeepError::Unavailable(_))));
}

async fn shows_a_letter_byte_for_byte(home: Home) {
    let store = home.migrate().await;
    let body: Vec<u8> = (0..=255).collect();
    let letter = DeadLetter {
        body: body.clone().into(),
        headers: b"{\"x\":\"\\u0000\"}".to_vec(),
        answer: vec![0, 255, 27],
        history: "2026-11-22T09:00:07Z 500 12".into(),
        ..letter("evt_1")
    };
    store.keep_dead_one(&letter).await.unwrap();
    let full = store.dead_show(1).await.unwrap().unwrap();
    assert_eq!((&full.body[..], &full.headers, &full.answer), (&body[..], &letter.headers, &letter.answer));
    assert_eq!(full.body_sha256.len(), 32);
    let row = full.row;
    assert_eq!((row.id, row.kind, row.body_bytes, row.state), (1, Kind::Delivery, 256, DeadState::Open));
    assert_eq!((row.attempts, row.cycle, row.first_seen_ms, row.dead_at_ms), (10, 0, 1_000, 2_000));
    assert_eq!((row.history, row.tenant.as_deref()), (letter.history, Some("acme")));
    assert!(store.dead_show(2).await.unwrap().is_none());
}

async fn lists_letters_by_every_filter_newest_first(home: Home) {
    let store = home.migrate().await;
    let letters = [
        DeadLetter { tenant: Some("bolt".into()), ..letter("evt_1") },
        DeadLetter { subscription: Some("sub_9".into()), ..letter("evt_2") },
        DeadLetter { kind: Kind::Event, reason: "unreadable: no `tenant`".into(), ..letter("evt_3") },
        DeadLetter { document_id: Some("doc_1".into()), ..letter("evt_4") },
        DeadLetter { reason: "unreadables".into(), ..letter("evt_5") },
    ];
    store.keep_dead(&letters).await.unwrap();
    store.dead_mark(&[5], DeadState::Replayed, None, 3_000).await.unwrap();
    let any = || DeadFilter { state: None, ..DeadFilter::default() };
    let some = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (any(), vec!["evt_5", "evt_4", "evt_3", "evt_2", "evt_1"]),
        (DeadFilter::default(), vec!["evt_4", "evt_3", "evt_2", "evt_1"]),
        (DeadFilter { state: Some(DeadState::Replayed), ..any() }, vec!["evt_5"]),
        (DeadFilter { tenant: some("bolt"), ..any() }, vec!["evt_1"]),
        (DeadFilter { subscription: some("sub_9"), ..any() }, vec!["evt_2"]),
        (DeadFilter { kind: Some(Kind::Event), ..any() }, vec!["evt_3"]),
        (DeadFilter { reason: some("unreadable"), ..any() }, vec!["evt_3"]),
        (DeadFilter { reason: some("exhausted"), ..any() }, vec!["evt_4", "evt_2", "evt_1"]),
        (DeadFilter { event_id: some("evt_2"), ..any() }, vec!["evt_2"]),
        (DeadFilter { document_id: some("doc_1"), ..any() }, vec!["evt_4"]),
        (DeadFilter { document_id: some("doc_1"), tenant: some("bolt"), ..any() }, vec![]),
        (DeadFilter { tenant: some("' OR 1=1 --"), ..any() }, vec![]),
        (DeadFilter { limit: 2, ..any() }, vec!["evt_5", "evt_4"]),
        (DeadFilter { limit: 2, before_id: Some(4), ..any() }, vec!["evt_3", "evt_2"]),
    ] {
        assert_eq!(list(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

async fn no_two_replays_get_the_same_number(home: Home) {
    let store = home.migrate().await;
    let other = home.open().await;
    let numbers = [
        store.next_cycle().await.unwrap(),
        other.next_cycle().await.unwrap(),
        store.next_cycle().await.unwrap(),
    ];
    assert_eq!(numbers, [1, 2, 3]);
}

async fn forgets_letters_by_age_a_batch_at_a_time(home: Home) {
    let store = home.migrate().await;
    let letters: Vec<_> =
        (0..5).map(|n| DeadLetter { dead_at_ms: n * 1000, ..letter(&format!("evt_{n}")) }).collect();
    store.keep_dead(&letters).await.unwrap();
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 2);
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 1);
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 0);
    assert_eq!(list(&store, DeadFilter::default()).await, ["evt_4", "evt_3"]);
}

async fn notes_what_was_decided_and_a_replayed_letter_is_never_discarded(home: Home) {
    let store = home.migrate().await;
    store.keep_dead(&[letter("evt_1"), letter("evt_2"), letter("evt_3")]).await.unwrap();
    assert_eq!(store.dead_mark(&[1, 2, 99], DeadState::Discarded, Some("spam"), 3_000).await.unwrap(), 2);
    assert_eq!(store.dead_mark(&[1, 2], DeadState::Discarded, Some("again"), 4_000).await.unwrap(), 0);
    assert_eq!(store.dead_mark(&[2, 3], DeadState::Replayed, None, 5_000).await.unwrap(), 2);
    assert_eq!(store.dead_mark(&[3], DeadState::Discarded, None, 6_000).await.unwrap(), 0);
    assert_eq!(store.dead_mark(&[1], DeadState::Open, None, 6_000).await.unwrap(), 0);

    let row = async |id| store.dead_show(id).await.unwrap().unwrap().row;
    let first = row(1).await;
    assert_eq!((first.state, first.state_at_ms), (DeadState::Discarded, Some(3_000)));
    assert_eq!(first.note.as_deref(), Some("spam"));
    assert_eq!(row(2).await.state, DeadState::Replayed);
    assert_eq!((row(3).await.state, row(3).await.state_at_ms), (DeadState::Replayed, Some(5_000)));
    // A letter drained again does not come back to life.
    store.keep_dead(&[letter("evt_1")]).await.unwrap();
    assert_eq!(list(&store, DeadFilter::default()).await, [""; 0]);
}

// ---- PostgreSQL only -------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn text_that_postgres_cannot_hold_is_refused_singly_and_kept_as_undrainable() {
    let home = Home::in_postgres().await;
    let store = home.migrate().await;
    // Random, since what repeats would be compressed until it fits an index.
    let endless: String = (0..2000).map(|_| unique()).collect();
    let refused = [
        DeadLetter { document_id: Some("nul\0".into()), ..letter("evt_1") },
        DeadLetter { history: "\0".into(), ..letter("evt_2") },
        DeadLetter { event_id: Some(endless), ..letter("evt_3") },
        DeadLetter { reason: "x".repeat(513), ..letter("evt_4") },
    ];
    for letter in &refused {
        let batch = [self::letter("evt_0"), letter.clone()];
        let error = store.keep_dead(&batch).await.unwrap_err();
        let KeepError::Refused(why) = error else { panic!("{error:?}") };
        assert_eq!(
            list(&store, DeadFilter { reason: Some("exhausted".into()), ..DeadFilter::default() }).await,
            [""; 0]
        );
        assert!(store.keep_undrainable(letter, &why).await.unwrap());
    }
    let rows = store.dead_list(&DeadFilter::default()).await.unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.reason == UNDRAINABLE));
    let nul = store.dead_show(rows[3].id).await.unwrap().unwrap();
    let headers: serde_json::Value = serde_json::from_slice(&nul.headers).unwrap();
    assert_eq!((&headers["undrainable"]["document_id"], &nul.body), (&json!("nul\0"), &refused[0].body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_by_another_is_waited_for_five_seconds_and_is_no_refusal() {
    let home = Home::in_postgres().await;
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    let mut other = home.connect_to_postgres().await;
    other
        .execute(
            "BEGIN; UPDATE counters SET value = value; INSERT INTO dead_letters (letter_key, kind, reason, \
                   cycle, attempts, body, body_sha256, headers, history, answer, first_seen_ms, dead_at_ms) \
                   VALUES (decode(repeat('00', 32), 'hex'), 'event', 'x', 0, 0, '', '', '', '', '', 0, 0); \
                   LOCK TABLE dead_letters",
        )
        .await
        .unwrap();
    let begun = Instant::now();
    let error = store.add_subscriptions(vec![spec("acme", "sub_2")]).await.unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    assert!(begun.elapsed() > Duration::from_millis(4_900) && begun.elapsed() < Duration::from_secs(8));
    let error = store.keep_dead(&[letter("evt_1")]).await.unwrap_err();
    assert!(matches!(error, KeepError::Unavailable(_)), "{error:?}");
    // Who only reads waits for nobody.
    assert_eq!(versions(&store).await, (1, vec![("acme".into(), 1)]));

    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.add_subscriptions(vec![spec("acme", "sub_2")]).await.unwrap(), 2);
    assert_eq!(store.keep_dead(&[letter("evt_1")]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_replaced() {
    let home = Home::in_postgres().await;
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    let mut other = home.connect_to_postgres().await;
    for round in 2..6 {
        let ended = sqlx::query(end).bind(&home.name).execute(&mut other).await.unwrap();
        assert!(ended.rows_affected() > 0, "somebody was there");
        assert_eq!(store.tenant(&tenant("acme")).await.unwrap().specs.len(), round - 1);
        store.add_subscriptions(vec![spec("acme", &format!("sub_{round}"))]).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_refuses_is_told_without_the_password() {
    let shared = shared("PAPERBOY_TEST_POSTGRES_URL");
    let ((_, place), (server, _)) = (shared.rsplit_once('@').unwrap(), shared.rsplit_once('/').unwrap());
    let key = SealKey::from_bytes([1; 32]);
    for (url, why) in [
        (format!("postgres://paperboy:canary@{place}"), "password authentication failed"),
        (format!("{server}/nowhere"), "database \"nowhere\" does not exist"),
        ("postgres://paperboy:canary@127.0.0.1:1/postgres".to_owned(), "refused"),
    ] {
        let url = StoreUrl::parse(&url).unwrap();
        for error in
            [Store::open(&url, &key).await.unwrap_err(), Store::migrate(&url, &key).await.unwrap_err()]
        {
            assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
            assert!(error.to_string().contains(why) && !format!("{error:?}").contains("canary"), "{error}");
            assert!(error.hint().unwrap().contains("`store.url`"));
        }
    }
}

// ---- changing the key ------------------------------------------------------------------------------

async fn the_store_says_which_key_of_several_seals(home: Home) {
    let old = home.migrate().await;
    let both = home.open_with_new_key().await;
    both.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    both.keep_dead(&[letter("evt_1")]).await.unwrap();
    assert_eq!((both.key_check(), both.count_sealed_before().await.unwrap()), (home.key.check_value(), 2));
    assert!(old.subscription(&id("sub_1")).await.unwrap().is_some(), "who has the old key only still reads");

    assert_eq!(both.change_key().await.unwrap(), home.key.check_value());
    assert_eq!(both.key_check(), new_key().check_value());
    both.add_subscriptions(vec![spec("acme", "sub_2")]).await.unwrap();
    assert_eq!(both.count_sealed_before().await.unwrap(), 2, "what comes now has the new key");
    // And whoever lacks the new key writes nothing, rather than what nobody else can read.
    let told = old.add_subscriptions(vec![spec("acme", "sub_3")]).await.unwrap_err().to_string();
    assert!(told.contains("another key") && told.contains(&new_key().check_value()), "{told}");
    assert!(matches!(old.keep_dead(&[letter("evt_2")]).await, Err(KeepError::Unavailable(_))));
    assert_eq!(old.missing_key(), Some(new_key().check_value()));
    let error = Store::open(&home.url, &home.key).await.unwrap_err();
    assert!(matches!(error, OpenError::KeyMismatch { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("`secrets.old_keys`"));
}

async fn a_changed_key_is_used_by_processes_that_were_running(home: Home) {
    home.migrate().await;
    let (writer, other) = (home.open_with_new_key().await, home.open_with_new_key().await);
    other.add_subscriptions((0..250).map(|n| spec("acme", &format!("sub_{n}"))).collect()).await.unwrap();
    let letters: Vec<_> = (0..250).map(|n| letter(&format!("evt_{n}"))).collect();
    other.keep_dead(&letters).await.unwrap();
    writer.change_key().await.unwrap();
    // All the while others write.
    let busy = async {
        for n in 0..20 {
            other.add_subscriptions(vec![spec("beta", &format!("new_{n}"))]).await.unwrap();
            other.keep_dead(&[letter(&format!("new_{n}"))]).await.unwrap();
            other
                .set_enabled(&id(&format!("sub_{n}")), false, DisabledBy::Person, "2026-11-22T10:00:00Z")
                .await
                .unwrap();
        }
    };
    let mut done = Vec::new();
    let (resealed, ()) = tokio::join!(writer.seal_anew(|records| done.push(records)), busy);
    let resealed = resealed.unwrap();
    assert!(resealed.broken.is_empty(), "{resealed:?}");
    // What was disabled meanwhile had the new key already.
    assert!((480..=500).contains(&resealed.records), "{resealed:?}");
    assert!(done.len() > 4 && done.is_sorted(), "{done:?}");
    assert_eq!(writer.count_sealed_before().await.unwrap(), 0);

    let new = Store::open(&home.url, &new_key()).await.unwrap();
    let whole = new.tenant(&tenant("acme")).await.unwrap().specs;
    assert_eq!(whole.into_iter().filter(Result::is_ok).count(), 250);
    assert_eq!(new.subscription(&id("sub_3")).await.unwrap().unwrap().enabled, Some(false));
    for row in new.dead_list(&DeadFilter { limit: 1_000, ..DeadFilter::default() }).await.unwrap() {
        assert_eq!(new.dead_show(row.id).await.unwrap().unwrap().headers, b"{}");
    }
}

async fn a_kept_answer_is_given_again_after_the_key_it_was_sealed_with_is_gone(home: Home) {
    home.migrate().await;
    let both = home.open_with_new_key().await;
    // More than one batch, of which two differ in one part of their name only.
    let names = (0..120).map(|n| ("key:a".to_owned(), format!("k{n}")));
    let names: Vec<(String, String)> = names.chain([("key:b".to_owned(), "k0".to_owned())]).collect();
    for (place, (actor, key)) in names.iter().enumerate() {
        let id = format!("sub_{place}");
        let (actor, key, answer) = (actor.clone(), key.clone(), id.as_bytes().to_vec().into());
        let answer = Some(KeptAnswer { actor, key, request: [1; 32], answer, at_ms: 10 });
        both.save(Save { added: vec![spec("acme", &id)], answer, ..Save::default() }).await.unwrap();
    }
    both.change_key().await.unwrap();
    assert_eq!(both.count_sealed_before().await.unwrap(), 2 * 121);
    let resealed = both.seal_anew(|_| ()).await.unwrap();
    assert_eq!((resealed.records, resealed.broken.len()), (2 * 121, 0), "{resealed:?}");
    assert_eq!(both.count_sealed_before().await.unwrap(), 0);
    let new = Store::open(&home.url, &new_key()).await.unwrap();
    for (place, (actor, key)) in names.iter().enumerate() {
        let given = new.kept_answer(actor, key, 20).await.unwrap().unwrap();
        assert_eq!(&given.answer[..], format!("sub_{place}").as_bytes());
    }
}

async fn sealing_anew_that_was_cut_off_goes_on_where_it_ended(home: Home) {
    home.migrate().await;
    let store = home.open_with_new_key().await;
    store.add_subscriptions((0..300).map(|n| spec("acme", &format!("sub_{n}"))).collect()).await.unwrap();
    store.change_key().await.unwrap();
    let begun = tokio::sync::Notify::new();
    tokio::select! {
        done = store.seal_anew(|_| begun.notify_one()) => panic!("not cut off: {done:?}"),
        () = begun.notified() => {}
    }
    let left = store.count_sealed_before().await.unwrap();
    assert!((1..300).contains(&left), "{left} left");
    let again = home.open_with_new_key().await;
    assert_eq!(again.change_key().await.unwrap(), new_key().check_value(), "changed already");
    assert_eq!(again.seal_anew(|_| ()).await.unwrap().records, left);
    assert_eq!(again.seal_anew(|_| ()).await.unwrap().records, 0);
    let new = Store::open(&home.url, &new_key()).await.unwrap();
    assert_eq!(
        new.tenant(&tenant("acme")).await.unwrap().specs.into_iter().filter(Result::is_ok).count(),
        300
    );
}

async fn a_record_that_no_key_opens_is_left_and_named(home: Home) {
    home.migrate().await.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    home.raw("UPDATE subscriptions SET sealed = substr(sealed, 1, 60) WHERE id = 'sub_1'").await;
    let store = home.open_with_new_key().await;
    store.change_key().await.unwrap();
    for records in [1, 0] {
        let resealed = store.seal_anew(|_| ()).await.unwrap();
        assert_eq!(resealed.records, records);
        let broken: Vec<_> = resealed.broken.into_iter().collect();
        assert_eq!(broken, ["subscription `sub_1`: altered, or sealed for another record"]);
    }
    assert_eq!(store.count_sealed_before().await.unwrap(), 1);
}

// ---- helpers ---------------------------------------------------------------------------------------

const CANARY: &str = "canary-yellow-bird-sings";

fn id(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

fn tenant(text: &str) -> Tenant {
    Tenant::parse(text).unwrap()
}

/// A complete subscription with the canary wherever a secret may be.
fn spec(tenant: &str, id: &str) -> SubscriptionSpec {
    let document = json!({
        "id": id, "tenant": tenant, "name": "clearly-visible", "enabled": true, "events": ["#"],
        "request": {
            "method": "POST", "url": format!("https://ann:{CANARY}-url@erp.example.com/ocr"),
            "headers": {"X-Key": format!("{CANARY}-header")},
        },
        "auth": {"kind": "bearer", "token": format!("{CANARY}-token")},
        "signatures": [{"scheme": "hmac", "header": "x-sig", "algorithm": "sha256", "encoding": "hex",
                        "content": "{body}", "secrets": [format!("{CANARY}-hmac")]}],
        "created_at": "2026-11-22T09:00:00Z", "updated_at": "2026-11-22T09:00:00Z",
    });
    serde_json::from_value(document).unwrap()
}

fn text(spec: &SubscriptionSpec) -> String {
    serde_json::to_string(spec).unwrap()
}

fn letter(event_id: &str) -> DeadLetter {
    DeadLetter {
        kind: Kind::Delivery,
        reason: "exhausted".into(),
        tenant: Some("acme".into()),
        event_id: Some(event_id.into()),
        event_type: Some("document.processed".into()),
        subscription: Some("sub_1".into()),
        document_id: None,
        batch_id: None,
        cycle: 0,
        attempts: 10,
        body: Bytes::from_static(b"{\"data\":\"webhook-body\"}"),
        headers: b"{}".to_vec(),
        history: String::new(),
        answer: Vec::new(),
        first_seen_ms: 1_000,
        dead_at_ms: 2_000,
    }
}

async fn list(store: &Store, filter: DeadFilter) -> Vec<String> {
    let rows = store.dead_list(&filter).await.unwrap();
    rows.into_iter().map(|row| row.event_id.unwrap()).collect()
}

async fn versions(store: &Store) -> (u64, Vec<(String, u64)>) {
    let changes = store.changes_since(0).await.unwrap();
    let mut tenants = changes.tenants;
    tenants.sort();
    (changes.counter, tenants)
}
