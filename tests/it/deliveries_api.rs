//! Deliveries, groups of dead letters and replays over the HTTP API: what an operator and what a tenant sees.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, Serve, ask, eventually};

/// A subscription that gives up at once.
fn once(tenant: &str, url: &str) -> Value {
    let mut document = subscription(tenant, url);
    document["retry"] = json!({ "kind": "none" });
    document
}

async fn get(serve: &Serve, key: &str, path: &str) -> Value {
    ask(serve.port, "GET", path).key(key).send().await.is(200)
}

fn data(page: &Value) -> &Vec<Value> {
    page["data"].as_array().unwrap()
}

/// Keys of an operator and of each of two tenants, made before anything is served.
async fn keys(app: &App) -> [String; 3] {
    app.migrate().await;
    let mut keys = Vec::new();
    for arguments in [
        &["key", "create"][..],
        &["key", "create", "--tenant", "acme"],
        &["key", "create", "--tenant", "bolt"],
    ] {
        keys.push(app.json(arguments).await[0]["key"].as_str().unwrap().to_owned());
    }
    keys.try_into().unwrap()
}

/// Two events of `acme` and one of `bolt`, all dead; `evt_1` is an id of both.
async fn three_dead(app: &App, receiver: &Receiver) {
    app.subscribe_all(&[once("acme", &receiver.url("/a")), once("bolt", &receiver.url("/b"))]).await;
    let document =
        json!({ "id": "evt_2", "type": "a.c", "tenant": "acme", "document_id": "doc_2", "batch_id": "b_2" });
    let events =
        [event("evt_1", "acme", "a.b"), document.to_string().into_bytes(), event("evt_1", "bolt", "a.b")];
    app.amqp().await.publish_all(events.map(|event| ("a".to_owned(), event))).await;
    app.wait_for_dead(3, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_listed_by_filters_page_by_page_and_told_as_lives_each_tenant_its_own() {
    let app = App::new();
    let [operator, acme, bolt] = keys(&app).await;
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/a" { 503 } else { 404 })).await;
    let serve = app.serve("all").await;
    three_dead(&app, &receiver).await;
    let count =
        async |key: &str, query: &str| data(&get(&serve, key, &format!("/v1/deliveries{query}")).await).len();
    eventually("everything is in the log", 20, || async { count(&operator, "").await == 3 }).await;
    for (query, for_operator, for_acme) in [
        ("?event=evt_1", 2, 1),
        ("?document=doc_2", 1, 1),
        ("?batch=b_2", 1, 1),
        ("?type=a.c", 1, 1),
        ("?class=unavailable", 2, 2),
        ("?status=4xx", 1, 0),
        ("?what=dead&failures=true", 3, 2),
        ("?what=retry", 0, 0),
        ("?since=1h", 3, 2),
        ("?until=1h", 0, 0),
        ("?tenant=acme", 2, 2),
    ] {
        assert_eq!(count(&operator, query).await, for_operator, "{query}");
        assert_eq!(count(&acme, query).await, for_acme, "{query}");
    }
    // What no index finds is looked for within a day, and the answer says so.
    let since =
        async |query: &str| get(&serve, &acme, &format!("/v1/deliveries{query}")).await["since"].clone();
    for query in ["?event=evt_1", "?document=doc_2", "?subscription=sub_1"] {
        assert_eq!(since(query).await, Value::Null, "{query}");
    }
    let day_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    for query in ["", "?tenant=acme", "?batch=b_2", "?failures=true"] {
        let since: jiff::Timestamp = since(query).await.as_str().unwrap().parse().unwrap();
        assert!(since.duration_since(day_ago).abs() < jiff::SignedDuration::from_mins(5), "{query}: {since}");
    }
    assert_eq!(since("?since=2026-01-01T00:00:00Z").await, "2026-01-01T00:00:00.000Z");
    assert_eq!(count(&acme, "?what=answered").await, 0);

    let first = get(&serve, &operator, "/v1/deliveries?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = get(&serve, &operator, &format!("/v1/deliveries?limit=2&cursor={cursor}")).await;
    assert_eq!((data(&first).len(), data(&rest).len(), &rest["next_cursor"]), (2, 1, &Value::Null));
    assert!(data(&first)[0]["worker"].is_string());
    for bad in
        ["?status=x", "?since=yesterday", "?what=x", "?cursor=x", "?color=red", "?failures=1", "?limit=0"]
    {
        let problem = ask(serve.port, "GET", &format!("/v1/deliveries{bad}")).key(&operator).send().await;
        problem.problem(400);
    }

    let life = get(&serve, &bolt, "/v1/deliveries/evt_1").await;
    let [only] = data(&life).as_slice() else { panic!("one life: {life}") };
    assert_eq!((&only["tenant"], &only["type"]), (&json!("bolt"), &json!("a.b")));
    let delivery = &only["deliveries"][0];
    assert_eq!((&delivery["host"], &only["matched"][0]), (&json!("127.0.0.1"), &delivery["subscription"]));
    let entry = &delivery["entries"][0];
    assert_eq!(
        (&entry["what"], &entry["status"], &entry["cause"]),
        (&json!("dead"), &json!(404), &json!("there is nothing at this address of 127.0.0.1"))
    );
    assert!(
        entry["dead_letter"].as_str().unwrap().starts_with("dl_") && entry["worker"].is_null(),
        "{entry}"
    );
    assert_eq!(data(&get(&serve, &operator, "/v1/deliveries/evt_1").await).len(), 2, "one of each tenant");
    ask(serve.port, "GET", "/v1/deliveries/evt_2").key(&bolt).send().await.problem(404);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_count_each_tenant_its_own_and_take_the_filters_of_lists() {
    let app = App::new();
    let [operator, acme, _] = keys(&app).await;
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/a" { 503 } else { 404 })).await;
    let serve = app.serve("all").await;
    three_dead(&app, &receiver).await;
    let groups = async |key: &str, query: &str| {
        let page = get(&serve, key, &format!("/v1/dead-letters/groups{query}")).await;
        data(&page)
            .iter()
            .map(|group| (group["letters"].as_u64().unwrap(), group["status"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(groups(&operator, "").await, [(2, json!(503)), (1, json!(404))]);
    assert_eq!(groups(&acme, "").await, [(2, json!(503))]);
    assert_eq!(groups(&operator, "?class=not_found").await, [(1, json!(404))]);
    assert_eq!(groups(&operator, "?document=doc_2&since=1h").await, [(1, json!(503))]);
    assert_eq!(groups(&operator, "?limit=1").await.len(), 1);
    assert_eq!(groups(&operator, "?state=discarded").await, []);
    ask(serve.port, "GET", "/v1/dead-letters/groups?cursor=1").key(&operator).send().await.problem(400);
    for (filter, count) in [
        ("?host=127.0.0.1", 3),
        ("?class=unavailable", 2),
        ("?status=404", 1),
        ("?batch=b_2", 1),
        ("?type=a.b", 2),
        ("?since=1h&until=0s", 3),
    ] {
        let page = get(&serve, &operator, &format!("/v1/dead-letters{filter}")).await;
        assert_eq!(data(&page).len(), count, "{filter}");
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_a_job_that_serve_works_on_and_only_its_tenant_sees() {
    let app = App::new();
    let [operator, acme, bolt] = keys(&app).await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[once("acme", &receiver.url("/a")), once("bolt", &receiver.url("/b"))]).await;
    let events = (0..40)
        .map(|n| ("a".to_owned(), event(&format!("evt_{n}"), if n < 30 { "acme" } else { "bolt" }, "a")));
    app.amqp().await.publish_all(events).await;
    let open = async || app.json(&["store", "status"]).await[0]["dead_letters"].as_u64().unwrap();
    eventually("the letters are kept", 30, || async { open().await == 40 }).await;
    receiver.change(|_| Reply::status(204));
    let delivered = || receiver.hits().iter().filter(|hit| hit.status == 204).count();
    let post = async |key: &str, path: &str, body: Value| {
        ask(serve.port, "POST", path).key(key).json(&body).send().await
    };
    let begin = async |key: &str, body: Value| post(key, "/v1/dead-letters/replay", body).await;

    // More than one request could name: a tenant's filter is all of its own and nothing else.
    let every = json!({ "filter": { "class": "server_error", "since": "1h" }, "rate": 20 });
    let begun = begin(&acme, every).await.is(202);
    assert_eq!(begun["matched"], 30);
    let id = begun["replay"]["id"].to_string();
    let path = format!("/v1/replays/{id}");
    ask(serve.port, "GET", &path).key(&bolt).send().await.problem(404);
    for turn in ["pause", "resume", "cancel"] {
        post(&bolt, &format!("{path}/{turn}"), json!({})).await.problem(404);
    }
    assert!(data(&get(&serve, &bolt, "/v1/replays").await).is_empty());
    assert_eq!(data(&get(&serve, &operator, "/v1/replays").await).len(), 1);

    eventually("serve works on it", 20, || async { delivered() > 0 }).await;
    assert_eq!(post(&acme, &format!("{path}/pause"), json!({})).await.is(200)["state"], "paused");
    let waiting = get(&serve, &acme, &path).await["waiting"].as_u64().unwrap();
    assert!(waiting > 0);
    // Nothing of what waits there is sent by another.
    assert_eq!(begin(&acme, json!({ "filter": {} })).await.is(200)["matched"], 0);
    assert!(post(&acme, &format!("{path}/resume"), json!({})).await.is(200)["waiting"].as_u64().unwrap() > 0);
    eventually("it is done", 30, || async { get(&serve, &acme, &path).await["state"] == "done" }).await;
    eventually("every letter is delivered once", 20, || async { delivered() == 30 }).await;
    assert_eq!(open().await, 10, "those of the other tenant");
    post(&acme, &format!("{path}/cancel"), json!({})).await.problem(409);

    let audit = get(&serve, &acme, "/v1/audit").await;
    let line = data(&audit).iter().find(|line| line["action"] == "dead_letter.replay").unwrap().clone();
    assert_eq!((&line["object"], &line["tenant"]), (&json!(format!("replay {id}")), &json!("acme")));
    for bad in ["x", "0", "99", "99999999999999999999"] {
        ask(serve.port, "GET", &format!("/v1/replays/{bad}")).key(&operator).send().await.problem(404);
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_replays_keep_nobody_elses_waiting() {
    let app = App::new();
    let [operator, acme, bolt] = keys(&app).await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[once("acme", &receiver.url("/a")), once("bolt", &receiver.url("/b"))]).await;
    let slow =
        (0..160).map(|n| ("a".to_owned(), event(&format!("evt_{n}"), "acme", &format!("a.t{}", n % 4))));
    let quick = (160..170).map(|n| ("a".to_owned(), event(&format!("evt_{n}"), "bolt", "a.b")));
    app.amqp().await.publish_all(slow.chain(quick)).await;
    let open = async || app.json(&["store", "status"]).await[0]["dead_letters"].as_u64().unwrap();
    eventually("the letters are kept", 40, || async { open().await == 170 }).await;
    receiver.change(|_| Reply::status(204));
    let begin = async |key: &str, body: Value| {
        ask(serve.port, "POST", "/v1/dead-letters/replay").key(key).json(&body).send().await.is(202)
    };

    // As many as a process works on at once, of operators and of a tenant, a letter a second.
    for (n, key) in [&acme, &operator, &operator, &operator].into_iter().enumerate() {
        begin(key, json!({ "filter": { "type": format!("a.t{n}") }, "rate": 1 })).await;
    }
    let slow = async || {
        let jobs = get(&serve, &operator, "/v1/replays").await;
        data(&jobs).iter().filter(|job| job["rate"] == 1).cloned().collect::<Vec<_>>()
    };
    eventually("all are worked on", 20, || async {
        slow().await.iter().all(|job| job["sent"].as_u64().unwrap() > 0)
    })
    .await;
    let id = begin(&bolt, json!({ "filter": {} })).await["replay"]["id"].to_string();
    let path = format!("/v1/replays/{id}");
    eventually("its turn comes", 30, || async { get(&serve, &bolt, &path).await["state"] == "done" }).await;
    let slow = slow().await;
    assert_eq!(slow.len(), 4);
    assert!(slow.iter().all(|job| job["waiting"].as_u64().unwrap() > 0), "{slow:?}");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_need_a_log_that_is_kept() {
    let mut app = App::new();
    app.set("DELIVERY_LOG", "off");
    let serve = app.serve("api").await;
    let body = json!({ "filter": {}, "canary": 1 });
    let problem = ask(serve.port, "POST", "/v1/dead-letters/replay").json(&body).send().await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "canary");
    serve.stop().await;
}
