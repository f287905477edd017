//! What strangers put into RabbitMQ, by mistake or on purpose: nothing of it is lost, blocks or misleads.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{Amqp, App, Hit, Receiver, Reply, Serve, eventually};

const BYTES_MAX: usize = 2048;

/// A deployment of one tenant, `acme`, whose events all go to one receiver.
struct Site {
    app: App,
    amqp: Amqp,
    receiver: Receiver,
    serve: Serve,
    subscription: String,
}

impl Site {
    async fn open(script: impl Fn(&Hit) -> Reply + Send + Sync + 'static) -> Site {
        let mut app = App::new();
        app.set("LIMITS__EVENT_BYTES_MAX", &BYTES_MAX.to_string());
        let receiver = Receiver::start(script).await;
        app.migrate().await;
        let made = app.subscribe(subscription("acme", &receiver.url("/"))).await;
        let serve = app.serve("all").await;
        let amqp = app.amqp().await;
        Site { app, amqp, receiver, serve, subscription: made.id }
    }

    /// Publishes a good event; it must arrive, whatever came before it.
    async fn still_delivers(&self) {
        let before = self.receiver.count();
        self.amqp.publish("a.b", &event("evt_good", "acme", "a.b"), BasicProperties::default()).await;
        let hits = self.receiver.wait_for(before + 1, 10).await;
        assert_eq!(hits[before].id(), "evt_good");
    }
}

/// An envelope that lacks nothing but what `rest` spoils.
fn envelope(rest: &str) -> String {
    format!(r#"{{"id": "evt_1", "type": "a.b", "tenant": "acme", {rest}}}"#)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn headers<const N: usize>(list: [(&str, AMQPValue); N]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in list {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_events_become_dead_letters_and_block_nothing() {
    let deep = format!(r#""data": {}{}"#, "[".repeat(128), "]".repeat(128));
    let long = format!(r#""data": "{}""#, "x".repeat(BYTES_MAX));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("not JSON", b"pages=3".into(), "not JSON: expected value"),
        ("cut off", b"{".into(), "not JSON: EOF"),
        ("comma too many", br#"{"tenant": "acme",}"#.into(), "not JSON: trailing comma"),
        ("no number", b"NaN".into(), "not JSON: expected value"),
        ("no body", b"".into(), "empty body"),
        ("only spaces", b" \r\n\t".into(), "empty body"),
        ("list", b"[]".into(), "not an object"),
        ("null", b"null".into(), "not an object"),
        ("string", br#""x""#.into(), "not an object"),
        ("byte order mark", b"\xef\xbb\xbf{}".into(), "starts with a byte order mark"),
        ("trailing garbage", b"{} x".into(), "not JSON: trailing characters"),
        ("two events", b"{}{}".into(), "not JSON: trailing characters"),
        ("not UTF-8", b"{\"tenant\": \"\xff\"}".into(), "not UTF-8 from byte 12 on"),
        ("not UTF-8 in data", b"{\"data\": \"\xc3\x28\"}".into(), "not UTF-8 from byte 10 on"),
        (
            "lone surrogate",
            br#"{"id": "evt_1", "type": "a.b", "tenant": "\ud800"}"#.into(),
            "not JSON: unexpected",
        ),
        ("no tenant", br#"{"id": "evt_1", "type": "a.b"}"#.into(), "no `tenant`"),
        ("no tenant but null", br#"{"id": "evt_1", "type": "a.b", "tenant": null}"#.into(), "no `tenant`"),
        ("two tenants", envelope(r#""tenant": "evil""#).into(), "duplicate field `tenant`"),
        ("two data", envelope(r#""data": 1, "data": 2"#).into(), "duplicate field `data`"),
        ("two keys of a scope", envelope(r#""scope": {"a": "1", "a": "2"}"#).into(), "duplicate"),
        ("empty type", br#"{"id": "evt_1", "type": "", "tenant": "acme"}"#.into(), "`type` "),
        ("odd type", br#"{"id": "evt_1", "type": "a b", "tenant": "acme"}"#.into(), "`type` "),
        ("spaces in the id", br#"{"id": "a b", "type": "a.b", "tenant": "acme"}"#.into(), "`id` "),
        ("line break in the id", br#"{"id": "a\r\nb", "type": "a.b", "tenant": "acme"}"#.into(), "`id` "),
        ("odd tenant", br#"{"id": "evt_1", "type": "a.b", "tenant": "t1\n"}"#.into(), "`tenant` "),
        ("tenant as pattern", br#"{"id": "evt_1", "type": "a.b", "tenant": "*"}"#.into(), "`tenant` "),
        ("id is a number", br#"{"id": 7, "type": "a.b", "tenant": "acme"}"#.into(), "invalid type: integer"),
        ("scope of numbers", envelope(r#""scope": {"inbox": 7}"#).into(), "invalid type: integer"),
        ("odd time", envelope(r#""time": "yesterday""#).into(), "`time` must be RFC 3339"),
        ("too deep", envelope(&deep).into(), "nested deeper than 128"),
        ("too large", envelope(&long).into(), "too large: "),
    ];
    let site = Site::open(|_| Reply::status(200)).await;
    for (name, body, _) in &cases {
        let properties =
            headers([("x-case", text(name))]).with_message_id((*name).into()).with_type("a.b".into());
        site.amqp.publish("a.b", body, properties).await;
    }
    site.still_delivers().await;

    let letters = site.app.wait_for_dead(cases.len(), 20).await;
    assert_eq!(letters.len(), cases.len());
    for (name, body, says) in &cases {
        let mine = |letter: &Value, json: &Value| {
            letter["body_bytes"] == body.len() && json["headers"]["message_id"] == *name
        };
        let mut found = None;
        for letter in &letters {
            let json = site.app.json(&["dead", "show", letter["id"].as_str().unwrap()]).await.remove(0);
            if mine(letter, &json) {
                found = Some(json);
                break;
            }
        }
        let shown = found.unwrap_or_else(|| panic!("no dead letter of case `{name}`: {letters:#?}"));
        let reason = shown["reason"].as_str().unwrap();
        assert_eq!(shown["kind"], "event", "{name}");
        assert!(reason.starts_with(&format!("unreadable: {says}")), "{name}: {reason}");
        let raw = site.app.run(&["dead", "show", shown["id"].as_str().unwrap(), "--raw"]).await.stdout;
        assert_eq!(&raw, body, "{name}: the original bytes");
        let original: Value = serde_json::from_str(shown["headers"]["original"].as_str().unwrap()).unwrap();
        assert_eq!(original, json!({ "message_id": name, "type": "a.b", "header x-case": name }), "{name}");
    }
    assert_eq!(site.receiver.count(), 1, "nothing unreadable was sent");
    site.serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_an_id_anywhere_is_unreadable() {
    let site = Site::open(|_| Reply::status(200)).await;
    let body = br#"{"type": "a.b", "tenant": "acme"}"#;
    site.amqp.publish("a.b", body, BasicProperties::default()).await;
    let letter = site.app.wait_for_dead(1, 10).await.remove(0);
    assert_eq!(letter["reason"], "unreadable: no `id`, and no AMQP `message_id`");
    assert_eq!((&letter["event"], &letter["tenant"]), (&Value::Null, &Value::Null));
    site.still_delivers().await;
}

/// The broker's limit is far above ours: the body arrives, is not parsed, and can be sent once it may.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_too_large_is_delivered_by_a_replay_under_a_higher_limit() {
    let mut site = Site::open(|_| Reply::status(200)).await;
    let data = format!(r#""{}""#, "x".repeat(BYTES_MAX));
    let body = format!(r#"{{"tenant": "acme", "data": {data}}}"#);
    let properties = BasicProperties::default().with_message_id("evt_large".into());
    site.amqp.publish("document.processed", body.as_bytes(), properties).await;
    let letter = site.app.wait_for_dead(1, 10).await.remove(0);
    let reason = format!("unreadable: too large: {} bytes, at most {BYTES_MAX} are read", body.len());
    assert_eq!(letter["reason"], reason);
    site.serve.stop().await;
    let before_the_replay = jiff::Timestamp::now().to_string();

    site.app.set("LIMITS__EVENT_BYTES_MAX", "8192");
    let serve = site.app.serve("all").await;
    site.app.ok(&["dead", "replay", letter["id"].as_str().unwrap()]).await;
    let hit = site.receiver.wait_for(1, 10).await.remove(0);
    let sent: Value = serde_json::from_slice(&hit.body).unwrap();
    assert_eq!((&sent["id"], &sent["type"]), (&json!("evt_large"), &json!("document.processed")));
    assert!(
        sent["time"].as_str().unwrap() < before_the_replay.as_str(),
        "the time is of the first arrival: {sent}"
    );
    assert!(String::from_utf8_lossy(&hit.body).ends_with(&format!(r#""data":{data}}}"#)));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_data_arrives_byte_for_byte() {
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let data = [
        r#""\ud800""#,
        r#"{"n": 12345678901234567890123, "f":1.0000000000000000001, "e":1E400, "z":-0.0}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"s":"\u00e9 é \/ \u0000",   "t":	[ ]}"#,
        "null",
        deep.as_str(),
    ];
    let site = Site::open(|_| Reply::status(200)).await;
    for (place, data) in data.iter().enumerate() {
        let body = format!(r#"{{"id": "evt_{place}", "type": "a.b", "tenant": "acme", "data": {data} }}"#);
        site.amqp.publish("a.b", body.as_bytes(), BasicProperties::default()).await;
    }
    let hits = site.receiver.wait_for(data.len(), 10).await;
    for (place, data) in data.iter().enumerate() {
        let hit = hits.iter().find(|hit| hit.id() == format!("evt_{place}")).unwrap();
        let body = std::str::from_utf8(&hit.body).unwrap();
        assert!(body.ends_with(&format!(r#","data":{data}}}"#)), "{data} became {body}");
    }
}

/// A producer's `paperboy-*` headers mean nothing, and its `x-death` is never republished: 3.10 would see a
/// cycle in it and park the message for ever.
#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_have_no_effect() {
    let site = Site::open(|hit| Reply::status(if hit.nth < 3 { 500 } else { 200 })).await;
    let others = Receiver::start(|_| Reply::status(200)).await;
    let other = site.app.subscribe(subscription("other", &others.url("/"))).await;
    let deaths = ["delay.20ms.00", "delay.20ms.01", "delay.20ms.02", "retries", "events"].map(|queue| {
        let mut death = FieldTable::default();
        death.insert("queue".into(), text(&format!("{}.{queue}", site.app.prefix)));
        death.insert("exchange".into(), text(""));
        death.insert("reason".into(), text("expired"));
        death.insert("count".into(), AMQPValue::LongLongInt(1));
        let key = text(&format!("{}.{queue}", site.app.prefix));
        death.insert("routing-keys".into(), AMQPValue::FieldArray(FieldArray::from(vec![key])));
        AMQPValue::FieldTable(death)
    });
    let properties = headers([
        ("paperboy-subscription", text(&other.id)),
        ("paperboy-attempt", AMQPValue::LongLongInt(9)),
        ("paperboy-wait", AMQPValue::LongLongInt(100)),
        ("paperboy-deferrals", AMQPValue::LongLongInt(50)),
        ("paperboy-replay", AMQPValue::LongLongInt(3)),
        ("paperboy-cycle", AMQPValue::LongLongInt(3)),
        ("paperboy-first-seen", AMQPValue::LongLongInt(1)),
        ("paperboy-time", text("2001-01-01T00:00:00Z")),
        ("paperboy-reason", text("exhausted")),
        ("paperboy-hop", AMQPValue::LongLongInt(1)),
        ("x-death", AMQPValue::FieldArray(FieldArray::from(deaths.to_vec()))),
        ("x-delivery-count", AMQPValue::LongLongInt(49)),
    ]);
    site.amqp.publish("a.b", &event("evt_1", "acme", "a.b"), properties).await;

    let hits = site.receiver.wait_for(3, 10).await;
    let attempts: Vec<_> = hits.iter().map(|hit| hit.header("paperboy-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(hits.iter().all(|hit| !hit.headers.contains_key("paperboy-replay")));
    assert!(!String::from_utf8_lossy(&hits[0].body).contains("2001-01-01"));
    assert_eq!(
        site.serve.metric("paperboy_settled_total", r#"verdict="moved""#).await,
        0.0,
        "no forged wait"
    );
    assert_eq!(others.count(), 0, "nothing of `acme` goes to another tenant");
    assert!(site.app.json(&["dead", "list"]).await.is_empty());
    site.serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_envelope_leaves_out_is_taken_from_the_message_once() {
    let site = Site::open(|hit| Reply::status(if hit.nth < 2 { 500 } else { 200 })).await;
    let named = BasicProperties::default().with_message_id("msg_1".into()).with_type("named.type".into());
    let stamped = named.clone().with_timestamp(1_800_000_000);
    let unnamed = BasicProperties::default().with_message_id("msg_2".into());
    let bare = br#"{"tenant": "acme"}"#;
    let full =
        br#"{"id": "evt_3", "type": "own.type", "tenant": "acme", "time": "2026-11-22T09:00:07.120Z"}"#;
    site.amqp.publish("routing.key", bare, stamped.clone()).await;
    site.amqp.publish("routing.key", bare, unnamed).await;
    site.amqp.publish("routing.key", full, stamped).await;

    let hits = site.receiver.wait_for(6, 10).await;
    let sent = |id: &str| -> Value {
        let attempts: Vec<_> = hits.iter().filter(|hit| hit.id() == id).collect();
        assert_eq!(attempts.len(), 2, "{id}");
        assert_eq!(attempts[0].body, attempts[1].body, "every attempt of `{id}` sends the same");
        serde_json::from_slice(&attempts[0].body).unwrap()
    };
    let first = sent("msg_1");
    assert_eq!((&first["type"], &first["time"]), (&json!("named.type"), &json!("2027-01-15T08:00:00Z")));
    let second = sent("msg_2");
    assert_eq!(second["type"], "routing.key");
    assert!(second["time"].as_str().unwrap() > "2026-", "the first arrival: {second}");
    let third = sent("evt_3");
    assert_eq!((&third["type"], &third["time"]), (&json!("own.type"), &json!("2026-11-22T09:00:07.120Z")));
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_are_not_ours_are_accepted() {
    let site = Site::open(|_| Reply::status(200)).await;
    let odd = [
        BasicProperties::default().with_delivery_mode(1),
        BasicProperties::default().with_priority(255),
        BasicProperties::default().with_expiration("60000".into()),
        BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to.g1h2AA==".into()),
        BasicProperties::default().with_reply_to(format!("{}.events", site.app.prefix).into()),
        BasicProperties::default().with_correlation_id("c".into()).with_app_id("app".into()),
        BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("gzip".into()),
        BasicProperties::default().with_user_id("guest".into()),
        headers([("CC", AMQPValue::FieldArray(FieldArray::from(vec![text("nowhere")])))]),
        headers([("traceparent", text(&"0".repeat(100)))]),
    ];
    for (place, properties) in odd.iter().enumerate() {
        let body = event(&format!("evt_{place}"), "acme", "a.b");
        site.amqp.publish_as_is("a.b", &body, properties.clone()).await;
    }
    let hits = site.receiver.wait_for(odd.len(), 10).await;
    for (place, properties) in odd.iter().enumerate() {
        assert!(hits.iter().any(|hit| hit.id() == format!("evt_{place}")), "{properties:?}");
    }
}

/// An expiration would end a wait early, a transient message would not survive the broker.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_carries_nothing_a_stranger_set() {
    let site = Site::open(|_| Reply::status(500)).await;
    let mut slow = subscription("slow", &site.receiver.url("/"));
    slow["retry"] = json!({ "kind": "list", "delays_s": [65_536] });
    site.app.subscribe(slow).await;
    let deaths = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(FieldTable::default())]));
    let odd = headers([
        ("x-death", deaths),
        ("x-mine", text("mine")),
        ("CC", AMQPValue::FieldArray(FieldArray::from(vec![text("nowhere")]))),
        ("paperboy-forged", text("forged")),
    ])
    .with_delivery_mode(1)
    .with_priority(9)
    .with_expiration("60000".into())
    .with_reply_to("amq.rabbitmq.reply-to.g1h2AA==".into())
    .with_correlation_id("c".into())
    .with_user_id("guest".into());
    site.amqp.publish_as_is("a.b", &event("evt_1", "slow", "a.b"), odd).await;
    let level = "delay.20ms.16";
    eventually("the event waits", 10, async || site.amqp.ready(level).await == Some(1)).await;

    let waiting = site.amqp.peek(level).await.unwrap();
    let named: Vec<_> =
        waiting.headers().iter().flat_map(|table| table.inner().keys()).map(ToString::to_string).collect();
    let ours = ["attempt", "first-seen", "history", "hop", "subscription", "time", "v"];
    // The count of returns is the broker's, of our own peeping.
    let named: Vec<_> = named.iter().filter(|name| *name != "x-delivery-count").collect();
    assert_eq!(named, ours.map(|name| format!("paperboy-{name}")).iter().collect::<Vec<_>>());
    assert_eq!((waiting.delivery_mode(), waiting.priority()), (&Some(2), &None));
    assert_eq!((waiting.expiration(), waiting.reply_to()), (&None, &None));
    assert_eq!((waiting.correlation_id(), waiting.user_id()), (&None, &None));
    assert_eq!(waiting.message_id().as_ref().map(|id| id.as_str()), Some("evt_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_the_broker_gives_up_on_is_a_dead_letter_that_can_be_replayed() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    // The drain runs, but nobody takes events.
    let api = app.serve("api").await;
    app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let amqp = app.amqp().await;
    let forged = headers([("paperboy-reason", text("exhausted")), ("paperboy-subscription", text("sub_x"))]);
    let body = br#"{"tenant": "acme", "data": {"pages": 3}}"#;
    amqp.publish("document.processed", body, forged.with_message_id("evt_1".into())).await;
    assert_eq!(amqp.give_back("events", 51).await, 51);

    let letter = app.wait_for_dead(1, 10).await.remove(0);
    assert_eq!((&letter["kind"], &letter["reason"]), (&json!("event"), &json!("poison")));
    assert_eq!((&letter["event"], &letter["subscription"]), (&json!("evt_1"), &Value::Null));
    let raw = app.run(&["dead", "show", letter["id"].as_str().unwrap(), "--raw"]).await.stdout;
    assert_eq!(raw, body);

    let worker = app.serve("worker").await;
    app.ok(&["dead", "replay", letter["id"].as_str().unwrap()]).await;
    let hit = receiver.wait_for(1, 10).await.remove(0);
    let sent: Value = serde_json::from_slice(&hit.body).unwrap();
    assert_eq!((hit.id(), &sent["type"]), ("evt_1", &json!("document.processed")));
    assert_eq!((hit.header("paperboy-attempt"), hit.header("paperboy-replay")), ("1", "1"));
    worker.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_built_is_dead_without_an_attempt() {
    let site = Site::open(|_| Reply::status(200)).await;
    let made = site.app.subscribe(subscription("docs", &site.receiver.url("/ocr/:id"))).await;
    site.amqp.publish("a.b", &event("evt_1", "docs", "a.b"), BasicProperties::default()).await;
    let letter = site.app.wait_for_dead(1, 10).await.remove(0);
    assert_eq!((&letter["kind"], &letter["reason"]), (&json!("delivery"), &json!("permanent")));
    assert_eq!((&letter["subscription"], &letter["attempts"]), (&json!(made.id), &json!(0)));
    assert_eq!(letter["history"][0]["seen"], "template");
    let shown = site.app.json(&["dead", "show", letter["id"].as_str().unwrap()]).await.remove(0);
    assert!(shown["answer"].as_str().unwrap().contains("document_id"), "{shown}");
    assert_eq!(site.receiver.count(), 0);
    site.still_delivers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_address_is_a_counted_attempt_of_class_blocked() {
    let mut app = App::new();
    app.set("EGRESS__ALLOW", "");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/"));
    document["retry"] = json!({ "kind": "list", "delays_s": [1] });
    let made = app.run_with_input(&["subscription", "add", "--file", "-"], &document.to_string()).await;
    let warning = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success() && warning.contains("`127.0.0.1` is a denied address"), "{warning}");
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;

    let letter = app.wait_for_dead(1, 10).await.remove(0);
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("exhausted"), &json!(2)));
    let seen: Vec<_> = letter["history"].as_array().unwrap().iter().map(|entry| &entry["seen"]).collect();
    assert_eq!(seen, ["blocked", "blocked"]);
    assert_eq!(receiver.count(), 0, "nothing was connected to");
    serve.stop().await;
}

/// AMQP access is the pipeline's trust domain, but even there a tenant's event goes to its own subscriptions only.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_in_the_retries_reach_no_other_tenant() {
    let site = Site::open(|_| Reply::status(200)).await;
    let properties = headers([("paperboy-subscription", text(&site.subscription))]);
    site.amqp.publish_to_queue("retries", &event("evt_1", "evil", "a.b"), properties).await;
    let letter = site.app.wait_for_dead(1, 10).await.remove(0);
    assert_eq!((&letter["reason"], &letter["tenant"]), (&json!("gone"), &json!("evil")));
    assert_eq!(site.receiver.count(), 0);
}
