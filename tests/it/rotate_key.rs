//! Changing the key that secrets are sealed with, under a fleet that goes on delivering.

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::failure::{WORLD, failure, one_error};
use crate::support::services::PrivateRedis;
use crate::support::{App, Ledger, Receiver, Reply, eventually};

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];

fn key(bytes: [u8; 32]) -> String {
    data_encoding::BASE64.encode(&bytes)
}

async fn rotated(app: &App) -> Value {
    app.json(&["store", "rotate-key"]).await.remove(0)
}

/// The whole runbook: the new key everywhere, one process after the other; rotate; the old one away.
async fn runbook(mut app: App) {
    const EVENTS: usize = 300;
    let redis = PrivateRedis::start().await;
    app.set("REDIS__URL", &redis.url());
    app.set("SECRETS__KEY", &key(OLD));
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let refusing = Receiver::start(|_| Reply::status(500)).await;
    let mut dying = subscription("dying", &refusing.url("/x"));
    dying["retry"] = json!({ "kind": "none" });
    app.subscribe(dying).await;
    let mut ledger = Ledger::default();
    for tenant in 0..10 {
        let path = format!("/t{tenant}");
        let made = app.subscribe(subscription(&format!("t{tenant}"), &receiver.url(&path))).await;
        ledger.subscription(&path, &made.secret);
    }
    let first = [app.serve("all").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_dead", "dying", "a.b"), BasicProperties::default()).await;
    app.wait_for_dead(1, 20).await;
    (0..EVENTS).for_each(|n| ledger.expect(&format!("evt_{n}"), &format!("/t{}", n % 10)));
    let events = |numbers: std::ops::Range<usize>| {
        numbers.map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{}", n % 10), "a.b")))
    };
    amqp.publish_all(events(0..100)).await;

    app.set("SECRETS__KEY", &key(NEW));
    app.set("SECRETS__OLD_KEYS", &key(OLD));
    let second = [app.serve("all").await, app.serve("worker").await];
    // The two that still lack the new key are named, and nothing is changed.
    let told = failure(&app, &["store", "rotate-key"], WORLD).await;
    let lacking = told.iter().filter(|line| line.contains("does not hold key")).count();
    assert_eq!(lacking, 2, "{told:#?}");
    assert!(told[1].contains("`secrets.old_keys`"), "{told:#?}");
    // A subscription made now can be read by all four.
    let made = app.subscribe(subscription("late", &receiver.url("/late"))).await;
    ledger.subscription("/late", &made.secret);
    (0..30).for_each(|n| ledger.expect(&format!("late_{n}"), "/late"));
    amqp.publish_all((0..30).map(|n| (String::from("a.b"), event(&format!("late_{n}"), "late", "a.b"))))
        .await;
    for serve in first {
        serve.stop().await;
    }

    let dry = app.json(&["store", "rotate-key", "--dry-run"]).await.remove(0);
    assert_eq!(dry["records"], 13, "12 subscriptions and a letter: {dry}");
    let (rotated_now, ()) = tokio::join!(rotated(&app), amqp.publish_all(events(100..200)));
    assert_eq!((&rotated_now["records"], &rotated_now["broken"]), (&json!(13), &json!([])), "{rotated_now}");
    assert_eq!(rotated(&app).await["records"], 0, "once more changes nothing");
    assert_eq!(
        app.json(&["store", "status"]).await[0]["key_check"],
        rotated_now["key_check"],
        "the store names the new key"
    );
    for serve in &second {
        assert!(serve.is_ready().await, "{}", serve.log());
    }
    for (tenant, sealed) in redis.sealed_records(&app.prefix).await {
        let mark = &paperboy::domain::seal::SealKey::from_bytes(NEW).mark();
        assert!(sealed.starts_with(mark), "`{tenant}` is sealed with the old key in Redis");
    }

    // The old key is gone: from a process, and from nowhere else it is missing.
    app.set("SECRETS__OLD_KEYS", "");
    let third = app.serve("all").await;
    for serve in second {
        serve.stop().await;
    }
    amqp.publish_all(events(200..EVENTS)).await;
    let hits = receiver.wait_for(ledger.len(), 60).await;
    assert_eq!(ledger.assert_conserved(&hits), 0);
    let letter = app.wait_for_dead(1, 5).await.remove(0);
    app.ok(&["dead", "show", letter["id"].as_str().unwrap()]).await;
    assert!(third.is_ready().await);
    third.stop().await;
    app.set("SECRETS__KEY", &key(OLD));
    let (error, hint) = one_error(&app, &["subscription", "list"], WORLD).await;
    assert!(error.contains("another secrets key") && hint.contains("`secrets.old_keys`"), "{error}\n{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_changed_under_a_running_fleet() {
    runbook(App::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_changed_under_a_running_fleet_in_postgres() {
    runbook(App::in_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_heard_of_nobody_is_no_leave_to_change_the_key() {
    let mut app = App::new();
    let redis = PrivateRedis::start().await;
    app.set("REDIS__URL", &redis.url());
    app.set("SECRETS__KEY", &key(OLD));
    app.migrate().await;
    app.set("SECRETS__KEY", &key(NEW));
    app.set("SECRETS__OLD_KEYS", &key(OLD));
    let refused = app.run(&["store", "rotate-key"]).await;
    assert_eq!(refused.status.code(), Some(2), "processes may use another Redis");
    app.ok(&["store", "rotate-key", "--yes"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_process_without_the_new_key_stops_taking_and_says_why() {
    let mut app = App::new();
    app.set("REDIS__URL", "");
    app.set("SECRETS__KEY", &key(OLD));
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let behind = app.serve("worker").await;
    app.set("SECRETS__KEY", &key(NEW));
    app.set("SECRETS__OLD_KEYS", &key(OLD));
    let refused = app.run(&["store", "rotate-key"]).await;
    assert_eq!(refused.status.code(), Some(2), "nobody to ask whether every process holds the key");
    app.ok(&["store", "rotate-key", "--yes"]).await;
    let why = || async {
        behind.get("/readyz").await.is_some_and(|(_, body)| body.contains("sealed with another key"))
    };
    eventually("it says why", 15, why).await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let next = app.serve("worker").await;
    receiver.wait_for(1, 15).await;
    assert!(behind.metric("paperboy_taken_total", "").await < 0.5, "nothing was taken without the key");
    next.stop().await;
    behind.stop().await;
}
