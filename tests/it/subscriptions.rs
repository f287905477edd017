//! Subscriptions changed, imported, tried out and given new secrets, as an operator does it.

use std::process::Output;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::failure::{USAGE, WORLD};
use crate::support::{App, Receiver, Reply, eventually, free_port};

/// A store to write to, and nothing that runs.
async fn migrated() -> App {
    let app = App::new();
    app.migrate().await;
    app
}

async fn shown(app: &App, id: &str) -> Value {
    app.json(&["subscription", "show", id]).await.remove(0)
}

/// A change given as a document; what the command says of it.
async fn update(app: &App, id: &str, patch: &Value) -> Value {
    let arguments = ["subscription", "update", id, "--file", "-", "--json"];
    serde_json::from_str(&app.ok_with_input(&arguments, &patch.to_string()).await).unwrap()
}

async fn import(app: &App, documents: &Value, flags: &[&str]) -> Vec<Value> {
    let arguments = [&["subscription", "import", "-", "--json"], flags].concat();
    let printed = app.ok_with_input(&arguments, &documents.to_string()).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn statuses(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["status"].as_str().unwrap()).collect()
}

fn errors(output: &Output, code: i32) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "a refused command wrote data");
    text.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect()
}

/// The place and the field that each error names.
fn fields(errors: &[String]) -> Vec<&str> {
    errors.iter().map(|error| error.rsplit_once("`: ").map_or("", |(field, _)| field)).collect()
}

// ---- update ------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_is_used_at_once() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/old"));
    document["request"]["headers"] = json!({ "X-Key": "s3cret", "X-Env": "live" });
    document["retry"] = json!({ "kind": "exponential", "max_attempts": 3 });
    let made = app.subscribe(document).await;
    let before = shown(&app, &made.id).await;

    app.ok(&["subscription", "update", &made.id, "--url", &receiver.url("/new"), "--name", "ERP"]).await;
    let patch = json!({ "retry": null, "request": { "headers": { "X-Key": "***", "X-Env": "test" } } });
    assert_eq!(update(&app, &made.id, &patch).await["status"], "updated");
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let hit = receiver.wait_for(1, 10).await.remove(0);
    assert_eq!((hit.path.as_str(), hit.header("x-key"), hit.header("x-env")), ("/new", "s3cret", "test"));
    assert!(hit.is_signed_with(&made.secret), "the secret is the one that was there");

    let after = shown(&app, &made.id).await;
    assert_ne!(after["updated_at"], before["updated_at"]);
    let mut expected = before;
    expected.as_object_mut().unwrap().remove("retry");
    expected["name"] = json!("ERP");
    expected["request"]["url"] = json!(receiver.url("/new"));
    expected["updated_at"] = after["updated_at"].clone();
    assert_eq!(after, expected);
    assert_eq!(update(&app, &made.id, &after).await["status"], "unchanged");
    assert_eq!(shown(&app, &made.id).await, after);
    serve.stop().await;
}

#[tokio::test]
async fn an_update_tells_every_fault_and_then_changes_nothing() {
    let app = migrated().await;
    let id = app.subscribe(subscription("acme", "https://h.example/x")).await.id;
    let before = shown(&app, &id).await;
    let refused = async |patch: Value| {
        let arguments = ["subscription", "update", &id, "--file", "-"];
        errors(&app.run_with_input(&arguments, &patch.to_string()).await, USAGE)
    };
    let patch = json!({
        "id": "sub_other", "tenant": "other", "evnts": ["#"], "request": { "url": 7, "headers": { "X-A": 1 } },
    });
    assert_eq!(
        fields(&refused(patch).await),
        ["`id", "`tenant", "`evnts", "`request.headers.X-A", "`request.url"]
    );
    let patch = json!({
        "tenant": "other", "events": [], "request": { "url": "ftp://h", "headers": { "Host": "h", "X-A": "***" } },
        "auth": { "kind": "bearer", "token": "***" }, "signatures": [{ "scheme": "standard", "secrets": ["***", "***"] }],
    });
    assert_eq!(
        fields(&refused(patch).await),
        [
            "`tenant",
            "`events",
            "`request.url",
            "`request.headers.Host",
            "`request.headers.X-A",
            "`auth.token",
            "`signatures[0].secrets[1]"
        ]
    );
    let url = ["subscription", "update", &id, "--url", "nope"];
    assert_eq!(fields(&errors(&app.run(&url).await, USAGE)), ["`request.url"]);
    assert_eq!(
        errors(&app.run(&["subscription", "update", &id]).await, USAGE),
        ["there is nothing to change"]
    );
    let two = json!([{}, {}]);
    assert_eq!(refused(two).await, ["`-` holds 2 documents instead of one"]);
    let nobody = app.run(&["subscription", "update", "sub_none", "--name", "x"]).await;
    assert_eq!(errors(&nobody, WORLD), ["there is no subscription `sub_none`"]);
    assert_eq!(shown(&app, &id).await, before);
}

/// Each process reads, changes and writes by itself; the store lets one of two through and tells the other.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_overwrites_another_unseen() {
    const UPDATES: usize = 8;
    let app = migrated().await;
    let id = app.subscribe(subscription("acme", "https://h.example/x")).await.id;
    let updates = (0..UPDATES).map(|n| {
        let (id, patch) = (id.clone(), json!({ "metadata": { format!("k{n}"): n } }).to_string());
        let app = &app;
        async move {
            let arguments = ["subscription", "update", &id, "--no-wait", "--file", "-"];
            app.run_with_input(&arguments, &patch).await
        }
    });
    let outputs = futures_util::future::join_all(updates).await;
    let metadata = shown(&app, &id).await["metadata"].as_object().cloned().unwrap_or_default();
    for (n, output) in outputs.iter().enumerate() {
        if output.status.success() {
            assert_eq!(metadata[&format!("k{n}")], n, "lost");
        } else {
            let told = format!("somebody else changed or removed subscription `{id}` meanwhile");
            assert_eq!(errors(output, WORLD), [told]);
            assert!(!metadata.contains_key(&format!("k{n}")));
        }
    }
    assert!(!metadata.is_empty());
}

// ---- import ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_file_is_imported_again_and_again() {
    let app = migrated().await;
    let url = "https://h.example/x";
    let mut named = subscription("acme", url);
    named["id"] = json!("sub_erp");
    named["auth"] = json!({ "kind": "bearer", "token": "s3cret-token" });
    let documents = json!([named, subscription("bolt", url)]);

    let dry = import(&app, &documents, &["--dry-run"]).await;
    assert_eq!(statuses(&dry), ["created", "created"]);
    assert_eq!(
        (&dry[0]["id"], &dry[1]["id"], &dry[0]["secret"]),
        (&json!("sub_erp"), &Value::Null, &Value::Null)
    );
    assert!(app.json(&["subscription", "list"]).await.is_empty());

    let first = import(&app, &documents, &[]).await;
    assert_eq!(statuses(&first), ["created", "created"]);
    assert!(first.iter().all(|line| line["secret"].as_str().unwrap().starts_with("whsec_")));
    app.ok(&["subscription", "disable", "sub_erp"]).await;
    let again = import(&app, &json!([named]), &[]).await;
    assert_eq!((statuses(&again), &again[0]["secret"]), (vec!["unchanged"], &Value::Null));

    named["events"] = json!(["document.*"]);
    let dry = import(&app, &json!([named]), &["--dry-run"]).await;
    assert_eq!(statuses(&dry), ["updated"]);
    assert_eq!(shown(&app, "sub_erp").await["events"], json!(["#"]));
    let before = shown(&app, "sub_erp").await;
    assert_eq!(statuses(&import(&app, &json!([named]), &[]).await), ["updated"]);
    let after = shown(&app, "sub_erp").await;
    assert_eq!(
        (&after["events"], &after["enabled"]),
        (&json!(["document.*"]), &json!(false)),
        "it stays disabled"
    );
    assert_eq!(after["signatures"], before["signatures"]);

    let all = Value::from(app.json(&["subscription", "list"]).await);
    assert_eq!(statuses(&import(&app, &all, &[]).await), ["unchanged", "unchanged"], "as it was shown");
    let toml = "[[subscriptions]]\nid = 'sub_erp'\ntenant = 'acme'\nevents = ['a.b']\nrequest = { url = 'https://h.example/y' }\n";
    std::fs::write(app.path("subscriptions.toml"), toml).unwrap();
    let told = app.ok(&["subscription", "import", "subscriptions.toml"]).await;
    assert_eq!(told, "updated sub_erp\n");
    assert_eq!(shown(&app, "sub_erp").await["auth"], Value::Null, "a whole document replaces");
}

#[tokio::test]
async fn an_import_writes_all_or_nothing_and_tells_every_fault() {
    let app = migrated().await;
    let mut there = subscription("acme", "https://h.example/x");
    there["id"] = json!("sub_there");
    app.subscribe(there.clone()).await;
    let mut moved = there.clone();
    moved["tenant"] = json!("other");
    moved["events"] = json!([]);
    let mut odd = subscription("acme", "https://h.example/x");
    odd["evnts"] = json!(["#"]);
    let documents = json!([
        subscription("acme", "https://h.example/new"),
        moved,
        odd,
        there,
        subscription("a b", "nope")
    ]);
    let output = app.run_with_input(&["subscription", "import", "-"], &documents.to_string()).await;
    assert_eq!(
        fields(&errors(&output, USAGE)),
        [
            "subscription 2: `tenant",
            "subscription 2: `events",
            "subscription 3: `evnts",
            "subscription 4: `id",
            "subscription 5: `tenant",
            "subscription 5: `request.url"
        ]
    );
    let all = app.json(&["subscription", "list"]).await;
    assert_eq!((all.len(), &all[0]["events"]), (1, &json!(["#"])));
}

#[tokio::test]
async fn unknown_fields_hide_no_other_documents_faults() {
    let app = migrated().await;
    let documents = json!([
        { "tenant": "acme", "events": ["#"], "request": { "url": "https://h.example" }, "scpoe": {} },
        { "tenant": "a b", "events": ["#"], "request": { "url": "https://h.example" } },
        { "tenant": 7, "events": ["#"], "request": { "url": "https://h.example" } },
    ]);
    let arguments = ["subscription", "add", "--file", "-"];
    let output = app.run_with_input(&arguments, &documents.to_string()).await;
    assert_eq!(
        fields(&errors(&output, USAGE)),
        ["subscription 1: `scpoe", "subscription 2: `tenant", "subscription 3: `tenant"]
    );
}

// ---- test --------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sends_one_marked_event_and_shows_both_sides() {
    let app = migrated().await;
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/ok/test_document" => Reply::status(201).body("thank you"),
        _ => Reply::status(500).body("bad key s3cret-header, bad token s3cret-token"),
    })
    .await;
    let mut good = subscription("acme", &receiver.url("/ok/:id"));
    good["events"] = json!(["document.*"]);
    good["scope"] = json!({ "inbox": ["i7", "i9"] });
    let mut bad = subscription("acme", &receiver.url("/bad"));
    bad["request"]["headers"] = json!({ "X-Key": "s3cret-header" });
    bad["auth"] = json!({ "kind": "bearer", "token": "s3cret-token" });
    let made = app.subscribe_all(&[good, bad]).await;

    let told = app.json(&["subscription", "test", &made[0].id, "--data", "{\"pages\":  3}"]).await.remove(0);
    let hit = receiver.wait_for(1, 1).await.remove(0);
    assert!(hit.is_signed_with(&made[0].secret));
    assert_eq!((hit.header("paperboy-test"), hit.header("paperboy-attempt")), ("1", "1"));
    assert!(hit.id().starts_with("test_") && told["event"] == hit.id(), "{told}");
    let body: Value = serde_json::from_slice(&hit.body).unwrap();
    assert_eq!((&body["type"], &body["scope"]), (&json!("document.test"), &json!({ "inbox": "i7" })));
    assert!(String::from_utf8_lossy(&hit.body).ends_with("\"data\":{\"pages\":  3}}"), "byte for byte");
    assert_eq!(told["delivered"], true);
    assert_eq!(
        (&told["request"]["method"], &told["request"]["url"]),
        (&json!("POST"), &json!(receiver.url("/ok/test_document")))
    );
    assert_eq!(told["request"]["headers"]["webhook-id"], hit.id());
    assert_eq!(told["request"]["body"], String::from_utf8_lossy(&hit.body).as_ref());
    assert_eq!((&told["answer"]["status"], &told["answer"]["body"]), (&json!(201), &json!("thank you")));

    let output = app.run(&["subscription", "test", &made[1].id]).await;
    let (data, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(WORLD));
    assert_eq!(error, "error: the test was not delivered: status 500\n");
    assert!(data.starts_with(&format!("> POST {}\n", receiver.url("/bad"))), "{data}");
    for line in
        ["> x-key: ***", "> authorization: ***", "< status 500 after ", "< bad key ***, bad token ***"]
    {
        assert!(data.contains(line), "`{line}` is missing:\n{data}");
    }
    assert!(!data.contains("s3cret"), "{data}");
    assert_eq!(receiver.count(), 2, "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sends_a_given_event_of_the_same_tenant_only() {
    let app = migrated().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut document = subscription("acme", &receiver.url("/{data./pages}"));
    document["request"]["body"] = json!("event");
    let id = app.subscribe(document).await.id;
    let given =
        json!({ "id": "evt_real", "type": "a.b", "tenant": "acme", "data": { "pages": 3 } }).to_string();
    let arguments = ["subscription", "test", &id, "--event", "-"];
    app.ok_with_input(&arguments, &given).await;
    let hit = receiver.wait_for(1, 1).await.remove(0);
    assert_eq!((hit.path.as_str(), hit.id(), hit.header("paperboy-test")), ("/3", "evt_real", "1"));
    assert_eq!(&hit.body[..], given.as_bytes());

    let foreign = given.replace("acme", "other");
    let output = app.run_with_input(&arguments, &foreign).await;
    assert_eq!(errors(&output, USAGE), ["the event is of tenant `other`"]);
    let output = app.run_with_input(&arguments, "[]").await;
    assert_eq!(errors(&output, USAGE), ["`--event` is not an event: not an object"]);
    let output = app.run(&["subscription", "test", &id, "--data", "{"]).await;
    assert!(errors(&output, USAGE)[0].starts_with("`--data` is not JSON: "));
    let output = app.run(&["subscription", "test", &id]).await;
    assert!(
        errors(&output, WORLD)[0].starts_with("the request cannot be built: the event has no `data./pages`")
    );
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_passes_the_address_guard_like_every_delivery() {
    let mut app = migrated().await;
    app.set("EGRESS__ALLOW", "");
    let canary = Receiver::start(|_| Reply::status(200)).await;
    let closed = format!("http://127.0.0.1:{}/", free_port());
    let made =
        app.subscribe_all(&[subscription("acme", &canary.url("/")), subscription("acme", &closed)]).await;
    let output = app.run(&["subscription", "test", &made[0].id, "--json"]).await;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["delivered"]), (Some(WORLD), &json!(false)));
    assert_eq!((&told["answer"]["status"], &told["answer"]["class"]), (&Value::Null, &json!("blocked")));
    assert_eq!(canary.count(), 0);
    app.set("EGRESS__ALLOW", "127.0.0.0/8");
    let output = app.run(&["subscription", "test", &made[1].id]).await;
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("the test was not delivered: connect\n"));
    app.ok(&["subscription", "disable", &made[0].id]).await;
    app.ok(&["subscription", "test", &made[0].id]).await;
}

// ---- rotate-secret -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_old_secret_signs_along_until_the_overlap_ends() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let amqp = app.amqp().await;
    let deliver = async |count: usize| {
        amqp.publish("a.b", &event(&format!("evt_{count}"), "acme", "a.b"), BasicProperties::default()).await;
        receiver.wait_for(count, 10).await.remove(count - 1)
    };
    let rotated = app.json(&["subscription", "rotate-secret", &made.id]).await.remove(0);
    let second = rotated["secret"].as_str().unwrap().to_owned();
    let hit = deliver(1).await;
    assert!(hit.is_signed_with(&made.secret) && hit.is_signed_with(&second));
    assert_eq!(hit.header("webhook-signature").split(' ').count(), 2);
    let until: jiff::Timestamp = rotated["old_until"].as_str().unwrap().parse().unwrap();
    let left_s = until.as_second() - jiff::Timestamp::now().as_second();
    assert!((86_300..=86_400).contains(&left_s), "{left_s}");

    // The end is judged at every attempt, by a worker that is told nothing more.
    let rotated = app.json(&["subscription", "rotate-secret", &made.id, "--overlap", "3s"]).await.remove(0);
    let third = rotated["secret"].as_str().unwrap().to_owned();
    let hit = deliver(2).await;
    assert!([&made.secret, &second, &third].iter().all(|secret| hit.is_signed_with(secret)), "three sign");
    let until: jiff::Timestamp = rotated["old_until"].as_str().unwrap().parse().unwrap();
    eventually("the overlap ends", 10, async || jiff::Timestamp::now() >= until).await;
    let hit = deliver(3).await;
    assert!(hit.is_signed_with(&third) && !hit.is_signed_with(&second) && !hit.is_signed_with(&made.secret));

    let shown = app.ok(&["subscription", "show", &made.id]).await;
    assert!(!shown.contains("whsec_") && shown.contains("retiring"), "{shown}");
    serve.stop().await;
}

#[tokio::test]
async fn a_secret_is_ended_at_once_only_when_told_so() {
    let app = migrated().await;
    let hmac = json!([{ "scheme": "hmac", "header": "X-S", "secrets": ["old"] }]);
    let with = |signatures: Value| {
        let mut document = subscription("acme", "https://h.example/x");
        document["signatures"] = signatures;
        document
    };
    let documents = [subscription("acme", "https://h.example/x"), with(hmac), with(json!([]))];
    let made = app.subscribe_all(&documents).await;
    let rotate = async |place: usize, more: &[&str]| {
        app.run(&[&["subscription", "rotate-secret", &made[place].id], more].concat()).await
    };
    let given = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let output = rotate(0, &["--overlap", "0", "--secret", given]).await;
    assert!(output.status.success() && output.stdout.is_empty(), "a given secret is not shown");
    let signatures = shown(&app, &made[0].id).await["signatures"].clone();
    assert_eq!(signatures, json!([{ "scheme": "standard", "secrets": ["***"] }]));

    let refused = [
        (0, vec!["--secret", given], "this secret is one of the subscription's already"),
        (0, vec!["--secret", "short"], "`signatures[0].secrets[0]`: is not base64"),
        (1, vec![], "scheme `hmac` sends one signature: its old secret cannot sign along"),
        (2, vec![], "the subscription is unsigned: there is no secret to rotate"),
    ];
    for (place, more, told) in refused {
        assert_eq!(errors(&rotate(place, &more).await, USAGE), [told]);
    }
    for overlap in ["8d", "1.5h", "24"] {
        assert_eq!(rotate(0, &["--overlap", overlap]).await.status.code(), Some(USAGE), "{overlap}");
    }
    let output = rotate(1, &["--overlap", "0"]).await;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.starts_with("secret: "), "{told}");
}
