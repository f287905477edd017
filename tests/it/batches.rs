//! Batches through the front door: what closes them, what completes them, and what they are told as.

mod crowd;

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use crate::support::{Amqp, App, Hit, Receiver, Reply, Serve, ask, eventually};

/// Runs each of these with either store.
macro_rules! in_both_stores {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::App::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::App::in_postgres().await).await;
            })*
        }
    };
}

in_both_stores! {
    a_batch_closes_by_itself_and_completes_once_every_document_is_finished,
    a_batch_is_closed_at_once_when_an_event_or_the_api_says_so,
    a_late_document_is_delivered_marked_and_told_and_does_not_count,
    an_event_without_scope_takes_none_from_the_completion,
    a_completion_that_was_not_marked_goes_out_again_under_the_same_id,
    a_queue_that_lags_closes_no_batch_early,
}

/// An event about a document of a batch, or about the batch where `document` is empty.
pub(crate) fn member(id: &str, kind: &str, batch: &str, document: &str) -> Value {
    let mut event = json!({ "id": id, "type": kind, "tenant": "acme", "batch_id": batch, "time": now() });
    if !document.is_empty() {
        event["document_id"] = json!(document);
    }
    event
}

pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

async fn publish(amqp: &Amqp, event: &Value) {
    let kind = event["type"].as_str().unwrap().to_owned();
    amqp.publish(&kind, event.to_string().as_bytes(), BasicProperties::default()).await;
}

async fn publish_all(amqp: &Amqp, events: &[Value]) {
    let one = |event: &Value| (event["type"].as_str().unwrap().to_owned(), event.to_string().into_bytes());
    amqp.publish_all(events.iter().map(one)).await;
}

/// A subscription to these types.
fn wanting(events: &[&str], url: &str) -> Value {
    json!({ "tenant": "acme", "events": events, "request": { "url": url } })
}

/// The batch as the command line shows it.
async fn shown(app: &App, batch: &str) -> Value {
    app.json(&["batch", "show", batch]).await.remove(0)
}

async fn is_in(app: &App, batch: &str, state: &str) -> bool {
    let shown = app.json(&["batch", "list"]).await;
    shown.iter().any(|row| row["id"] == batch && row["state"] == state)
}

/// What was told of the completion of a batch.
pub(crate) fn told(hit: &Hit) -> Value {
    let body: Value = serde_json::from_slice(&hit.body).unwrap();
    assert_eq!((hit.id(), &body["type"]), (body["id"].as_str().unwrap(), &json!("batch.completed")));
    body
}

async fn a_batch_closes_by_itself_and_completes_once_every_document_is_finished(app: App) {
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let mut scoped = wanting(&["batch.completed"], &receiver.url("/batches"));
    scoped["scope"] = json!({ "inbox": ["i7"] });
    app.subscribe(scoped).await;
    let amqp = app.amqp().await;
    let mut opened = member("evt_0", "batch.opened", "b 17", "");
    opened["scope"] = json!({ "inbox": "i7", "queue": "q" });
    publish(&amqp, &opened).await;
    for (n, kind) in ["document.received", "document.received", "document.processed"].into_iter().enumerate()
    {
        let mut event = member(&format!("evt_{}", n + 1), kind, "b 17", &format!("d{}", n.min(1)));
        event["scope"] = json!({ "inbox": "i7", "queue": n.to_string() });
        publish(&amqp, &event).await;
        // What is published twice is known already.
        publish(&amqp, &event).await;
    }
    // 30 units of 20 ms after its second document it is closed, and one is not finished.
    eventually("the batch is closed", 20, async || is_in(&app, "b 17", "closed").await).await;
    let before = shown(&app, "b 17").await;
    assert_eq!((&before["documents"], &before["finished"]), (&json!(2), &json!(1)));
    assert_eq!(receiver.count(), 0);

    let mut last = member("evt_9", "document.failed", "b 17", "d0");
    last["scope"] = json!({ "inbox": "i7" });
    publish(&amqp, &last).await;
    let hits = receiver.wait_for(1, 20).await;
    let told = told(&hits[0]);
    let after = shown(&app, "b 17").await;
    assert_eq!((&after["state"], &after["event"]), (&json!("completed"), &told["id"]));
    assert_eq!((&told["batch_id"], &told["scope"]), (&json!("b 17"), &json!({ "inbox": "i7" })));
    let data = &told["data"];
    let outcomes = json!({ "document.failed": 1, "document.processed": 1 });
    assert_eq!(data["counts"], json!({ "documents": 2, "late": 0, "outcomes": outcomes }));
    let ended: Vec<(&str, &str)> = (data["documents"].as_array().unwrap().iter())
        .map(|one| (one["document_id"].as_str().unwrap(), one["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(ended, [("d0", "document.failed"), ("d1", "document.processed")]);
    assert_eq!((&data["closed_by"], &data["documents_left_out"]), (&json!("idle"), &json!(0)));
    let waited = |name: &str| data[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let idle = waited("closed_at")
        - before["last_document_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(idle.total(jiff::Unit::Millisecond).unwrap() >= 600.0, "{idle}");
    assert!(data["duration_ms"].as_i64().unwrap() >= 600);
    // The completion itself joined nothing.
    assert_eq!(app.json(&["batch", "list"]).await.len(), 1);
    serve.stop().await;
}

async fn a_batch_is_closed_at_once_when_an_event_or_the_api_says_so(mut app: App) {
    // Nothing closes by itself here.
    app.set("BATCHES__IDLE_S", "131071");
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(wanting(&["batch.completed"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let mut last = member("evt_2", "document.processed", "b_1", "d2");
    last["close_batch"] = json!(true);
    publish_all(&amqp, &[member("evt_1", "document.processed", "b_1", "d1"), last]).await;
    let hits = receiver.wait_for(1, 20).await;
    let first = told(&hits[0]);
    assert_eq!((&first["batch_id"], &first["data"]["closed_by"]), (&json!("b_1"), &json!("asked")));
    assert_eq!(first["data"]["counts"]["documents"], 2);

    // Made and closed over the API; a second close changes nothing.
    let new = json!({ "tenant": "acme", "id": "b_2", "scope": {} });
    let made = ask(serve.port, "POST", "/v1/batches").json(&new).send().await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/batches/b_2"));
    ask(serve.port, "POST", "/v1/batches").json(&new).send().await.is(200);
    publish(&amqp, &member("evt_3", "document.processed", "b_2", "d1")).await;
    eventually("the document joined", 20, async || shown(&app, "b_2").await["documents"] == 1).await;
    assert!(is_in(&app, "b_2", "open").await);
    let closed = ask(serve.port, "POST", "/v1/batches/b_2/close").send().await.is(202);
    assert_eq!(closed["close_asked"], true);
    let hits = receiver.wait_for(2, 20).await;
    assert_eq!(told(&hits[1])["batch_id"], "b_2");
    let again = ask(serve.port, "POST", "/v1/batches/b_2/close?tenant=acme").send().await.is(202);
    assert_eq!(again["state"], "completed");
    let page = ask(serve.port, "GET", "/v1/batches?limit=1").send().await.is(200);
    let next = format!("/v1/batches?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = ask(serve.port, "GET", &next).send().await.is(200);
    assert_eq!((&page["data"][0]["id"], &rest["data"][0]["id"]), (&json!("b_2"), &json!("b_1")));

    // Without a document, by the command line, here and over the API.
    ask(serve.port, "POST", "/v1/batches")
        .json(&json!({ "tenant": "acme", "id": "b_3" }))
        .send()
        .await
        .is(201);
    let api = format!("http://127.0.0.1:{}", serve.port);
    let said = app.ok(&["batch", "close", "b_3", "--api", &api, "--tenant", "acme"]).await;
    assert_eq!(said, "batch `b_3` is closed in a moment\n");
    let hits = receiver.wait_for(3, 20).await;
    assert_eq!(told(&hits[2])["data"]["counts"]["documents"], 0);
    assert!(app.ok(&["batch", "close", "b_3"]).await.contains("is completed already"));
    assert_eq!(app.run(&["batch", "close", "none"]).await.status.code(), Some(1));
    let remote = app.json(&["batch", "show", "b_1", "--api", &api]).await;
    assert_eq!(remote, app.json(&["batch", "show", "b_1"]).await);
    assert_eq!(app.json(&["batch", "list", "--api", &api]).await.len(), 3);
    let audit = app.json(&["audit", "list"]).await;
    let done: Vec<(&str, &str)> = (audit.iter())
        .map(|line| (line["action"].as_str().unwrap(), line["object"].as_str().unwrap()))
        .filter(|(action, _)| action.starts_with("batch."))
        .collect();
    let people =
        [("batch.close", "b_3"), ("batch.open", "b_3"), ("batch.close", "b_2"), ("batch.open", "b_2")];
    assert_eq!(done, people);
    serve.stop().await;
}

async fn a_late_document_is_delivered_marked_and_told_and_does_not_count(app: App) {
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(wanting(&["#"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let heard = amqp.listen_to("notices").await;
    publish(&amqp, &member("evt_1", "document.received", "b_1", "d1")).await;
    eventually("the batch is closed", 20, async || is_in(&app, "b_1", "closed").await).await;
    publish(&amqp, &member("evt_2", "document.processed", "b_1", "d2")).await;
    publish(&amqp, &member("evt_3", "document.processed", "b_1", "d1")).await;
    let hits = receiver.wait_for(4, 20).await;
    let mut ids: Vec<&str> = hits.iter().map(Hit::id).filter(|id| id.starts_with("evt_")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["evt_1", "evt_2", "evt_3"]);
    let completed = hits.iter().find(|hit| !hit.id().starts_with("evt_")).unwrap();
    assert_eq!(told(completed)["data"]["counts"]["documents"], 1);

    eventually("the notice is told", 20, async || amqp.ready(&heard).await == Some(1)).await;
    let (properties, body) = amqp.peek_all(&heard, 1).await.remove(0);
    let notice: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(properties.kind().as_ref().map(ToString::to_string).as_deref(), Some("batch.late_document"));
    assert_eq!((&notice["batch_id"], &notice["document_id"]), (&json!("b_1"), &json!("d2")));
    let batch = shown(&app, "b_1").await;
    assert_eq!((&batch["documents"], &batch["late"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&batch["members"][1]["document_id"], &batch["members"][1]["late"]),
        (&json!("d2"), &json!(true))
    );
    assert!(serve.metric("paperboy_batch_documents_total", "late").await > 0.0);
    serve.stop().await;
}

async fn an_event_without_scope_takes_none_from_the_completion(mut app: App) {
    // Nothing closes by itself here.
    app.set("BATCHES__IDLE_S", "131071");
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let mut scoped = wanting(&["batch.completed"], &receiver.url("/scoped"));
    scoped["scope"] = json!({ "inbox": ["i7"] });
    app.subscribe(scoped).await;
    let amqp = app.amqp().await;
    let mut document = member("evt_2", "document.processed", "b_1", "d1");
    document["scope"] = json!({ "inbox": "i7" });
    let mut closing = member("evt_3", "batch.sent", "b_1", "");
    closing["close_batch"] = json!(true);
    publish_all(&amqp, &[member("evt_1", "batch.opened", "b_1", ""), document, closing]).await;
    let hits = receiver.wait_for(1, 20).await;
    let told = told(&hits[0]);
    assert_eq!((&told["scope"], &told["data"]["closed_by"]), (&json!({ "inbox": "i7" }), &json!("asked")));
    serve.stop().await;
}

async fn a_completion_that_was_not_marked_goes_out_again_under_the_same_id(app: App) {
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    app.migrate().await;
    let worker = app.serve("worker").await;
    let api = app.serve("api").await;
    app.subscribe(wanting(&["batch.completed"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    publish(&amqp, &member("evt_1", "document.processed", "b_1", "d1")).await;
    let first = receiver.wait_for(1, 30).await;
    eventually("it is marked", 20, async || unsent(&app).await == 0).await;
    // As if it had been killed after the publish, before it was marked.
    api.kill().await;
    let hex: String = first[0].body.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_sqlite = app.setting("STORE__URL").starts_with("sqlite");
    let body = if is_sqlite { format!("x'{hex}'") } else { format!("decode('{hex}', 'hex')") };
    sql(&app, &format!("UPDATE batch_outbox SET sent_ms = NULL, body = {body} WHERE length(body) = 0")).await;
    assert_eq!(unsent(&app).await, 1, "what was published is not kept");
    let api = app.serve("api").await;
    let again = receiver.wait_for(2, 30).await;
    assert_eq!((again[1].id(), &again[1].body), (first[0].id(), &first[0].body));
    // And once it is marked, no more.
    eventually("it is marked", 20, async || unsent(&app).await == 0).await;
    api.stop().await;
    worker.stop().await;
    assert_eq!(receiver.count(), 2);
}

/// What the first consumer of events holds, with this prefetch and messages of any size.
const WINDOW: u32 = 9;

/// A worker that is frozen with messages in hand, and others that wait in the queue.
async fn a_queue_that_lags_closes_no_batch_early(mut app: App) {
    app.set("BROKER__PREFETCH", "40");
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    app.migrate().await;
    let (api, frozen) = (app.serve("api").await, app.serve("worker").await);
    app.subscribe(wanting(&["batch.completed"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    publish(&amqp, &member("evt_0", "document.processed", "b_1", "d0")).await;
    eventually("the first is recorded", 20, async || shown_documents(&app).await == 1).await;
    frozen.signal("-STOP").await;
    // Its window takes in some of these; the rest waits in the queue.
    let events: Vec<Value> =
        (1..60).map(|n| member(&format!("evt_{n}"), "document.processed", "b_1", &format!("d{n}"))).collect();
    publish_all(&amqp, &events).await;
    // A windowful, of which the first may still hold a place: nobody has told RabbitMQ of it yet.
    let in_hand = async || amqp.ready("events").await.map(|ready| 60 - 1 - ready);
    let is_full = || async { in_hand().await.is_some_and(|held| held + 1 >= WINDOW) };
    eventually("the frozen worker has a windowful in hand", 20, is_full).await;
    let held = u64::from(in_hand().await.unwrap());
    // Long after the batch was due it is open: a second worker takes what waits, but not what is in hand.
    let other = app.serve("worker").await;
    eventually("what waits is taken", 20, async || shown_documents(&app).await == 60 - held).await;
    eventually("the batch has long been due", 20, async || is_long_due(&app, "b_1", 3_000).await).await;
    assert!(is_in(&app, "b_1", "open").await);
    assert_eq!(receiver.count(), 0);
    frozen.signal("-CONT").await;
    let hits = receiver.wait_for(1, 30).await;
    let counts = told(&hits[0])["data"]["counts"].clone();
    assert_eq!((&counts["documents"], &counts["late"]), (&json!(60), &json!(0)));
    for serve in [frozen, other, api] {
        serve.stop().await;
    }
}

async fn shown_documents(app: &App) -> u64 {
    let rows = app.json(&["batch", "list"]).await;
    rows.iter().map(|row| row["documents"].as_u64().unwrap()).sum()
}

async fn is_long_due(app: &App, batch: &str, ms: i64) -> bool {
    let closes: jiff::Timestamp = shown(app, batch).await["closes_at"].as_str().unwrap().parse().unwrap();
    jiff::Timestamp::now().as_millisecond() - closes.as_millisecond() > ms
}

/// Does to the store what no command does.
async fn sql(app: &App, statement: &str) {
    if app.setting("STORE__URL").starts_with("sqlite") {
        app.sql(statement).await;
        return;
    }
    let mut connection = sqlx::PgConnection::connect(app.setting("STORE__URL")).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
}

async fn unsent(app: &App) -> i64 {
    let count = "SELECT count(*) FROM batch_outbox WHERE sent_ms IS NULL";
    let url = app.setting("STORE__URL");
    if url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()
    }
}

/// While somebody else writes to the store, an event with a batch is kept and one without is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_membership_cannot_be_written_is_kept_and_others_go_on() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(wanting(&["document.*"], &receiver.url("/x"))).await;
    let mut other = SqliteConnection::connect(app.setting("STORE__URL")).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let amqp = app.amqp().await;
    publish(&amqp, &member("evt_1", "document.processed", "b_1", "d1")).await;
    let mut plain = member("evt_2", "document.processed", "b_1", "d2");
    plain.as_object_mut().unwrap().remove("batch_id");
    publish(&amqp, &plain).await;
    let hits = receiver.wait_for(1, 20).await;
    assert_eq!(hits[0].id(), "evt_2");
    let failed = || async { serve.metric("paperboy_batch_unrecorded_total", "").await > 0.0 };
    eventually("the store refuses", 30, failed).await;
    assert_eq!(receiver.count(), 1);
    let deferred = || async { serve.metric("paperboy_deferred_total", "store").await > 0.0 };
    eventually("it is put off", 30, deferred).await;
    other.execute("ROLLBACK").await.unwrap();
    let hits = receiver.wait_for(2, 60).await;
    assert_eq!(hits[1].id(), "evt_1");
    assert_eq!(shown(&app, "b_1").await["documents"], 1);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_batch_passes() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(wanting(&["#"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let mut whole = member("evt_1", "batch.completed", "b_1", "d1");
    whole["close_batch"] = json!(true);
    let long = "x".repeat(201);
    // A completion of the producer's own, results of a book as a whole, an id that cannot be kept.
    let events = [
        whole,
        member("evt_2", "image_group.verified", "b_1", ""),
        member("evt_3", "analytics.completed", "b_1", ""),
        member("evt_4", "document.processed", &long, "d1"),
        member("evt_5", "document.processed", "b_1", &long),
    ];
    publish_all(&amqp, &events).await;
    receiver.wait_for(5, 20).await;
    assert!(app.json(&["batch", "list"]).await.is_empty());
    assert!((serve.metric("paperboy_batch_unkept_total", "").await - 2.0).abs() < 0.1);
    serve.stop().await;
}

/// What the platforms' receivers get of a completed batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_completed_batch_is_told_as_the_platforms_tell_it() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    // The form alone: a host without a domain is refused by Ocrolus.
    for (preset, path) in [("invofox", "/invofox"), ("ocrolus-account", "/ocrolus")] {
        let mut document = wanting(&["batch.completed"], &receiver.url(path));
        document["request"]["body"] = json!(preset);
        app.subscribe(document).await;
    }
    let amqp = app.amqp().await;
    let mut event = member("evt_1", "document.processed", "book_1", "d1");
    event["close_batch"] = json!(true);
    publish(&amqp, &event).await;
    let hits = receiver.wait_for(2, 30).await;
    let body = |path: &str| -> Value {
        let hit = hits.iter().find(|hit| hit.path == path).unwrap();
        serde_json::from_slice(&hit.body).unwrap()
    };
    let invofox = body("/invofox");
    assert_eq!(
        (&invofox["type"], &invofox["data"]["batch_id"]),
        (&json!("batch.processed"), &json!("book_1"))
    );
    assert_eq!(invofox["data"]["documents"][0]["outcome"], "document.processed");
    let ocrolus = body("/ocrolus");
    assert_eq!(ocrolus["status"], "BOOK_COMPLETE");
    serve.stop().await;
}

/// The worker's metric, while it answers.
pub(crate) async fn is_at_work(worker: &Serve) -> bool {
    worker.metric("paperboy_batch_events_total", "").await > 0.0
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
