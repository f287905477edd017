//! Deliveries that log in first: tokens are fetched, used for their life, fetched again, shared, and never in clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::event;
use crate::support::{App, Hit, Receiver, Reply, eventually};

/// A login and what it guards, as in a platform's own example: tokens end whenever `expire` is called.
struct Guarded {
    receiver: Receiver,
    logins: Arc<AtomicUsize>,
    valid: Arc<AtomicUsize>,
}

impl Guarded {
    async fn start() -> Guarded {
        let (logins, valid) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
        let (counted, good) = (Arc::clone(&logins), Arc::clone(&valid));
        let receiver = Receiver::start(move |hit| answer(hit, &counted, &good)).await;
        Guarded { receiver, logins, valid }
    }

    /// No token given so far is taken any longer.
    fn expire(&self) {
        self.valid.store(self.logins.load(SeqCst) + 1, SeqCst);
    }

    fn deliveries(&self) -> Vec<Hit> {
        self.receiver.hits().into_iter().filter(|hit| hit.path != "/login").collect()
    }

    fn delivered(&self) -> Vec<Hit> {
        self.deliveries().into_iter().filter(|hit| hit.status == 200).collect()
    }

    async fn wait_for_delivered(&self, count: usize) {
        eventually(&format!("{count} deliveries"), 20, || async { self.delivered().len() >= count }).await;
    }
}

fn answer(hit: &Hit, logins: &AtomicUsize, valid: &AtomicUsize) -> Reply {
    if hit.path == "/login" {
        let is_form = hit.header("content-type") == "application/x-www-form-urlencoded";
        if hit.method != "POST" || !is_form || hit.body != "password=root&username=root" {
            return Reply::status(400);
        }
        let number = logins.fetch_add(1, SeqCst) + 1;
        return Reply::status(200).body(format!(r#"{{"access_token":"tok-canary-{number}"}}"#));
    }
    let number = hit
        .header("authorization")
        .strip_prefix("Bearer tok-canary-")
        .and_then(|text| text.parse::<usize>().ok());
    let is_good = number.is_some_and(|number| number >= valid.load(SeqCst));
    // A receiver that sends back what it was sent.
    Reply::status(if is_good { 200 } else { 401 }).body(format!("refused {}", hit.header("authorization")))
}

fn idexa(receiver: &Receiver, method: &str) -> Value {
    json!({
        "name": "Webhook 1", "type": 0, "method": method, "headers": {"Content-Type": "application/json"},
        "headerAuth": "Bearer", "url": receiver.url("/ocr_feedback/:id"), "authorization": null,
        "authorizationUrl": receiver.url("/login"), "authorizationMethod": "POST",
        "authorizationHeaders": {"Content-Type": "application/x-www-form-urlencoded"},
        "authorizationBody": {"username": "root", "password": "root"},
        "authorizationResponseTokenAttr": "access_token",
    })
}

async fn import(app: &App, object: &Value, tenant: &str) -> Value {
    std::fs::write(app.path("object.json"), object.to_string()).unwrap();
    app.json(&["subscription", "import", "--preset", "idexa", "--tenant", tenant, "object.json"])
        .await
        .remove(0)
}

/// What lies in Redis under the names of tokens.
async fn shared_tokens(app: &App) -> Vec<Vec<u8>> {
    let client = redis::Client::open(app.setting("REDIS__URL")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:token:*", app.prefix)).query_async(&mut connection).await.unwrap();
    let mut values = Vec::new();
    for key in keys {
        values.push(redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap());
    }
    values
}

fn document(tenant: &str, n: usize) -> Vec<u8> {
    json!({"id": format!("evt_{tenant}_{n}"), "type": "document.processed", "tenant": tenant, "document_id": format!("doc {n}"),
        "data": {"id": format!("doc {n}"), "status": 1}})
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn idexas_example_logs_in_calls_and_logs_in_again_where_a_token_ends_in_the_middle() {
    let app = App::new();
    let guarded = Guarded::start().await;
    let serve = app.serve("all").await;
    let methods = ["POST", "PUT", "GET", "DELETE"];
    for method in methods {
        let made = import(&app, &idexa(&guarded.receiver, method), method).await;
        assert_eq!(made["not_taken"], json!([]));
        assert!(!made.to_string().contains("root"), "credentials are not shown back: {made}");
    }
    let amqp = app.amqp().await;
    for method in methods {
        amqp.publish("x", &document(method, 1), BasicProperties::default()).await;
    }
    guarded.wait_for_delivered(4).await;
    assert_eq!(guarded.logins.load(SeqCst), 1, "one login for all who log in alike");
    guarded.expire();
    for method in methods {
        amqp.publish("x", &document(method, 2), BasicProperties::default()).await;
    }
    guarded.wait_for_delivered(8).await;
    assert_eq!(guarded.logins.load(SeqCst), 2, "one more for all when the token has ended");

    for hit in guarded.delivered() {
        let has_body = ["POST", "PUT"].contains(&hit.method.as_str());
        assert_eq!(hit.path, format!("/ocr_feedback/doc%20{}", if hit.id().ends_with('1') { 1 } else { 2 }));
        assert!(hit.id().contains(&format!("_{}_", hit.method)), "{} by {}", hit.id(), hit.method);
        assert_eq!(hit.body.is_empty(), !has_body, "{}", hit.method);
        // A refused token is no attempt of its own.
        assert_eq!(hit.header("paperboy-attempt"), "1");
        if has_body {
            let body: Value = serde_json::from_slice(&hit.body).unwrap();
            assert_eq!(body["status"], 1, "the document alone");
        }
    }
    assert_eq!(app.json(&["dead", "list"]).await.len(), 0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_token_sealed_and_show_it_nowhere() {
    let app = App::new();
    let guarded = Guarded::start().await;
    let first = app.serve("all").await;
    let mut object = idexa(&guarded.receiver, "POST");
    object["authorizationUrl"] = json!(guarded.receiver.url("/login"));
    let made = import(&app, &object, "acme").await;
    let amqp = app.amqp().await;
    amqp.publish("x", &document("acme", 1), BasicProperties::default()).await;
    guarded.wait_for_delivered(1).await;
    let redis = shared_tokens(&app).await;
    assert_eq!(redis.len(), 1, "one token is shared");
    assert!(
        !redis.iter().any(|value| value.windows(10).any(|part| part == b"tok-canary")),
        "in clear in Redis"
    );
    let log = first.log();
    first.stop().await;

    let second = app.serve("all").await;
    amqp.publish("x", &document("acme", 2), BasicProperties::default()).await;
    guarded.wait_for_delivered(2).await;
    assert_eq!(guarded.logins.load(SeqCst), 1, "another process takes the shared one");
    let shown = app.ok(&["subscription", "show", made["id"].as_str().unwrap()]).await;
    for text in [log, second.log(), shown] {
        assert!(!text.contains("tok-canary") && !text.contains("root"), "{text}");
    }
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_or_hangs_costs_attempts_of_class_auth_and_holds_up_no_other_receiver() {
    let app = App::new();
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let receiver = Receiver::start(move |hit| match hit.path.as_str() {
        "/login" if well.load(SeqCst) => Reply::status(200).body(r#"{"token":{"value":"t"},"expires":3600}"#),
        "/login" => Reply::status(500).body("canary of the login"),
        "/hangs" => Reply::status(200).after(std::time::Duration::from_secs(60)),
        _ => Reply::status(200),
    })
    .await;
    let serve = app.serve("all").await;
    let with_login = |tenant: &str, login: &str, retry: Value| {
        json!({"tenant": tenant, "events": ["#"], "signatures": [], "retry": retry,
            "request": {"url": receiver.url("/guarded"), "timeout_s": 1},
            "auth": {"kind": "token_request", "url": receiver.url(login), "body": {"user": "u"}, "token_pointer": "/token/value",
                "expires_pointer": "/expires", "scheme": "Token"}})
    };
    let plain = json!({"tenant": "acme", "events": ["#"], "signatures": [], "request": {"url": receiver.url("/plain")}});
    app.subscribe_all(&[
        with_login("acme", "/login", json!({"kind": "fixed", "delay_s": 20, "max_attempts": 50})),
        with_login("acme", "/hangs", json!({"kind": "none"})),
        plain,
    ])
    .await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let dead = app.wait_for_dead(1, 30).await;
    assert_eq!((dead[0]["reason"].as_str(), dead[0]["attempts"].as_u64()), (Some("exhausted"), Some(1)));
    assert!(dead[0]["history"].to_string().contains("auth"), "{dead:?}");
    let of = |path: &str| receiver.hits().into_iter().filter(|hit| hit.path == path).collect::<Vec<_>>();
    assert_eq!((of("/plain").len(), of("/guarded").len()), (1, 0));

    is_well.store(true, SeqCst);
    eventually("the delivery after the login is well", 20, || async { of("/guarded").len() == 1 }).await;
    let hit = of("/guarded").remove(0);
    assert_eq!(hit.header("authorization"), "Token t");
    assert!(hit.header("paperboy-attempt").parse::<u32>().unwrap() > 1, "a failed login is an attempt");
    assert!(!serve.log().contains("canary of the login"));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_goes_through_the_address_guard() {
    let mut app = App::new();
    app.set("EGRESS__ALLOW", "127.0.0.1/32");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let login = receiver.url("/login").replace("127.0.0.1", "127.0.0.2");
    app.subscribe(json!({"tenant": "acme", "events": ["#"], "signatures": [], "retry": {"kind": "none"},
        "request": {"url": receiver.url("/x")}, "auth": {"kind": "token_request", "url": login}}))
        .await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let dead = app.wait_for_dead(1, 30).await;
    assert!(dead[0]["history"].to_string().contains("auth"), "{dead:?}");
    assert_eq!(receiver.count(), 0);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_receiver_sends_back_is_hidden_in_the_dead_letter() {
    let app = App::new();
    let receiver = Receiver::start(|hit| match hit.path.as_str() {
        "/login" => Reply::status(200).body(r#"{"access_token":"tok-canary-1"}"#),
        _ => Reply::status(500).body(format!("you sent {}", hit.header("authorization"))),
    })
    .await;
    let serve = app.serve("all").await;
    app.subscribe(json!({"tenant": "acme", "events": ["#"], "signatures": [], "retry": {"kind": "none"},
        "request": {"url": receiver.url("/x")}, "auth": {"kind": "token_request", "url": receiver.url("/login")}}))
        .await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let dead = app.wait_for_dead(1, 30).await;
    let shown = app.ok(&["dead", "show", dead[0]["id"].as_str().unwrap()]).await;
    assert!(shown.contains("you sent Bearer ***") && !shown.contains("tok-canary"), "{shown}");
    serve.stop().await;
}
