//! The whole program with its store in PostgreSQL, and a PostgreSQL that goes away.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lapin::BasicProperties;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::app::{event, subscription};
use crate::support::services::PrivatePostgres;
use crate::support::{App, Receiver, Reply, eventually};

/// A subscription that is given up after its first failure.
fn impatient(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["retry"] = json!({ "kind": "none" });
    document
}

/// What the address of the app's store must not be found in.
fn password(app: &App) -> String {
    let (_, rest) = app.setting("STORE__URL").split_once("paperboy:").unwrap();
    rest.split_once('@').unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_and_another_dies_and_is_replayed() {
    let app = App::in_postgres().await;
    app.ok(&["config", "check"]).await;
    let receiver = Receiver::start(|hit| Reply::status(if hit.id() == "evt_2" { 500 } else { 200 })).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(impatient(&receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    for id in ["evt_1", "evt_2"] {
        amqp.publish("a.b", &event(id, "acme", "a.b"), BasicProperties::default()).await;
    }
    let dead = app.wait_for_dead(1, 20).await;
    assert_eq!((dead[0]["event"].as_str(), dead[0]["reason"].as_str()), (Some("evt_2"), Some("exhausted")));
    let id = dead[0]["id"].as_str().unwrap();
    assert!(app.ok(&["dead", "show", id]).await.contains("evt_2"));

    receiver.change(|_| Reply::status(200));
    app.ok(&["dead", "replay", id]).await;
    let hits = receiver.wait_for(3, 10).await;
    assert_eq!((hits[2].id(), hits[2].header("paperboy-replay")), ("evt_2", "1"));
    assert!(hits.iter().all(|hit| hit.is_signed_with(&made.secret)));
    assert!(app.json(&["dead", "list"]).await.is_empty());
    assert_eq!(app.json(&["dead", "list", "--state", "replayed"]).await.len(), 1);

    let status = app.ok(&["store", "status"]).await;
    let shown = app.ok(&["config", "show"]).await;
    let log = serve.log();
    serve.stop().await;
    let password = password(&app);
    for told in [status, shown, log] {
        assert!(told.contains("postgres://paperboy:***@") && !told.contains(&password), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refuses_to_serve_without_a_store_and_while_changes_are_pending() {
    let app = App::in_postgres().await;
    let refused = async || {
        let output = app.run(&["serve", "--role", "worker"]).await;
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = refused().await;
    assert!(told.contains("error: no store at `postgres://paperboy:***@"), "{told}");
    assert!(told.contains("run `paperboy store migrate`") && !told.contains(&password(&app)), "{told}");
    let status = app.json(&["store", "status"]).await.remove(0);
    assert_eq!(status["exists"], false);
    let all = status["pending"].as_u64().unwrap();
    assert!(all > 1);

    app.migrate().await;
    let status = app.json(&["store", "status"]).await.remove(0);
    assert_eq!((&status["exists"], &status["pending"]), (&json!(true), &json!(0)));
    assert_eq!(status["applied"].as_array().unwrap().len() as u64, all);
    let mut other = PgConnection::connect(app.setting("STORE__URL")).await.unwrap();
    other.execute("CREATE TABLE kept AS TABLE _sqlx_migrations; DELETE FROM _sqlx_migrations").await.unwrap();
    let told = refused().await;
    assert!(
        told.contains(&format!("lacks {all} changes of this version\nhint: run `paperboy store migrate`")),
        "{told}"
    );

    other.execute("INSERT INTO _sqlx_migrations TABLE kept").await.unwrap();
    app.serve("worker").await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_make_one_store() {
    let app = App::in_postgres().await;
    let migrate = || app.ok(&["store", "migrate"]);
    tokio::join!(migrate(), migrate(), migrate(), migrate());
    let all = tokio::join!(app.serve("all"), app.serve("api"));
    all.0.stop().await;
    all.1.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_postgres_refuses_is_kept_as_undrainable_and_holds_up_no_other() {
    let app = App::in_postgres().await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    app.subscribe(impatient(&receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let nul = br#"{"id": "evt_nul", "type": "a.b", "tenant": "acme", "document_id": "a\u0000b"}"#;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    amqp.publish("a.b", nul, BasicProperties::default()).await;
    amqp.publish("a.b", &event("evt_2", "acme", "a.b"), BasicProperties::default()).await;
    let dead = app.wait_for_dead(3, 20).await;
    let reasons: Vec<_> = dead.iter().filter(|letter| letter["reason"] == "undrainable").collect();
    let [undrainable] = reasons.as_slice() else { panic!("one of three: {dead:#?}") };
    let shown = app.json(&["dead", "show", undrainable["id"].as_str().unwrap()]).await.remove(0);
    assert_eq!(shown["headers"]["undrainable"]["event_id"], "evt_nul");
    assert_eq!(shown["headers"]["undrainable"]["document_id"], "a\0b");
    assert_eq!(shown["body"].as_str().unwrap().as_bytes(), nul);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_known_tenants_are_served_and_dead_letters_wait() {
    let postgres = PrivatePostgres::start().await;
    let app = App::with_store(&postgres.url);
    let receiver =
        Receiver::start(|hit| Reply::status(if hit.id().starts_with("bad") { 500 } else { 200 })).await;
    let serve = app.serve("all").await;
    app.subscribe(impatient(&receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let publish = async |id: &str| {
        amqp.publish("a.b", &event(id, "acme", "a.b"), BasicProperties::default()).await;
    };
    publish("good_1").await;
    receiver.wait_for(1, 10).await;

    postgres.kill().await;
    for id in ["good_2", "bad_1", "bad_2"] {
        publish(id).await;
    }
    receiver.wait_for(4, 20).await;
    eventually("the drain says why it waits", 20, || async {
        serve.log().contains("dead letters stay in their queue")
    })
    .await;
    let told = app.run(&["dead", "list"]).await;
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(
        told.contains("cannot be reached") && told.contains("hint: ") && !told.contains(&password(&app)),
        "{told}"
    );

    postgres.restart().await;
    app.wait_for_dead(2, 60).await;
    eventually("ready", 10, || serve.is_ready()).await;
    assert_eq!(app.json(&["dead", "list"]).await.len(), 2);
    assert!(!serve.log().contains(&password(&app)));
    serve.stop().await;
    postgres.down().await;
}
