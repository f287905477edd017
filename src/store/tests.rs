//! What every store must do, through its front door, and what only SQLite's files must not show.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use super::dead::{Kind, UNDRAINABLE};
use super::*;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::spec::SubscriptionSpec;
use crate::domain::subscription::DisabledBy;

// ---- making and opening ----------------------------------------------------------------------------

#[tokio::test]
async fn a_new_store_can_be_read_by_its_owner_only() {
    let home = Home::new();
    let store = home.migrate().await;
    assert_eq!(store.id().len(), 36);
    assert_eq!(store.key_check(), home.key.check_value());
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();

    assert_eq!(mode(home.file.parent().unwrap()), 0o700);
    let files = home.files();
    assert!(files.iter().any(|file| file.to_string_lossy().ends_with("-wal")), "no log: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn opening_never_makes_a_store() {
    let home = Home::new();
    let error = Store::open(&home.url, &home.key).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no store at `{}`: start `paperboy serve` or run `paperboy store migrate`", home.url)
    );
    assert!(!home.file.parent().unwrap().exists());
}

#[tokio::test]
async fn an_opened_store_is_the_one_that_was_made() {
    let home = Home::new();
    let made = home.migrate().await;
    made.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    let id = made.id().to_owned();
    made.close().await;

    let opened = home.open().await;
    assert_eq!(opened.id(), id);
    assert!(opened.has_subscription().await.unwrap());
    assert_eq!(home.migrate().await.id(), id, "migrating again changes nothing");
}

#[tokio::test]
async fn another_key_is_refused_and_changes_nothing() {
    let home = Home::new();
    home.migrate().await.close().await;
    let before = std::fs::read(&home.file).unwrap();
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
    assert_eq!(std::fs::read(&home.file).unwrap(), before);
    home.open().await;
}

#[tokio::test]
async fn an_unfinished_store_is_not_opened() {
    let home = Home::new();
    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "").unwrap();
    let error = Store::open(&home.url, &home.key).await.unwrap_err();
    assert!(matches!(error, OpenError::PendingMigrations { pending: 1, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("`paperboy store migrate`"));
    home.migrate().await;
    home.open().await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_not_touched() {
    let home = Home::new();
    let store = home.migrate().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&store.inner.pool).await.unwrap();
    for result in [Store::open(&home.url, &home.key).await, Store::migrate(&home.url, &home.key).await] {
        assert!(matches!(result.unwrap_err(), OpenError::Newer { version: 9999, .. }));
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let home = Home::new();
    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "this is a letter to my aunt, of more than a hundred bytes, ".repeat(99))
        .unwrap();
    for error in [
        Store::open(&home.url, &home.key).await.unwrap_err(),
        Store::migrate(&home.url, &home.key).await.unwrap_err(),
    ] {
        let told = error.to_string();
        assert!(told.contains(&home.url.to_string()) && told.contains("not a database"), "{told}");
    }
}

#[tokio::test]
async fn postgres_is_refused_without_its_password() {
    let url = StoreUrl::parse("postgres://ann:canary@db/paperboy").unwrap();
    let key = SealKey::from_bytes([1; 32]);
    for error in [Store::open(&url, &key).await.unwrap_err(), Store::migrate(&url, &key).await.unwrap_err()] {
        assert!(matches!(error, OpenError::Unsupported { .. }));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_racing_to_make_a_store_agree_on_one() {
    for _ in 0..10 {
        let home = Home::new();
        let tasks: Vec<_> = (0..4)
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_keys_racing_for_a_new_store_one_is_refused() {
    let home = Home::new();
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

#[tokio::test]
async fn status_tells_of_a_missing_an_unfinished_and_a_used_store() {
    let home = Home::new();
    let missing = Store::status(&home.url).await.unwrap();
    assert_eq!((missing.exists, missing.pending, missing.store_id), (false, 1, None));
    assert!(!home.file.parent().unwrap().exists());

    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "").unwrap();
    let unfinished = Store::status(&home.url).await.unwrap();
    assert_eq!((unfinished.exists, unfinished.pending, unfinished.store_id), (true, 1, None));

    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    store.keep_dead(&[letter("evt_1"), letter("evt_2")]).await.unwrap();
    store.dead_mark(&[1], DeadState::Discarded, None, 0).await.unwrap();
    let used = Store::status(&home.url).await.unwrap();
    assert_eq!((used.applied, used.pending), (vec![1], 0));
    assert_eq!((used.subscriptions, used.dead_letters), (2, 1));
    assert_eq!(used.store_id.as_deref(), Some(store.id()));
    assert!(used.file_bytes > 0);
}

// ---- what the files show ---------------------------------------------------------------------------

#[tokio::test]
async fn no_secret_is_in_clear_in_any_file() {
    let home = Home::new();
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    store.set_enabled(&id("sub_1"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    store.remove_subscription(&id("sub_2")).await.unwrap();
    let mut echo = letter("evt_1");
    echo.answer = format!("you sent {CANARY}-answer").into_bytes();
    echo.headers = format!("{{\"authorization\":\"{CANARY}-amqp\"}}").into_bytes();
    store.keep_dead(std::slice::from_ref(&echo)).await.unwrap();
    store.keep_undrainable(&DeadLetter { reason: String::new(), ..echo }, "no reason").await.unwrap();

    home.assert_hidden(CANARY, "while open, with the log");
    store.close().await;
    home.assert_hidden(CANARY, "after closing");

    // The search does find what is there to be found.
    for seen in ["clearly-visible", "webhook-body"] {
        assert!(home.shows(seen), "{seen}");
    }
}

// ---- subscriptions ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_subscription_comes_back_whole_to_the_worker_and_masked_to_people() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn every_change_raises_the_counter_and_the_tenants_version_and_nothing_lowers_them() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn what_changes_nothing_raises_nothing() {
    let (_home, store) = new_store().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    assert_eq!(store.add_subscriptions(vec![]).await.unwrap(), 1);
    assert_eq!(store.remove_subscription(&id("sub_9")).await.unwrap(), None);
    let unknown = store.set_enabled(&id("sub_9"), true, DisabledBy::Person, "2026-11-23T00:00:00Z").await;
    assert_eq!(unknown.unwrap(), None);
    assert_eq!(versions(&store).await, (1, vec![("acme".into(), 1)]));
}

#[tokio::test]
async fn a_taken_id_adds_none_of_the_others() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn of_two_changes_to_one_version_the_second_is_told() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn disabling_is_remembered_with_its_author_and_keeps_the_secrets() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn lists_page_by_page_and_tenant_by_tenant() {
    let (_home, store) = new_store().await;
    let specs = vec![spec("acme", "sub_3"), spec("bolt", "sub_2"), spec("acme", "sub_1")];
    store.add_subscriptions(specs).await.unwrap();
    let ids = async |filter: ListFilter| {
        let specs = store.list_subscriptions(&filter).await.unwrap();
        specs.into_iter().map(|spec| spec.id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(ListFilter { limit: 2, ..ListFilter::default() }).await, ["sub_1", "sub_2"]);
    let next = ListFilter { limit: 2, after: Some(id("sub_2")), ..ListFilter::default() };
    assert_eq!(ids(next).await, ["sub_3"]);
    let acme = ListFilter { limit: 9, tenant: Some(tenant("acme")), ..ListFilter::default() };
    assert_eq!(ids(acme).await, ["sub_1", "sub_3"]);
}

#[tokio::test]
async fn a_broken_record_is_named_and_hides_no_other() {
    let (_home, store) = new_store().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    // A record copied over another does not pass for it.
    let copy = "UPDATE subscriptions SET sealed = (SELECT sealed FROM subscriptions WHERE id = 'sub_2') WHERE id = 'sub_1'";
    sqlx::query(copy).execute(&store.inner.pool).await.unwrap();

    let record = store.tenant(&tenant("acme")).await.unwrap();
    assert_eq!(record.specs[0].as_ref().unwrap_err().id, "sub_1");
    assert_eq!(text(record.specs[1].as_ref().unwrap()), text(&spec("acme", "sub_2")));
    let error = store.subscription(&id("sub_1")).await.unwrap_err();
    assert!(format!("{error:#}").contains("`sub_1` cannot be read"), "{error:#}");
}

#[tokio::test]
async fn a_record_moved_to_another_tenant_is_broken() {
    let (_home, store) = new_store().await;
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();
    sqlx::query("UPDATE subscriptions SET tenant = 'bolt'").execute(&store.inner.pool).await.unwrap();
    let record = store.tenant(&tenant("bolt")).await.unwrap();
    assert_eq!(record.specs[0].as_ref().unwrap_err().id, "sub_1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_two_processes_wait_for_each_other_and_readers_see_whole_changes() {
    let home = Home::new();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_that_read_before_they_write_wait_for_each_other_too() {
    let home = Home::new();
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

// ---- dead letters ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_letter_that_comes_twice_is_kept_once() {
    let (_home, store) = new_store().await;
    assert_eq!(store.keep_dead(&[letter("evt_1"), letter("evt_1"), letter("evt_2")]).await.unwrap(), 2);
    assert_eq!(store.keep_dead(&[letter("evt_2"), letter("evt_3")]).await.unwrap(), 1);
    assert!(!store.keep_dead_one(&letter("evt_3")).await.unwrap());
    assert_eq!(list(&store, DeadFilter::default()).await, ["evt_3", "evt_2", "evt_1"]);
    assert_eq!(store.keep_dead(&[]).await.unwrap(), 0);
}

#[tokio::test]
async fn letters_that_differ_in_any_part_of_their_key_are_all_kept() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn a_refused_letter_is_found_singly_and_kept_as_undrainable() {
    let (_home, store) = new_store().await;
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
    assert!(rows[0].history.contains("CHECK constraint failed"), "{}", rows[0].history);
    let kept = store.dead_show(rows[0].id).await.unwrap().unwrap();
    assert_eq!(kept.body, refused.body);
    let headers: serde_json::Value = serde_json::from_slice(&kept.headers).unwrap();
    assert_eq!((&headers["undrainable"]["event_id"], &headers["a"]), (&json!("evt_2"), &json!(1)));
}

#[tokio::test]
async fn a_store_that_is_away_refuses_no_letter() {
    let (_home, store) = new_store().await;
    store.close().await;
    assert!(matches!(store.keep_dead(&[letter("evt_1")]).await, Err(KeepError::Unavailable(_))));
}

#[tokio::test]
async fn shows_a_letter_byte_for_byte() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn lists_letters_by_every_filter_newest_first() {
    let (_home, store) = new_store().await;
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

#[tokio::test]
async fn no_two_replays_get_the_same_number() {
    let (home, store) = new_store().await;
    let other = home.open().await;
    let numbers = [
        store.next_cycle().await.unwrap(),
        other.next_cycle().await.unwrap(),
        store.next_cycle().await.unwrap(),
    ];
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn forgets_letters_by_age_a_batch_at_a_time() {
    let (_home, store) = new_store().await;
    let letters: Vec<_> =
        (0..5).map(|n| DeadLetter { dead_at_ms: n * 1000, ..letter(&format!("evt_{n}")) }).collect();
    store.keep_dead(&letters).await.unwrap();
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 2);
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 1);
    assert_eq!(store.forget_dead(3000, 2).await.unwrap(), 0);
    assert_eq!(list(&store, DeadFilter::default()).await, ["evt_4", "evt_3"]);
}

#[tokio::test]
async fn notes_what_was_decided_and_a_replayed_letter_is_never_discarded() {
    let (_home, store) = new_store().await;
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

#[test]
fn debug_shows_no_content() {
    let letter = DeadLetter { answer: CANARY.into(), body: CANARY.into(), ..letter("evt_1") };
    assert!(!format!("{letter:?}").contains(CANARY));
}

// ---- helpers ---------------------------------------------------------------------------------------

const CANARY: &str = "canary-yellow-bird-sings";

/// A temporary folder, removed with its value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("paperboy-store-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a store is to be, and its key.
struct Home {
    folder: Folder,
    file: PathBuf,
    url: StoreUrl,
    key: SealKey,
}

impl Home {
    fn new() -> Home {
        let folder = Folder::new();
        let file = folder.path().join("data/paperboy.db");
        let url = StoreUrl::parse(&format!("sqlite://{}", file.display())).unwrap();
        Home { folder, file, url, key: SealKey::from_bytes([1; 32]) }
    }

    async fn migrate(&self) -> Store {
        Store::migrate(&self.url, &self.key).await.unwrap()
    }

    async fn open(&self) -> Store {
        Store::open(&self.url, &self.key).await.unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("data");
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn shows(&self, text: &str) -> bool {
        self.files().iter().any(|file| contains(&std::fs::read(file).unwrap(), text.as_bytes()))
    }

    /// Looks for a text in clear, in hex of either case and in base64 at each of its three alignments.
    fn assert_hidden(&self, text: &str, when: &str) {
        let hex = HEXLOWER.encode(text.as_bytes());
        let mut forms = vec![text.to_owned(), hex.to_uppercase(), hex];
        for skip in 0..3 {
            let whole = (text.len() - skip) / 3 * 3;
            forms.push(BASE64.encode(&text.as_bytes()[skip..skip + whole]));
        }
        for form in forms {
            assert!(!self.shows(&form), "`{form}` is in a file {when}");
        }
    }
}

async fn new_store() -> (Home, Store) {
    let home = Home::new();
    let store = home.migrate().await;
    (home, store)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

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
