//! What the delivery log must do in every store: once beside an SQLite file, once in a schema of PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use paperboy::domain::cause::Cause;
use paperboy::domain::name::{EventId, EventType, SubscriptionId, Tenant};
use paperboy::domain::retry::Reason;
use paperboy::store::Store;
use paperboy::store::deliveries::{Cursor, DeliveryFilter, Record, StatusRange, What};

use crate::support::home::{Home, on_both_engines};

on_both_engines! {
    every_column_comes_back_as_it_was_written,
    lists_by_every_filter_newest_first,
    pages_lead_through_all_days_and_repeat_nothing,
    ten_days_leave_no_more_than_are_kept,
    processes_that_begin_a_day_together_both_write,
    a_day_that_is_dropped_under_its_writer_is_made_again,
    a_text_that_an_engine_cannot_hold_costs_no_row,
}

const DAY_MS: i64 = 86_400_000;
// 2026-11-22T09:00:07.120Z
const NINE: i64 = 1_795_338_007_120;

async fn every_column_comes_back_as_it_was_written(home: Home) {
    let store = home.migrate().await;
    let record = Record {
        received_ms: Some(NINE - 5),
        document: Some("doc_1".into()),
        batch: Some("b_1".into()),
        cycle: 3,
        status: Some(503),
        cause: Some(Cause::Unavailable),
        reason: Some(Reason::Exhausted),
        elapsed_ms: Some(41),
        wait: Some(512),
        ..record("evt_1", What::Dead, NINE)
    };
    store.delivery_log("host:7").write(&[record]).await.unwrap();
    let rows = store.delivery_life(&DeliveryFilter::default()).await.unwrap();
    let row = &rows[0];
    assert_eq!((row.at_ms, row.what, row.received_ms), (NINE, What::Dead, Some(NINE - 5)));
    assert_eq!(
        (row.event_id.as_str(), row.event_type.as_str(), row.tenant.as_str()),
        ("evt_1", "document.processed", "acme")
    );
    assert_eq!((row.document_id.as_deref(), row.batch_id.as_deref()), (Some("doc_1"), Some("b_1")));
    assert_eq!((row.subscription.as_deref(), row.attempt, row.cycle), (Some("sub_1"), 1, 3));
    assert_eq!(
        (row.status, row.class.as_deref(), row.reason.as_deref()),
        (Some(503), Some("unavailable"), Some("exhausted"))
    );
    assert_eq!((row.elapsed_ms, row.wait, row.worker.as_str()), (Some(41), Some(512), "host:7"));
    assert!(store.log_size().await.unwrap().bytes > 0);
}

async fn lists_by_every_filter_newest_first(home: Home) {
    let store = home.migrate().await;
    let failed =
        |event, what, status, cause| Record { status, cause: Some(cause), ..record(event, what, NINE) };
    let records = [
        Record { tenant: Tenant::parse("other").unwrap(), ..record("evt_1", What::Delivered, NINE) },
        failed("evt_2", What::Retry, Some(503), Cause::Unavailable),
        failed("evt_3", What::Dead, None, Cause::TlsExpired),
        Record { document: Some("doc_4".into()), ..record("evt_4", What::Delivered, NINE + 10) },
        Record { batch: Some("b_5".into()), ..record("evt_5", What::Delivered, NINE + 20) },
        Record { kind: EventType::parse("other").unwrap(), ..record("evt_6", What::Unmatched, NINE + 30) },
        Record {
            subscription: Some(SubscriptionId::parse("sub_7").unwrap()),
            ..record("evt_7", What::Deferred, NINE + DAY_MS)
        },
    ];
    store.delivery_log("w").write(&records).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let all = DeliveryFilter { limit: 50, ..DeliveryFilter::default() };
    let cases: [(DeliveryFilter, &[&str]); 15] = [
        (all.clone(), &["evt_7", "evt_6", "evt_5", "evt_4", "evt_3", "evt_2", "evt_1"]),
        (DeliveryFilter { tenant: text("other"), ..all.clone() }, &["evt_1"]),
        (DeliveryFilter { event: text("evt_2"), ..all.clone() }, &["evt_2"]),
        (DeliveryFilter { document: text("doc_4"), ..all.clone() }, &["evt_4"]),
        (DeliveryFilter { batch: text("b_5"), ..all.clone() }, &["evt_5"]),
        (DeliveryFilter { kind: text("other"), ..all.clone() }, &["evt_6"]),
        (DeliveryFilter { subscription: text("sub_7"), ..all.clone() }, &["evt_7"]),
        (DeliveryFilter { class: text("tls"), ..all.clone() }, &["evt_3"]),
        (DeliveryFilter { class: text("tls_expired"), ..all.clone() }, &["evt_3"]),
        (DeliveryFilter { class: text("tl"), ..all.clone() }, &[]),
        (DeliveryFilter { status: StatusRange::parse("5xx"), ..all.clone() }, &["evt_2"]),
        (DeliveryFilter { what: Some(What::Unmatched), ..all.clone() }, &["evt_6"]),
        (DeliveryFilter { failures: true, ..all.clone() }, &["evt_3", "evt_2"]),
        (DeliveryFilter { since_ms: Some(NINE + 20), until_ms: Some(NINE + 30), ..all.clone() }, &["evt_5"]),
        (DeliveryFilter { event: text("evt_9"), ..all.clone() }, &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(events(&store, &filter).await, expected, "{filter:?}");
    }
}

async fn pages_lead_through_all_days_and_repeat_nothing(home: Home) {
    let store = home.migrate().await;
    let at = |number: i64| NINE + number * DAY_MS / 3;
    let records: Vec<Record> =
        (0..10).map(|number| record(&format!("evt_{number}"), What::Delivered, at(number))).collect();
    store.delivery_log("w").write(&records).await.unwrap();
    for limit in [1, 3, 4, 10, 11] {
        let mut filter = DeliveryFilter { limit, ..DeliveryFilter::default() };
        let mut seen = Vec::new();
        loop {
            let page = store.deliveries(&filter).await.unwrap();
            assert!(page.rows.len() <= limit as usize);
            seen.extend(page.rows.into_iter().map(|row| row.event_id));
            let Some(next) = page.next else { break };
            // As it comes back from a person or a script.
            filter.after = Some(Cursor::parse(&next.to_string()).unwrap());
        }
        let expected: Vec<String> = (0..10).rev().map(|number| format!("evt_{number}")).collect();
        assert_eq!(seen, expected, "in pages of {limit}");
    }
}

async fn ten_days_leave_no_more_than_are_kept(home: Home) {
    let store = home.migrate().await;
    let mut log = store.delivery_log("w");
    let mut sizes = Vec::new();
    for day in 0..10 {
        let now_ms = NINE + day * DAY_MS;
        let records: Vec<Record> =
            (0..500).map(|number| record(&format!("evt_{day}_{number}"), What::Delivered, now_ms)).collect();
        log.write(&records).await.unwrap();
        log.forget(3, now_ms).await.unwrap();
        sizes.push(store.log_size().await.unwrap());
    }
    let days: Vec<u64> = sizes.iter().map(|size| size.days).collect();
    assert_eq!(days, [1, 2, 3, 4, 4, 4, 4, 4, 4, 4], "today and three whole days before it");
    // What the last days take is about what any four took; SQLite's own log may come on top of a file.
    assert!(sizes[9].bytes <= sizes[4].bytes * 2, "{sizes:?}");
    assert_eq!(events(&store, &of_event("evt_6_1")).await, ["evt_6_1"]);
    assert_eq!(events(&store, &of_event("evt_5_1")).await, Vec::<String>::new());
    assert_eq!(log.forget(0, NINE + 99 * DAY_MS).await.unwrap(), 4);
    assert_eq!(store.log_size().await.unwrap().days, 0);
}

async fn processes_that_begin_a_day_together_both_write(home: Home) {
    home.migrate().await.close().await;
    let mut tasks = Vec::new();
    for process in 0..4 {
        let store = home.open().await;
        tasks.push(tokio::spawn(async move {
            let mut log = store.delivery_log(&format!("w{process}"));
            for number in 0..5 {
                log.write(&[record(&format!("evt_{process}_{number}"), What::Delivered, NINE)])
                    .await
                    .unwrap();
            }
            store.close().await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let all = DeliveryFilter { limit: 50, ..DeliveryFilter::default() };
    assert_eq!(events(&home.open().await, &all).await.len(), 20);
}

async fn a_day_that_is_dropped_under_its_writer_is_made_again(home: Home) {
    let store = home.migrate().await;
    let mut log = store.delivery_log("w");
    log.write(&[record("evt_1", What::Delivered, NINE)]).await.unwrap();
    // By a process whose clock is ahead.
    store.delivery_log("other").forget(1, NINE + 9 * DAY_MS).await.unwrap();
    // The first write may find out; the one after it is kept.
    let _ = log.write(&[record("evt_2", What::Delivered, NINE)]).await;
    log.write(&[record("evt_3", What::Delivered, NINE)]).await.unwrap();
    assert!(
        events(&store, &DeliveryFilter { limit: 9, ..DeliveryFilter::default() })
            .await
            .contains(&"evt_3".to_owned())
    );
}

async fn a_text_that_an_engine_cannot_hold_costs_no_row(home: Home) {
    let store = home.migrate().await;
    let odd = Record { document: Some("a\0b".into()), ..record("evt_1", What::Delivered, NINE) };
    store.delivery_log("w").write(&[odd, record("evt_2", What::Delivered, NINE)]).await.unwrap();
    let rows = store.delivery_life(&DeliveryFilter::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].document_id.as_deref(), Some("a\u{fffd}b"));
}

fn of_event(event: &str) -> DeliveryFilter {
    DeliveryFilter { event: Some(event.to_owned()), limit: 50, ..DeliveryFilter::default() }
}

async fn events(store: &Store, filter: &DeliveryFilter) -> Vec<String> {
    store.deliveries(filter).await.unwrap().rows.into_iter().map(|row| row.event_id).collect()
}

fn record(event: &str, what: What, at_ms: i64) -> Record {
    Record {
        what,
        at_ms,
        received_ms: None,
        event: EventId::parse(event).unwrap(),
        kind: EventType::parse("document.processed").unwrap(),
        tenant: Tenant::parse("acme").unwrap(),
        document: None,
        batch: None,
        subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
        attempt: 1,
        cycle: 0,
        status: None,
        cause: None,
        reason: None,
        elapsed_ms: None,
        wait: None,
    }
}
