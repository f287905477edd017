//! What the API does not take: odd requests, too many, too large, too slow, and answers that nobody reads.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::{SUBSCRIPTIONS, key};
use crate::support::{App, ask, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_by_its_own_status() {
    let mut app = App::new();
    app.set("LIMITS__EVENT_BYTES_MAX", "1024");
    app.set("LIMITS__BODY_BYTES_MAX", "4096");
    let serve = app.serve("api").await;
    let port = serve.port;
    ask(port, "GET", "/v1").send().await.problem(404);
    ask(port, "GET", "/v2/x").send().await.problem(404);
    let wrong = ask(port, "DELETE", "/v1/events").send().await;
    wrong.problem(405);
    assert_eq!(wrong.header("allow"), "POST");
    for method in ["TRACE", "OPTIONS", "BREW"] {
        ask(port, method, SUBSCRIPTIONS).send().await.problem(405);
    }
    ask(port, "GET", SUBSCRIPTIONS).header("accept", "text/html").send().await.problem(406);
    let large = vec![b' '; 5000];
    ask(port, "POST", "/v1/events").body("application/json", &large).send().await.problem(413);
    ask(port, "POST", "/v1/events").body("application/x-ndjson", &large).send().await.problem(413);
    ask(port, "POST", "/v1/events").body("application/json", &large[..1025]).send().await.problem(413);
    let form = ask(port, "POST", "/v1/events").body("application/x-www-form-urlencoded", b"a=b").send().await;
    assert!(form.problem(415)["hint"].as_str().unwrap().contains("application/json"));
    ask(port, "POST", SUBSCRIPTIONS).send().await.problem(415);
    ask(port, "GET", "/v1/../healthz").send().await.problem(404);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let mut app = App::new();
    app.set("LIMITS__REQUESTS_PER_S", "1");
    let keys = [key(&app, &[]).await, key(&app, &[]).await];
    let serve = app.serve("api").await;
    let get = async |key: &str| ask(serve.port, "GET", SUBSCRIPTIONS).key(key).send().await;
    let all = futures_util::future::join_all((0..8).map(|_| get(&keys[0]))).await;
    let refused: Vec<_> = all.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && all.iter().any(|answer| answer.status == 200));
    refused[0].problem(429);
    assert!(refused[0].header("retry-after").parse::<u32>().unwrap() >= 1);
    get(&keys[1]).await.is(200);
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_or_a_body_that_never_ends_loses_its_connection() {
    let mut app = App::new();
    app.set("API__HEADER_TIMEOUT_S", "1");
    app.set("API__TIMEOUT_S", "1");
    let serve = app.serve("api").await;
    for begun in [
        "GET /v1/subscriptions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        // Idle after an answer.
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", serve.port)).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{begun:?} keeps its connection");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!begun.starts_with("POST") || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_and_never_reads_loses_the_connection_and_its_place() {
    let mut app = App::new();
    app.set("API__TIMEOUT_S", "1");
    app.set("API__CONNECTIONS_MAX", "1");
    let serve = app.serve("api").await;
    // Little room here, and more answers than the kernel keeps for a reader.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], serve.port).into()).await.unwrap();
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400);
    stream.write_all(asked.as_bytes()).await.unwrap();
    let next = ask(serve.port, "GET", "/healthz").send();
    let next = tokio::time::timeout(std::time::Duration::from_secs(30), next).await;
    assert_eq!(next.expect("the place is free again").status, 200);
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers).await;
    let whole = String::from_utf8_lossy(&answers).matches("HTTP/1.1 200").count();
    assert!((1..400).contains(&whole), "{whole} answers were kept for somebody who read none");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_hold_no_more_bytes_than_is_allowed_however_slowly_they_come() {
    let mut app = App::new();
    app.set("LIMITS__BODIES_BYTES_MAX", "1048576");
    let serve = app.serve("api").await;
    let probe = async || {
        let body = format!("{{\"data\":\"{}\"}}", "x".repeat(120_000));
        ask(serve.port, "POST", "/v1/events").body("application/json", body.as_bytes()).send().await
    };
    probe().await.problem(422);
    let head = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 400000\r\n\r\n";
    // Of those that come together some may be refused and leave room: so one more each time.
    let begun = tokio::sync::Mutex::new(Vec::new());
    let is_full = async || {
        let mut stream = TcpStream::connect(("127.0.0.1", serve.port)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; 100_000]).await.unwrap();
        begun.lock().await.push(stream);
        probe().await.status == 503
    };
    eventually("there is no room", 20, is_full).await;
    drop(begun);
    eventually("there is room again", 20, async || probe().await.status == 422).await;
    serve.stop().await;
}
