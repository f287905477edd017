//! The delivery log through the front door: what happened to an event, a document, a tenant.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, eventually};

fn document(id: &str, document: &str) -> Vec<u8> {
    json!({ "id": id, "type": "document.processed", "tenant": "acme", "document_id": document, "data": {} })
        .to_string()
        .into_bytes()
}

/// A subscription that gives up after two attempts.
fn short(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["retry"] = json!({ "kind": "fixed", "delay_s": 1, "max_attempts": 2 });
    document
}

/// The text with every moment, time taken, id and port replaced by what it is.
fn plain(text: &str, subscription: &str) -> String {
    let words = |line: &str| {
        let word = |word: &str| match word {
            word if word.len() == 24 && word.ends_with('Z') => "MOMENT".to_owned(),
            word => word.to_owned(),
        };
        line.split(' ').map(word).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = text.lines().map(|line| words(&line.replace(subscription, "SUB"))).collect();
    let mut text = lines.join("\n");
    while let Some((before, after)) = text
        .split_once(" in ")
        .filter(|(_, after)| after.split_once(" ms").is_some_and(|(number, _)| number.parse::<u64>().is_ok()))
    {
        text = format!("{before} TAKES{}", after.split_once(" ms").unwrap().1);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_document_is_told_from_its_arrival_to_its_replay() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.nth == 1 { 503 } else { 401 })).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(short(&receiver.url("/ocr/:id"))).await;
    let amqp = app.amqp().await;
    amqp.publish("a", &document("evt_1", "doc_1"), BasicProperties::default()).await;
    app.wait_for_dead(1, 20).await;
    receiver.change(|_| Reply::status(204));
    app.ok(&["dead", "replay", "dl_1"]).await;
    receiver.wait_for(3, 20).await;

    let show = ["deliveries", "show", "--document", "doc_1"];
    eventually("the delivery is in the log", 20, || async {
        String::from_utf8_lossy(&app.run(&show).await.stdout).contains("delivered")
    })
    .await;
    let text = plain(&app.ok(&show).await, &made.id);
    assert_eq!(
        text,
        "event          evt_1
type           document.processed
tenant         acme
document       doc_1

MOMENT  received
                          for 1 subscription: SUB

SUB to 127.0.0.1
MOMENT  attempt 1  503 TAKES: 127.0.0.1 is not available at the moment
                          next attempt TAKES
MOMENT  attempt 2  401 TAKES: 127.0.0.1 does not accept our credentials
                          given up: exhausted (dead letter dl_1)
MOMENT  replayed by a person (dl_1)
MOMENT  attempt 1  204 TAKES: delivered"
    );
    let by_event = app.ok(&["deliveries", "show", "evt_1"]).await;
    assert_eq!(plain(&by_event, &made.id), text);
    let json = app.json(&["deliveries", "show", "evt_1"]).await;
    assert_eq!(json[0]["deliveries"][0]["entries"][1]["class"], "unauthorized");
    assert_eq!(json[0]["deliveries"][0]["entries"][1]["dead_letter"], "dl_1");

    let failures = app.json(&["deliveries", "list", "--failures", "--tenant", "acme"]).await;
    assert_eq!(failures.iter().map(|row| row["status"].clone()).collect::<Vec<_>>(), [401, 503]);
    let status = app.json(&["status"]).await;
    assert_eq!(status[0]["delivery_log"]["days"], 1);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_known_is_told_with_how_far_the_log_goes_back() {
    let app = App::new();
    app.migrate().await;
    let output = app.run(&["deliveries", "show", "evt_nobody"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("nothing is known of event `evt_nobody`") && error.contains("7 days"), "{error}");
    assert!(app.json(&["deliveries", "list"]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_failures_leaves_out_what_went_well_and_no_log_is_no_file() {
    for (keep, expected) in [("failures", vec!["delivered", "retry"]), ("off", vec![])] {
        let mut app = App::new();
        app.set("DELIVERY_LOG", keep);
        let receiver =
            Receiver::start(|hit| Reply::status(if hit.id() == "evt_2" && hit.nth == 1 { 500 } else { 204 }))
                .await;
        let serve = app.serve("all").await;
        app.subscribe(short(&receiver.url("/"))).await;
        let amqp = app.amqp().await;
        for id in ["evt_1", "evt_2"] {
            amqp.publish("a", &event(id, "acme", "a"), BasicProperties::default()).await;
        }
        receiver.wait_for(3, 20).await;
        // What was handed over is written before the process ends.
        serve.stop().await;
        let rows = app.json(&["deliveries", "list"]).await;
        assert_eq!(
            rows.iter().map(|row| row["what"].as_str().unwrap()).collect::<Vec<_>>(),
            expected,
            "{keep}"
        );
        assert!(rows.iter().all(|row| row["event"] == "evt_2"));
        let status = app.json(&["store", "status"]).await;
        assert_eq!(status[0]["delivery_log_days"], usize::from(!expected.is_empty()), "{keep}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_while_the_log_cannot_be_written_and_are_logged_once_it_can() {
    let app = App::new();
    app.migrate().await;
    // Folders stand where the files of today and of tomorrow would be made.
    let files = [0, 1].map(|days| {
        let day = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        app.path(&format!("paperboy.deliveries-{}.db", day.strftime("%Y%m%d")))
    });
    files.iter().for_each(|file| std::fs::create_dir(file).unwrap());
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let amqp = app.amqp().await;
    amqp.publish_all((0..50).map(|n| ("a".to_owned(), event(&format!("evt_{n}"), "acme", "a")))).await;
    receiver.wait_for(50, 20).await;
    eventually("the failure is counted", 20, || async {
        serve.metric("paperboy_delivery_log_failures_total", "").await > 0.0
    })
    .await;
    assert!(serve.log().contains("the delivery log cannot be written"), "{}", serve.log());
    assert!(serve.is_ready().await);

    files.iter().for_each(|file| std::fs::remove_dir(file).unwrap());
    eventually("everything is in the log", 30, || async {
        app.json(&["deliveries", "list", "--limit", "100"]).await.len() == 50
    })
    .await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_postgres_is_read_like_one_in_files() {
    let app = App::in_postgres().await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    app.subscribe(short(&receiver.url("/"))).await;
    let amqp = app.amqp().await;
    amqp.publish("a", &document("evt_1", "doc_1"), BasicProperties::default()).await;
    app.wait_for_dead(1, 20).await;
    eventually("the log is written", 20, || async {
        app.json(&["deliveries", "list", "--document", "doc_1"]).await.len() == 2
    })
    .await;
    let text = app.ok(&["deliveries", "show", "evt_1"]).await;
    assert!(
        text.contains("attempt 2  500") && text.contains("given up: exhausted (dead letter dl_1)"),
        "{text}"
    );
    serve.stop().await;
}
