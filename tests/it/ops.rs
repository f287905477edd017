//! What operators look with: listen, topology, status, the dead queues themselves, completions.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, eventually};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAA";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDAAAA";

/// A running `paperboy listen`.
struct Listener {
    child: Child,
    url: String,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Listener {
    async fn start(app: &App, arguments: &[&str]) -> Listener {
        let mut command = app.command(&["listen"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = err.next_line().await.unwrap().unwrap();
        let url =
            told.split(' ').find(|word| word.starts_with("http://")).expect("where it listens").to_owned();
        Listener { child, url, out, err }
    }

    /// The next line it prints.
    async fn line(&mut self) -> String {
        let line = timeout(Duration::from_secs(15), self.out.next_line()).await.expect("a line in time");
        line.unwrap().expect("it still runs")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// The next block, to the empty line after it.
    async fn block(&mut self) -> String {
        let mut block = String::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return block;
            }
            block.push_str(&line);
            block.push('\n');
        }
    }

    /// Ctrl-C; what it says at the end.
    async fn interrupt(mut self) -> String {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        assert!(timeout(Duration::from_secs(5), self.child.wait()).await.unwrap().unwrap().success());
        let mut last = String::new();
        while let Some(line) = self.err.next_line().await.unwrap() {
            last = line;
        }
        last
    }

    /// A request by hand; the status it is answered with.
    async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> u16 {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.unwrap();
        let mut request = format!("POST /by-hand HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// A subscription with one attempt, signed with this secret.
fn signed(url: &str, secret: &str) -> Value {
    let mut document = subscription("acme", url);
    document["signatures"] = json!([{ "scheme": "standard", "secrets": [secret] }]);
    document["retry"] = json!({ "kind": "none" });
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_verifies_deliveries_with_the_right_and_the_wrong_secret() {
    let app = App::new();
    let mut listener = Listener::start(&app, &["--json", "--secret", SECRET]).await;
    let serve = app.serve("all").await;
    let (good, wrong) = (format!("{}/good", listener.url), format!("{}/wrong", listener.url));
    app.subscribe_all(&[signed(&good, SECRET), signed(&wrong, OTHER)]).await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;

    let mut seen = [listener.json().await, listener.json().await];
    seen.sort_by_key(|line| line["path"].to_string());
    let [good, wrong] = &seen;
    assert_eq!(
        (good["signature"].as_str(), good["status"].as_u64()),
        (Some("verified"), Some(200)),
        "{good}"
    );
    assert_eq!(
        (wrong["signature"].as_str(), wrong["status"].as_u64()),
        (Some("wrong"), Some(401)),
        "{wrong}"
    );
    for line in &seen {
        assert_eq!(
            (&line["webhook_id"], &line["attempt"], &line["method"]),
            (&json!("evt_1"), &json!(1), &json!("POST"))
        );
        let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["data"], json!({ "pages": 3 }));
        assert!(!line.to_string().contains("MfKQ9r8"), "no secret is printed: {line}");
    }
    app.wait_for_dead(1, 20).await;
    assert_eq!(listener.interrupt().await, "2 requests: 1 verified, 1 signed WRONG");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_fails_first_where_told_and_prints_a_block_for_people() {
    let app = App::new();
    let file = app.path("secrets");
    std::fs::write(&file, format!("{OTHER}\n\n{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let mut listener =
        Listener::start(&app, &["--secret-file", &file, "--fail-first", "1", "--status", "202"]).await;
    let serve = app.serve("all").await;
    let mut document = signed(&listener.url, SECRET);
    document["retry"] = json!({ "kind": "fixed", "delay_s": 1, "max_attempts": 2 });
    app.subscribe(document).await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    for (number, status) in [(1, 503), (2, 202)] {
        let block = listener.block().await;
        let mut lines = block.lines();
        let first = lines.next().unwrap();
        assert!(
            first.starts_with(&format!("#{number}  ")) && first.ends_with(&format!("POST /  -> {status}")),
            "{block}"
        );
        assert!(lines.next().unwrap().starts_with("    signature verified, "), "{block}");
        assert!(
            block.contains("    webhook-id: evt_1\n") && block.contains(r#"  | {"type":"a.b""#),
            "{block}"
        );
    }
    serve.stop().await;
    assert_eq!(listener.interrupt().await, "2 requests: 2 verified");
}

#[tokio::test]
async fn listen_says_what_is_unsigned_old_or_dangerous() {
    let app = App::new();
    let mut listener = Listener::start(&app, &["--secret", SECRET]).await;
    assert_eq!(listener.post(&[("Authorization", "Bearer canary")], b"a\x1b[2J\n#9 forged").await, 401);
    let block = listener.block().await;
    assert!(block.contains("\n    unsigned\n") && !block.contains("canary"), "{block}");
    assert!(block.ends_with("  | a\\u{1b}[2J\n  | #9 forged\n"), "{block}");

    let sent_s = jiff::Timestamp::now().as_second() - 400;
    let key = data_encoding::BASE64.decode(&SECRET.as_bytes()["whsec_".len()..]).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let tag = ring::hmac::sign(&key, format!("evt_1.{sent_s}.{{}}").as_bytes());
    let signature = format!("v1,{}", data_encoding::BASE64.encode(tag.as_ref()));
    let sent = sent_s.to_string();
    let headers = [("webhook-id", "evt_1"), ("webhook-timestamp", &sent), ("webhook-signature", &signature)];
    assert_eq!(listener.post(&headers, b"{}").await, 401);
    let block = listener.block().await;
    assert!(
        block.contains("signature verified, but 40") && block.contains(" s old: receivers refuse"),
        "{block}"
    );
    assert_eq!(listener.interrupt().await, "2 requests: 1 verified but too old, 1 unsigned");

    let refused = app.run(&["listen", "--secret", "whsec_not!base64canary"]).await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.starts_with("error: secret 1 is not one\nhint: ") && !told.contains("canary"), "{told}");
}

/// What a command that must fail with 1 wrote: its data and its errors.
async fn disagreement(app: &App, arguments: &[&str]) -> (String, Vec<String>) {
    let output = app.run(arguments).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "`paperboy {}`:\n{error}", arguments.join(" "));
    let errors = error.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), errors)
}

#[tokio::test]
async fn topology_is_shown_without_a_broker_and_declared_with_one() {
    let mut app = App::new();
    let broker = app.setting("BROKER__URL").to_owned();
    app.set("BROKER__URL", "amqp://guest:guest@127.0.0.1:9");
    let items = app.json(&["topology", "show"]).await;
    assert_eq!(items.len(), 2 + 5 + 17 + 1);
    let level = format!("{}.delay.20ms.03", app.prefix);
    let level = items.iter().find(|item| item["name"] == level.as_str()).unwrap();
    assert_eq!((&level["kind"], &level["arguments"]["x-message-ttl"]), (&json!("queue"), &json!(160)));
    assert!(app.ok(&["topology", "show"]).await.contains("x-message-ttl=160"));

    app.set("BROKER__URL", &broker);
    let (_, errors) = disagreement(&app, &["topology", "check"]).await;
    assert_eq!(errors.len(), 24, "everything is missing: {errors:#?}");
    assert_eq!(app.amqp().await.ready("retries").await, None, "a check makes nothing");
    let declared = app.json(&["topology", "declare"]).await;
    assert!(declared.iter().all(|item| item["state"] == "declared"), "{declared:#?}");
    let again = app.json(&["topology", "declare"]).await;
    assert_eq!(again.iter().filter(|item| item["state"] == "fine").count(), 24, "{again:#?}");
    let checked = app.run(&["topology", "check"]).await;
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && told.contains("bindings cannot be asked in AMQP"), "{told}");
}

#[tokio::test]
async fn topology_check_finds_every_mismatch_at_once() {
    let mut app = App::new();
    app.ok(&["topology", "declare"]).await;
    let amqp = app.amqp().await;
    for queue in ["deliveries", "dead.events", "delay.20ms.04"] {
        amqp.delete_queue(queue).await;
    }
    for queue in ["deliveries", "dead.events"] {
        amqp.declare_odd_queue(queue).await;
    }
    let (data, errors) = disagreement(&app, &["topology", "check"]).await;
    assert_eq!(errors.len(), 3, "{errors:#?}");
    for (queue, says) in [
        ("dead.events", "exists on the broker with other arguments: "),
        ("deliveries", "exists on the broker with other arguments: "),
        ("delay.20ms.04", "does not exist on the broker"),
    ] {
        let begins = format!("`{}.{queue}` {says}", app.prefix);
        assert!(errors.iter().any(|error| error.starts_with(&begins)), "{begins}\n{errors:#?}");
    }
    assert_eq!((data.matches("DIFFERENT").count(), data.matches("MISSING").count()), (2, 1), "{data}");
    assert_eq!(data.matches("fine").count(), 21, "{data}");
    assert_eq!(amqp.ready("delay.20ms.04").await, None, "a check makes nothing");

    app.set("BROKER__DECLARE", "false");
    let (data, errors) = disagreement(&app, &["topology", "check"]).await;
    assert_eq!(
        (errors.len(), data.matches("exists").count()),
        (1, 23),
        "only existence is asked: {errors:#?}"
    );
    let (_, errors) = disagreement(&app, &["topology", "declare"]).await;
    assert_eq!(errors.len(), 2, "what was missing is there, what differs still differs: {errors:#?}");
    assert_eq!(amqp.ready("delay.20ms.04").await, Some(0));
}

async fn status(app: &App) -> Value {
    app.json(&["status"]).await.remove(0)
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a count: {value}"))
}

/// Taken is settled, in hand or given back, for every process and for the sum; the sum's parts.
fn assert_balanced(status: &Value) -> [u64; 4] {
    let parts = |balance: &Value| {
        let settled: u64 = balance["settled"].as_object().unwrap().values().map(count).sum();
        [count(&balance["taken"]), settled, count(&balance["in_hand"]), count(&balance["given_back"])]
    };
    let sum = parts(&status["balance"]);
    let mut total = [0; 4];
    for process in
        status["processes"].as_array().unwrap().iter().filter(|process| !process["balance"].is_null())
    {
        let own = parts(&process["balance"]);
        assert_eq!(own[0], own[1] + own[2] + own[3], "{process}");
        for (total, own) in total.iter_mut().zip(own) {
            *total += own;
        }
    }
    assert_eq!(total, sum, "the sum is that of the processes: {status}");
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_processes_what_is_in_hand_and_a_balance_that_adds_up() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_secs(6))).await;
    let api = app.serve("api").await;
    let (first, second) = (app.serve("worker").await, app.serve("worker").await);
    app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let amqp = app.amqp().await;
    for n in 0..6 {
        amqp.publish("a.b", &event(&format!("evt_{n}"), "acme", "a.b"), BasicProperties::default()).await;
    }
    eventually("six requests hang", 5, async || assert_balanced_or_early(&status(&app).await)[2] == 6).await;
    assert_eq!(receiver.count(), 0, "they still hang");
    let now = status(&app).await;
    let roles: Vec<_> = now["processes"].as_array().unwrap().iter().map(|process| &process["role"]).collect();
    assert_eq!(roles, ["api", "worker", "worker"]);
    assert!(now["processes"][0]["balance"].is_null() && now["processes"][0]["drains"] == true, "{now}");
    for (serve, process) in [(&first, 1), (&second, 2)].into_iter().chain([(&api, 0)]) {
        let pid: u64 = serve.pid().parse().unwrap();
        let known = now["processes"].as_array().unwrap();
        assert!(
            known.iter().any(|process| process["pid"] == pid && process["ready"] == true),
            "{process}: {now}"
        );
    }
    assert_eq!(now["warnings"], json!([]));
    let events = now["queues"]
        .as_array()
        .unwrap()
        .iter()
        .find(|queue| queue["name"] == format!("{}.events", app.prefix));
    assert_eq!(events.unwrap()["consumers"], 2);
    let shown = app.ok(&["status"]).await;
    assert!(shown.contains("balance: taken 6 = settled 0 + in hand 6 + given back 0"), "{shown}");

    eventually("all are settled", 15, async || assert_balanced(&status(&app).await) == [6, 6, 0, 0]).await;
    assert_eq!(status(&app).await["balance"]["settled"]["delivered"], 6);
    first.stop().await;
    assert_eq!(
        status(&app).await["processes"].as_array().unwrap().len(),
        2,
        "one that ended well is gone at once"
    );
    second.kill().await;
    eventually("one that was killed is forgotten", 15, async || {
        status(&app).await["processes"].as_array().unwrap().len() == 1
    })
    .await;
    api.stop().await;
}

/// As [`assert_balanced`]; zeros before the first heartbeat of a worker.
fn assert_balanced_or_early(status: &Value) -> [u64; 4] {
    if status["balance"].is_null() { [0; 4] } else { assert_balanced(status) }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_warns_in_words_of_what_nobody_does() {
    let mut app = App::new();
    let told = |status: &Value| {
        status["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let empty = status(&app).await;
    assert!(told(&empty)[0].starts_with("none of the queues exist"), "{empty}");

    app.ok(&["topology", "declare"]).await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    amqp.publish_to_queue("dead.events", b"?", BasicProperties::default().with_delivery_mode(2)).await;
    amqp.publish_to_queue("delay.20ms.16", b"{}", BasicProperties::default().with_delivery_mode(2)).await;
    let stopped = status(&app).await;
    let warnings = told(&stopped).join("\n");
    for what in [
        "no process takes from `PREFIX.events`, which holds 1 message: start `paperboy serve`",
        "no process takes from `PREFIX.retries`: ",
        "1 message waits in the delay levels",
        "`PREFIX.dead.events` holds 1 message and nobody drains it",
    ] {
        assert!(warnings.contains(&what.replace("PREFIX", &app.prefix)), "{what}\n{warnings}");
    }
    let level =
        json!([{ "name": format!("{}.delay.20ms.16", app.prefix), "wait_ms": 1_310_720, "ready": 1 }]);
    assert_eq!(stopped["levels"], level);
    assert_eq!((&stopped["processes"], &stopped["dead_letters_open"]), (&json!([]), &Value::Null));

    app.set("REDIS__URL", "");
    let shown = app.ok(&["status"]).await;
    assert!(shown.contains("processes are only seen with Redis"), "{shown}");
    assert_eq!(status(&app).await["processes"], Value::Null);
}

/// Properties of a delivery that was given up.
fn given_up(subscription: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in [("paperboy-reason", "exhausted"), ("paperboy-subscription", subscription)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default().with_delivery_mode(2).with_headers(headers)
}

fn ids(letters: &[Value]) -> Vec<String> {
    letters.iter().map(|letter| letter["event"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_queues_are_listed_without_a_store_and_left_as_they_were() {
    const LETTERS: usize = 12;
    let app = App::new();
    app.ok(&["topology", "declare"]).await;
    let amqp = app.amqp().await;
    let written: Vec<String> = (0..LETTERS).map(|n| format!("evt_{n}")).collect();
    for id in &written {
        amqp.publish_to_queue("dead.deliveries", &event(id, "acme", "a.b"), given_up("sub_1")).await;
    }
    amqp.publish_to_queue("dead.events", b"not json", BasicProperties::default().with_delivery_mode(2)).await;

    for _ in 0..5 {
        let letters = app.json(&["dead", "list", "--from-queue", "--kind", "delivery"]).await;
        assert_eq!(ids(&letters), written);
        assert_eq!(
            (&letters[0]["reason"], &letters[0]["tenant"], &letters[0]["subscription"]),
            (&json!("exhausted"), &json!("acme"), &json!("sub_1"))
        );
        let few = app.json(&["dead", "list", "--from-queue", "--limit", "5"]).await;
        assert_eq!(ids(&few[..5]), written[..5]);
        assert_eq!((few.len(), &few[5]["kind"], &few[5]["reason"]), (6, &json!("event"), &json!("poison")));
    }
    let one = app.json(&["dead", "list", "--from-queue", "--event", "evt_7"]).await;
    assert_eq!((one.len(), &one[0]["position"]), (1, &json!(8)));
    let shown = app.run(&["dead", "list", "--from-queue", "--limit", "5"]).await;
    assert!(String::from_utf8_lossy(&shown.stderr).contains("7 more in `"));
    assert!(!app.path("paperboy.db").exists(), "no store is made");
    assert_eq!((amqp.ready("dead.deliveries").await, amqp.ready("dead.events").await), (Some(12), Some(1)));

    // What is drained afterwards is everything, once and in its order.
    let api = app.serve("api").await;
    let mut kept = app.wait_for_dead(LETTERS + 1, 20).await;
    kept.retain(|letter| letter["kind"] == "delivery");
    kept.reverse();
    assert_eq!(ids(&kept), written);
    assert_eq!(amqp.ready("dead.deliveries").await, Some(0));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_dead_queue_is_looked_at_as_far_as_the_window_goes_and_loses_nothing() {
    const LETTERS: usize = 1010;
    let app = App::new();
    app.ok(&["topology", "declare"]).await;
    let amqp = app.amqp().await;
    for n in 0..LETTERS {
        amqp.publish_to_queue(
            "dead.deliveries",
            &event(&format!("evt_{n}"), "acme", "a.b"),
            given_up("sub_1"),
        )
        .await;
    }
    let looked = app.run(&["dead", "list", "--from-queue", "--limit", "5000", "--json"]).await;
    let told = String::from_utf8_lossy(&looked.stderr);
    assert!(
        looked.status.success() && told.contains("holds 1010: 1000 were looked at and stand at its end now"),
        "{told}"
    );
    assert_eq!(String::from_utf8_lossy(&looked.stdout).lines().count(), 1000);
    let back = || async { amqp.ready("dead.deliveries").await == Some(1010) };
    eventually("all that was looked at is back", 20, back).await;

    let api = app.serve("api").await;
    let store = async || app.json(&["store", "status"]).await.remove(0)["dead_letters"] == 1010;
    eventually("every letter is kept", 30, store).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_dead_queue_is_told_in_time() {
    let mut app = App::new();
    let api = app.serve("api").await;
    eventually("its heartbeat", 5, async || status(&app).await["processes"][0]["drains"] == true).await;
    let began = Instant::now();
    let (data, errors) = disagreement(&app, &["dead", "list", "--from-queue"]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((data.as_str(), errors.len()), ("", 2), "{errors:#?}");
    let place = format!("is held by api on `{}` (pid {})", hostname(), api.pid());
    assert!(errors.iter().all(|error| error.contains(&place)), "{place}\n{errors:#?}");
    app.set("REDIS__URL", "");
    let (_, errors) = disagreement(&app, &["dead", "list", "--from-queue", "--kind", "event"]).await;
    assert!(errors[0].contains("is held by another process (1 consumer"), "{errors:#?}");
    api.stop().await;
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    let app = App::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = app.ok(&["completions", shell]).await;
        assert!(script.contains("topology") && script.contains("from-queue"), "{shell}");
        if shell == "bash" {
            let path = app.path("paperboy.bash");
            std::fs::write(&path, script).unwrap();
            let checked = app.command_of("bash").arg("-n").arg(&path).output().await.unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert_eq!(app.run(&["completions", "tcsh"]).await.status.code(), Some(2));
}
