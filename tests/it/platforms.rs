//! Platforms: their own configuration objects, their requests, their retries by the clock, over the whole program.

use std::time::Duration;

use data_encoding::HEXLOWER;
use lapin::BasicProperties;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{App, Hit, Receiver, Reply, eventually};

const UNIT: Duration = Duration::from_millis(20);
const ID: &str = "a7046a49-1fe0-483d-b220-cd93fe50a3a9";

fn event(id: &str, kind: &str, data: &Value) -> Vec<u8> {
    let time = "2026-02-03T09:00:07.120Z";
    json!({"id": id, "type": kind, "tenant": "acme", "time": time, "document_id": ID, "data": data})
        .to_string()
        .into_bytes()
}

/// Imports a platform's own object; the line it prints.
async fn import(app: &App, preset: &str, object: &Value) -> Value {
    std::fs::write(app.path("object.json"), object.to_string()).unwrap();
    let arguments = ["subscription", "import", "--preset", preset, "--tenant", "acme", "object.json"];
    app.json(&arguments).await.remove(0)
}

async fn publish(app: &App, kind: &str, id: &str, data: &Value) {
    app.amqp().await.publish(kind, &event(id, kind, data), BasicProperties::default()).await;
}

fn body(hit: &Hit) -> Value {
    serde_json::from_slice(&hit.body).unwrap_or_else(|error| panic!("{error}: {:?}", hit.body))
}

fn hex(algorithm: hmac::Algorithm, secret: &str, signed: &[u8]) -> String {
    HEXLOWER.encode(hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), signed).as_ref())
}

/// The waits between the attempts are at least these many units.
#[track_caller]
fn assert_waits(hits: &[Hit], units: &[u32]) {
    assert_eq!(hits.len(), units.len() + 1, "attempts");
    for (place, (pair, units)) in hits.windows(2).zip(units).enumerate() {
        let wait = pair[1].at - pair[0].at;
        assert!(wait >= UNIT * *units, "attempt {} came after {wait:?}, due after {units} units", place + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contractfits_webhook_object_sends_its_envelope_and_retries_ten_times_on_anything_but_200() {
    let app = App::new();
    // 410 and other successes are failures like any other here.
    let receiver =
        Receiver::start(|hit| Reply::status([201, 410, 302, 404, 500, 204, 500, 500, 500, 500][hit.nth - 1]))
            .await;
    let serve = app.serve("all").await;
    let target = receiver.url("/alfred/document_predict");
    let object = json!({"type": "webhook", "events": ["document_predict"], "target": target.trim_start_matches("http://"),
        "headers": {"Authorization": "Bearer abcdefg1234567989"}});
    let made = import(&app, "contractfit", &object).await;
    assert_eq!((made["not_taken"].as_array().unwrap().len(), made["secret"].is_null()), (0, true));
    publish(&app, "document.processed", "evt_cf", &json!({"id": "66f0", "page_count": 2})).await;

    let dead = app.wait_for_dead(1, 60).await;
    assert_eq!((dead[0]["reason"].as_str(), dead[0]["attempts"].as_u64()), (Some("exhausted"), Some(10)));
    let hits = receiver.hits();
    assert_waits(&hits, &[2, 4, 8, 16, 32, 64, 128, 256, 512]);
    assert!(
        hits.iter()
            .all(|hit| hit.method == "POST" && hit.header("authorization") == "Bearer abcdefg1234567989")
    );
    let envelope =
        r#"{"event":"document_predict","organization":"acme","data":{"id":"66f0","page_count":2}}"#;
    assert!(hits.iter().all(|hit| hit.body == envelope), "{:?}", hits[0].body);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invofox_retries_twice_on_anything_but_200_and_signs_with_the_chosen_algorithm() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/old" { 204 } else { 503 })).await;
    let serve = app.serve("all").await;
    let object = |path: &str| {
        json!({"method": "PUT", "url": receiver.url(path), "events": ["document.processed"],
        "headers": {"X-Mine": "1"}, "algorithm": "sha512", "secret": "nobody should know"})
    };
    import(&app, "invofox", &object("/old")).await;
    import(&app, "invofox-2", &object("/new")).await;
    publish(&app, "document.processed", "evt_inv", &json!({"_id": "67aa"})).await;

    let dead = app.wait_for_dead(2, 60).await;
    let mut attempts: Vec<u64> = dead.iter().map(|letter| letter["attempts"].as_u64().unwrap()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [3, 4]);
    let hits = receiver.hits();
    let (old, new): (Vec<Hit>, Vec<Hit>) = hits.into_iter().partition(|hit| hit.path == "/old");
    assert_waits(&old, &[1, 1]);
    assert_waits(&new, &[1, 1, 1]);
    for hit in old.iter().chain(&new) {
        assert_eq!(
            hit.header("x-invofox-signature"),
            hex(hmac::HMAC_SHA512, "nobody should know", &hit.body)
        );
        assert_eq!((hit.method.as_str(), hit.header("x-mine")), ("PUT", "1"));
    }
    // Unix milliseconds of the event, not of the attempt.
    assert_eq!(old[0].body, r#"{"type":"document.processed","data":{"_id":"67aa"},"time":1770109207120}"#);
    let (first, last) = (body(&new[0]), body(&new[3]));
    assert_eq!(
        (first["timestamp"].as_str(), first["version"].as_str()),
        (Some("2026-02-03T09:00:07.120Z"), Some("1.0"))
    );
    assert_eq!((first["id"].as_str().unwrap().len(), &first["id"]), (24, &last["id"]));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rossum_as_first_documented_retries_ten_times_above_400_and_never_what_is_interactive() {
    let app = App::new();
    let receiver =
        Receiver::start(|hit| Reply::status(if body(hit)["action"] == "changed" { 400 } else { 401 })).await;
    let serve = app.serve("all").await;
    let object = json!({"type": "webhook", "name": "Matching", "queues": [], "active": true,
        "events": ["annotation_content", "annotation_status.changed"],
        "config": {"url": receiver.url("/user_update"), "secret": "s3cret"}});
    let mut queued = object.clone();
    queued["queues"] = json!(["https://acme.rossum.app/api/v1/queues/8236"]);
    let disabled = import(&app, "rossum-seed", &object).await;
    assert_eq!(disabled["not_taken"][0]["field"], "queues");
    import(&app, "rossum-seed", &queued).await;
    let amqp = app.amqp().await;
    for kind in
        ["annotation_content.initialize", "annotation_content.user_update", "annotation_status.changed"]
    {
        for queue in ["8236", "99"] {
            let event = json!({"id": format!("evt_{kind}_{queue}"), "type": kind, "tenant": "acme",
                "scope": {"queue": queue}, "data": {"annotation": {"content": []}}});
            amqp.publish(kind, event.to_string().as_bytes(), BasicProperties::default()).await;
        }
    }

    let dead = app.wait_for_dead(2, 60).await;
    let mut ends: Vec<_> = dead
        .iter()
        .map(|letter| (letter["reason"].as_str().unwrap(), letter["attempts"].as_u64().unwrap()))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [("exhausted", 10), ("permanent", 1)], "a 400 is not retried");
    eventually("the interactive event is done with", 10, || async {
        serve.metric("paperboy_settled_total", "answered").await > 0.5
    })
    .await;
    let of = |action: &str| -> Vec<Hit> {
        receiver.hits().into_iter().filter(|hit| body(hit)["action"] == action).collect()
    };
    assert_waits(&of("initialize"), &[3; 9]);
    assert_eq!((of("user_update").len(), of("changed").len()), (1, 1), "only the hook's queue, and once");
    let sent = body(&of("initialize")[0]);
    assert_eq!(
        (sent["event"].as_str(), sent["annotation"]["content"].as_array().map(Vec::len)),
        (Some("annotation_content"), Some(0))
    );
    for hit in receiver.hits() {
        let expected = format!("sha1={}", hex(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, "s3cret", &hit.body));
        assert_eq!(hit.header("x-elis-signature"), expected);
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rossum_signs_in_both_its_ways_at_once_and_retries_the_six_codes_only() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/busy" { 503 } else { 401 })).await;
    let serve = app.serve("all").await;
    let document = |path: &str| {
        json!({"tenant": "acme", "preset": "rossum", "request": {"url": receiver.url(path)},
        "signatures": [{"scheme": "sha256", "secrets": ["This is very secret"]}, {"scheme": "sha1", "secrets": ["This is very secret"]}]})
    };
    app.subscribe_all(&[document("/busy"), document("/refuses")]).await;
    publish(&app, "annotation_content.export", "evt_r", &json!({"annotation": {}})).await;

    let dead = app.wait_for_dead(2, 60).await;
    assert!(dead.iter().any(|letter| letter["reason"] == "permanent" && letter["attempts"] == 1), "{dead:?}");
    let busy: Vec<Hit> = receiver.hits().into_iter().filter(|hit| hit.path == "/busy").collect();
    assert_waits(&busy, &[6; 4]);
    for hit in &busy {
        let sha256 = hex(hmac::HMAC_SHA256, "This is very secret", &hit.body);
        let sha1 = hex(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, "This is very secret", &hit.body);
        assert_eq!(hit.header("x-rossum-signature-sha256"), format!("sha256={sha256}"));
        assert_eq!(hit.header("x-elis-signature"), format!("sha1={sha1}"));
    }
    assert_eq!(body(&busy[0])["request_id"], body(&busy[4])["request_id"]);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ocrolus_sends_ids_signed_over_time_id_and_body_and_retries_three_times_180_units_apart() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(202)).await;
    let serve = app.serve("all").await;
    // A host without a domain is refused by the platform, so the preset's values are taken without its name.
    let preset = app.json(&["preset", "show", "ocrolus"]).await.remove(0);
    let (defaults, signer) = (&preset["subscription"], &preset["signers"][0]["settings"]);
    let mut signature = signer.clone();
    signature["secrets"] = json!(["sample_secret_1230ab"]);
    let url = receiver.url("/hook?x=1").replacen("http://", "http://user:pw@", 1);
    app.subscribe(json!({"tenant": "acme", "events": ["#"], "success": defaults["success"], "retry": defaults["retry"],
        "request": {"url": url, "body": "ocrolus", "timeout_s": defaults["request"]["timeout_s"]}, "signatures": [signature]}))
        .await;
    let id = "019d0c76-a902-7b75-8f9e-8694eae8a374";
    publish(&app, "book.verified", id, &json!({"book_uuid": "6b1f2c7e-0f5b-4a53-9a1c-2f6f0a1d9e11"})).await;

    let dead = app.wait_for_dead(1, 60).await;
    assert_eq!((dead[0]["reason"].as_str(), dead[0]["attempts"].as_u64()), (Some("exhausted"), Some(4)));
    let hits = receiver.hits();
    assert_waits(&hits, &[180; 3]);
    for hit in &hits {
        assert_eq!(
            hit.body,
            r#"{"event_name":"book.verified","book_uuid":"6b1f2c7e-0f5b-4a53-9a1c-2f6f0a1d9e11"}"#
        );
        assert_eq!(
            (hit.header("authorization"), hit.header("webhook-request-id")),
            ("Basic dXNlcjpwdw==", id)
        );
        let signed =
            [hit.header("webhook-timestamp").as_bytes(), b".", id.as_bytes(), b".", &hit.body].concat();
        assert_eq!(hit.header("webhook-signature"), hex(hmac::HMAC_SHA256, "sample_secret_1230ab", &signed));
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ocrolus_account_has_one_endpoint_which_is_set_up_or_updated() {
    let app = App::new();
    app.ok(&["store", "migrate"]).await;
    let object = |host: &str, events: Value| json!({"webhook_endpoint": format!("https://user:pw@{host}/hook"), "events": events});
    let first = import(&app, "ocrolus-account", &object("a.example.com", json!(["DOC_VERIFIED"]))).await;
    let second = import(&app, "ocrolus-account", &object("b.example.com", json!("BOOK_VERIFIED,NONE"))).await;
    assert_eq!((first["status"].as_str(), second["status"].as_str()), (Some("created"), Some("updated")));
    assert_eq!((&second["id"], second["not_taken"][0]["field"].as_str()), (&first["id"], Some("events[1]")));
    let listed = app.json(&["subscription", "list"]).await;
    assert_eq!((listed.len(), listed[0]["request"]["url"].as_str()), (1, Some("https://b.example.com/hook")));
    assert_eq!(
        listed[0]["events"],
        json!(["batch.completed", "book.verified", "BOOK_VERIFIED"]),
        "the list replaces"
    );
    let refused = app
        .run(&[
            "subscription",
            "import",
            "--preset",
            "ocrolus-account",
            "--tenant",
            "acme",
            "object.json",
            "--dry-run",
        ])
        .await;
    assert!(refused.status.success());

    std::fs::write(app.path("local.json"), object("localhost:5000", json!(["DOC_VERIFIED"])).to_string())
        .unwrap();
    let refused = app
        .run(&["subscription", "import", "--preset", "ocrolus-account", "--tenant", "other", "local.json"])
        .await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(told.contains("top-level domain"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_idexa_webhook_of_a_type_is_refused_and_names_the_one_to_remove() {
    let app = App::new();
    app.ok(&["store", "migrate"]).await;
    let object = json!({"name": "Webhook 1", "type": 0, "method": "POST", "url": "http://localhost:5000/ocr_feedback/:id"});
    let made = import(&app, "idexa", &object).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        (made["answer"]["id"].as_str(), made["answer"]["clientId"].as_str()),
        (Some(id), Some("acme"))
    );
    let add =
        json!({"tenant": "acme", "preset": "idexa", "name": "b", "request": {"url": "http://localhost/:id"}});
    std::fs::write(app.path("add.json"), add.to_string()).unwrap();
    for arguments in [
        &["subscription", "import", "--preset", "idexa", "--tenant", "acme", "object.json"][..],
        &["subscription", "add", "--file", "add.json"],
        &["subscription", "import", "add.json"],
    ] {
        let refused = app.run(arguments).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("subscription remove {id}")), "{told}");
    }
    app.ok(&["subscription", "remove", id, "--yes"]).await;
    import(&app, "idexa", &object).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_are_listed_and_shown_for_people_and_for_scripts() {
    let app = App::new();
    let listed = app.json(&["preset", "list"]).await;
    let names: Vec<&str> = listed.iter().map(|preset| preset["name"].as_str().unwrap()).collect();
    let expected = [
        "contractfit",
        "idexa",
        "invofox",
        "invofox-2",
        "ocrolus",
        "ocrolus-account",
        "rossum",
        "rossum-seed",
    ];
    assert_eq!(names, expected);
    let table = app.ok(&["preset", "list"]).await;
    assert!(expected.iter().all(|name| table.contains(name)), "{table}");
    for name in expected {
        let shown = app.ok(&["preset", "show", name]).await;
        assert!(shown.contains("retries") && shown.contains("THEIR EVENT"), "{shown}");
    }
    let unknown = app.run(&["preset", "show", "rosum"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("`rossum-seed`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_could_not_take_is_said_field_by_field_and_nothing_is_written_in_a_dry_run() {
    let app = App::new();
    app.ok(&["store", "migrate"]).await;
    let object = json!({"type": "webhook", "name": "h", "queues": ["8236"], "events": ["email.received"], "secrets": {"a": "canary"},
        "config": {"url": "https://h.example.com/x", "insecure_ssl": true, "schedule": {"cron": "* * * * *"}}});
    std::fs::write(app.path("hook.json"), object.to_string()).unwrap();
    let arguments =
        ["subscription", "import", "--preset", "rossum", "--tenant", "acme", "hook.json", "--dry-run"];
    let told = app.run(&arguments).await;
    let (out, error) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
    assert_eq!(out.trim(), "would create a subscription");
    for field in ["`config.insecure_ssl`", "`config.schedule`", "`secrets`"] {
        assert!(error.contains(field), "{error}");
    }
    assert!(!error.contains("canary"), "{error}");
    assert_eq!(app.json(&["subscription", "list"]).await.len(), 0);
    let nobody = app.run(&["subscription", "import", "--preset", "rossum", "hook.json"]).await;
    assert_eq!(nobody.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_of_a_preset_is_exported_and_imported_without_a_change() {
    let app = App::new();
    app.ok(&["store", "migrate"]).await;
    let url = "https://erp.example.com/ocr/:id";
    let login = json!({"name": "Webhook 1", "type": 0, "method": "GET", "url": url, "authorizationUrl": "https://erp.example.com/login",
        "authorizationBody": {"username": "root", "password": "canary-of-the-login"}, "authorizationHeaders": {"X-Key": "canary"}});
    import(&app, "idexa", &login).await;
    for preset in app.json(&["preset", "list"]).await {
        let name = preset["name"].as_str().unwrap();
        app.subscribe(json!({"tenant": name, "preset": name, "name": "ERP", "request": {"url": url}})).await;
    }
    let listed = app.ok(&["subscription", "list", "--json"]).await;
    assert!(!listed.contains("canary"), "{listed}");
    let all = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = all.into_iter().find(|line| line["tenant"] == "acme").unwrap();
    assert_eq!(
        (&first["auth"]["body"], &first["auth"]["headers"]["X-Key"]),
        (&json!("***"), &json!("***")),
        "{first}"
    );
    let printed = app.ok_with_input(&["subscription", "import", "-", "--json"], &listed).await;
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 9);
    assert!(lines.iter().all(|line| line["status"] == "unchanged"), "{printed}");
}
