//! The HTTP API through its front door: events, subscriptions, dead letters, keys, tenants, limits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::api_subscriptions::theirs_is_new;
use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, ask, eventually};

pub(crate) const SUBSCRIPTIONS: &str = "/v1/subscriptions";

/// Makes a key by the command line.
pub(crate) async fn key(app: &App, arguments: &[&str]) -> String {
    app.migrate().await;
    let made = app.json(&[&["key", "create"], arguments].concat()).await.remove(0);
    made["key"].as_str().unwrap().to_owned()
}

pub(crate) fn one(id: &str) -> String {
    format!("{SUBSCRIPTIONS}/{id}")
}

pub(crate) fn id_of(document: &Value) -> String {
    document["id"].as_str().unwrap().to_owned()
}

/// The paths of a problem's errors.
pub(crate) fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

// ---- events ----------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_over_http_is_delivered_byte_for_byte() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["request"]["body"] = json!("event");
    app.subscribe(document).await;

    let body = br#" {"id":"evt_1","type":"a.b","tenant":"acme","data":{"n": 1.0e+2, "n":1}} "#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = ask(serve.port, "POST", "/v1/events")
        .header("traceparent", trace)
        .body("application/json", body)
        .send()
        .await;
    assert_eq!(answer.is(202), json!({ "id": "evt_1", "status": "published" }));
    let hit = receiver.wait_for(1, 10).await.remove(0);
    assert_eq!((hit.id(), hit.header("traceparent"), &hit.body[..]), ("evt_1", trace, &body[..]));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_batch_is_answered_and_only_good_ones_are_published() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let ndjson = async |text: String| {
        ask(serve.port, "POST", "/v1/events").body("application/x-ndjson", text.as_bytes()).send().await
    };

    let line = |id: &str| String::from_utf8(event(id, "acme", "a.b")).unwrap();
    let mixed = format!("{}\n\n{}\n{}", line("evt_1"), r#"{"id":"","type":"a.b"}"#, line("evt_2"));
    let answer = ndjson(mixed).await;
    assert_eq!((answer.status, answer.header("content-type")), (207, "application/x-ndjson"));
    let lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["line"].clone(), line["status"].clone())).collect();
    assert_eq!(
        told,
        [(json!(1), json!("published")), (json!(3), json!("invalid")), (json!(4), json!("published"))]
    );
    let error = lines[1]["error"].as_str().unwrap();
    assert!(error.contains("`id`") && error.contains("`tenant`"), "{error}");

    let many: String = (0..500).map(|number| line(&format!("many_{number}")) + "\n").collect();
    assert_eq!(ndjson(many).await.status, 202);
    let ids: BTreeSet<String> =
        receiver.wait_for(502, 30).await.iter().map(|hit| hit.id().to_owned()).collect();
    assert_eq!(ids.len(), 502);
    ndjson("\n \n".into()).await.problem(422);
    ndjson(format!("{}\n", line("x")).repeat(10_001)).await.problem(413);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_rabbitmq_did_not_confirm_is_not_called_published() {
    let mut app = App::new();
    app.ok(&["topology", "declare"]).await;
    // Nothing declares the binding again: what is published comes back.
    app.set("BROKER__DECLARE", "false");
    app.set("API__TIMEOUT_S", "1");
    let serve = app.serve("api").await;
    app.amqp().await.unbind_events().await;
    let body = event("evt_1", "acme", "a.b");
    let answer = ask(serve.port, "POST", "/v1/events").body("application/json", &body).send().await;
    answer.problem(503);
    assert!(!answer.header("retry-after").is_empty());
    let answer = ask(serve.port, "POST", "/v1/events").body("application/x-ndjson", &body).send().await;
    assert_eq!(answer.is(207)["status"], "failed");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_an_event_are_told_at_once_by_field() {
    let app = App::new();
    let serve = app.serve("api").await;
    let post = async |body: &str| {
        ask(serve.port, "POST", "/v1/events").body("application/json", body.as_bytes()).send().await
    };
    let problem = post(r#"{"id": "a b", "tenant": 7, "scope": []}"#).await.problem(422);
    assert_eq!(fields(&problem), ["id", "type", "tenant", "scope"]);
    assert_eq!(problem["errors"][0]["pointer"], "/id");
    for broken in ["", "{", "nul", "{\"id\":\"1\"} x"] {
        post(broken).await.problem(400);
    }
    for odd in ["[]", "1", "{\"id\":\"1\",\"id\":\"2\"}"] {
        post(odd).await.problem(422);
    }
    serve.stop().await;
}

// ---- dead letters ----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_sent_again_and_discarded() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["retry"] = json!({ "kind": "none" });
    app.subscribe(document).await;
    let amqp = app.amqp().await;
    for id in ["evt_1", "evt_2", "evt_3"] {
        amqp.publish("a.b", &event(id, "acme", "a.b"), lapin::BasicProperties::default()).await;
    }
    app.wait_for_dead(3, 20).await;
    let get = async |path: &str| ask(serve.port, "GET", &format!("/v1/dead-letters{path}")).send().await;
    let post = async |path: &str, body: Value| {
        ask(serve.port, "POST", &format!("/v1/dead-letters/{path}")).json(&body).send().await
    };

    let page = get("?limit=2&tenant=acme&reason=exhausted").await.is(200);
    let next = page["next_cursor"].as_str().unwrap().to_owned();
    let rest = get(&format!("?limit=2&cursor={next}")).await.is(200);
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    let id = id_of(&rest["data"][0]);
    assert_eq!(get(&format!("/{id}")).await.is(200)["history"][0]["seen"], "500");
    for missing in ["/dl_999999", "/dl_99999999999999999999", "/x", "/%00", "/%ff"] {
        get(missing).await.problem(404);
    }

    let dry = post("replay", json!({ "filter": { "event": "evt_1" }, "dry_run": true })).await.is(200);
    assert_eq!((&dry["matched"], &dry["replay"]), (&json!(1), &Value::Null));
    receiver.change(|_| Reply::status(204));
    let begun = post("replay", json!({ "ids": [id, id] })).await.is(202);
    assert_eq!((&begun["matched"], &begun["replay"]["waiting"]), (&json!(1), &json!(1)));
    receiver.wait_for(4, 20).await;
    let replay = format!("/v1/replays/{}", begun["replay"]["id"]);
    let state = async || ask(serve.port, "GET", &replay).send().await.is(200)["state"].clone();
    eventually("the replay is done", 20, || async { state().await == "done" }).await;
    post("replay", json!({ "ids": [id] })).await.problem(409);
    let none = post("replay", json!({ "filter": { "event": "evt_9" } })).await.is(200);
    assert_eq!((&none["matched"], &none["replay"]), (&json!(0), &Value::Null));

    let first = post("discard", json!({ "filter": {}, "limit": 1, "note": "spam" })).await.is(200);
    assert_eq!((&first["done"], &first["more"]), (&json!(1), &json!(true)));
    assert_eq!(post("discard", json!({ "filter": {} })).await.is(200)["more"], false);
    assert_eq!(get("?state=discarded").await.is(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(get("").await.is(200)["data"], json!([]));
    for bad in [
        json!({}),
        json!({ "ids": [], "filter": {} }),
        json!({ "ids": ["x"] }),
        json!({ "filter": { "color": 1 } }),
        json!({ "filter": { "kind": "x" } }),
        json!({ "filter": { "status": "50" } }),
        json!({ "filter": { "since": "yesterday" } }),
        json!({ "filter": { "reason": "\0" } }),
    ] {
        for action in ["replay", "discard"] {
            post(action, bad.clone()).await.problem(422);
        }
    }
    for (action, bad) in [("replay", "limit"), ("replay", "note"), ("discard", "rate"), ("discard", "canary")]
    {
        post(action, json!({ "filter": {}, bad: 1 })).await.problem(422);
    }
    post("discard", json!({ "filter": {}, "limit": 501 })).await.problem(422);
    post("replay", json!({ "filter": {}, "canary": 101 })).await.problem(422);
    serve.stop().await;
}

// ---- keys and tenants ------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_what_its_scopes_say_until_it_ends() {
    let app = App::new();
    let keys = [key(&app, &["--scopes", "read"]).await, key(&app, &["--scopes", "publish,write"]).await];
    let serve = app.serve("api").await;
    let get = async |key: &str| ask(serve.port, "GET", SUBSCRIPTIONS).key(key).send().await;
    let post = async |key: &str| {
        ask(serve.port, "POST", SUBSCRIPTIONS)
            .key(key)
            .json(&subscription("acme", "https://h.example"))
            .send()
            .await
    };
    get(&keys[0]).await.is(200);
    assert!(post(&keys[0]).await.problem(403)["detail"].as_str().unwrap().contains("`write`"));
    post(&keys[1]).await.is(201);
    get(&keys[1]).await.problem(403);

    // The last character but one holds five bits of the secret.
    let (start, end) = keys[0].split_at(keys[0].len() - 2);
    let almost = format!("{start}{}{}", if end.starts_with('a') { 'b' } else { 'a' }, &end[1..]);
    let other_id = format!("{}{}", &keys[0][..16], &keys[1][16..]);
    for wrong in ["", "x", &almost, &other_id, &keys[0][..16]] {
        let refused = get(wrong).await;
        refused.problem(401);
        assert!(refused.header("www-authenticate").starts_with("Bearer"), "{refused:?}");
    }
    ask(serve.port, "GET", &format!("{SUBSCRIPTIONS}?key={}", keys[0])).send().await.problem(401);

    app.ok(&["key", "revoke", &keys[0][..16]]).await;
    eventually("the key has ended", 10, async || get(&keys[0]).await.status == 401).await;
    serve.stop().await;
    let listed = app.json(&["key", "list"]).await;
    let state = |place: usize| {
        let mine = listed.iter().find(|row| keys[place].starts_with(row["id"].as_str().unwrap())).unwrap();
        (mine["state"].as_str().unwrap().to_owned(), mine["used_at"].is_string())
    };
    assert_eq!((state(0), state(1)), (("revoked".into(), true), ("good".into(), true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_as_hashes_only_and_never_shown_again() {
    let app = App::new();
    let text = key(&app, &["--tenant", "acme", "--expires", "12h", "--name", "upload"]).await;
    let secret = text.rsplit('_').next().unwrap().to_owned();
    let mut shown = vec![
        app.ok(&["key", "list"]).await,
        app.ok(&["key", "list", "--json"]).await,
        app.ok(&["audit", "list"]).await,
    ];
    for name in ["paperboy.db", "paperboy.db-wal"] {
        shown.push(String::from_utf8_lossy(&std::fs::read(app.path(name)).unwrap_or_default()).into_owned());
    }
    assert!(shown.iter().all(|text| !text.contains(&secret)));
    let refused = app.run(&["key", "revoke", &text]).await;
    assert!(!refused.status.success() && !String::from_utf8_lossy(&refused.stderr).contains(&secret));
    for bad in [
        ["--expires", "-1d"],
        ["--expires", "2020-01-01T00:00:00Z"],
        ["--scopes", "admin"],
        ["--tenant", "a b"],
    ] {
        assert_eq!(app.run(&["key", "create", bad[0], bad[1]]).await.status.code(), Some(2), "{bad:?}");
    }
}

/// Every operation of the document, tried with another tenant's key and this tenant's ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_gets_403_or_404_for_anothers_ids_at_every_operation() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["retry"] = json!({ "kind": "none" });
    let made = app.subscribe(document.clone()).await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), lapin::BasicProperties::default()).await;
    let letter = id_of(&app.wait_for_dead(1, 20).await[0]);
    let batch = "b_acme".to_owned();
    app.sql(
        "INSERT INTO batches (tenant, id, state, opened_ms, idle_ms, close_asked, documents, finished, late, scope,
         changed_ms) VALUES ('acme', 'b_acme', 'open', 0, 0, 0, 0, 0, 0, '{}', 9000000000000)",
    )
    .await;
    let bolt = key(&app, &["--tenant", "bolt"]).await;
    eventually("the key is known", 10, async || theirs_is_new(&serve, &bolt).await).await;
    // A replay of an operator, which nobody works on.
    app.ok(&["dead", "replay", &letter, "--detach"]).await;
    app.ok(&["dead", "jobs", "cancel", "1"]).await;
    let logged = async || app.run(&["deliveries", "show", "evt_1"]).await.status.success();
    eventually("its life is known to operators", 20, logged).await;
    let hits = receiver.count();

    let openapi = ask(serve.port, "GET", "/openapi.json").send().await.is(200);
    let mut tried = BTreeSet::new();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            let id = match path.split('/').nth(2).unwrap() {
                "dead-letters" => &letter,
                "batches" => &batch,
                "deliveries" => "evt_1",
                "replays" => "1",
                _ => &made.id,
            };
            let mut own_document = document.clone();
            own_document["id"] = json!(made.id);
            let mut nameless = document.clone();
            nameless.as_object_mut().unwrap().remove("tenant");
            nameless["id"] = json!(made.id);
            let bodies = match name.as_str() {
                "publishEvents" | "call" => vec![json!({ "id": "evt_2", "type": "a.b", "tenant": "acme" })],
                "createSubscription" => vec![document.clone(), own_document, nameless],
                "replaceSubscription" => vec![own_document, nameless],
                "changeSubscription" => {
                    vec![json!({}), json!({ "tenant": "acme" }), json!({ "tenant": "bolt" }), json!([])]
                }
                "testSubscription" => {
                    vec![json!({}), json!({ "event": { "id": "e", "type": "a.b", "tenant": "acme" } })]
                }
                "openBatch" => {
                    vec![json!({ "tenant": "acme", "id": batch }), json!({ "tenant": "acme" })]
                }
                "rotateSecret" => vec![json!({}), json!({ "overlap_s": -1 })],
                "replayDeadLetters" => vec![
                    json!({ "ids": [letter] }),
                    json!({ "filter": { "tenant": "acme" } }),
                    json!({ "filter": { "tenant": "acme" }, "dry_run": true }),
                    json!({ "filter": {}, "subscription": made.id }),
                ],
                "discardDeadLetters" => {
                    vec![json!({ "ids": [letter] }), json!({ "filter": { "tenant": "acme" } })]
                }
                _ => vec![Value::Null],
            };
            if name == "listReplays" {
                // Takes no tenant: it is tried below.
                continue;
            }
            let is_list = method == "get" && !path.contains("{id}");
            let path = path.replace("{id}", id);
            let path = if is_list { format!("{path}?tenant=acme") } else { path };
            for body in bodies {
                let mut request = ask(serve.port, &method.to_uppercase(), &path).key(&bolt);
                if !body.is_null() {
                    request = request.json(&body);
                }
                let answer = request.send().await;
                assert!([403, 404].contains(&answer.status), "{name} with {body}: {answer:?}");
                assert!(!answer.body.contains(&receiver.url("/x")), "{answer:?}");
            }
            tried.insert(name);
        }
    }
    assert!(tried.len() >= 14, "{tried:?}");
    // As lines too; and what names nobody's tenant shows nothing of others.
    let line = event("evt_2", "acme", "a.b");
    ask(serve.port, "POST", "/v1/events")
        .key(&bolt)
        .body("application/x-ndjson", &line)
        .send()
        .await
        .problem(403);
    let lists = [
        SUBSCRIPTIONS,
        "/v1/batches",
        "/v1/dead-letters",
        "/v1/dead-letters?state=all",
        "/v1/dead-letters/groups",
        "/v1/deliveries",
        "/v1/deliveries?event=evt_1",
        "/v1/replays",
    ];
    for list in lists {
        assert_eq!(ask(serve.port, "GET", list).key(&bolt).send().await.is(200)["data"], json!([]), "{list}");
    }
    let audit = ask(serve.port, "GET", "/v1/audit").key(&bolt).send().await.is(200);
    let lines = audit["data"].as_array().unwrap();
    assert!(lines.iter().all(|line| line["tenant"] == "bolt" && line["actor"] == "operator"), "{audit}");
    let every = json!({ "filter": {} });
    for action in ["replay", "discard"] {
        let done = ask(serve.port, "POST", &format!("/v1/dead-letters/{action}"))
            .key(&bolt)
            .json(&every)
            .send()
            .await;
        assert_eq!(done.is(200)["matched"], 0, "{action}");
    }
    // Nothing was sent, changed or decided.
    assert_eq!(receiver.count(), hits);
    assert_eq!(app.json(&["dead", "list"]).await.len(), 1);
    assert_eq!(app.json(&["subscription", "list"]).await.len(), 1);
    let batches = app.json(&["batch", "list"]).await;
    assert_eq!((batches.len(), &batches[0]["close_asked"]), (1, &json!(false)));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_key_stands_for_its_tenant() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let acme = key(&app, &["--tenant", "acme"]).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document.as_object_mut().unwrap().remove("tenant");
    let made = ask(serve.port, "POST", SUBSCRIPTIONS)
        .key(&acme)
        .header("prefer", "wait")
        .json(&document)
        .send()
        .await
        .is(201);
    assert_eq!(made["tenant"], "acme");
    let body = br#"{"id":"evt_1","type":"a.b","data":[1.00]}"#;
    let published =
        ask(serve.port, "POST", "/v1/events").key(&acme).body("application/json", body).send().await;
    published.is(202);
    let hit = receiver.wait_for(1, 10).await.remove(0);
    assert!(String::from_utf8_lossy(&hit.body).ends_with(r#""tenant":"acme","data":[1.00]}"#), "{hit:?}");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_only_this_machine_may_ask() {
    let mut app = App::new();
    let serve = app.serve("api").await;
    let get = || ask(serve.port, "GET", SUBSCRIPTIONS);
    get().send().await.is(200);
    get().header("host", "evil.example").send().await.problem(403);
    get().header("origin", "https://evil.example").send().await.problem(403);
    get().key("made-up").send().await.problem(401);
    // The first key closes the door to those who have none, and so it stays when it is revoked.
    let first = key(&app, &[]).await;
    eventually("the door is closed", 10, async || get().send().await.status == 401).await;
    get().key(&first).send().await.is(200);
    app.ok(&["key", "revoke", &first[..16]]).await;
    eventually("the key has ended", 10, async || get().key(&first).send().await.status == 401).await;
    get().send().await.problem(401);
    serve.stop().await;

    app.set("API__KEYS", "an-operators-key-of-the-configuration");
    let serve = app.serve("api").await;
    ask(serve.port, "GET", SUBSCRIPTIONS).key("an-operators-key-of-the-configuration").send().await.is(200);
    ask(serve.port, "GET", SUBSCRIPTIONS)
        .key("an-operators-key-of-the-configuratioN")
        .send()
        .await
        .problem(401);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_nothing_is_served_until_there_is_a_key() {
    let app = App::new();
    app.migrate().await;
    let port = crate::support::free_port();
    let mut child = app
        .command(&["serve", "--role", "api"])
        .env("PAPERBOY__API__LISTEN", format!("0.0.0.0:{port}"))
        .spawn()
        .unwrap();
    eventually("it listens", 30, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    let get = || ask(port, "GET", SUBSCRIPTIONS);
    let problem = get().send().await.problem(403);
    assert!(problem["hint"].as_str().unwrap().contains("paperboy key create"));
    let made = key(&app, &[]).await;
    eventually("the key is known", 10, async || get().key(&made).send().await.status == 200).await;
    get().send().await.problem(401);
    child.kill().await.unwrap();
}

// ---- the audit -------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn every_change_leaves_a_line_that_says_who_and_holds_no_secret() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let operator = key(&app, &["--name", "deploy"]).await;
    let serve = app.serve("all").await;
    let port = serve.port;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["auth"] = json!({ "kind": "bearer", "token": "canary-token" });
    document["retry"] = json!({ "kind": "none" });
    let made = ask(port, "POST", SUBSCRIPTIONS)
        .key(&operator)
        .header("prefer", "wait")
        .json(&document)
        .send()
        .await
        .is(201);
    let id = id_of(&made);
    let patch = json!({ "name": "ERP", "auth": { "kind": "bearer", "token": "canary-2" } });
    ask(port, "PATCH", &one(&id)).key(&operator).json(&patch).send().await.is(200);
    let rotated = app.json(&["subscription", "rotate-secret", &id]).await.remove(0);
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), lapin::BasicProperties::default()).await;
    let letter = id_of(&app.wait_for_dead(1, 20).await[0]);
    app.ok(&["dead", "discard", &letter, "--yes"]).await;
    app.ok(&["subscription", "disable", &id]).await;
    ask(port, "POST", "/v1/dead-letters/replay")
        .key(&operator)
        .json(&json!({ "ids": [letter] }))
        .send()
        .await
        .is(202);
    ask(port, "DELETE", &one(&id)).key(&operator).send().await.is(204);

    let lines = app.json(&["audit", "list", "--since", "1h"]).await;
    let told: Vec<(String, bool)> = lines
        .iter()
        .rev()
        .map(|line| {
            let by_key = line["actor"] == format!("operator:{}", &operator[..16]);
            assert!(by_key || line["actor"].as_str().unwrap().starts_with("cli:"), "{line}");
            (line["action"].as_str().unwrap().to_owned(), by_key)
        })
        .collect();
    let expected = [
        ("key.create", false),
        ("subscription.create", true),
        ("subscription.change", true),
        ("subscription.rotate_secret", false),
        ("dead_letter.discard", false),
        ("subscription.disable", false),
        ("dead_letter.replay", true),
        ("subscription.remove", true),
    ];
    assert_eq!(told, expected.map(|(action, by_key)| (action.to_owned(), by_key)));
    let change = lines.iter().find(|line| line["action"] == "subscription.change").unwrap();
    assert_eq!((&change["detail"]["fields"], &change["object"]), (&json!(["auth", "name"]), &json!(id)));
    let text = json!(lines).to_string();
    for secret in ["canary-", made["secret"].as_str().unwrap(), rotated["secret"].as_str().unwrap()] {
        assert!(!text.contains(secret));
    }
    assert_eq!(app.json(&["audit", "list", "--tenant", "acme"]).await.len(), 7);
    assert_eq!(app.json(&["audit", "list", "--limit", "2"]).await.len(), 2);
    let page =
        ask(port, "GET", &format!("/v1/audit?object={id}&limit=2")).key(&operator).send().await.is(200);
    assert_eq!((page["data"].as_array().unwrap().len(), page["next_cursor"].is_string()), (2, true));
    serve.stop().await;
}

// ---- the command line over the API -----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn an_export_over_the_api_goes_on_beyond_a_page() {
    const LETTERS: usize = 501;
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["retry"] = json!({ "kind": "none" });
    app.migrate().await;
    app.subscribe(document).await;
    let serve = app.serve("all").await;
    let events = (0..LETTERS).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), "acme", "a.b")));
    app.amqp().await.publish_all(events).await;
    let listed = || async { app.json(&["dead", "list", "--limit", "1000"]).await.len() };
    eventually("all are dead letters", 60, || async { listed().await == LETTERS }).await;
    let api = format!("http://127.0.0.1:{}", serve.port);
    let exported = app.json(&["dead", "export", "--api", &api]).await;
    let ids: BTreeSet<&str> = exported.iter().map(|letter| letter["event"].as_str().unwrap()).collect();
    assert_eq!((exported.len(), ids.len()), (LETTERS, LETTERS));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_the_api_do_what_they_do_here() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let acme = key(&app, &["--tenant", "acme"]).await;
    let serve = app.serve("all").await;
    let url = format!("http://127.0.0.1:{}", serve.port);
    // Far from the store: another folder, no settings but the address and the key.
    let far = App::new();
    let run = async |arguments: &[&str], input: &str| {
        let mut command = far.command(arguments);
        command.env_clear().env("PAPERBOY_API", &url).env("PAPERBOY_API_KEY", &acme);
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        child.wait_with_output().await.unwrap()
    };
    let json = async |arguments: &[&str], input: &str| -> Vec<Value> {
        let output = run(&[arguments, &["--json"]].concat(), input).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let mut document = subscription("acme", &receiver.url("/x"));
    document["retry"] = json!({ "kind": "none" });
    let made = json(&["subscription", "add", "--file", "-"], &document.to_string()).await.remove(0);
    let id = id_of(&made);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    json(&["subscription", "update", &id, "--name", "ERP"], "").await;
    assert_eq!(json(&["subscription", "show", &id], "").await[0]["name"], "ERP");
    assert_eq!(json(&["subscription", "list"], "").await.len(), 1);
    let rotated = json(&["subscription", "rotate-secret", &id], "").await;
    assert!(rotated[0]["secret"].is_string());
    let tested = run(&["subscription", "test", &id], "").await;
    assert_eq!(tested.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&tested.stdout).contains("< status 500"));

    let events = "{\"id\":\"evt_1\",\"type\":\"a.b\"}\n{\"id\":\"evt_2\",\n\"type\":\"a.b\"}\n{\"id\":\"evt_3\",\"type\":\"a.b\"}";
    let published = json(&["publish", "-"], events).await;
    assert_eq!(published.len(), 3);
    app.wait_for_dead(3, 20).await;
    let dead = json(&["dead", "list", "--limit", "2"], "").await;
    assert_eq!(dead.len(), 2);
    assert_eq!(json(&["dead", "show", &id_of(&dead[0])], "").await[0]["tenant"], "acme");
    for (filter, count) in [
        (["--host", "127.0.0.1"].as_slice(), 3),
        (&["--class", "server_error"], 3),
        (&["--status", "5xx", "--since", "1h"], 3),
        (&["--type", "b"], 0),
        (&["--until", "1h"], 0),
    ] {
        let listed = json(&[&["dead", "list"], filter].concat(), "").await;
        assert_eq!(listed.len(), count, "{filter:?}");
    }
    let groups = json(&["dead", "groups"], "").await;
    assert_eq!((groups.len(), &groups[0]["letters"]), (1, &serde_json::json!(3)));
    assert_eq!(json(&["dead", "export"], "").await.len(), 3);
    receiver.change(|_| Reply::status(204));
    let first = id_of(&dead[0]);
    assert_eq!(json(&["dead", "replay", &first], "").await[0]["replayed"], 1);
    assert_eq!(json(&["dead", "jobs"], "").await[0]["state"], "done");
    let paused = run(&["dead", "jobs", "pause", "1"], "").await;
    assert_eq!(paused.status.code(), Some(1));
    let event = dead[0]["event"].as_str().unwrap().to_owned();
    let told = async || {
        let output = run(&["deliveries", "show", &event], "").await;
        String::from_utf8(output.stdout).unwrap()
    };
    eventually("its life is told", 20, || async { told().await.contains(": delivered") }).await;
    let here = app.ok(&["deliveries", "show", &event]).await;
    assert_eq!(told().await, here, "as it is told here");
    let rows = json(&["deliveries", "list", "--failures", "--limit", "2"], "").await;
    assert_eq!((rows.len(), &rows[0]["worker"]), (2, &Value::Null));
    let refused = run(&["dead", "discard", &first, "--host", "127.0.0.1", "--yes"], "").await;
    assert_eq!(refused.status.code(), Some(2), "a filter narrows nothing that is named");
    let dry = json(&["dead", "discard", "--all", "--dry-run"], "").await;
    assert_eq!(dry, [json!({ "dry_run": true, "matched": 2 })]);
    assert_eq!(json(&["dead", "discard", "--all", "--yes"], "").await[0]["discarded"], 2);
    json(&["subscription", "disable", &id], "").await;
    json(&["subscription", "remove", &id, "--yes"], "").await;
    assert!(app.json(&["subscription", "list"]).await.is_empty());

    let told =
        |output: std::process::Output| (output.status.code(), String::from_utf8(output.stderr).unwrap());
    let (code, error) = told(run(&["subscription", "show", &id], "").await);
    assert!(code == Some(1) && error.contains("there is no subscription"), "{error}");
    let bad = json!({ "events": ["a..b"], "request": { "url": "ftp://x" } }).to_string();
    let (code, error) = told(run(&["subscription", "add", "--file", "-"], &bad).await);
    assert!(code == Some(2) && error.contains("`events[0]`") && error.contains("`request.url`"), "{error}");
    let (code, error) = told(run(&["subscription", "import", "x"], "").await);
    assert!(code == Some(2) && error.contains("does not go over the API"), "{error}");
    let (code, error) = told(run(&["store", "status", "--api", &url], "").await);
    assert!(code == Some(2) && error.contains("`--api` is for"), "{error}");
    serve.stop().await;
    let (code, error) = told(run(&["dead", "list"], "").await);
    assert!(code == Some(1) && error.contains("cannot be asked"), "{error}");
}

// ---- the document ----------------------------------------------------------------------------------

/// Every example of the OpenAPI document is good for what it stands at.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_document_work() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("api").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let openapi = ask(serve.port, "GET", "/openapi.json").send().await.is(200);
    let committed =
        std::fs::read_to_string(crate::support::document::root().join("docs/openapi.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&committed).unwrap(), openapi);
    let mut count = 0;
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten()
            {
                for (name, example) in content["examples"].as_object().into_iter().flatten() {
                    let value = &example["value"];
                    let body = value.as_str().map_or(value.to_string(), str::to_owned);
                    let query = example["description"].as_str().and_then(|text| text.split('`').nth(1));
                    let path = path.replace("{id}", &made.id) + query.unwrap_or_default();
                    let answer = ask(serve.port, &method.to_uppercase(), &path)
                        .body(media_type, body.as_bytes())
                        .send()
                        .await;
                    let replaces_url = operation["operationId"] == "testSubscription";
                    assert!((200..300).contains(&answer.status) || replaces_url, "{path} {name}: {answer:?}");
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 10, "{count} examples");
    serve.stop().await;
}
