//! Queues that are there already, as their producers fill them.

use std::collections::BTreeSet;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::failure::{USAGE, WORLD};
use crate::support::{App, Receiver, Reply, eventually};

/// A queue that paperboy did not make, with arguments it would not choose.
struct Legacy {
    name: String,
    channel: Channel,
    _connection: Connection,
}

impl Legacy {
    async fn connect(app: &App, name: &str) -> Legacy {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(app.setting("BROKER__URL"), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Legacy { name: format!("{}-{name}", app.prefix), channel, _connection: connection }
    }

    async fn declare(&self, kind: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(100_000));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(self.name.as_str().into(), options, arguments).await.unwrap();
    }

    async fn declare_stream(&self) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(self.name.as_str().into(), options, arguments).await.unwrap();
    }

    async fn publish(&self, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = properties.with_delivery_mode(2);
        let publish =
            self.channel.basic_publish("".into(), self.name.as_str().into(), options, body, properties);
        let confirm = publish.await.unwrap().await.unwrap();
        assert!(confirm.is_ack() && confirm.take_message().is_none());
    }

    async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = self.name.as_str().into();
        self.channel.queue_declare(name, options, FieldTable::default()).await.unwrap().message_count()
    }

    async fn delete(self) {
        self.channel.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

/// The envelope of Contract.fit, written as a person would.
fn contract_fit(kind: &str, organization: &str, id: &str) -> String {
    format!(
        r#"{{"event": "{kind}",
 "organization": "{organization}",
 "data": {{"id": "{id}", "inbox": "66f0c1b7", "page_count": 2.0, "x": 12345678901234567890123}}}}"#
    )
}

/// The mapping of it, as the documents show it.
fn source(name: &str, queue: &str) -> String {
    format!(
        r#"
[[sources]]
name = "{name}"
queue = "{queue}"
tenant = "/organization"
type = "/event"
document_id = "/data/id"
scope = {{ inbox = "/data/inbox" }}
data = "/data"
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_queue_is_forwarded_through_a_mapping() {
    for kind in ["classic", "quorum"] {
        let mut app = App::new();
        let legacy = Legacy::connect(&app, kind).await;
        legacy.declare(kind).await;
        app.configure(&source("legacy", &legacy.name));
        let receiver = Receiver::start(|_| Reply::status(204)).await;
        legacy
            .publish(
                contract_fit("document_predict", "acme-be", "66f0").as_bytes(),
                BasicProperties::default(),
            )
            .await;
        app.migrate().await;
        let mut wanted = subscription("acme-be", &receiver.url("/ocr/:id"));
        wanted["scope"] = json!({ "inbox": ["66f0c1b7"] });
        let made = app.subscribe(wanted).await;
        let serve = app.serve("all").await;

        let named = BasicProperties::default().with_message_id("m-1".into());
        legacy.publish(contract_fit("document_evaluate", "acme-be", "66f1").as_bytes(), named).await;
        let hits = receiver.wait_for(2, 10).await;
        for hit in &hits {
            assert!(hit.is_signed_with(&made.secret));
            let body = std::str::from_utf8(&hit.body).unwrap();
            let data = r#""page_count": 2.0, "x": 12345678901234567890123}"#;
            assert!(body.contains(data), "`data` is the producer's bytes: {body}");
        }
        let paths: BTreeSet<&str> = hits.iter().map(|hit| hit.path.as_str()).collect();
        assert_eq!(paths, BTreeSet::from(["/ocr/66f0", "/ocr/66f1"]));
        let ids: BTreeSet<String> = hits.iter().map(|hit| hit.id().to_owned()).collect();
        assert!(ids.contains("m-1") && ids.iter().any(|id| id.starts_with("src_")), "{ids:?}");

        eventually("the legacy queue is empty", 10, || async { legacy.ready().await == 0 }).await;
        assert_eq!(serve.metric("paperboy_source_messages_total", "ending=\"forwarded\"").await, 2.0);
        assert_eq!(serve.metric("paperboy_source_up", "source=\"legacy\"").await, 1.0);
        serve.stop().await;
        assert_eq!(legacy.ready().await, 0, "everything was acknowledged");
        legacy.delete().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_map_is_a_dead_letter_with_its_bytes_and_headers_and_blocks_nothing() {
    let mut app = App::new();
    let legacy = Legacy::connect(&app, "odd").await;
    legacy.declare("classic").await;
    app.configure(&source("legacy", &legacy.name));
    let mut headers = FieldTable::default();
    headers.insert("x-tracking".into(), AMQPValue::LongString("t-7".into()));
    headers.insert("paperboy-subscription".into(), AMQPValue::LongString("sub_forged".into()));
    let odd = br#"{"event": "document_predict", "data": {}}"#;
    legacy.publish(odd, BasicProperties::default().with_headers(headers)).await;
    legacy.publish(b"\xff\xfe", BasicProperties::default()).await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    legacy.publish(contract_fit("a", "acme", "d").as_bytes(), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;

    let mut dead = app.wait_for_dead(2, 10).await;
    dead.sort_by_key(|letter| letter["reason"].to_string());
    let reasons: Vec<&str> = dead.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "unreadable: source `legacy`: not UTF-8 from byte 0 on",
            "unreadable: source `legacy`: nothing at `/organization` for `tenant`"
        ]
    );
    let id = dead[1]["id"].as_str().unwrap();
    assert_eq!((&dead[1]["kind"], &dead[1]["subscription"]), (&json!("event"), &Value::Null));
    let raw = app.run(&["dead", "show", id, "--raw"]).await.stdout;
    assert_eq!(raw, odd);
    let shown = app.ok(&["dead", "show", id, "--json"]).await;
    assert!(shown.contains("x-tracking") && shown.contains("t-7"), "{shown}");
    assert_eq!(legacy.ready().await, 0);
    serve.stop().await;
    legacy.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_forwarder_loses_nothing_and_repeats_only_under_the_same_id() {
    const COUNT: usize = 400;
    let mut app = App::new();
    let legacy = Legacy::connect(&app, "killed").await;
    legacy.declare("quorum").await;
    app.configure(&source("legacy", &legacy.name));
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    app.subscribe(subscription("acme", &receiver.url("/:id"))).await;
    for number in 0..COUNT {
        let body = contract_fit("a", "acme", &format!("d{number}"));
        legacy.publish(body.as_bytes(), BasicProperties::default()).await;
    }
    for _ in 0..3 {
        let before = receiver.hits().len();
        let serve = app.serve_unready("worker").await;
        eventually("some are through", 30, || async { receiver.hits().len() > before + 20 }).await;
        serve.kill().await;
    }
    let serve = app.serve("worker").await;
    let documents = || receiver.hits().iter().map(|hit| hit.path.clone()).collect::<BTreeSet<_>>();
    eventually("all of them are through", 60, || async { documents().len() == COUNT }).await;
    serve.stop().await;
    let ids: BTreeSet<String> = receiver.hits().iter().map(|hit| hit.id().to_owned()).collect();
    assert_eq!(ids.len(), COUNT, "what comes again has the id it had");
    assert_eq!(legacy.ready().await, 0);
    assert_eq!(app.json(&["dead", "list"]).await, Vec::<Value>::new());
    legacy.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_its_queue_stops_nothing_else_and_comes_back_by_itself() {
    let mut app = App::new();
    let missing = Legacy::connect(&app, "missing").await;
    let there = Legacy::connect(&app, "there").await;
    there.declare("classic").await;
    app.configure(&(source("missing", &missing.name) + &source("there", &there.name)));
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;

    let readyz = async || {
        let (status, body) = serve.get("/readyz").await.unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let trouble = async || readyz().await.1["troubles"]["sources"].as_str().unwrap_or_default().to_owned();
    eventually("the missing queue is named", 10, || async {
        let trouble = trouble().await;
        trouble.contains("source `missing` takes nothing: ")
            && trouble.contains("NOT_FOUND")
            && !trouble.contains("`there`")
    })
    .await;
    assert_eq!(readyz().await.0, 200, "the process is ready");
    assert_eq!(serve.metric("paperboy_source_up", "source=\"missing\"").await, 0.0);
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    there.publish(contract_fit("a", "acme", "d1").as_bytes(), BasicProperties::default()).await;
    receiver.wait_for(2, 10).await;
    eventually("status warns of it", 10, || async {
        app.ok(&["status", "--json"]).await.contains("has trouble: sources: source `missing`")
    })
    .await;

    missing.declare("quorum").await;
    missing.publish(contract_fit("a", "acme", "d2").as_bytes(), BasicProperties::default()).await;
    receiver.wait_for(3, 20).await;
    eventually("nothing is wrong any more", 10, || async { trouble().await.is_empty() }).await;

    // Somebody deletes the queue under the consumer and makes another one of another type.
    there.channel.queue_delete(there.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    eventually("it is told again", 10, || async { trouble().await.contains("source `there`") }).await;
    there.declare("quorum").await;
    there.publish(contract_fit("a", "acme", "d3").as_bytes(), BasicProperties::default()).await;
    receiver.wait_for(4, 20).await;
    serve.stop().await;
    missing.delete().await;
    there.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_from_a_stream_and_the_source_says_why() {
    let mut app = App::new();
    let stream = Legacy::connect(&app, "stream").await;
    let there = Legacy::connect(&app, "there").await;
    stream.declare_stream().await;
    there.declare("classic").await;
    stream.publish(contract_fit("a", "acme", "before").as_bytes(), BasicProperties::default()).await;
    app.configure(&(source("stream", &stream.name) + &source("there", &there.name)));
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/:id"))).await;
    let trouble = async || {
        let (_, body) = serve.get("/readyz").await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        body["troubles"]["sources"].as_str().unwrap_or_default().to_owned()
    };
    eventually("the stream is refused", 10, || async {
        let trouble = trouble().await;
        trouble.contains("source `stream` takes nothing: ")
            && trouble.contains("bound to the same exchange")
            && !trouble.contains("`there`")
    })
    .await;
    assert_eq!(serve.metric("paperboy_source_up", "source=\"stream\"").await, 0.0);
    // Whatever comes, nothing of it is forwarded, and nothing else is disturbed.
    stream.publish(contract_fit("a", "acme", "after").as_bytes(), BasicProperties::default()).await;
    there.publish(contract_fit("a", "acme", "queue").as_bytes(), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    let refused = app.run(&["source", "test", "--source", "stream"]).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(WORLD), "{told}");
    assert!(
        told.contains("is a stream") && told.contains("hint: give the source a queue of its own"),
        "{told}"
    );

    // A queue in its place is taken from, without a restart.
    stream.channel.queue_delete(stream.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    stream.declare("quorum").await;
    stream.publish(contract_fit("a", "acme", "then").as_bytes(), BasicProperties::default()).await;
    let paths: BTreeSet<String> = receiver.wait_for(2, 30).await.into_iter().map(|hit| hit.path).collect();
    assert_eq!(paths, BTreeSet::from(["/queue".to_owned(), "/then".to_owned()]));
    assert_eq!(trouble().await, "");
    serve.stop().await;
    stream.delete().await;
    there.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_test_shows_what_messages_would_become_and_removes_none() {
    for kind in ["classic", "quorum"] {
        let mut app = App::new();
        let legacy = Legacy::connect(&app, kind).await;
        legacy.declare(kind).await;
        app.configure(&source("legacy", &legacy.name));
        for number in 1..=4 {
            let body = contract_fit("document_predict", "acme", &format!("d{number}"));
            legacy.publish(body.as_bytes(), BasicProperties::default()).await;
        }
        let shown = app.json(&["source", "test", "--source", "legacy", "--peek", "2"]).await;
        let documents: Vec<&str> =
            shown.iter().map(|line| line["event"]["document_id"].as_str().unwrap()).collect();
        assert_eq!(documents, ["d1", "d2"]);
        assert_eq!((&shown[0]["maps"], &shown[0]["id_is_made"]), (&json!(true), &json!(true)));
        assert_eq!(shown[0]["event"]["tenant"], "acme");
        assert_eq!(shown[0]["event"]["data"]["inbox"], "66f0c1b7");

        // The queue's name finds the same mapping, and flags are laid over it.
        let flags = ["--id", "/data/id", "--data", "/data/page_count"];
        let by_queue =
            [&["source", "test", "--queue", &legacy.name, "--peek", "4"], flags.as_slice()].concat();
        let mut ids: Vec<String> = app
            .json(&by_queue)
            .await
            .iter()
            .map(|line| line["event"]["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, ["d1", "d2", "d3", "d4"], "nothing was removed");
        let table = app.ok(&["source", "test", "--source", "legacy"]).await;
        assert!(table.contains("document_predict") && table.contains("acme"), "{table}");

        legacy.publish(b"{}", BasicProperties::default()).await;
        let output = app.run(&["source", "test", "--source", "legacy", "--json"]).await;
        assert_eq!(output.status.code(), Some(WORLD));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("nothing at `/organization` for `tenant`"), "{text}");
        eventually("all are back", 10, || async { legacy.ready().await == 5 }).await;
        legacy.delete().await;
    }
}

#[tokio::test]
async fn source_test_says_what_is_missing() {
    let app = App::new();
    let failed = async |arguments: &[&str], code: i32| {
        let output = app.run(arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    };
    let unknown = failed(&["source", "test", "--source", "nope"], USAGE).await;
    assert!(unknown.contains("no source is set: write `[[sources]]`"), "{unknown}");
    let refused = failed(&["source", "test", "--queue", "q", "--type", "/~", "--scope", "a=/~"], USAGE).await;
    for flag in ["`--tenant` is missing", "`--type` is no pointer", "`--scope` is no pointer"] {
        assert!(refused.contains(flag), "{refused}");
    }
    let missing = failed(&["source", "test", "--queue", "no.such.queue", "--tenant", "t"], WORLD).await;
    assert!(missing.contains("there is no queue `no.such.queue`"), "{missing}");
}
