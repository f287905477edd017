//! What strangers write into a subscription, and what values their URLs meet: URLs, templates and headers, each
//! at creation and, where it passes, at the send. A text that is no plain web address is refused when it is
//! written; an address is the guard's matter: creation warns, and nothing is ever connected to.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::app::{event, subscription};
use crate::support::failure::USAGE;
use crate::support::{App, Receiver, Reply};

/// Adds all documents of a file in one call; its exit code, its data and the lines of its standard error.
async fn add(app: &App, documents: &[Value]) -> (i32, Vec<Value>, Vec<String>) {
    let arguments = ["subscription", "add", "--file", "-", "--json"];
    let output = app.run_with_input(&arguments, &Value::from(documents).to_string()).await;
    let data = String::from_utf8(output.stdout).unwrap();
    let data = data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), data, told)
}

/// Every document must be refused by exactly one error of its field.
async fn assert_refused(documents: &[Value], fields: &[String]) {
    let app = App::new();
    app.migrate().await;
    let (code, data, told) = add(&app, documents).await;
    assert_eq!((code, data.len()), (USAGE, 0), "{told:#?}");
    for (place, field) in fields.iter().enumerate() {
        let place = place + 1;
        let mine: Vec<&String> =
            told.iter().filter(|line| line.starts_with(&format!("error: subscription {place}: "))).collect();
        let [error] = mine.as_slice() else { panic!("{}\n{mine:#?}", documents[place - 1]) };
        let expected = format!("error: subscription {place}: `{field}`: ");
        assert!(error.starts_with(&expected), "{}\n{error}", documents[place - 1]);
    }
    assert!(app.json(&["subscription", "list"]).await.is_empty());
}

#[tokio::test]
async fn what_is_no_plain_web_address_is_refused_when_it_is_written() {
    let long_label = format!("http://{}.example/", "a".repeat(64));
    let long_name = format!("http://{}example/", "a.".repeat(124));
    let long_path = format!("http://example.com/{}", "a".repeat(70_000));
    let urls = [
        // No host that could be called.
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.a]/",
        "http://[::1/",
        "http://xn--/",
        "http://xn--localhost-.example/",
        "http://example.com%00.evil.org/",
        "http://256.256.256.256/",
        "http://4294967296/",
        "http://1.2.3.0x100/",
        "http://example..com/",
        "http://example.com../",
        &long_label,
        &long_name,
        // Texts that a parser would repair in silence.
        "http://1.1.1.1 &@2.2.2.2# @3.3.3.3/",
        "http://127.0.0.1\\@example.com/",
        "http:\\\\127.0.0.1\\x",
        "http:127.0.0.1/",
        "http:/127.0.0.1/",
        "http:///127.0.0.1/",
        "https:example.com",
        "http://exam\tple.com/",
        "http://example.com/\r\nX-Injected: 1",
        " http://example.com/",
        "http://example.com/ ",
        // Other schemes, and none.
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "ftp://example.com/",
        "unix:/run/x.sock",
        "javascript:alert(1)",
        "data:text/plain,x",
        "//example.com/",
        "example.com/hook",
        // Ports.
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:80:80/",
        &long_path,
        // Placeholders anywhere but in path and query.
        "https://:host/x",
        "https://h.example:port/x",
        "https://{tenant}.example/x",
        "https://h.example:{tenant}/x",
        "{tenant}://h.example/x",
        "https://:id@h.example/x",
        "https://u:{tenant}@h.example/x",
        // Placeholders that are none, or that fixed text would change.
        "https://h.example/:docid",
        "https://h.example/{nothing}",
        "https://h.example/{tenant",
        "https://h.example/{tenant}/../x",
        "https://h.example/%2{tenant}",
    ];
    let documents: Vec<Value> = urls.iter().map(|url| subscription("acme", url)).collect();
    assert_refused(&documents, &vec!["request.url".to_owned(); urls.len()]).await;
}

#[tokio::test]
async fn headers_that_break_a_request_or_belong_to_others_are_refused() {
    let names = [
        "X Y",
        "x:y",
        "",
        "é",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "webhook-id",
        "Webhook-Signature",
        "paperboy-test",
    ];
    let values = ["x\r\nHost: evil", "café", "a\u{2028}b", "\u{7f}", "a\0b", &"v".repeat(4 * 1024 + 1)];
    let many = |count: usize, bytes: usize| -> Value {
        (0..count)
            .map(|index| (format!("X-{index}"), json!("v".repeat(bytes))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut cases: Vec<(Value, String)> = Vec::new();
    for name in names {
        let field = format!("request.headers.{name}");
        cases.push((json!({ name: "v" }), field.trim_end_matches('.').to_owned()));
    }
    for value in values {
        cases.push((json!({ "X-Value": value }), "request.headers.X-Value".to_owned()));
    }
    for headers in [many(21, 1), many(200, 1), many(5, 4_000), json!({ "X-A": "a", "x-a": "b" })] {
        let is_double = headers.as_object().unwrap().len() == 2;
        cases.push((headers, if is_double { "request.headers.x-a" } else { "request.headers" }.to_owned()));
    }
    let document = |headers: &Value| {
        let mut document = subscription("acme", "https://h.example/x");
        document["signatures"] = json!([]);
        document["request"]["headers"] = headers.clone();
        document
    };
    let documents: Vec<Value> = cases.iter().map(|(headers, _)| document(headers)).collect();
    let fields: Vec<String> = cases.into_iter().map(|(_, field)| field).collect();
    assert_refused(&documents, &fields).await;

    let app = App::new();
    app.migrate().await;
    let good = [
        json!({ "X-Tab": "a\tb", "authorization": "x", "User-Agent": "mine" }),
        many(20, 100),
        many(4, 4_000),
    ];
    let (code, data, told) = add(&app, &good.iter().map(document).collect::<Vec<_>>()).await;
    assert_eq!((code, data.len()), (0, 3), "{told:#?}");
}

/// What becomes of a URL.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// Written with a warning, and every delivery is blocked for this reason.
    Blocked(&'static str),
    /// The same of a name: where it resolves to nothing here, it fails as `dns`.
    Name(&'static str),
    /// Written without a word.
    Silent,
}

use Fate::{Blocked, Name, Silent};

/// `PORT` is where the canary listens.
const URLS: [(&str, Fate); 54] = [
    ("http://127.0.0.1:PORT/", Blocked("loopback")),
    ("http://2130706433:PORT/", Blocked("loopback")),
    ("http://0x7f000001:PORT/", Blocked("loopback")),
    ("http://0x7f.0.0.1:PORT/", Blocked("loopback")),
    ("http://0177.0.0.1:PORT/", Blocked("loopback")),
    ("http://127.1:PORT/", Blocked("loopback")),
    ("http://127.0.1:PORT/", Blocked("loopback")),
    ("http://0:PORT/", Blocked("this network")),
    ("http://00000:PORT/", Blocked("this network")),
    ("http://0x:PORT/", Blocked("this network")),
    ("http://0x.0x.0:PORT/", Blocked("this network")),
    ("http://127.0.0.1.:PORT/", Blocked("loopback")),
    ("http://127.0.0.1%2e:PORT/", Blocked("loopback")),
    ("http://%31%32%37.0.0.1:PORT/", Blocked("loopback")),
    ("http://127。0。0。1:PORT/", Blocked("loopback")),
    ("http://①②⑦.⓪.⓪.①:PORT/", Blocked("loopback")),
    ("http://１２７.０.０.１:PORT/", Blocked("loopback")),
    ("http://2852039166/", Blocked("link-local")),
    ("http://0xA9FEA9FE/", Blocked("link-local")),
    ("http://0251.0376.0251.0376/", Blocked("link-local")),
    ("http://169.254.43518/", Blocked("link-local")),
    ("http://169.254.169.254/latest/meta-data/", Blocked("link-local")),
    ("http://10.0.0.5/", Blocked("private")),
    ("http://192.168.1.1/", Blocked("private")),
    ("http://100.100.100.200/", Blocked("shared address space")),
    ("http://[::ffff:127.0.0.1]:PORT/", Blocked("IPv4 written as IPv6")),
    ("http://[::ffff:7f00:1]:PORT/", Blocked("IPv4 written as IPv6")),
    ("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", Blocked("IPv4 written as IPv6")),
    ("http://[::127.0.0.1]:PORT/", Blocked("not global unicast")),
    ("http://[::1]:PORT/", Blocked("loopback")),
    ("http://[::]:PORT/", Blocked("not global unicast")),
    ("http://[64:ff9b::169.254.169.254]/", Blocked("translated IPv4")),
    ("http://[64:ff9b:1::7f00:1]/", Blocked("translated IPv4")),
    ("http://[2002:7f00:1::]/", Blocked("6to4")),
    ("http://[2001:0:1234::1]/", Blocked("protocol assignments")),
    ("http://[fd00:ec2::254]/", Blocked("private")),
    ("http://[fec0::1]/", Blocked("not global unicast")),
    ("http://example.com@127.0.0.1:PORT/", Blocked("loopback")),
    ("http://example.com:80@127.0.0.1:PORT/", Blocked("loopback")),
    ("http://localhost:PORT/", Name("loopback")),
    ("http://LOCALHOST.:PORT/", Name("loopback")),
    ("http://ⓛocalhost:PORT/", Name("loopback")),
    ("http://loc\u{ad}alhost:PORT/", Name("loopback")),
    ("http://a.localhost:PORT/", Name("loopback")),
    // Credentials move to `auth`; the host is what stands behind them.
    ("http://127.0.0.1@example.com/", Silent),
    ("http://user:pa%3Ass@example.com/", Silent),
    ("http://example.com/%0d%0aX-Injected:%201", Silent),
    ("HTTP://EXAMPLE.com/", Silent),
    ("hTtPs://example.com/A", Silent),
    ("http://example.com:22/", Silent),
    ("http://bücher.example/", Silent),
    ("http://аррӏе.com/", Silent),
    ("http://example.com./", Silent),
    // Which addresses a name has is asked at every send, not when it is written.
    ("http://metadata.google.internal/", Silent),
];

#[tokio::test(flavor = "multi_thread")]
async fn denied_addresses_are_warned_of_when_written_and_never_connected_to() {
    let mut app = App::new();
    app.set("EGRESS__ALLOW", "");
    app.migrate().await;
    let canary = Canary::start().await;
    let documents: Vec<Value> = URLS
        .iter()
        .map(|(url, fate)| {
            let tenant = if *fate == Silent { "silent" } else { "acme" };
            let mut document = subscription(tenant, &url.replace("PORT", &canary.port.to_string()));
            document["retry"] = json!({ "kind": "none" });
            document
        })
        .collect();
    let (code, made, warnings) = add(&app, &documents).await;
    assert_eq!((code, made.len()), (0, URLS.len()), "{warnings:#?}");
    let loud: Vec<&str> = URLS
        .iter()
        .filter_map(|(_, fate)| match fate {
            Blocked(what) | Name(what) => Some(*what),
            Silent => None,
        })
        .collect();
    assert_eq!(warnings.len(), loud.len(), "{warnings:#?}");
    for (warning, what) in warnings.iter().zip(&loud) {
        assert!(warning.contains(&format!("is a denied address ({what}): ")), "{what}: {warning}");
    }

    let serve = app.serve("all").await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let letters = app.wait_for_dead(loud.len(), 60).await;
    assert_eq!(letters.len(), loud.len());
    for ((url, fate), made) in URLS.iter().zip(&made) {
        let mine = letters.iter().find(|letter| letter["subscription"] == made["id"]);
        let seen = mine.map(|letter| letter["history"][0]["seen"].as_str().unwrap());
        match fate {
            Blocked(_) => assert_eq!(seen, Some("blocked"), "{url}"),
            Name(_) => assert!(matches!(seen, Some("blocked" | "dns")), "{url}: {seen:?}"),
            Silent => assert_eq!(seen, None, "{url}"),
        }
    }
    assert_eq!(canary.connections.load(Ordering::SeqCst), 0, "something was connected to");
    serve.stop().await;
}

/// Listens on loopback, both kinds where there are both, and counts who comes.
struct Canary {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    async fn start() -> Canary {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        for listener in [Some(first), TcpListener::bind(("::1", port)).await.ok()].into_iter().flatten() {
            let connections = Arc::clone(&connections);
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    connections.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Canary { port, connections }
    }
}

/// What a document's id becomes in `/v1/docs/:id/events`.
const IDS: [(&str, &str); 10] = [
    ("d1", "d1"),
    ("../../admin", "..%2F..%2Fadmin"),
    ("a/b", "a%2Fb"),
    ("a?b=1", "a%3Fb%3D1"),
    ("a#b", "a%23b"),
    ("a%2Fb", "a%252Fb"),
    ("a b", "a%20b"),
    ("é", "%C3%A9"),
    ("a\\b\r\nHost: evil", "a%5Cb%0D%0AHost%3A%20evil"),
    ("...", "..."),
];

/// What a payload's value becomes in `/v1/values/{data./v}`.
const SCALARS: [(&str, &str); 5] = [
    ("7", "7"),
    ("true", "true"),
    ("\"x\"", "x"),
    ("-1.50", "-1.50"),
    ("12345678901234567890123", "12345678901234567890123"),
];

/// Values that cannot stand in a URL.
const UNFIT: [&str; 7] = ["\"\"", "null", "{}", "[1]", "\"..\"", "\".\"", "\"\\ud800\""];

#[tokio::test(flavor = "multi_thread")]
async fn a_value_stays_one_segment_of_the_url_or_nothing_is_sent() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    app.subscribe_all(&[
        subscription("docs", &receiver.url("/v1/docs/:id/events")),
        subscription("values", &receiver.url("/v1/values/{data./v}")),
    ])
    .await;
    let document = |id: Value| json!({ "type": "a.b", "tenant": "docs", "document_id": id }).to_string();
    let value = |json: &str| format!(r#"{{"type": "a.b", "tenant": "values", "data": {{"v": {json}}}}}"#);
    let long = format!("\"{}\"", "x".repeat(2_000));

    let mut good: Vec<(String, String)> =
        IDS.iter().map(|(id, segment)| (document(json!(id)), format!("/v1/docs/{segment}/events"))).collect();
    good.extend(SCALARS.iter().map(|(json, segment)| (value(json), format!("/v1/values/{segment}"))));
    let mut bad: Vec<String> = UNFIT.iter().map(|json| value(json)).collect();
    bad.extend([value(&long), r#"{"type": "a.b", "tenant": "values", "data": {}}"#.to_owned()]);
    bad.extend(["", ".", ".."].map(|id| document(json!(id))));
    bad.extend([document(json!("x".repeat(257))), document(Value::Null)]);
    let amqp = app.amqp().await;
    for (place, body) in good.iter().map(|(body, _)| body).chain(&bad).enumerate() {
        let properties = BasicProperties::default().with_message_id(format!("evt_{place}").into());
        amqp.publish("a.b", body.as_bytes(), properties).await;
    }
    let letters = app.wait_for_dead(bad.len(), 20).await;
    let hits = receiver.wait_for(good.len(), 10).await;

    for (place, (_, path)) in good.iter().enumerate() {
        let hit = hits.iter().find(|hit| hit.id() == format!("evt_{place}")).unwrap();
        assert_eq!(&hit.path, path);
    }
    for (place, body) in bad.iter().enumerate() {
        let id = format!("evt_{}", good.len() + place);
        let letter = letters.iter().find(|letter| letter["event"] == id).unwrap_or_else(|| panic!("{body}"));
        let told = (&letter["reason"], &letter["attempts"], &letter["history"][0]["seen"]);
        assert_eq!(told, (&json!("permanent"), &json!(0), &json!("template")), "{body}");
    }
    assert_eq!((hits.len(), receiver.count()), (good.len(), good.len()));
    serve.stop().await;
}
