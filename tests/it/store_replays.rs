//! What replays and groups of dead letters must do in every store: once in an SQLite file, once in PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use bytes::Bytes;
use paperboy::store::dead::Kind;
use paperboy::store::deliveries::StatusRange;
use paperboy::store::replays::{Choice, JobState, NewReplay, ReplayJob};
use paperboy::store::{DeadFilter, DeadLetter, DeadState, Store};

use crate::support::home::{Home, on_both_engines};

on_both_engines! {
    a_letter_keeps_its_number_until_it_is_sent_and_is_sent_once,
    large_letters_are_read_a_few_at_a_time,
    the_same_question_goes_on_with_its_job_and_no_letter_waits_in_two,
    one_process_at_a_time_holds_the_lease,
    what_is_left_is_taken_in_turns_one_of_each_tenant,
    what_was_decided_meanwhile_is_skipped_and_what_is_cancelled_is_free,
    what_was_sent_while_its_job_was_cancelled_counts_as_sent,
    groups_count_what_died_of_the_same,
    a_crowd_of_forty_receivers_and_six_causes_is_grouped_and_found,
    a_group_that_is_sent_by_processes_that_die_is_sent_whole_and_nothing_else,
    replays_are_forgotten_with_the_letters_of_their_time,
}

const NOW: i64 = 1_795_338_007_120;

async fn a_letter_keeps_its_number_until_it_is_sent_and_is_sent_once(home: Home) {
    let store = home.migrate().await;
    keep(&store, 3).await;
    let job = begin(&store, "all", &all()).await.unwrap();
    assert_eq!((job.waiting, job.sent, job.state), (3, 0, JobState::Running));

    let numbers = async || -> Vec<(i64, u32)> {
        let items = store.replay_next(job.id, 2).await.unwrap();
        items.into_iter().map(|item| (item.letter.row.id, item.cycle)).collect()
    };
    let first = numbers().await;
    assert_eq!(first.len(), 2);
    assert_eq!(numbers().await, first, "cut off before it was marked, it is the same life");
    assert_ne!(first[0].1, first[1].1);

    let sent: Vec<i64> = first.iter().map(|(letter, _)| *letter).collect();
    assert_eq!(store.replay_sent(job.id, &sent, NOW).await.unwrap(), 2);
    assert_eq!(store.replay_sent(job.id, &sent, NOW).await.unwrap(), 0, "marked twice is marked once");
    let last = numbers().await;
    assert_eq!(last.len(), 1);
    assert!(!first.iter().any(|(_, cycle)| *cycle == last[0].1));
    store.replay_sent(job.id, &[last[0].0], NOW).await.unwrap();
    assert!(numbers().await.is_empty());
    let job = store.replay_job(job.id).await.unwrap().unwrap();
    assert_eq!((job.waiting, job.sent, job.skipped), (0, 3, 0));
    assert_eq!(
        store
            .dead_count(&DeadFilter { state: Some(DeadState::Replayed), ..DeadFilter::default() })
            .await
            .unwrap(),
        3
    );
    assert!(store.next_cycle().await.unwrap() > last[0].1, "and no other replay gets these numbers");
}

async fn large_letters_are_read_a_few_at_a_time(home: Home) {
    let store = home.migrate().await;
    let large = (0..3).map(|number| DeadLetter { body: vec![b'x'; 5 << 20].into(), ..letter(number) });
    store.keep_dead(&large.collect::<Vec<_>>()).await.unwrap();
    let job = begin(&store, "all", &all()).await.unwrap();
    let items = store.replay_next(job.id, 100).await.unwrap();
    let first: Vec<i64> = items.iter().map(|item| item.letter.row.id).collect();
    assert_eq!(first.len(), 2, "10 MiB are more than 8");
    store.replay_sent(job.id, &first, NOW).await.unwrap();
    assert_eq!(store.replay_next(job.id, 100).await.unwrap().len(), 1);
}

async fn the_same_question_goes_on_with_its_job_and_no_letter_waits_in_two(home: Home) {
    let store = home.migrate().await;
    keep(&store, 4).await;
    let job = begin(&store, "all", &all()).await.unwrap();
    let again = begin(&store, "all", &all()).await.unwrap();
    assert_eq!((again.id, again.waiting), (job.id, 4));
    assert_eq!(begin(&store, "other words", &all()).await, None, "its letters wait elsewhere");

    // Begun at once by many, it is still one job.
    keep_from(&store, 4, 6).await;
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { begin(&store, "the new ones", &all()).await.unwrap().id })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(store.replay_jobs(None, 9).await.unwrap().iter().map(|job| job.waiting).sum::<u64>(), 6);
}

async fn what_was_sent_while_its_job_was_cancelled_counts_as_sent(home: Home) {
    let store = home.migrate().await;
    keep(&store, 5).await;
    let id = begin(&store, "all", &all()).await.unwrap().id;
    let taken = store.replay_next(id, 2).await.unwrap();
    assert!(store.replay_set_state(id, JobState::Cancelled, None, NOW).await.unwrap());
    let sent: Vec<i64> = taken.iter().map(|item| item.letter.row.id).collect();
    assert_eq!(store.replay_sent(id, &sent, NOW).await.unwrap(), 2);
    let job = store.replay_job(id).await.unwrap().unwrap();
    assert_eq!((job.sent, job.waiting, job.skipped), (2, 0, 3));
}

async fn one_process_at_a_time_holds_the_lease(home: Home) {
    let store = home.migrate().await;
    keep(&store, 1).await;
    let id = begin(&store, "all", &all()).await.unwrap().id;
    let lease =
        async |owner: &str, at: i64| store.replay_lease(id, owner, NOW + at, NOW + at + 10).await.unwrap();
    assert_eq!(lease("one", 0).await, Some(JobState::Running));
    assert_eq!(lease("two", 5).await, None);
    assert_eq!(lease("one", 9).await, Some(JobState::Running), "kept");
    assert_eq!(lease("two", 15).await, None);
    assert_eq!(lease("two", 20).await, Some(JobState::Running), "it ended");
    assert_eq!(lease("one", 21).await, None);
    store.replay_release(id, "one", NOW).await.unwrap();
    assert_eq!(lease("one", 22).await, None, "nobody gives back what is not theirs");
    store.replay_release(id, "two", NOW + 22).await.unwrap();
    store.replay_set_state(id, JobState::Paused, None, NOW).await.unwrap();
    assert_eq!(lease("one", 23).await, Some(JobState::Paused), "and hears that it is to wait");

    let left = async |at: i64| -> Vec<i64> {
        store.replays_left(NOW + at, 9).await.unwrap().into_iter().map(|job| job.id).collect()
    };
    assert!(left(99).await.is_empty());
    assert!(store.replay_resume(id, NOW).await.unwrap());
    assert!(left(30).await.is_empty(), "somebody has it");
    assert_eq!(left(99).await, [id]);
}

async fn what_is_left_is_taken_in_turns_one_of_each_tenant(home: Home) {
    let store = home.migrate().await;
    keep(&store, 5).await;
    let mut ids = Vec::new();
    for (letter, tenant) in [(1, Some("acme")), (2, Some("acme")), (3, Some("bolt")), (4, None), (5, None)] {
        let what =
            NewReplay { detached: true, tenant: tenant.map(str::to_owned), ..job_of(&letter.to_string()) };
        let job = store.replay_begin(&what, &Choice::Letters(vec![letter]), NOW).await.unwrap().unwrap();
        ids.push(job.id);
    }
    let [acme, acme_too, bolt, ours, ours_too] = ids[..] else { panic!("five jobs") };
    let left = async |at: i64| -> Vec<i64> {
        store.replays_left(NOW + at, 9).await.unwrap().into_iter().map(|job| job.id).collect()
    };
    assert_eq!(left(0).await, ids);
    for id in [ours, acme] {
        store.replay_lease(id, "one", NOW, NOW + 10).await.unwrap().unwrap();
    }
    assert_eq!(left(5).await, [bolt, ours_too], "operators' own do not wait for each other");
    // A turn is over: the next are those that had none, then whoever waits longest.
    store.replay_release(acme, "one", NOW + 6).await.unwrap();
    store.replay_release(ours, "one", NOW + 7).await.unwrap();
    assert_eq!(left(8).await, [acme_too, bolt, ours_too, acme, ours]);
    assert_eq!(store.replays_left(NOW + 8, 1).await.unwrap().len(), 1);
}

async fn what_was_decided_meanwhile_is_skipped_and_what_is_cancelled_is_free(home: Home) {
    let store = home.migrate().await;
    keep(&store, 5).await;
    let job = begin(&store, "all", &all()).await.unwrap();
    store.dead_mark(&[1], DeadState::Discarded, None, NOW + 1).await.unwrap();
    store.dead_mark(&[2], DeadState::Replayed, None, NOW + 1).await.unwrap();
    let items = store.replay_next(job.id, 3).await.unwrap();
    assert_eq!(items.iter().map(|item| item.letter.row.id).collect::<Vec<_>>(), [3]);
    assert!(store.replay_set_state(job.id, JobState::Cancelled, None, NOW).await.unwrap());
    assert!(!store.replay_resume(job.id, NOW).await.unwrap(), "an end is an end");
    assert!(store.replay_next(job.id, 9).await.unwrap().is_empty());
    let next = begin(&store, "all", &all()).await.unwrap();
    assert_eq!((next.id != job.id, next.waiting), (true, 3));

    // One that was discarded before may be sent by its id, one that was replayed may not.
    let chosen = Choice::Letters(vec![1, 2]);
    assert_eq!(begin(&store, "by id", &chosen).await.unwrap().waiting, 1);
}

async fn groups_count_what_died_of_the_same(home: Home) {
    let store = home.migrate().await;
    let dead = |number: u32, history: &str, tenant: &str| DeadLetter {
        history: format!("2026-11-22T09:00:07.120Z {history} 41ms"),
        tenant: Some(tenant.to_owned()),
        dead_at_ms: NOW + i64::from(number),
        ..letter(number)
    };
    let again = DeadLetter { headers: br#"{"replay":1}"#.to_vec(), ..dead(3, "503", "b") };
    let unreadable = DeadLetter { kind: Kind::Event, reason: "unreadable: empty body".into(), ..letter(5) };
    store
        .keep_dead(&[dead(1, "503", "a"), dead(2, "503", "a"), again, dead(4, "tls_name", "a"), unreadable])
        .await
        .unwrap();
    let groups = store.dead_groups(&all_filter()).await.unwrap();
    let first = &groups[0];
    assert_eq!((first.class.as_deref(), first.status, first.letters), (Some("unavailable"), Some(503), 3));
    assert_eq!((first.tenants, first.again, first.first_ms, first.last_ms), (2, 1, NOW + 1, NOW + 3));
    assert_eq!(groups.len(), 3);
    let of = async |filter: DeadFilter| store.dead_list(&filter).await.unwrap().len();
    assert_eq!(of(DeadFilter { class: Some("tls".into()), ..all_filter() }).await, 1);
    assert_eq!(of(DeadFilter { class: Some("tl".into()), ..all_filter() }).await, 0);
    assert_eq!(of(DeadFilter { status: StatusRange::parse("5xx"), ..all_filter() }).await, 3);
    assert_eq!(of(DeadFilter { since_ms: Some(NOW + 2), until_ms: Some(NOW + 4), ..all_filter() }).await, 2);
}

/// What a letter of the crowd died of.
const CAUSES: [(&str, &str); 6] = [
    ("503", "unavailable"),
    ("500", "server_error"),
    ("404", "not_found"),
    ("timeout", "timeout"),
    ("tls_expired", "tls_expired"),
    ("connect_refused", "connect_refused"),
];
const RECEIVERS: u32 = 40;

/// So many letters of forty receivers and six causes.
async fn crowd(store: &Store, letters: u32) {
    let specs = (0..RECEIVERS).map(|receiver| {
        let document = serde_json::json!({
            "id": format!("sub_{receiver}"), "tenant": "acme", "events": ["#"], "enabled": true, "signatures": [],
            "request": {"url": format!("https://h{receiver}.example/x")},
            "created_at": "2026-11-22T09:00:00Z", "updated_at": "2026-11-22T09:00:00Z",
        });
        serde_json::from_value(document).unwrap()
    });
    store.add_subscriptions(specs.collect()).await.unwrap();
    let all: Vec<u32> = (0..letters).collect();
    for part in all.chunks(1000) {
        let letters: Vec<DeadLetter> = part
            .iter()
            .map(|number| DeadLetter {
                subscription: Some(format!("sub_{}", number % RECEIVERS)),
                history: format!(
                    "2026-11-22T09:00:07.120Z {} 41ms",
                    CAUSES[(number / RECEIVERS) as usize % CAUSES.len()].0
                ),
                ..letter(*number)
            })
            .collect();
        store.keep_dead(&letters).await.unwrap();
    }
}

async fn a_crowd_of_forty_receivers_and_six_causes_is_grouped_and_found(home: Home) {
    let store = home.migrate().await;
    crowd(&store, 4_800).await;
    let groups = store.dead_groups(&DeadFilter { limit: 500, ..DeadFilter::default() }).await.unwrap();
    assert_eq!(groups.len(), 240);
    assert!(groups.iter().all(|group| group.letters == 20 && group.tenants == 1));
    let named: BTreeSet<_> = groups.iter().map(|group| (group.host.clone(), group.class.clone())).collect();
    assert_eq!(named.len(), 240);
    for (_, class) in CAUSES {
        let host = Some("h7.example".to_owned());
        let filter = DeadFilter { host, class: Some(class.into()), limit: 50, ..DeadFilter::default() };
        let rows = store.dead_list(&filter).await.unwrap();
        assert_eq!((rows.len(), store.dead_count(&filter).await.unwrap()), (20, 20), "{class}");
        assert!(rows.iter().all(|row| row.subscription.as_deref() == Some("sub_7")));
    }
}

async fn a_group_that_is_sent_by_processes_that_die_is_sent_whole_and_nothing_else(home: Home) {
    let store = home.migrate().await;
    crowd(&store, 2_400).await;
    let group = DeadFilter { class: Some("timeout".into()), ..all_filter() };
    let job = begin(&store, "timeout", &Choice::Filter(Box::new(group.clone()))).await.unwrap();
    assert_eq!(job.waiting, 400);
    // Each process publishes more than it could note: whoever comes after it has the rest, under the same cycles.
    let mut published = std::collections::BTreeMap::new();
    for (owner, noted) in [("one", 100), ("two", 150)] {
        let late = NOW + 60_000 * published.len() as i64;
        store.replay_lease(job.id, owner, late, late + 10_000).await.unwrap().unwrap();
        let items = store.replay_next(job.id, 200).await.unwrap();
        let ids: Vec<i64> = items.iter().map(|item| item.letter.row.id).collect();
        for item in items {
            let cycles: &mut BTreeSet<u32> = published.entry(item.letter.row.id).or_default();
            cycles.insert(item.cycle);
        }
        store.replay_sent(job.id, &ids[..noted], late).await.unwrap();
    }
    let job = begin(&store, "timeout", &Choice::Filter(Box::new(group.clone()))).await.unwrap();
    assert_eq!((job.sent, job.waiting), (250, 150));
    loop {
        let items = store.replay_next(job.id, 100).await.unwrap();
        if items.is_empty() {
            break;
        }
        let ids: Vec<i64> = items.iter().map(|item| item.letter.row.id).collect();
        for item in items {
            published.entry(item.letter.row.id).or_default().insert(item.cycle);
        }
        store.replay_sent(job.id, &ids, NOW + 1).await.unwrap();
    }
    assert_eq!(published.len(), 400);
    assert!(
        published.values().all(|cycles| cycles.len() == 1),
        "one life each, however often it was published"
    );
    assert_eq!(store.dead_count(&group).await.unwrap(), 0);
    assert_eq!(store.dead_count(&all_filter()).await.unwrap(), 2_000, "the others are open as before");
}

async fn replays_are_forgotten_with_the_letters_of_their_time(home: Home) {
    let store = home.migrate().await;
    keep(&store, 2).await;
    begin(&store, "all", &all()).await.unwrap();
    store.forget_dead(NOW, 100).await.unwrap();
    assert_eq!(store.replay_jobs(None, 9).await.unwrap().len(), 1);
    store.forget_dead(NOW + 1, 100).await.unwrap();
    assert_eq!(store.replay_jobs(None, 9).await.unwrap().len(), 0);
    keep_from(&store, 2, 3).await;
    assert_eq!(begin(&store, "all", &all()).await.map(|job| job.waiting), Some(1));
}

fn all_filter() -> DeadFilter {
    DeadFilter { limit: 50, ..DeadFilter::default() }
}

fn all() -> Choice {
    Choice::Filter(Box::new(all_filter()))
}

async fn begin(store: &Store, asked: &str, choice: &Choice) -> Option<ReplayJob> {
    store.replay_begin(&job_of(asked), choice, NOW).await.unwrap()
}

fn job_of(asked: &str) -> NewReplay {
    NewReplay { asked: asked.into(), subscription: None, rate: 0, canary: 0, detached: false, tenant: None }
}

async fn keep(store: &Store, count: u32) {
    keep_from(store, 0, count).await;
}

async fn keep_from(store: &Store, first: u32, end: u32) {
    let letters: Vec<DeadLetter> = (first..end).map(letter).collect();
    store.keep_dead(&letters).await.unwrap();
}

fn letter(number: u32) -> DeadLetter {
    DeadLetter {
        kind: Kind::Delivery,
        reason: "exhausted".into(),
        tenant: Some("acme".into()),
        event_id: Some(format!("evt_{number}")),
        event_type: Some("document.processed".into()),
        subscription: Some("sub_1".into()),
        document_id: None,
        batch_id: None,
        cycle: 0,
        attempts: 10,
        body: Bytes::from_static(b"{}"),
        headers: b"{}".to_vec(),
        history: String::new(),
        answer: Vec::new(),
        first_seen_ms: 1_000,
        dead_at_ms: 2_000,
    }
}
