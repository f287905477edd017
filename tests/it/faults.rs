//! Things that break while work is under way: nothing is lost, and what is repeated is bounded.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::json;

use crate::support::app::{event, subscription};
use crate::support::services::PrivateBroker;
use crate::support::{App, Ledger, Receiver, Reply, Serve, eventually};

const EVENTS: usize = 5_000;
const TENANTS: usize = 10;
const EVENT: &[u8] = br#"{"id": "evt_1", "type": "a.b", "tenant": "acme"}"#;

/// Ten tenants with one subscription each; every seventh attempt of a first delivery fails, so that retries run too.
async fn tenants(app: &App) -> (Receiver, Ledger) {
    let receiver = Receiver::start(|hit| {
        let fails = hit.nth == 1 && hit.id().as_bytes().last().is_some_and(|digit| *digit == b'7');
        Reply::status(if fails { 503 } else { 200 })
    })
    .await;
    let mut ledger = Ledger::default();
    let documents: Vec<_> =
        (0..TENANTS).map(|n| subscription(&format!("t{n}"), &receiver.url(&format!("/t{n}")))).collect();
    for (n, made) in app.subscribe_all(&documents).await.iter().enumerate() {
        ledger.subscription(&format!("/t{n}"), &made.secret);
    }
    for n in 0..EVENTS {
        ledger.expect(&format!("evt_{n}"), &format!("/t{}", n % TENANTS));
    }
    (receiver, ledger)
}

fn events() -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..EVENTS)
        .map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{}", n % TENANTS), "a.b")))
}

/// Everything delivered at least once, within a minute or so.
async fn all_delivered(receiver: &Receiver, ledger: &Ledger) {
    eventually("everything is delivered", 120, || async { ledger.audit(&receiver.hits()).lost.is_empty() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_nothing() {
    let app = App::new();
    app.migrate().await;
    let (receiver, ledger) = tenants(&app).await;
    let victim = app.serve("worker").await;
    let survivor = app.serve("worker").await;
    let amqp = app.amqp().await;
    let kill = async {
        receiver.wait_for(EVENTS / 5, 60).await;
        victim.kill().await;
    };
    tokio::join!(amqp.publish_all(events()), kill);
    all_delivered(&receiver, &ledger).await;
    let duplicates = ledger.assert_conserved(&receiver.hits());
    assert!(duplicates <= 512, "{duplicates} duplicates are more than the victim can have had in hand");
    survivor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_and_workers_come_back_by_themselves() {
    let broker = PrivateBroker::start().await;
    let mut app = App::new();
    app.set("BROKER__URL", &broker.url);
    app.migrate().await;
    let (receiver, ledger) = tenants(&app).await;
    let workers = [app.serve("worker").await, app.serve("worker").await];
    app.amqp().await.publish_all(events()).await;
    receiver.wait_for(EVENTS / 5, 60).await;
    broker.kill().await;
    let unready = || async { !workers[0].is_ready().await && !workers[1].is_ready().await };
    eventually("the workers say they are not ready", 30, unready).await;
    broker.restart().await;
    for worker in &workers {
        worker.wait_ready().await;
    }
    all_delivered(&receiver, &ledger).await;
    let duplicates = ledger.assert_conserved(&receiver.hits());
    assert!(duplicates <= 1_100, "{duplicates} duplicates are more than two workers can have had in hand");
    for worker in workers {
        worker.stop().await;
    }
    broker.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_stops_taking_and_loses_nothing() {
    let broker = PrivateBroker::start().await;
    let mut app = App::new();
    app.set("BROKER__URL", &broker.url);
    app.migrate().await;
    // Failing until the alarm is over: RabbitMQ blocks a connection at its first publish after the alarm.
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let mut patient = subscription("acme", &receiver.url("/x"));
    patient["retry"] = json!({ "kind": "fixed", "delay_s": 16, "max_attempts": 100 });
    let made = app.subscribe(patient).await;
    let mut ledger = Ledger::default();
    ledger.subscription("/x", &made.secret);
    (0..100).for_each(|n| ledger.expect(&format!("evt_{n}"), "/x"));
    let worker = app.serve("worker").await;
    let events = (0..100).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), "acme", "a.b")));
    app.amqp().await.publish_all(events).await;
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    let blocked =
        || async { worker.get("/readyz").await.is_some_and(|(_, body)| body.contains("blocks publishing")) };
    eventually("the worker tells of the alarm", 30, blocked).await;
    receiver.change(|_| Reply::status(200));
    broker.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    worker.wait_ready().await;
    all_delivered(&receiver, &ledger).await;
    assert_eq!(ledger.audit(&receiver.hits()).duplicates, 0, "an alarm repeats nothing");
    worker.stop().await;
    broker.down().await;
}

/// A worker with 50 requests of this length under way.
async fn fifty_running(app: &App, length: Duration) -> (Receiver, Ledger, Serve) {
    app.migrate().await;
    let receiver = Receiver::start(move |_| Reply::status(200).after(length)).await;
    let mut slow = subscription("acme", &receiver.url("/slow"));
    slow["request"]["timeout_s"] = json!(60);
    let made = app.subscribe(slow).await;
    let mut ledger = Ledger::default();
    ledger.subscription("/slow", &made.secret);
    let worker = app.serve("worker").await;
    let events = (0..50).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), "acme", "a.b")));
    (0..50).for_each(|n| ledger.expect(&format!("evt_{n}"), "/slow"));
    app.amqp().await.publish_all(events).await;
    eventually("fifty in hand", 20, || async { worker.metric("paperboy_in_hand", "").await > 49.5 }).await;
    (receiver, ledger, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_running_without_loss_or_repetition() {
    let app = App::new();
    let (receiver, ledger, mut worker) = fifty_running(&app, Duration::from_secs(5)).await;
    let asked = Instant::now();
    let status = worker.stop_within(8).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    assert!(asked.elapsed() < Duration::from_secs(8));
    assert_eq!(receiver.count(), 50);
    assert_eq!(ledger.assert_conserved(&receiver.hits()), 0);
    assert_eq!(app.amqp().await.ready("events").await, Some(0), "all were acknowledged");
    assert!(worker.log().contains("finished 50 deliveries, gave 0 back"), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_hands_hanging_requests_back_within_the_grace() {
    let mut app = App::new();
    app.set("DELIVERY__GRACE_S", "3");
    let (receiver, ledger, mut worker) = fifty_running(&app, Duration::from_secs(45)).await;
    let asked = Instant::now();
    let status = worker.stop_within(5).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "took {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    assert_eq!(app.amqp().await.ready("events").await, Some(50), "all were handed back");
    receiver.change(|_| Reply::status(200));
    let next = app.serve("worker").await;
    all_delivered(&receiver, &ledger).await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_missing_queue_keeps_its_source_until_it_is_repaired() {
    let mut app = App::new();
    app.migrate().await;
    let receiver = Receiver::start(|hit| Reply::status(if hit.nth == 1 { 500 } else { 200 })).await;
    // Seven tenants, each waiting on a level of its own: 1, 2, 4 … 64 units.
    let documents: Vec<_> = (0..7)
        .map(|n| {
            let mut document = subscription(&format!("t{n}"), &receiver.url(&format!("/t{n}")));
            document["retry"] = json!({ "kind": "fixed", "delay_s": 1 << n, "max_attempts": 5 });
            document
        })
        .collect();
    let made = app.subscribe_all(&documents).await;
    let mut ledger = Ledger::default();
    for (n, made) in made.iter().enumerate() {
        ledger.subscription(&format!("/t{n}"), &made.secret);
        ledger.expect(&format!("evt_{n}"), &format!("/t{n}"));
    }
    app.serve("worker").await.stop().await;
    let amqp = app.amqp().await;
    // Nobody may declare it again: a person has to.
    app.set("BROKER__DECLARE", "false");
    let worker = app.serve("worker").await;
    amqp.delete_queue("delay.20ms.03").await;
    amqp.publish_all(
        (0..7).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{n}"), "a.b"))),
    )
    .await;

    // The six others are delivered; the seventh stays in hand, unacknowledged, and the worker says why.
    receiver.wait_for(13, 30).await;
    eventually("one in hand", 10, || async {
        (worker.metric("paperboy_in_hand", "").await - 1.0).abs() < 0.1
    })
    .await;
    assert!(worker.metric("paperboy_returned_total", "").await > 0.5);
    assert!(!worker.is_ready().await, "not ready while messages come back");
    assert_eq!(ledger.audit(&receiver.hits()).lost.len(), 1);

    app.set("BROKER__DECLARE", "true");
    app.serve("api").await.stop().await;
    all_delivered(&receiver, &ledger).await;
    assert_eq!(ledger.assert_conserved(&receiver.hits()), 0, "the source was kept, not repeated");
    eventually("ready again", 10, || worker.is_ready()).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_that_is_refused_is_nobody_elses_trouble() {
    let app = App::new();
    app.migrate().await;
    let receiver =
        Receiver::start(|hit| Reply::status(if hit.path == "/waits" && hit.nth == 1 { 500 } else { 200 }))
            .await;
    let mut ledger = Ledger::default();
    let mut waits = subscription("waits", &receiver.url("/waits"));
    waits["retry"] = json!({ "kind": "fixed", "delay_s": 8, "max_attempts": 5 });
    ledger.subscription("/waits", &app.subscribe(waits).await.secret);
    let quick = app.subscribe(subscription("quick", &receiver.url("/quick"))).await;
    ledger.subscription("/quick", &quick.secret);
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    // What is missing cannot be declared again: what is declared before it has other arguments by now.
    amqp.delete_queue("dead.events").await;
    amqp.declare_odd_queue("dead.events").await;
    amqp.delete_queue("delay.20ms.03").await;
    ledger.expect("evt_waits", "/waits");
    amqp.publish_all([(String::from("a.b"), event("evt_waits", "waits", "a.b"))].into_iter()).await;
    eventually("it came back, and was not to be mended", 30, || async {
        worker.metric("paperboy_returned_total", "").await > 2.5
    })
    .await;
    assert!(worker.log().contains("the topology cannot be declared again"), "{}", worker.log());
    (0..100).for_each(|n| ledger.expect(&format!("evt_{n}"), "/quick"));
    let events = (0..100).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), "quick", "a.b")));
    amqp.publish_all(events).await;
    receiver.wait_for(101, 20).await;
    assert!(!worker.log().contains("the publishing connection is gone"), "{}", worker.log());

    amqp.delete_queue("dead.events").await;
    all_delivered(&receiver, &ledger).await;
    assert_eq!(ledger.assert_conserved(&receiver.hits()), 0, "nothing was published twice");
    eventually("ready again", 10, || worker.is_ready()).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_declared_again_and_consumed() {
    let app = App::new();
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    amqp.delete_queue("events").await;
    let accepted = || amqp.try_publish("a.b", EVENT, BasicProperties::default());
    eventually("the queue is back and bound", 20, accepted).await;
    receiver.wait_for(1, 20).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_does_no_harm_when_it_wakes() {
    let app = App::new();
    app.migrate().await;
    let (receiver, ledger) = tenants(&app).await;
    let frozen = app.serve("worker").await;
    app.amqp().await.publish_all(events()).await;
    receiver.wait_for(100, 30).await;
    frozen.signal("-STOP").await;
    let other = app.serve("worker").await;
    // The broker misses two heartbeats and gives the frozen worker's messages to the other one.
    all_delivered(&receiver, &ledger).await;
    frozen.signal("-CONT").await;
    eventually("the frozen one is well again", 60, || frozen.is_ready()).await;
    assert!(ledger.assert_conserved(&receiver.hits()) <= 512);
    frozen.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_wait_in_their_queue_for_a_drain() {
    let mut app = App::new();
    app.migrate().await;
    app.set("DEAD__DRAIN", "false");
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let mut once = subscription("acme", &receiver.url("/x"));
    once["retry"] = json!({ "kind": "none" });
    app.subscribe(once).await;
    let undrained = app.serve("all").await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    eventually("a dead letter in its queue", 20, || async { amqp.ready("dead.deliveries").await == Some(1) })
        .await;
    undrained.stop().await;
    app.set("DEAD__DRAIN", "true");
    let api = app.serve("api").await;
    app.wait_for_dead(1, 20).await;
    api.stop().await;
}
