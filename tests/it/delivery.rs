//! The main job, end to end: delivered signed, retried on its level, dead after ten, replayed.

use std::collections::HashSet;
use std::time::Duration;

use lapin::BasicProperties;
use serde_json::json;

use crate::support::app::{event, subscription};
use crate::support::{App, Hit, Ledger, Receiver, Reply, eventually};

const UNIT: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_signed_with_the_producers_bytes() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/ocr/:id"))).await;
    let body = br#"{"id": "evt_1", "type": "document.processed", "tenant": "acme", "time": "2026-11-22T09:00:07.120Z",
        "document_id": "a/b", "data": {"n": 12345678901234567890123, "a": 1,  "s": "\u00e9"}}"#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("traceparent".into(), lapin::types::AMQPValue::LongString(trace.into()));
    let amqp = app.amqp().await;
    amqp.publish("document.processed", body, BasicProperties::default().with_headers(headers)).await;

    let hit = receiver.wait_for(1, 10).await.remove(0);
    assert_eq!((hit.method.as_str(), hit.path.as_str(), hit.id()), ("POST", "/ocr/a%2Fb", "evt_1"));
    assert!(hit.is_signed_with(&made.secret));
    assert_eq!(hit.header("paperboy-attempt"), "1");
    assert_eq!(hit.header("traceparent"), trace);
    assert_eq!(hit.header("content-type"), "application/json");
    assert!(hit.header("user-agent").starts_with("paperboy/"));
    let sent = r#"{"type":"document.processed","id":"evt_1","time":"2026-11-22T09:00:07.120Z","tenant":"acme","document_id":"a/b","data":{"n": 12345678901234567890123, "a": 1,  "s": "\u00e9"}}"#;
    assert_eq!(std::str::from_utf8(&hit.body).unwrap(), sent);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_failures_and_a_success_take_ten_attempts_each_on_its_level() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.nth < 10 { 500 } else { 200 })).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/flaky"))).await;
    app.amqp().await.publish("a.b", &event("evt_9", "acme", "a.b"), BasicProperties::default()).await;

    let hits = receiver.wait_for(10, 60).await;
    for (place, pair) in hits.windows(2).enumerate() {
        let wait = pair[1].at - pair[0].at;
        let due = UNIT * 2u32.pow(u32::try_from(place).unwrap() + 1);
        assert!(wait >= due, "attempt {} came after {wait:?}, due after {due:?}", place + 2);
    }
    let attempts: Vec<_> = hits.iter().map(|hit| hit.header("paperboy-attempt").to_owned()).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    assert!(hits.iter().all(|hit| hit.id() == "evt_9" && hit.is_signed_with(&made.secret)));
    assert!(hits.iter().all(|hit| hit.body == hits[0].body), "every attempt sends the same body");
    let signatures: HashSet<_> = hits.iter().map(|hit| hit.header("webhook-signature")).collect();
    let stamps: HashSet<_> = hits.iter().map(|hit| hit.header("webhook-timestamp")).collect();
    assert!(
        hits.iter()
            .all(|hit| hit.header("webhook-timestamp").parse::<u64>().unwrap().abs_diff(hit.unix_s) <= 2)
    );
    assert!(signatures.len() > 5 && signatures.len() == stamps.len(), "each attempt is signed afresh");
    for level in 1..=9 {
        let label = format!("level=\"{level:02}\"");
        assert!((serve.metric("paperboy_waits_total", &label).await - 1.0).abs() < 0.1, "{label}");
    }
    assert!(
        (serve.metric("paperboy_waits_total", "level").await - 9.0).abs() < 0.1,
        "no other level was used"
    );
    assert_eq!(app.json(&["dead", "list"]).await.len(), 0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_failures_make_one_dead_letter_that_a_replay_delivers() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500).body("out of paper")).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/broken"))).await;
    app.amqp().await.publish("a.b", &event("evt_d", "acme", "a.b"), BasicProperties::default()).await;

    let dead = app.wait_for_dead(1, 60).await;
    assert_eq!(receiver.count(), 10);
    assert_eq!(
        (dead.len(), dead[0]["reason"].as_str(), dead[0]["attempts"].as_u64()),
        (1, Some("exhausted"), Some(10))
    );
    assert_eq!(dead[0]["history"].as_array().unwrap().len(), 10);
    let id = dead[0]["id"].as_str().unwrap();
    let shown = app.ok(&["dead", "show", id]).await;
    assert!(shown.contains("out of paper") && shown.contains("evt_d"), "{shown}");

    receiver.change(|_| Reply::status(200));
    app.ok(&["dead", "replay", id]).await;
    let hit = receiver.wait_for(11, 10).await.remove(10);
    assert_eq!(
        (hit.id(), hit.header("paperboy-replay"), hit.header("paperboy-attempt")),
        ("evt_d", "1", "1")
    );
    assert!(hit.is_signed_with(&made.secret));
    assert_eq!(app.json(&["dead", "list"]).await.len(), 0);
    assert_eq!(app.json(&["dead", "list", "--state", "replayed"]).await.len(), 1);
    let again = app.run(&["dead", "replay", id]).await;
    assert_eq!(again.status.code(), Some(1), "a replayed letter is not sent twice by accident");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_to_another_subscription_of_the_same_tenant_only() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/old" { 500 } else { 200 })).await;
    let serve = app.serve("all").await;
    let mut old = subscription("acme", &receiver.url("/old"));
    old["retry"] = json!({ "kind": "none" });
    old["events"] = json!(["a.*"]);
    let mut new = subscription("acme", &receiver.url("/new"));
    new["events"] = json!(["never"]);
    let mut foreign = subscription("other", &receiver.url("/foreign"));
    foreign["events"] = json!(["never"]);
    let made = app.subscribe_all(&[old, new, foreign]).await;
    app.amqp().await.publish("a.b", &event("evt_m", "acme", "a.b"), BasicProperties::default()).await;
    app.wait_for_dead(1, 20).await;

    let refused = app.run(&["dead", "replay", "--all", "--subscription", &made[2].id]).await;
    assert_eq!(refused.status.code(), Some(1));
    app.ok(&["dead", "replay", "--all", "--subscription", &made[1].id]).await;
    let hits = receiver.wait_for(2, 10).await;
    assert_eq!((hits[1].path.as_str(), hits[1].id()), ("/new", "evt_m"));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_lengthens_a_wait_and_other_policies_hold() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match (hit.path.as_str(), hit.nth) {
        ("/busy", 1) => Reply::status(503).header("retry-after", 11),
        ("/fixed", 1 | 2) | ("/permanent", _) => Reply::status(418),
        ("/gone", _) => Reply::status(410),
        _ => Reply::status(200),
    })
    .await;
    let serve = app.serve("all").await;
    let mut fixed = subscription("acme", &receiver.url("/fixed"));
    fixed["retry"] = json!({ "kind": "fixed", "delay_s": 3, "max_attempts": 5 });
    let mut permanent = subscription("acme", &receiver.url("/permanent"));
    permanent["retry"] = json!({ "kind": "exponential", "on": ["5xx", "timeout"] });
    let gone = subscription("acme", &receiver.url("/gone"));
    let busy = subscription("acme", &receiver.url("/busy"));
    app.subscribe_all(&[busy, fixed, permanent, gone]).await;
    app.amqp().await.publish("a.b", &event("evt_p", "acme", "a.b"), BasicProperties::default()).await;

    let dead = app.wait_for_dead(2, 20).await;
    assert!(dead.iter().all(|letter| letter["reason"] == "permanent" && letter["attempts"] == 1), "{dead:?}");
    let hits = receiver.wait_for(7, 20).await;
    let times = |path: &str| hits.iter().filter(|hit| hit.path == path).map(|hit| hit.at).collect::<Vec<_>>();
    assert!(times("/busy")[1] - times("/busy")[0] >= UNIT * 11);
    assert_eq!(times("/fixed").len(), 3);
    assert!(times("/fixed").windows(2).all(|pair| pair[1] - pair[0] >= UNIT * 3));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscribers_failure_does_not_send_to_another_again() {
    let app = App::new();
    let receiver =
        Receiver::start(|hit| Reply::status(if hit.path == "/bad" && hit.nth < 4 { 500 } else { 200 })).await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[
        subscription("acme", &receiver.url("/good")),
        subscription("acme", &receiver.url("/bad")),
    ])
    .await;
    app.amqp().await.publish("a.b", &event("evt_f", "acme", "a.b"), BasicProperties::default()).await;
    let hits = receiver.wait_for(5, 20).await;
    assert_eq!(hits.iter().filter(|hit| hit.path == "/good").count(), 1);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_deliver_twenty_thousand_events_exactly_once() {
    const EVENTS: usize = 20_000;
    const TENANTS: usize = 50;
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let api = app.serve("api").await;
    let mut ledger = Ledger::default();
    let paths = |tenant: usize| (0..=tenant % 3).map(move |n| format!("/t{tenant}/{n}"));
    let documents: Vec<_> = (0..TENANTS)
        .flat_map(|tenant| paths(tenant).map(move |path| (tenant, path)))
        .map(|(tenant, path)| (path.clone(), subscription(&format!("t{tenant}"), &receiver.url(&path))))
        .collect();
    let made =
        app.subscribe_all(&documents.iter().map(|(_, document)| document.clone()).collect::<Vec<_>>()).await;
    for ((path, _), made) in documents.iter().zip(&made) {
        ledger.subscription(path, &made.secret);
    }
    let (first, second) = (app.serve("worker").await, app.serve("worker").await);
    let events = (0..EVENTS).map(|n| {
        let (id, tenant) = (format!("evt_{n}"), n % TENANTS);
        (String::from("document.processed"), event(&id, &format!("t{tenant}"), "document.processed"))
    });
    for n in 0..EVENTS {
        paths(n % TENANTS).for_each(|path| ledger.expect(&format!("evt_{n}"), &path));
    }
    app.amqp().await.publish_all(events).await;

    let hits = receiver.wait_for(ledger.len(), 180).await;
    let amqp = app.amqp().await;
    for serve in [&first, &second] {
        eventually("nothing in hand", 20, || async { serve.metric("paperboy_in_hand", "").await < 0.5 })
            .await;
    }
    assert_eq!(receiver.count(), hits.len(), "something came after everything was there");
    assert_eq!(ledger.assert_conserved(&hits), 0, "duplicates in a fault-free run");
    assert_eq!((amqp.ready("events").await, amqp.ready("deliveries").await), (Some(0), Some(0)));
    for serve in [&first, &second] {
        let taken = serve.metric("paperboy_taken_total", "").await;
        let settled = serve.metric("paperboy_settled_total", "").await;
        assert!(taken > 2000.0, "both workers have a share");
        assert!((taken - settled).abs() < 0.5, "taken {taken}, settled {settled}");
    }
    first.stop().await;
    second.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_subscription_gets_nothing_and_its_retries_end_dead() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    let mut slow = subscription("acme", &receiver.url("/x"));
    slow["retry"] = json!({ "kind": "fixed", "delay_s": 64, "max_attempts": 10 });
    let made = app.subscribe(slow).await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    app.ok(&["subscription", "disable", &made.id]).await;
    amqp.publish("a.b", &event("evt_2", "acme", "a.b"), BasicProperties::default()).await;

    let dead = app.wait_for_dead(1, 20).await;
    assert_eq!((dead[0]["reason"].as_str(), dead[0]["event"].as_str()), (Some("disabled"), Some("evt_1")));
    let skipped = || async { serve.metric("paperboy_no_subscriber_total", "").await > 0.5 };
    eventually("the fresh event is counted as nobody's", 10, skipped).await;
    assert_eq!(receiver.count(), 1);

    app.ok(&["subscription", "remove", &made.id, "--yes"]).await;
    app.ok(&["dead", "replay", "--all"]).await;
    let dead = app.wait_for_dead(1, 20).await;
    assert_eq!(dead[0]["reason"].as_str(), Some("gone"));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_headers_auth_and_schemes_are_sent_as_configured() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let request = |path: &str, method: &str, body: &str| json!({ "url": receiver.url(path), "method": method, "body": body, "headers": { "X-Env": "live" } });
    app.subscribe_all(&[
        json!({ "tenant": "acme", "events": ["#"], "request": request("/put", "PUT", "data"),
            "auth": { "kind": "bearer", "token": "tok" }, "signatures": [] }),
        json!({ "tenant": "acme", "events": ["#"], "request": request("/get/{data./n}", "GET", "none"),
            "auth": { "kind": "basic", "username": "u", "password": "p" }, "signatures": [] }),
        json!({ "tenant": "acme", "events": ["#"], "request": request("/hmac", "POST", "event"),
            "signatures": [{ "scheme": "hmac", "header": "X-Signature", "algorithm": "sha1", "encoding": "hex",
                "prefix": "sha1=", "content": "{body}", "secrets": ["This is very secret"] }] }),
    ])
    .await;
    let body = br#"{"id":"evt_1","type":"a.b","tenant":"acme","data":{"n": 7}}"#;
    app.amqp().await.publish("a.b", body, BasicProperties::default()).await;
    let hits = receiver.wait_for(3, 10).await;
    let hit = |path: &str| -> &Hit { hits.iter().find(|hit| hit.path == path).unwrap() };
    assert!(hits.iter().all(|hit| hit.header("x-env") == "live"));
    let put = hit("/put");
    assert_eq!(
        (put.method.as_str(), put.header("authorization"), &put.body[..]),
        ("PUT", "Bearer tok", &b"{\"n\": 7}"[..])
    );
    assert_eq!(put.header("webhook-signature"), "");
    let get = hit("/get/7");
    assert_eq!((get.method.as_str(), get.header("authorization"), get.body.len()), ("GET", "Basic dTpw", 0));
    let signed = hit("/hmac");
    assert_eq!(&signed.body[..], body);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"This is very secret");
    let tag = data_encoding::HEXLOWER.encode(ring::hmac::sign(&key, body).as_ref());
    assert_eq!(signed.header("x-signature"), format!("sha1={tag}"));
    serve.stop().await;
}
