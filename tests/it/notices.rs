//! Subscriptions that get nothing but failures: told, disabled once, and well again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, eventually};

/// Hears every notice of an app, from now on.
struct Listener {
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    task: JoinHandle<()>,
}

impl Listener {
    async fn start(app: &App) -> Listener {
        let connection =
            Connection::connect(app.setting("BROKER__URL"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
        let exchange = format!("{}.notices", app.prefix);
        let (name, bind) = (queue.name().clone(), QueueBindOptions::default());
        channel
            .queue_bind(name.clone(), exchange.into(), "subscription.*".into(), bind, FieldTable::default())
            .await
            .unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer =
            channel.basic_consume(name, "".into(), options, FieldTable::default()).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let _connection = connection;
            while let Some(Ok(delivery)) = consumer.next().await {
                let body: Value = serde_json::from_slice(&delivery.data).unwrap();
                let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
                assert_eq!(id.as_deref(), body["id"].as_str());
                ours.lock().unwrap().push((delivery.routing_key.to_string(), body));
            }
        });
        Listener { heard, task }
    }

    fn of(&self, kind: &str) -> Vec<Value> {
        let heard = self.heard.lock().unwrap();
        let of_kind = heard.iter().filter(|(key, body)| key == kind && body["type"] == kind);
        of_kind.map(|(_, body)| body.clone()).collect()
    }

    async fn wait_for(&self, kind: &str) -> Value {
        eventually(kind, 30, || async { !self.of(kind).is_empty() }).await;
        self.of(kind).remove(0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tries again and again, at once.
fn stubborn(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["name"] = json!("ERP");
    document["retry"] = json!({ "kind": "fixed", "delay_s": 5, "max_attempts": 100 });
    document
}

async fn publish(app: &App, ids: impl Iterator<Item = usize>) {
    let events = ids.map(|n| ("a".to_owned(), event(&format!("evt_{n}"), "acme", "a")));
    app.amqp().await.publish_all(events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_workers_one_disables_what_only_fails_and_everything_says_so() {
    let mut app = App::new();
    app.set("AUTO_DISABLE__AFTER_H", "0.001");
    app.set("DELIVERY_LOG", "off");
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let api = app.serve("api").await;
    let workers = [app.serve("worker").await, app.serve("worker").await, app.serve("worker").await];
    let listener = Listener::start(&app).await;
    let made = app.subscribe(stubborn(&receiver.url("/secret-path"))).await;
    publish(&app, 0..6).await;

    let failing = listener.wait_for("subscription.failing").await;
    assert_eq!((&failing["subscription"], &failing["host"]), (&json!(made.id), &json!("127.0.0.1")));
    assert_eq!((&failing["class"], &failing["name"]), (&json!("unavailable"), &json!("ERP")));
    let warns = async |words: &str| {
        let status = app.json(&["status"]).await.remove(0);
        status["warnings"].as_array().unwrap().iter().any(|warning| warning.as_str().unwrap().contains(words))
    };
    let disabled = listener.wait_for("subscription.disabled").await;
    assert_eq!((&disabled["tenant"], &disabled["why"]), (&json!("acme"), &json!("failing")));
    assert!(disabled["failures"].as_u64().unwrap() >= 10, "{disabled}");
    // Its retries end as dead letters, and so do events that come now.
    app.wait_for_dead(6, 30).await;
    publish(&app, 6..8).await;
    let letters = app.wait_for_dead(8, 30).await;
    assert!(letters.iter().all(|letter| letter["reason"] == "disabled"), "{letters:?}");
    assert!(warns("is disabled by paperboy since").await);
    assert!(app.ok(&["subscription", "list"]).await.contains("no, by paperboy"));
    assert_eq!(app.json(&["subscription", "show", &made.id]).await[0]["disabled_by"], "paperboy");
    let audit = app.json(&["audit", "list"]).await;
    let line = audit.iter().find(|line| line["action"] == "subscription.disable").unwrap();
    assert_eq!((&line["actor"], &line["object"]), (&json!("paperboy"), &json!(made.id)));

    // A person enables it: what comes is delivered, and nothing is held against it.
    receiver.change(|_| Reply::status(204));
    app.ok(&["subscription", "enable", &made.id]).await;
    let hits = receiver.count();
    publish(&app, 8..9).await;
    receiver.wait_for(hits + 1, 20).await;
    assert!(!warns("is disabled by paperboy").await && !warns("nothing but failures").await);
    // Notices that were written late or twice would be out by the time everything has stopped.
    for serve in workers.into_iter().chain([api]) {
        serve.stop().await;
    }
    assert_eq!(listener.of("subscription.failing").len(), 1);
    assert_eq!(listener.of("subscription.disabled").len(), 1);
    assert!(listener.of("subscription.recovered").is_empty());
    let heard = format!("{:?}", listener.heard.lock().unwrap());
    assert!(!heard.contains("secret-path") && !heard.contains("http:"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_success_ends_it_also_at_another_worker_and_is_told() {
    let mut app = App::new();
    // Half of this is long enough for a retry to be under way, and the whole for the success to come in.
    app.set("AUTO_DISABLE__AFTER_H", "0.004");
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let (one, other) = (app.serve("all").await, app.serve("worker").await);
    let listener = Listener::start(&app).await;
    let made = app.subscribe(stubborn(&receiver.url("/"))).await;
    publish(&app, 0..2).await;
    listener.wait_for("subscription.failing").await;
    receiver.change(|_| Reply::status(204));
    let recovered = listener.wait_for("subscription.recovered").await;
    assert_eq!((&recovered["subscription"], &recovered["class"]), (&json!(made.id), &json!("server_error")));
    assert_eq!(app.json(&["status"]).await[0]["troubled"]["failing_in_all"], 0);
    for serve in [one, other] {
        serve.stop().await;
    }
    assert!(listener.of("subscription.disabled").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_from_before_it_was_switched_off_is_nobodys_when_it_is_on_again() {
    let mut app = App::new();
    app.migrate().await;
    app.sql(&row_of("sub_1")).await;
    app.serve("all").await.stop().await;
    app.set("AUTO_DISABLE__AFTER_H", "1");
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let mut document = stubborn(&receiver.url("/"));
    document["id"] = json!("sub_1");
    app.subscribe(document).await;
    let serve = app.serve("all").await;
    publish(&app, 0..12).await;
    receiver.wait_for(24, 20).await;
    serve.stop().await;
    assert_eq!(app.json(&["subscription", "show", "sub_1"]).await[0]["enabled"], true);
}

/// A row that was told and lasts until a moment ago, long enough for one more failure to disable.
fn row_of(id: &str) -> String {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let since_ms = now_ms - 3_600_000;
    format!("INSERT INTO streaks VALUES ('{id}', {since_ms}, {}, 99, 'timeout', NULL, 1)", now_ms - 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_success_after_a_start_ends_the_row_that_was_there_before() {
    let mut app = App::new();
    app.set("AUTO_DISABLE__AFTER_H", "1");
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    app.serve("all").await.stop().await;
    let made = app.subscribe(stubborn(&receiver.url("/"))).await;
    app.sql(&row_of(&made.id)).await;
    let failing = async || app.json(&["status"]).await[0]["troubled"]["failing_in_all"].clone();
    assert_eq!(failing().await, 1);
    // It waits in the queue, and is the first thing that is done.
    publish(&app, 0..1).await;
    let serve = app.serve("all").await;
    receiver.wait_for(1, 20).await;
    serve.stop().await;
    assert_eq!(failing().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_disabled_at_once_if_its_subscription_wants_that() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(410)).await;
    let serve = app.serve("all").await;
    let listener = Listener::start(&app).await;
    let mut document = stubborn(&receiver.url("/"));
    document["retry"]["on_gone"] = json!("disable");
    let made = app.subscribe(document).await;
    publish(&app, 0..1).await;
    let disabled = listener.wait_for("subscription.disabled").await;
    assert_eq!((&disabled["subscription"], &disabled["why"]), (&json!(made.id), &json!("gone")));
    let letter = app.wait_for_dead(1, 20).await.remove(0);
    assert_eq!((&letter["reason"], &letter["status"]), (&json!("permanent"), &json!(410)));
    let next = AtomicUsize::new(1);
    eventually("its fresh events are dead letters `disabled`", 20, || async {
        let next = next.fetch_add(1, Ordering::Relaxed);
        publish(&app, next..next + 1).await;
        !app.json(&["dead", "list", "--reason", "disabled"]).await.is_empty()
    })
    .await;
    assert!(serve.metric("paperboy_disabled_total", "gone").await >= 1.0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_that_nobody_listens_for_disturb_nothing() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(410)).await;
    let serve = app.serve("all").await;
    let mut document = stubborn(&receiver.url("/"));
    document["retry"]["on_gone"] = json!("disable");
    app.subscribe(document).await;
    publish(&app, 0..1).await;
    eventually("the notice is out", 20, || async {
        serve.metric("paperboy_notices_total", "subscription.disabled").await > 0.0
    })
    .await;
    assert!(serve.is_ready().await);
    assert_eq!(serve.metric("paperboy_returned_total", "").await, 0.0);
    serve.stop().await;
}
