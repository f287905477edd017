//! `/v1/subscriptions` through its front door.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{SUBSCRIPTIONS, fields, id_of, key, one};
use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, Serve, ask, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_lives_from_post_to_delete_under_its_tags() {
    let app = App::new();
    let serve = app.serve("api").await;
    let port = serve.port;
    let mut document = subscription("acme", "https://erp.example.com/ocr/:id");
    document["request"]["headers"] = json!({ "X-Key": "canary" });
    let made = ask(port, "POST", SUBSCRIPTIONS).json(&document).send().await;
    let created = made.is(201);
    let id = id_of(&created);
    assert_eq!(made.header("location"), one(&id));
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));

    let got = ask(port, "GET", &one(&id)).send().await;
    let shown = got.is(200);
    assert_eq!(got.header("etag"), made.header("etag"));
    assert_eq!(shown["request"]["headers"]["X-Key"], "***");
    assert_eq!((&shown["signatures"][0]["secrets"][0], &shown["secret"]), (&json!("***"), &Value::Null));
    let tag = got.header("etag");
    assert_eq!(ask(port, "GET", &one(&id)).header("if-none-match", tag).send().await.status, 304);

    let patch = |tag: &str, body: Value| {
        ask(port, "PATCH", &one(&id))
            .header("if-match", tag)
            .body("application/merge-patch+json", body.to_string().as_bytes())
    };
    let changed = patch(tag, json!({ "name": "ERP" })).send().await;
    assert_eq!(changed.is(200)["name"], "ERP");
    assert_ne!(changed.header("etag"), tag);
    patch(tag, json!({ "name": "lost" })).send().await.problem(412);
    patch("\"x\"", json!({ "name": "lost" })).send().await.problem(412);
    patch("7", json!({ "name": "lost" })).send().await.problem(400);
    // Without a tag the last one wins.
    let free = ask(port, "PATCH", &one(&id)).json(&json!({ "enabled": false })).send().await;
    assert_eq!(free.is(200)["enabled"], false);

    let mut whole = free.json();
    whole["name"] = json!("ERP 2");
    let put = ask(port, "PUT", &one(&id)).header("if-match", free.header("etag")).json(&whole).send().await;
    assert_eq!(
        (&put.is(200)["name"], &put.json()["request"]["headers"]["X-Key"]),
        (&json!("ERP 2"), &json!("***"))
    );
    let other = ask(port, "PATCH", &one(&id)).json(&json!({ "tenant": "bolt" })).send().await.problem(422);
    assert_eq!(fields(&other), ["tenant"]);

    ask(port, "DELETE", &one(&id)).header("if-match", tag).send().await.problem(412);
    assert_eq!(
        ask(port, "DELETE", &one(&id)).header("if-match", put.header("etag")).send().await.status,
        204
    );
    for method in ["GET", "DELETE"] {
        ask(port, method, &one(&id)).send().await.problem(404);
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_subscription_is_told_at_once_with_its_pointer() {
    let app = App::new();
    let serve = app.serve("api").await;
    let post = async |body: Value| ask(serve.port, "POST", SUBSCRIPTIONS).json(&body).send().await;
    let problem =
        post(json!({ "tenant": 1, "evnts": [], "request": { "timeout_s": "x" } })).await.problem(422);
    assert_eq!(fields(&problem), ["evnts", "request.timeout_s", "tenant", "events", "request.url"]);
    let problem = post(json!({
        "tenant": "a b", "events": ["a..b"], "request": { "url": "ftp://h.example" },
        "signatures": [{ "scheme": "standard", "secrets": ["***"] }],
    }))
    .await
    .problem(422);
    let pointers: Vec<&Value> =
        problem["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/tenant", "/events/0", "/request/url", "/signatures/0/secrets/0"]);
    post(json!([])).await.problem(422);
    let nul = post(
        json!({ "tenant": "acme", "name": "a\0b", "events": ["#"], "request": { "url": "https://h.example" } }),
    );
    nul.await.problem(422);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_sent_twice_is_made_once_and_answered_the_same() {
    let app = App::new();
    let serve = app.serve("api").await;
    let create = |name: &str, url: &str| {
        ask(serve.port, "POST", SUBSCRIPTIONS)
            .header("idempotency-key", name)
            .json(&subscription("acme", url))
            .send()
    };
    let first = create("k1", "https://h.example/1").await;
    let again = create("k1", "https://h.example/1").await;
    assert_eq!((first.is(201), first.header("etag")), (again.is(201), again.header("etag")));
    assert!(again.json()["secret"].is_string());
    create("k1", "https://h.example/2").await.problem(422);
    create("é", "https://h.example/2").await.problem(400);

    let racing = (0..8).map(|_| create("k2", "https://h.example/3"));
    let answers = futures_util::future::join_all(racing).await;
    let ids: BTreeSet<String> = answers.iter().map(|answer| id_of(&answer.is(201))).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.json(&["subscription", "list"]).await.len(), 2);
    // Another caller's key of the same name is another one.
    let bolt = key(&app, &["--tenant", "acme"]).await;
    let mine = ask(serve.port, "POST", SUBSCRIPTIONS).key(&bolt).header("idempotency-key", "k1");
    let theirs = mine.json(&subscription("acme", "https://h.example/1")).send();
    eventually("the key is known", 10, async || theirs_is_new(&serve, &bolt).await).await;
    assert_ne!(id_of(&theirs.await.is(201)), id_of(&first.json()));
    serve.stop().await;
}

pub(crate) async fn theirs_is_new(serve: &Serve, key: &str) -> bool {
    ask(serve.port, "GET", SUBSCRIPTIONS).key(key).send().await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn after_prefer_wait_every_process_uses_the_change() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let api = app.serve("api").await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    // The worker knows that nobody subscribes.
    let made = ask(api.port, "POST", SUBSCRIPTIONS)
        .header("prefer", "wait")
        .json(&subscription("acme", &receiver.url("/1")))
        .send()
        .await;
    assert_eq!((made.status, made.header("preference-applied")), (201, "wait"));
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), lapin::BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    let patch = json!({ "request": { "url": receiver.url("/2") } });
    let path = one(&id_of(&made.json()));
    ask(api.port, "PATCH", &path).header("prefer", "wait").json(&patch).send().await.is(200);
    amqp.publish("a.b", &event("evt_2", "acme", "a.b"), lapin::BasicProperties::default()).await;
    assert_eq!(receiver.wait_for(2, 10).await[1].path, "/2");
    worker.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_in_a_stable_order_and_filter() {
    let app = App::new();
    let serve = app.serve("api").await;
    let list = async |query: &str| ask(serve.port, "GET", &format!("{SUBSCRIPTIONS}?{query}")).send().await;
    let mut documents: Vec<Value> =
        (0..5).map(|n| subscription("acme", &format!("https://h.example/{n}"))).collect();
    documents[1]["events"] = json!(["document.*"]);
    documents[2]["enabled"] = json!(false);
    documents[3]["name"] = json!("100% ERP_x");
    documents.push(subscription("bolt", "https://h.example/b"));
    for document in &mut documents[..] {
        if document["events"] == json!(["#"]) {
            document["events"] = json!(["batch.completed"]);
        }
    }
    app.subscribe_all(&documents).await;

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("tenant=acme&limit=2{cursor}")).await.is(200);
        let ids: Vec<String> = page["data"].as_array().unwrap().iter().map(id_of).collect();
        assert!(ids.len() <= 2);
        seen.extend(ids);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), &sorted), (5, &seen));
    for (query, count) in [
        ("", 6),
        ("tenant=bolt", 1),
        ("enabled=false", 1),
        ("event_type=document.processed", 1),
        ("event_type=batch.completed&tenant=acme", 4),
        ("name=100%25+erp_X", 1),
        ("name=%25", 1),
        ("name=zzz", 0),
    ] {
        let page = list(query).await.is(200);
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{query}");
    }
    let problem = list("limit=0&enabled=perhaps&color=red&tenant=a+b&name=%00").await.problem(400);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 5, "{problem}");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_signs_beside_the_old_one() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let path = format!("{}/rotate-secret", one(&made.id));
    let answer = ask(serve.port, "POST", &path).header("prefer", "wait").send().await.is(200);
    let new = answer["secret"].as_str().unwrap();
    assert!(answer["old_until"].is_string());
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), lapin::BasicProperties::default()).await;
    let hit = receiver.wait_for(1, 10).await.remove(0);
    assert!(hit.is_signed_with(new) && hit.is_signed_with(&made.secret));

    let rotate = async |body: Value| ask(serve.port, "POST", &path).json(&body).send().await;
    for body in [json!({ "overlap_s": 604_801 }), json!({ "overlap_s": "1d" }), json!({ "overlap": 1 })] {
        rotate(body).await.problem(422);
    }
    let none = rotate(json!({ "overlap_s": 0 })).await.is(200);
    assert_eq!(none["old_until"], Value::Null);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_shows_request_and_answer_without_secrets() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(503).body("we saw canary-token")).await;
    let serve = app.serve("api").await;
    let mut document = subscription("acme", &receiver.url("/x/:id"));
    document["auth"] = json!({ "kind": "bearer", "token": "canary-token" });
    let made = app.subscribe(document).await;
    let path = format!("{}/test", one(&made.id));
    let told = ask(serve.port, "POST", &path).json(&json!({ "data": { "pages": 7 } })).send().await;
    let trial = told.is(200);
    assert_eq!((&trial["delivered"], &trial["answer"]["status"]), (&json!(false), &json!(503)));
    assert!(!told.body.contains("canary"), "{}", told.body);
    assert_eq!(trial["request"]["headers"]["authorization"], "***");
    let hits = receiver.hits();
    assert_eq!(
        (hits.len(), hits[0].header("paperboy-test"), hits[0].path.as_str()),
        (1, "1", "/x/test_document")
    );
    assert_eq!(hits[0].header("authorization"), "Bearer canary-token");

    let whole = json!({ "event": { "id": "evt_9", "type": "a.b", "tenant": "acme", "document_id": "d9" } });
    assert_eq!(ask(serve.port, "POST", &path).json(&whole).send().await.is(200)["event"], "evt_9");
    assert_eq!(receiver.hits()[1].path, "/x/d9");
    let foreign = json!({ "event": { "id": "evt_9", "type": "a.b", "tenant": "bolt", "document_id": "d9" } });
    ask(serve.port, "POST", &path).json(&foreign).send().await.problem(422);
    assert_eq!(receiver.count(), 2);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_no_more_subscriptions_than_are_allowed() {
    let mut app = App::new();
    app.set("LIMITS__SUBSCRIPTIONS_MAX", "2");
    let serve = app.serve("api").await;
    let post = async |tenant: &str| {
        ask(serve.port, "POST", SUBSCRIPTIONS).json(&subscription(tenant, "https://h.example/")).send().await
    };
    post("acme").await.is(201);
    post("acme").await.is(201);
    let problem = post("acme").await.problem(409);
    assert!(problem["hint"].as_str().unwrap().contains("limits.subscriptions_max"));
    post("bolt").await.is(201);
    assert_eq!(app.json(&["subscription", "list"]).await.len(), 3);
    serve.stop().await;
}
