//! One bad endpoint is not felt by the others; what is in hand is bounded by number, bytes and open files.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{Amqp, App, Ledger, Receiver, Reply, Serve, eventually, free_port};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

/// A receiver of which `/hang` says nothing.
async fn receiver() -> Receiver {
    Receiver::start(|hit| {
        let reply = Reply::status(200);
        if hit.path == "/hang" { reply.after(NEVER) } else { reply }
    })
    .await
}

fn hanging(receiver: &Receiver, timeout_s: u32) -> Value {
    let request = json!({ "url": receiver.url("/hang"), "timeout_s": timeout_s });
    json!({ "tenant": "hog", "events": ["#"], "request": request })
}

fn events(prefix: &str, tenant: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|n| ("a.b".to_owned(), event(&format!("{prefix}_{n}"), tenant, "a.b"))).collect()
}

/// The window of fresh events is as large as it gets (24 of 40) once it has seen that messages are small.
async fn widen(serve: &Serve, amqp: &Amqp) {
    amqp.publish_all(events("first", "well", 100)).await;
    let window = || async { (serve.metric("paperboy_window", "queue=\"events\"").await - 24.0).abs() < 0.1 };
    eventually("the window is whole", 30, window).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_leaves_half_of_the_places_to_the_others() {
    let mut app = App::new();
    // 24 for fresh events.
    app.set("BROKER__PREFETCH", "40");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[hanging(&receiver, 120), subscription("well", &receiver.url("/well"))]).await;
    let amqp = app.amqp().await;
    widen(&serve, &amqp).await;
    let mixed = events("bad", "hog", 200).into_iter().zip(events("good", "well", 200));
    amqp.publish_all(mixed.flat_map(|(bad, good)| [bad, good])).await;

    let well = || async { receiver.hits().iter().filter(|hit| hit.path == "/well").count() == 300 };
    eventually("everything for the others is delivered", 60, well).await;
    let put_off = || async { serve.metric("paperboy_deferred_total", "cause=\"busy\"").await >= 150.0 };
    eventually("what the hanging endpoint may not hold is put off", 30, put_off).await;
    let half =
        || async { (serve.metric("paperboy_held_by_slow", "queue=\"events\"").await - 12.0).abs() < 0.1 };
    eventually("it holds half of the places of fresh events", 30, half).await;
    let told = || async {
        let slow = app.json(&["status"]).await.remove(0)["slow_endpoints"].clone();
        slow.as_array().is_some_and(|slow| slow.len() == 1 && slow[0]["tenant"] == "hog")
    };
    eventually("`status` tells of it and of no other", 20, told).await;
    serve.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_for_an_endpoint_that_holds_all_it_may_waits_without_going_through_the_deliveries() {
    let mut app = App::new();
    // 8 places for deliveries, 8 for retries.
    app.set("BROKER__PREFETCH", "40");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    let good = subscription("hog", &receiver.url("/well"));
    app.subscribe_all(&[hanging(&receiver, 120), good]).await;
    let amqp = app.amqp().await;
    amqp.publish_all(events("first", "hog", 100)).await;
    let held = async |queue: &str| serve.metric("paperboy_held_by_slow", &format!("queue=\"{queue}\"")).await;
    // Half of both, so that a copy has no place to go to.
    let is_crowded = || async { held("deliveries").await > 3.5 && held("retries").await > 3.5 };
    eventually("it holds all it may in both queues", 60, is_crowded).await;
    let taken = async || serve.metric("paperboy_taken_total", "queue=\"deliveries\"").await;
    let before = taken().await;
    amqp.publish_all(events("second", "hog", 50)).await;
    let well = || async { receiver.hits().iter().filter(|hit| hit.path == "/well").count() == 150 };
    eventually("the good one gets everything", 60, well).await;
    let copies = taken().await - before;
    assert!((copies - 50.0).abs() < 0.1, "{copies} copies were taken for 50 events with two subscribers");
    serve.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_off_has_used_no_attempt_and_arrives_when_the_endpoint_recovers() {
    let mut app = App::new();
    app.set("BROKER__PREFETCH", "10");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    let mut document = hanging(&receiver, 1);
    document["retry"] = json!({ "kind": "fixed", "delay_s": 1, "max_attempts": 100 });
    let made = app.subscribe(document).await;
    let mut ledger = Ledger::default();
    ledger.subscription("/hang", &made.secret);
    (0..60).for_each(|n| ledger.expect(&format!("bad_{n}"), "/hang"));
    app.amqp().await.publish_all(events("bad", "hog", 60).into_iter()).await;
    let put_off = || async { serve.metric("paperboy_deferred_total", "cause=\"busy\"").await >= 30.0 };
    eventually("messages are put off", 30, put_off).await;
    receiver.change(|_| Reply::status(204));

    let arrived = || async { ledger.audit(&receiver.hits()).lost.is_empty() };
    eventually("everything arrives", 60, arrived).await;
    // Every attempt that was made while it hung is counted, and nothing else is.
    let failed = serve.metric("paperboy_attempts_total", "unreachable").await;
    let counted: u32 =
        receiver.hits().iter().map(|hit| hit.header("paperboy-attempt").parse::<u32>().unwrap() - 1).sum();
    assert!((f64::from(counted) - failed).abs() < 0.1, "{counted} attempts counted, {failed} made");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_oldest_message_takes_its_time_is_left_to_it() {
    let mut app = App::new();
    app.set("BROKER__PREFETCH", "40");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[hanging(&receiver, 120), subscription("well", &receiver.url("/well"))]).await;
    let amqp = app.amqp().await;
    widen(&serve, &amqp).await;
    amqp.publish_all(events("bad", "hog", 1)).await;
    let hangs = || async { serve.metric("paperboy_held_by_slow", "queue=\"events\"").await > 0.5 };
    eventually("one hangs", 30, hangs).await;

    amqp.publish_all(events("good", "well", 2_500)).await;
    let ids = || {
        let hits = receiver.hits();
        hits.iter().filter(|hit| hit.path == "/well").map(|hit| hit.id().to_owned()).collect::<Vec<_>>()
    };
    eventually("the others arrive", 90, || async { ids().len() >= 2_600 }).await;
    let left = serve.metric("paperboy_stuck_channels_total", "queue=\"events\"").await;
    assert!((0.9..3.0).contains(&left), "{left}: once for a thousand told one by one");
    let distinct: std::collections::BTreeSet<_> = ids().into_iter().collect();
    assert_eq!((ids().len(), distinct.len()), (2_600, 2_600), "each of them once");

    // What hung belongs to the channel that was left, and comes again only because nobody has settled it.
    serve.kill().await;
    receiver.change(|_| Reply::status(204));
    let serve = app.serve("all").await;
    let again = || async { receiver.hits().iter().any(|hit| hit.path == "/hang") };
    eventually("what hung is delivered", 60, again).await;
    serve.stop().await;
    assert_eq!(ids().len(), 2_600, "nothing that was acknowledged comes again");
    assert_eq!(amqp.ready("events").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_for_too_long_is_a_dead_letter() {
    let mut app = App::new();
    app.set("BROKER__PREFETCH", "10");
    app.set("DELIVERY__WAIT_AGE_MAX_S", "1");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    app.subscribe(hanging(&receiver, 120)).await;
    app.amqp().await.publish_all(events("bad", "hog", 40).into_iter()).await;
    let dead = app.wait_for_dead(10, 60).await;
    assert!(dead.iter().all(|letter| letter["reason"] == "starved"), "{dead:?}");
    assert!(dead.iter().all(|letter| letter["attempts"] == 0), "{dead:?}");
    serve.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_messages_are_held_where_they_are_large() {
    let mut app = App::new();
    app.set("BROKER__PREFETCH", "40");
    app.set("LIMITS__IN_HAND_BYTES_MAX", "1048576");
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let window = |places: f64| {
        let serve = &serve;
        move || async move { (serve.metric("paperboy_window", "queue=\"events\"").await - places).abs() < 0.1 }
    };
    eventually("it begins with one, which may be of any size", 20, window(1.0)).await;
    amqp.publish_all(events("small", "acme", 100).into_iter()).await;
    eventually("it grows while they are small", 20, window(24.0)).await;
    let large = (0..20).map(|n| {
        let data = "x".repeat(256 * 1024);
        let event = json!({ "id": format!("large_{n}"), "type": "a.b", "tenant": "acme", "data": data });
        ("a.b".to_owned(), event.to_string().into_bytes())
    });
    amqp.publish_all(large).await;
    // 60 % of 1 MiB.
    eventually("it shrinks when they are large", 20, window(2.0)).await;
    let ids =
        || receiver.hits().iter().map(|hit| hit.id().to_owned()).collect::<std::collections::BTreeSet<_>>();
    eventually("all arrive", 60, || async { ids().len() == 120 }).await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_taken_than_files_may_be_open() {
    let app = App::new();
    app.migrate().await;
    let log = app.path("limited.log");
    let port = free_port();
    let script = "ulimit -n 600; exec \"$0\" serve --role worker";
    let mut command = app.command_of("bash");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_paperboy")])
        .env("PAPERBOY__WORKER__LISTEN", format!("127.0.0.1:{port}"))
        .stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let mut child = command.spawn().unwrap();
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it takes", 30, || async { read().contains("taking from") }).await;
    child.kill().await.unwrap();
    assert!(read().contains("only 600 files may be open: 44 messages are taken at once"), "{}", read());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_machine_cannot_even_try_is_no_attempt() {
    let app = App::new();
    let receiver = receiver().await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/well"))).await;
    let limit = |files: &'static str| {
        let mut command = app.command_of("prlimit");
        command.args(["--pid", &serve.pid(), &format!("--nofile={files}")]);
        async move { assert!(command.status().await.unwrap().success()) }
    };
    // Of the soft limit only: what is open stays open, and nothing else can be opened.
    limit("1:").await;
    app.amqp().await.publish_all(events("late", "acme", 1)).await;
    let put_off = || async { serve.log().contains("this machine gives no more connections") };
    eventually("the delivery is put off", 30, put_off).await;
    assert_eq!(receiver.count(), 0);
    limit("1024:").await;
    let hit = receiver.wait_for(1, 60).await.remove(0);
    assert_eq!((hit.id(), hit.header("paperboy-attempt")), ("late_0", "1"));
    serve.stop().await;
}
