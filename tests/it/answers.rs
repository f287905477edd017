//! Receivers' answers that are published for the platform (`answer: publish`).

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{App, Caller, Receiver, Reply, eventually};

fn publishing(url: &str) -> Value {
    let mut document = subscription("acme", url);
    document["answer"] = json!("publish");
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_the_last_attempt_is_published_with_what_it_answers() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match (hit.path.as_str(), hit.nth) {
        ("/export", 1) => Reply::status(503).body(r#"{"messages": ["busy"]}"#),
        ("/export", _) => Reply::status(200).body(r#"{"operations": [{"value": 0.0}]}"#),
        _ => Reply::status(400).body(r#"{"messages": ["never"]}"#),
    })
    .await;
    let serve = app.serve("all").await;
    let mut listener = Caller::listening(&app).await;
    let made = app.subscribe(publishing(&receiver.url("/export"))).await;
    let amqp = app.amqp().await;
    amqp.publish(
        "document.exported",
        &event("evt_1", "acme", "document.exported"),
        BasicProperties::default(),
    )
    .await;
    let said = listener.hear().await;
    assert_eq!(said.key, "document.exported");
    let answer = &said.json;
    assert_eq!(
        (&answer["event"], &answer["type"], &answer["tenant"]),
        (&json!("evt_1"), &json!("document.exported"), &json!("acme"))
    );
    assert_eq!(
        (&answer["subscription"], &answer["status"], &answer["attempt"]),
        (&json!(made.id), &json!(200), &json!(2))
    );
    assert!(
        said.text.contains(r#""body":{"operations": [{"value": 0.0}]}"#),
        "as it was written: {}",
        said.text
    );
    assert_eq!(said.properties.message_id().as_ref().map(|id| id.as_str()), Some("evt_1"));
    assert_eq!(
        (receiver.count(), said.header("paperboy-attempt")),
        (2, Some(2)),
        "retried as ever, published once"
    );

    // Of what is given up, the last word.
    let mut refused = publishing(&receiver.url("/refuses"));
    (refused["tenant"], refused["retry"]) = (json!("bolt"), json!({"kind": "none"}));
    app.subscribe(refused).await;
    amqp.publish("a.b", &event("evt_2", "bolt", "a.b"), BasicProperties::default()).await;
    let said = listener.hear().await;
    assert_eq!((&said.json["status"], &said.json["body"]), (&json!(400), &json!({"messages": ["never"]})));
    app.wait_for_dead(1, 10).await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interactive_event_is_sent_once_and_its_answer_published() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500).body(r#"{"messages": [{"type": "error"}]}"#)).await;
    let serve = app.serve("all").await;
    let mut listener = Caller::listening(&app).await;
    let mut document = publishing(&receiver.url("/x"));
    (document["events"], document["interactive"]) = (json!([]), json!(["annotation_content.*"]));
    app.subscribe(document).await;
    let kind = "annotation_content.user_update";
    app.amqp().await.publish(kind, &event("evt_1", "acme", kind), BasicProperties::default()).await;
    let said = listener.hear().await;
    assert_eq!(
        (&said.json["status"], &said.json["body"]["messages"][0]["type"]),
        (&json!(500), &json!("error"))
    );
    eventually("it is done with", 10, || async {
        serve.metric("paperboy_settled_total", "answered").await > 0.5
    })
    .await;
    assert_eq!((receiver.count(), app.json(&["dead", "list"]).await.len()), (1, 0));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interactive_event_no_request_can_be_made_of_is_a_dead_letter() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let mut document = publishing(&receiver.url("/documents/:id"));
    (document["events"], document["interactive"]) = (json!([]), json!(["#"]));
    app.subscribe(document).await;
    // Without a document there is nothing to put into the URL.
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let dead = app.wait_for_dead(1, 20).await;
    assert_eq!((&dead[0]["reason"], &dead[0]["attempts"]), (&json!("permanent"), &json!(0)));
    assert_eq!(receiver.count(), 0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_or_too_large_is_counted_and_delivered_all_the_same() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.id() {
        "large" => Reply::status(200).body(format!("\"{}\"", "x".repeat(1 << 20))),
        "text" => Reply::status(200).body("taken"),
        "empty" => Reply::status(204),
        _ => Reply::status(200).body("{}"),
    })
    .await;
    let serve = app.serve("all").await;
    app.subscribe(publishing(&receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    // Nobody is bound yet: that is nobody's fault.
    for id in ["unheard", "large", "text", "empty"] {
        amqp.publish("a.b", &event(id, "acme", "a.b"), BasicProperties::default()).await;
    }
    eventually("all are delivered", 20, || async {
        serve.metric("paperboy_settled_total", "delivered").await > 3.5
    })
    .await;
    for (ending, count) in [("published", 1.0), ("too_large", 1.0), ("not_json", 1.0), ("empty", 1.0)] {
        assert_eq!(serve.metric("paperboy_answers_total", ending).await, count, "{ending}");
    }
    let mut listener = Caller::listening(&app).await;
    amqp.publish("a.b", &event("heard", "acme", "a.b"), BasicProperties::default()).await;
    assert_eq!(listener.hear().await.json["event"], "heard", "the others were not kept for whoever comes");
    assert!(serve.is_ready().await);
    assert_eq!(receiver.count(), 5, "each once");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_not_acknowledged_before_its_answer_is_confirmed() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).body(r#"{"ok": true}"#)).await;
    let serve = app.serve("all").await;
    app.subscribe(publishing(&receiver.url("/x"))).await;
    let mut listener = Caller::with_queue(&app).await;
    let full = listener.bind_a_full_queue().await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    eventually("RabbitMQ refuses the answer", 20, || async {
        serve.metric("paperboy_unconfirmed_total", "").await > 1.5
    })
    .await;
    assert_eq!(serve.metric("paperboy_settled_total", "").await, 0.0, "still in hand");
    // Nobody but us has it: after a kill it is delivered and answered anew.
    serve.kill().await;
    listener.unbind(&full).await;
    let mut heard = Caller::listening(&app).await;
    let serve = app.serve("all").await;
    assert_eq!(heard.hear().await.json["body"], json!({"ok": true}));
    eventually("it is settled", 10, || async {
        serve.metric("paperboy_settled_total", "delivered").await > 0.5
    })
    .await;
    assert_eq!(receiver.count(), 2);
    listener = heard;
    drop(listener);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rossums_ordinary_events_are_retried_and_their_answers_published() {
    let app = App::new();
    let receiver = Receiver::start(|hit| {
        let body: Value = serde_json::from_slice(&hit.body).unwrap();
        match (body["action"].as_str().unwrap(), hit.nth) {
            ("user_update", _) => {
                Reply::status(400).body(r#"{"messages": [{"type": "error", "content": "no"}]}"#)
            }
            (_, 1) => Reply::status(503),
            _ => Reply::status(200).body(r#"{"messages": [], "operations": []}"#),
        }
    })
    .await;
    let serve = app.serve("all").await;
    let mut listener = Caller::listening(&app).await;
    let hook = json!({"type": "webhook", "name": "Matching", "queues": ["https://acme.rossum.app/api/v1/queues/8236"],
        "events": ["annotation_content"], "config": {"url": receiver.url("/hook"), "secret": "s3cret"}});
    std::fs::write(app.path("hook.json"), hook.to_string()).unwrap();
    app.ok(&["subscription", "import", "--preset", "rossum", "--tenant", "acme", "hook.json"]).await;
    let event = |id: &str, kind: &str| {
        json!({"id": id, "type": kind, "tenant": "acme", "scope": {"queue": "8236"}, "data": {"annotation": {"content": []}}})
            .to_string()
            .into_bytes()
    };
    let amqp = app.amqp().await;
    for kind in ["annotation_content.initialize", "annotation_content.export"] {
        amqp.publish(kind, &event(kind, kind), BasicProperties::default()).await;
        let said = listener.hear().await;
        assert_eq!(
            (said.key.as_str(), &said.json["attempt"], &said.json["status"]),
            (kind, &json!(2), &json!(200))
        );
        assert_eq!(said.json["body"], json!({"messages": [], "operations": []}));
    }
    let kind = "annotation_content.user_update";
    let said = Caller::direct(&app).await.call(kind, &event("evt_call", kind)).await;
    assert_eq!((said.len(), &said[0].json["status"]), (1, &json!(400)));
    assert_eq!(said[0].json["body"]["messages"][0]["content"], "no", "a refusal's messages");
    assert_eq!(receiver.count(), 5, "the call once, the others twice");
    serve.stop().await;
}
