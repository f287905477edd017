//! No secret is ever to be found: not in what a person sees, not in what somebody finds who has the files.
//!
//! Everything that may hold one gets a canary of its own. Then the whole program is run at trace level, through
//! deliveries, failures, refusals and a crash, and every output and every byte it has put anywhere is searched.

use std::process::Stdio;

use lapin::BasicProperties;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::services::{PrivateRedis, control_shared_broker, shared};
use crate::support::traces::traces;
use crate::support::{App, Receiver, Reply, eventually, free_port, unique};

/// Secrets, each with what it is for.
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    fn text(&self, what: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| *name == what);
        &found.unwrap_or_else(|| panic!("no canary `{what}`")).1
    }

    /// Fails with the first that is found, in whichever form.
    #[track_caller]
    fn assert_absent(&self, place: &str, bytes: &[u8]) {
        for (what, text) in &self.0 {
            for (form, trace) in traces(text) {
                let found = bytes.windows(trace.len()).position(|window| window == trace);
                let around = found.map(|at| {
                    let (from, to) = (at.saturating_sub(80), (at + trace.len() + 80).min(bytes.len()));
                    String::from_utf8_lossy(&bytes[from..to]).into_owned()
                });
                assert!(around.is_none(), "the {what} is in {place}, {form}: {}", around.unwrap());
            }
        }
    }
}

fn canaries() -> Canaries {
    let text = |what: &str| format!("canary{what}{}", unique());
    let signing = data_encoding::BASE64.encode(text("signing-key").as_bytes());
    Canaries(vec![
        ("signing secret", signing.clone()),
        (
            "key of the signing secret",
            String::from_utf8(data_encoding::BASE64.decode(signing.as_bytes()).unwrap()).unwrap(),
        ),
        ("hmac secret", format!("{} \"quoted\\& é", text("hmac"))),
        ("header value", format!("{} \"{{%20}}&+/", text("header"))),
        ("bearer token", text("token")),
        ("basic password", format!("{}:\"p&ss wörd\"", text("basic"))),
        ("url password", text("userinfo")),
        ("broker password", text("broker")),
        ("wrong broker password", text("wrong")),
        ("redis password", text("redis")),
        ("postgres password", text("postgres")),
        ("api key", text("api")),
        (
            "secrets key",
            data_encoding::BASE64.encode(text("seal-key-of-32-bytes-").as_bytes()[..32].as_ref()),
        ),
        (
            "old secrets key",
            data_encoding::BASE64.encode(text("seal-key-before-that-").as_bytes()[..32].as_ref()),
        ),
        ("refused value", text("refused")),
    ])
}

/// May be shown to whoever may ask for it, but stand in no log.
fn discreet() -> Canaries {
    Canaries(vec![
        ("query", format!("canaryquery{}", unique())),
        ("payload", format!("canarypayload{}", unique())),
    ])
}

fn documents(canaries: &Canaries, query: &str, receiver: &Receiver) -> Vec<Value> {
    let document = |url: String, auth: Value, retry: Value| {
        json!({
            "tenant": "acme", "events": ["#"], "auth": auth, "retry": retry,
            "request": { "url": url, "headers": { "X-Key": canaries.text("header value") } },
            "signatures": [
                { "scheme": "standard", "secrets": [format!("whsec_{}", canaries.text("signing secret"))] },
                { "scheme": "hmac", "header": "X-Signature", "secrets": [canaries.text("hmac secret")] },
            ],
        })
    };
    let none = json!({ "kind": "none" });
    let bearer = json!({ "kind": "bearer", "token": canaries.text("bearer token") });
    let basic = json!({ "kind": "basic", "username": "ann", "password": canaries.text("basic password") });
    let place = receiver.url(&format!("/?key={query}")).trim_start_matches("http://").to_owned();
    let with_userinfo = format!("http://bob:{}@{place}", canaries.text("url password"));
    let closed = format!("http://127.0.0.1:{}/?key={query}", free_port());
    vec![
        document(receiver.url("/taken"), bearer.clone(), none.clone()),
        // Long enough on a level to be looked at there.
        document(receiver.url("/echo"), basic.clone(), json!({ "kind": "list", "delays_s": [4096] })),
        document(receiver.url("/echo"), basic, none.clone()),
        document(receiver.url("/echo"), bearer.clone(), none.clone()),
        document(with_userinfo, json!({ "kind": "none" }), none.clone()),
        document(receiver.url("/docs/:id"), bearer.clone(), none.clone()),
        document(closed, bearer.clone(), none.clone()),
        document(format!("http://no-such-host.invalid/?key={query}"), bearer.clone(), none.clone()),
        document(format!("https://{place}"), bearer, none),
    ]
}

/// Sends back all it was sent, as a proxy's debug page does.
fn echo(hit: &crate::support::Hit) -> Reply {
    if hit.path == "/taken" {
        return Reply::status(200);
    }
    let headers: serde_json::Map<String, Value> = hit
        .headers
        .iter()
        .filter(|(name, _)| ["x-key", "authorization"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    // As they came, and within JSON.
    let raw: Vec<_> = headers.values().filter_map(Value::as_str).collect();
    Reply::status(500).body(format!("{}\n{}", raw.join("\n"), json!(headers)))
}

/// Runs a command, whatever becomes of it; both its outputs.
async fn said(app: &App, arguments: &[&str], input: &str) -> Vec<u8> {
    let mut command = app.command(arguments);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    let output = app.output_of(command, input).await;
    [output.stdout, output.stderr].concat()
}

/// Documents that are refused, each with a canary in the place that is wrong.
fn refusals(canary: &str) -> Vec<String> {
    let with = |changes: Value| {
        let mut document =
            json!({ "tenant": "acme", "events": ["#"], "request": { "url": "https://h.example/x" } });
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
        document.to_string()
    };
    vec![
        with(json!({ "auth": { "kind": "bearer", "token": format!("Bearer {canary}") } })),
        with(json!({ "auth": { "kind": "bearer", "token": [canary] } })),
        with(json!({ "auth": { "kind": "basic", "username": "a:b", "password": canary } })),
        with(json!({ "auth": { "kind": "basic", "username": "a", "password": format!("{canary}\n") } })),
        with(json!({ "auth": { "kind": "header", "name": "Host", "value": canary } })),
        with(json!({ "auth": canary })),
        with(json!({ "signatures": [{ "scheme": "standard", "secrets": [canary] }] })),
        with(json!({ "signatures": [{ "scheme": "standard", "secrets": canary }] })),
        with(json!({ "signatures": [{ "scheme": "hmac", "header": "X-S", "secrets": [{ "a": canary }] }] })),
        with(json!({ "request": { "url": format!("https://a:{canary}@h.example:99999/") } })),
        with(json!({ "request": { "url": format!("ftp://a:{canary}@h.example/") } })),
        with(
            json!({ "request": { "url": "https://h.example/", "headers": { "X-Key": format!("a\r\n{canary}") } } }),
        ),
        with(json!({ "request": { "url": "https://h.example/", "headers": { "X-Key": { "a": canary } } } })),
        format!("{{\"tenant\": \"acme\", \"auth\": {{\"token\": \"{canary}\""),
        format!("{{\"tenant\": \"acme\", \"auth\": {{\"token\": \"{canary}\"}}}} {canary}"),
    ]
}

/// The whole play over one store; `everything_kept` is read after the end.
async fn play(
    mut app: App,
    canaries: Canaries,
    everything_kept: impl AsyncFn(&App) -> Vec<(String, Vec<u8>)>,
) {
    let redis = PrivateRedis::start_with_password(canaries.text("redis password")).await;
    let user = format!("u{}", unique());
    let password = canaries.text("broker password");
    control_shared_broker(&["add_user", &user, password]).await;
    control_shared_broker(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
    let (_, host) = app.setting("BROKER__URL").rsplit_once('@').unwrap();
    let host = host.to_owned();
    app.set("BROKER__URL", &format!("amqp://{user}:{password}@{host}"));
    app.set("REDIS__URL", &redis.url());
    app.set("SECRETS__KEY", canaries.text("secrets key"));
    app.set("SECRETS__OLD_KEYS", canaries.text("old secrets key"));
    app.set("API__KEYS", canaries.text("api key"));
    app.set("LOG__FILTER", "trace,lapin=trace");
    app.set("LOG__FORMAT", "json");
    app.set("DEAD__DRAIN", "false");
    app.set("BROKER__START_WAIT_S", "1");
    let check = |place: &str, bytes: &[u8]| canaries.assert_absent(place, bytes);
    app.migrate().await;
    let wire = redis.monitor().await;
    let receiver = Receiver::start(echo).await;
    let discreet = discreet();
    let documents = documents(&canaries, discreet.text("query"), &receiver);
    let made = app.subscribe_all(&documents).await;
    for document in refusals(canaries.text("refused value")) {
        check("a refusal", &said(&app, &["subscription", "add", "--file", "-"], &document).await);
    }

    // Deliveries and failures of every kind; what waits and what is dead is looked at in its queue.
    let serve = app.serve("all").await;
    let amqp = app.amqp().await;
    let payload = discreet.text("payload");
    let body = json!({ "id": "evt_1", "type": "a.b", "tenant": "acme", "data": { "text": payload } });
    amqp.publish("a.b", body.to_string().as_bytes(), BasicProperties::default()).await;
    let unreadable = format!(r#"{{"tenant": "acme", "{payload}""#);
    amqp.publish("a.b", unreadable.as_bytes(), BasicProperties::default()).await;
    let dead = || async { amqp.ready("dead.deliveries").await == Some(7) };
    eventually("seven dead deliveries", 40, dead).await;
    let waits = || async { amqp.ready("delay.20ms.12").await == Some(1) };
    eventually("one that waits", 20, waits).await;
    for (queue, count) in [("delay.20ms.12", 1), ("dead.events", 1), ("dead.deliveries", 7)] {
        let messages = amqp.peek_all(queue, count).await;
        messages.iter().for_each(|message| check(&format!("a message in `{queue}`"), &written(message)));
    }
    check("`dead list --from-queue`", &said(&app, &["dead", "list", "--from-queue", "--json"], "").await);
    for path in ["/metrics", "/readyz", "/healthz"] {
        check(path, serve.get(path).await.unwrap().1.as_bytes());
    }
    check("the log", serve.log().as_bytes());
    discreet.assert_absent("the log", serve.log().as_bytes());
    serve.stop().await;

    // The same letters in the store.
    app.set("DEAD__DRAIN", "true");
    let serve = app.serve("all").await;
    let letters = app.wait_for_dead(8, 30).await;
    let first = letters[0]["id"].as_str().unwrap();
    for letter in &letters {
        let id = letter["id"].as_str().unwrap();
        check("`dead show`", &said(&app, &["dead", "show", id], "").await);
        check("`dead show --json`", &said(&app, &["dead", "show", id, "--json"], "").await);
    }
    for arguments in [
        ["subscription", "list"].as_slice(),
        &["subscription", "list", "--json"],
        &["subscription", "show", &made[1].id],
        &["subscription", "show", &made[4].id, "--json"],
        &["subscription", "test", &made[1].id],
        &["subscription", "test", &made[2].id, "--json"],
        &["subscription", "test", &made[4].id],
        &["subscription", "update", &made[0].id, "--name", "changed", "--json"],
        &[
            "subscription",
            "add",
            "--tenant",
            "acme",
            "--events",
            "#",
            "--url",
            "https://h.example",
            "--secret",
            canaries.text("refused value"),
        ],
        &["subscription", "disable", &made[0].id],
        &["dead", "list"],
        &["dead", "list", "--json"],
        &["dead", "replay", first],
        &["store", "status"],
        &["store", "rotate-key", "--dry-run"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["config", "check"],
        &["topology", "show"],
        &["topology", "check"],
        &["status"],
        &["status", "--json"],
        &["publish", "--tenant", "acme", "--type", "a.b"],
    ] {
        check(&format!("`paperboy {}`", arguments.join(" ")), &said(&app, arguments, "").await);
    }
    // Nobody reads its output any more: it ends by a signal or a panic, and either way says nothing.
    let mut broken = app.command(&["subscription", "list", "--json"]);
    broken.env("RUST_BACKTRACE", "full").stdout(closed_pipe()).stderr(Stdio::piped());
    check("a crash", &broken.output().await.unwrap().stderr);

    // What cannot be reached, or refuses the login.
    let wrong = canaries.text("wrong broker password").to_owned();
    let right = app.setting("BROKER__URL").to_owned();
    for url in [format!("amqp://{user}:{wrong}@{host}"), format!("amqp://{user}:{wrong}@127.0.0.1:1/%2f")] {
        app.set("BROKER__URL", &url);
        for arguments in [["status"].as_slice(), &["serve"], &["config", "show"], &["topology", "check"]] {
            check("a refused login", &said(&app, arguments, "").await);
        }
    }
    for (name, value) in [
        ("BROKER__URL", format!("amqp://u:{wrong}@h:bad/")),
        ("REDIS__URL", format!("redis://:{wrong}@:bad")),
        ("STORE__URL", format!("postgres://u:{wrong}@h:bad/d")),
        ("SECRETS__KEY", wrong.clone()),
        ("SECRETS__OLD_KEYS", wrong.clone()),
    ] {
        let kept = app.setting(name).to_owned();
        app.set(name, &value);
        for arguments in [["config", "check"].as_slice(), &["config", "show"], &["serve"]] {
            check("a fault of the configuration", &said(&app, arguments, "").await);
        }
        app.set(name, &kept);
    }
    app.set("BROKER__URL", &right);

    let (dump, spoken) = (redis.dump().await, wire.take());
    assert!(find(&dump, b":tenant:acme") && find(&spoken, b"PUBLISH"), "Redis was in use");
    check("Redis", &dump);
    check("what was said to Redis", &spoken);
    drop(redis);
    let unreachable = || async { serve.metric("paperboy_redis_faults_total", "").await > 0.5 };
    eventually("a Redis that is gone is told", 20, unreachable).await;
    serve.signal("-TERM").await;
    eventually("the stop", 20, async || serve.log().contains("stopped")).await;
    assert!(serve.log().contains("\"level\":\"TRACE\"") || serve.log().contains("\"level\":\"DEBUG\""));
    check("the log", serve.log().as_bytes());
    discreet.assert_absent("the log", serve.log().as_bytes());
    control_shared_broker(&["delete_user", &user]).await;
    app.set("BROKER__URL", &shared("PAPERBOY_TEST_AMQP_URL"));
    let kept = everything_kept(&app).await;
    assert!(kept.iter().any(|(_, bytes)| find(bytes, made[0].id.as_bytes())), "the store is among it");
    for (place, bytes) in kept {
        check(&place, &bytes);
    }
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A message's properties and body.
fn written((properties, body): &(BasicProperties, Vec<u8>)) -> Vec<u8> {
    // The texts of the headers by themselves too, since `Debug` escapes them.
    let headers = properties.headers().iter().flat_map(|table| table.inner().values());
    let texts = headers.filter_map(|value| match value {
        lapin::types::AMQPValue::LongString(text) => Some([text.as_bytes(), b"\n"].concat()),
        _ => None,
    });
    [format!("{properties:?}").into_bytes(), body.clone(), texts.collect::<Vec<_>>().concat()].concat()
}

/// The end for writing of a pipe that nobody reads from.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_to_be_found_anywhere() {
    play(App::new(), canaries(), async |app| app.files()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_to_be_found_anywhere_in_postgres() {
    let (mut app, canaries) = (App::in_postgres().await, canaries());
    let role = format!("r{}", unique());
    let server = shared("PAPERBOY_TEST_POSTGRES_URL");
    let mut admin = PgConnection::connect(&server).await.unwrap();
    let password = canaries.text("postgres password");
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"),
        format!("ALTER DATABASE {} OWNER TO {role}", app.prefix),
    ] {
        admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let (_, place) = app.setting("STORE__URL").rsplit_once('@').unwrap();
    let url = format!("postgres://{role}:{password}@{place}");
    app.set("STORE__URL", &url);
    play(app, canaries, async |app| {
        let mut connection = PgConnection::connect(app.setting("STORE__URL")).await.unwrap();
        let tables =
            connection.fetch_all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").await;
        let mut kept = app.files();
        for table in tables.unwrap() {
            let name: String = table.get(0);
            // Bytes are shown in hex.
            let rows = sqlx::AssertSqlSafe(format!("SELECT t::text FROM {name} AS t"));
            let rows = connection.fetch_all(rows).await.unwrap();
            let text: String = rows.iter().map(|row| row.get::<String, _>(0)).collect();
            kept.push((format!("table `{name}`"), text.into_bytes()));
        }
        kept
    })
    .await;
}
