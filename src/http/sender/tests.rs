//! The sender against real sockets on loopback that speak HTTP, or do not, byte by byte.

use std::{
    future::{Future, pending},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use reqwest::header::{HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use url::Url;

use super::*;
use crate::domain::cause::Cause;

/// A scripted receiver that counts its connections; it ends with the test's runtime.
struct Receiver {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Receiver
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Receiver { address, connections }
    }

    /// Answers every request of a connection with the same bytes.
    async fn answering(answer: impl Into<Bytes>) -> Receiver {
        let answer = answer.into();
        Receiver::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                while read_request(&mut stream).await.is_some() {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Writes these bytes after the first request and keeps the connection open in silence.
    async fn falling_silent_after(bytes: &'static str) -> Receiver {
        Receiver::start(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
            pending::<()>().await;
        })
        .await
    }

    /// Answers 200 and hands over what it was sent.
    async fn recording() -> (Receiver, mpsc::UnboundedReceiver<String>) {
        let (seen, requests) = mpsc::unbounded_channel();
        let receiver = Receiver::start(move |mut stream| {
            let seen = seen.clone();
            async move {
                seen.send(read_request(&mut stream).await.unwrap()).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        });
        (receiver.await, requests)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads one request with its body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn sender_with(allow: &[&str], insecure_tls: &[&str]) -> Sender {
    // Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let guard = Arc::new(Guard::new(&owned(allow)).unwrap());
    Sender::new(SenderSettings { guard, insecure_tls: owned(insecure_tls) }).unwrap()
}

fn sender() -> Sender {
    sender_with(&["127.0.0.1", "::1"], &[])
}

fn post(url: impl AsRef<str>) -> Request {
    Request {
        method: Method::Post,
        url: Url::parse(url.as_ref()).unwrap(),
        headers: HeaderMap::from_iter([
            (HeaderName::from_static("content-type"), HeaderValue::from_static("application/json")),
            (HeaderName::from_static("x-env"), HeaderValue::from_static("live")),
        ]),
        body: Bytes::from_static(b"{\"a\":1}").into(),
        timeout: Duration::from_secs(5),
        reads_answer: false,
        token: None,
    }
}

fn within(mut request: Request, timeout_ms: u64) -> Request {
    request.timeout = Duration::from_millis(timeout_ms);
    request
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.excerpt).into_owned()
}

fn failure(class: Class) -> Seen {
    Seen::Failure(class)
}

#[tokio::test]
async fn hands_the_request_over_unchanged_and_reports_a_200() {
    let (receiver, mut requests) = Receiver::recording().await;
    let answer = sender().send(post(receiver.url("/hook/a%2Fb?x=1"))).await;
    assert_eq!(answer.seen, Seen::Status(200));
    assert!(answer.excerpt.is_empty() && answer.retry_after.is_none());
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /hook/a%2Fb?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
    let head = request.to_lowercase();
    for line in ["content-type: application/json", "x-env: live", "content-length: 7"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{request}");
    }
    for absent in ["accept-encoding", "user-agent", "referer"] {
        assert!(!head.contains(absent), "{request}");
    }
}

#[tokio::test]
async fn a_request_without_a_body_can_be_sent() {
    let receiver = Receiver::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    for method in [Method::Get, Method::Delete, Method::Post] {
        let request = Request {
            method,
            headers: HeaderMap::new(),
            body: Bytes::new().into(),
            ..post(receiver.url("/"))
        };
        assert_eq!(sender().send(request).await.seen, Seen::Status(204));
    }
}

#[tokio::test]
async fn a_dripping_body_after_a_200_settles_at_once_and_is_given_up_soon() {
    let receiver = Receiver::falling_silent_after("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
    let sender = sender();
    let started = Instant::now();
    assert_eq!(sender.send(post(receiver.url("/"))).await.seen, Seen::Status(200));
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(sender.drains.running(), 1);
    sender.close().await;
    assert_eq!(sender.drains.running(), 0);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_endless_body_after_a_200_is_cut_off() {
    let (ended, mut written) = mpsc::unbounded_channel();
    let receiver = Receiver::start(move |mut stream| {
        let ended = ended.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            let mut bytes = 0_u64;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {
                bytes += 0x4000;
            }
            let _ = ended.send(bytes);
        }
    })
    .await;
    assert_eq!(sender().send(post(receiver.url("/"))).await.seen, Seen::Status(200));
    // What the sockets' buffers took in counts too.
    assert!(written.recv().await.unwrap() < 16 << 20);
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_success_and_after_a_refusal() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{}", "x".repeat(20_000)),
        "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nback".to_owned(),
        format!("HTTP/1.1 500 Oops\r\ncontent-length: 20000\r\n\r\n{}", "x".repeat(20_000)),
    ] {
        let receiver = Receiver::answering(answer.clone()).await;
        let sender = sender();
        // A drained connection becomes free in a task of the client's own, so the second request may come too early.
        let mut reused = false;
        for sent in 1..=20 {
            sender.send(post(receiver.url("/"))).await;
            reused = receiver.connections() < sent;
            if reused {
                break;
            }
            while sender.drains.running() > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(reused, "{}", &answer[..24]);
    }
}

#[tokio::test]
async fn a_500_gives_the_first_kilobyte_of_its_body() {
    let receiver =
        Receiver::answering(format!("HTTP/1.1 500 Oops\r\ncontent-length: 5000\r\n\r\n{}", "e".repeat(5000)))
            .await;
    let answer = sender().send(post(receiver.url("/"))).await;
    assert_eq!((answer.seen, text(&answer)), (Seen::Status(500), "e".repeat(1024)));
    let receiver = Receiver::answering("HTTP/1.1 422 No\r\ncontent-length: 9\r\n\r\nno `id`\r\n").await;
    assert_eq!(text(&sender().send(post(receiver.url("/"))).await), "no `id`\r\n");
}

#[tokio::test]
async fn a_slow_body_after_a_500_is_waited_for_a_quarter_of_a_second_only() {
    let receiver =
        Receiver::falling_silent_after("HTTP/1.1 500 Oops\r\ncontent-length: 999\r\n\r\nstart").await;
    let started = Instant::now();
    let answer = sender().send(post(receiver.url("/"))).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap();
    assert!(elapsed_ms < 2_000, "{elapsed_ms}");
    assert_eq!((answer.seen, text(&answer)), (Seen::Status(500), "start".into()));
    assert!(answer.elapsed_ms + 200 < elapsed_ms, "the excerpt is no part of the receiver's time");
}

#[tokio::test]
async fn retry_after_is_read_in_seconds() {
    let receiver =
        Receiver::answering("HTTP/1.1 429 Slow\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n").await;
    let answer = sender().send(post(receiver.url("/"))).await;
    assert_eq!((answer.seen, answer.retry_after), (Seen::Status(429), Some(120)));
    let receiver =
        Receiver::answering("HTTP/1.1 503 Slow\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(sender().send(post(receiver.url("/"))).await.retry_after, None);
}

#[tokio::test]
async fn a_head_that_does_not_come_or_drips_is_a_timeout() {
    for bytes in ["", "HTTP/1.1 200 OK\r\nx: "] {
        let receiver = Receiver::falling_silent_after(bytes).await;
        let answer = sender().send(within(post(receiver.url("/")), 150)).await;
        assert_eq!(answer.seen, failure(Class::Timeout), "{bytes:?}");
        assert!((150..4000).contains(&answer.elapsed_ms), "{}", answer.elapsed_ms);
    }
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let answer = sender().send(within(post(receiver.url("/")), 150)).await;
    assert_eq!(answer.seen, failure(Class::Timeout));
}

#[tokio::test]
async fn an_endless_head_is_a_bad_response() {
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'y'; 8192]).await.is_ok() {}
    })
    .await;
    assert_eq!(sender().send(post(receiver.url("/"))).await.seen, failure(Class::BadResponse));
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_response() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "ok\r\n\r\n",
        "HTTP/1.1 000 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    ] {
        let receiver = Receiver::answering(bytes).await;
        assert_eq!(
            sender().send(post(receiver.url("/"))).await.seen,
            failure(Class::BadResponse),
            "{bytes:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_failure() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = sender().send(post(format!("http://{free}/"))).await;
    assert_eq!(answer.seen, failure(Class::Connect));
    assert_eq!(answer.cause(), Cause::ConnectRefused);
    assert!(text(&answer).contains("refused"), "{}", text(&answer));
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_a_connect_failure() {
    let reset = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(sender().send(post(reset.url("/"))).await.seen, failure(Class::Connect));
    for bytes in ["", "HTTP/1.1 200 OK\r\nx: "] {
        let closed = Receiver::start(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        })
        .await;
        assert_eq!(sender().send(post(closed.url("/"))).await.seen, failure(Class::Connect), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_connection_reset_in_the_body_of_a_200_is_still_a_success() {
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
    })
    .await;
    assert_eq!(sender().send(post(receiver.url("/"))).await.seen, Seen::Status(200));
}

#[tokio::test]
async fn a_second_answer_nobody_asked_for_never_answers_the_next_request() {
    let receiver = Receiver::start(|mut stream| async move {
        read_request(&mut stream).await;
        let two = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(two.as_bytes()).await;
        pending::<()>().await;
    })
    .await;
    let sender = sender();
    for _ in 0..3 {
        assert_eq!(sender.send(post(receiver.url("/"))).await.seen, Seen::Status(500));
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for target in ["http://169.254.169.254/latest/meta-data/".to_owned(), elsewhere.url("/")] {
        for status in [301, 302, 303, 307, 308] {
            let head = format!("HTTP/1.1 {status} Go\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
            let receiver = Receiver::answering(head).await;
            assert_eq!(sender().send(post(receiver.url("/"))).await.seen, Seen::Status(status));
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_denied_address_is_blocked_without_a_connection() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = receiver.address.port();
    let sender = sender_with(&[], &[]);
    for host in ["127.0.0.1", "127.1", "2130706433", "0", "[::1]", "[::ffff:127.0.0.1]", "localhost"] {
        let answer = sender.send(post(format!("http://{host}:{port}/"))).await;
        assert_eq!(answer.seen, failure(Class::Blocked), "{host}: {}", text(&answer));
        assert!(!text(&answer).contains("127.0.0.1"), "{}", text(&answer));
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_is_called_when_all_its_addresses_are_allowed() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = receiver.address.port();
    let url = format!("http://localhost:{port}/");
    assert_eq!(sender().send(post(&url)).await.seen, Seen::Status(200));
    let (this, other) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port ^ 1));
    let by_port = [this.as_str(), &format!("[::1]:{port}")];
    assert_eq!(sender_with(&by_port, &[]).send(post(&url)).await.seen, Seen::Status(200));
    assert_eq!(sender_with(&[&other, "::1"], &[]).send(post(&url)).await.seen, failure(Class::Blocked));
}

#[tokio::test]
async fn a_rule_for_one_port_opens_no_other() {
    let open = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let shut = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let sender = sender_with(&[&open.address.to_string()], &[]);
    assert_eq!(sender.send(post(open.url("/"))).await.seen, Seen::Status(200));
    assert_eq!(sender.send(post(shut.url("/"))).await.seen, failure(Class::Blocked));
    assert_eq!(shut.connections(), 0);
}

#[tokio::test]
async fn a_body_in_pieces_goes_out_as_one_with_its_length() {
    let payload =
        crate::domain::payload::Payload::around(b"{\"a\":".to_vec(), Bytes::from_static(b"[1]"), b"}");
    let (receiver, mut requests) = Receiver::recording().await;
    let answer = sender().send(Request { body: payload, ..post(receiver.url("/")) }).await;
    assert_eq!(answer.seen, Seen::Status(200), "{}", text(&answer));
    let request = requests.recv().await.unwrap();
    assert!(
        request.contains("content-length: 9\r\n") && request.ends_with("\r\n\r\n{\"a\":[1]}"),
        "{request}"
    );
}

#[tokio::test]
async fn an_answer_from_an_address_that_is_not_permitted_is_dropped() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut sender = sender();
    // As if the client had connected past the resolver.
    let request = outbound(post(receiver.url("/")));
    let response = sender.clients.of(request.url()).unwrap().execute(request).await.unwrap();
    assert!(sender.check_connection(&response).is_ok());
    sender.guard = Arc::new(Guard::default());
    assert_eq!(sender.check_connection(&response).unwrap_err().class, Class::Blocked);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_failure() {
    let answer = sender().send(post("http://does-not-exist.invalid/")).await;
    assert_eq!(answer.seen, failure(Class::Dns), "{}", text(&answer));
}

#[tokio::test]
async fn no_failure_tells_the_url() {
    let silent = Receiver::falling_silent_after("").await;
    let broken = Receiver::answering("SSH-2.0-x\r\n").await;
    let closed = Receiver::start(|_| async {}).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for url in [
        silent.url("/canary?canary"),
        broken.url("/canary?canary"),
        closed.url("/canary?canary"),
        format!("http://{free}/canary?canary"),
        format!("https://{}/canary?canary", broken.address),
        "http://10.0.0.1/canary?canary".into(),
        "http://canary.invalid/canary?canary".into(),
    ] {
        let answer = sender().send(within(post(&url), 300)).await;
        assert!(matches!(answer.seen, Seen::Failure(_)), "{url}");
        let text = text(&answer);
        assert!(!text.is_empty() && !text.contains("canary") && !text.contains("http:"), "{url}: {text}");
    }
}

/// The environment of a process cannot be changed safely while it runs, so another one is started.
#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let proxy = Receiver::answering("HTTP/1.1 502 Proxy\r\ncontent-length: 0\r\n\r\n").await;
    let module = module_path!().split_once("::").unwrap().1;
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("{module}::hands_the_request_over_unchanged_and_reports_a_200")]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, proxy.url("/"));
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    assert_eq!(proxy.connections(), 0);
}

/// Self-signed for `localhost`, made for this test alone; valid until 2126.
const CERTIFICATE: &str = "\
    MIIBkjCCATigAwIBAgIUaYcofxEg0lfwWK+PWDALJ1HJleEwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAX\
    DTI2MTEyMjAzMjIyMVoYDzIxMjYxMDI5MDMyMjIxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\
    PQMBBwNCAAQQqHSMwpJG1fe1xcd73iP9g1hqkDnSbDjo4KVtyfx9C1WcM31FU8OdztAufeGk2EI4SNRUw7aC0jc1WxSoSZ+u\
    o2YwZDAdBgNVHQ4EFgQU2KaFOEIqXXnWw8g7gDEqPPJTHhswHwYDVR0jBBgwFoAU2KaFOEIqXXnWw8g7gDEqPPJTHhswFAYD\
    VR0RBA0wC4IJbG9jYWxob3N0MAwGA1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDSAAwRQIhAJwmadAUwYQ0guqV4m/pm4Tw2OR2\
    Q5iM/uUWIJzo4X7NAiBHelkZoSqXic8+8vde4ddXAXypjpSRMb2uaSft76GP8g==";
const CERTIFICATE_KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgDgQmmIfe+qVwukdiZ0//16MqUWWAG+bOfO8UxF5oGP6hRANC\
    AAQQqHSMwpJG1fe1xcd73iP9g1hqkDnSbDjo4KVtyfx9C1WcM31FU8OdztAufeGk2EI4SNRUw7aC0jc1WxSoSZ+u";

/// For `localhost` too, but only until 2025.
const EXPIRED_CERTIFICATE: &str = "\
    MIIBTDCB9KADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDAeFw0yNDAxMDEwMDAwMDBaFw0yNTAx\
    MDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLKOpQQPeocAD6Z69Ez1\
    QfTy3MuIUtnqHdqIbAiycysKCrBzJa8mV29g8Qq9d2q8oRIQwUPTvJVHfOBZL6M+WmqjNzA1MBQGA1UdEQQNMAuCCWxvY2Fs\
    aG9zdDAdBgNVHQ4EFgQUWC0+Eg2lIoxKmVwVokwBc2THHLAwCgYIKoZIzj0EAwIDRwAwRAIgChrn7cJgMwASxLn0DNLFioWJ\
    vReczetpw8OWf5oWew8CIAuvMKAIOYTdZFIJVKoz/Kh5Kg0bbhuKxtLQlgfhnUoC";
const EXPIRED_CERTIFICATE_KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg5wQJhI6JyhiXHkvd9PV0hLybd6ym+DGvQMcsYavfe/ShRANC\
    AASyjqUED3qHAA+mevRM9UH08tzLiFLZ6h3aiGwIsnMrCgqwcyWvJldvYPEKvXdqvKESEMFD07yVR3zgWS+jPlpq";

/// Serves TLS with the certificate above and answers each connection's first request with 200.
fn start_tls_receiver() -> SocketAddr {
    start_tls_receiver_with(CERTIFICATE, CERTIFICATE_KEY)
}

fn start_tls_receiver_with(certificate: &str, key: &str) -> SocketAddr {
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use std::io::{Read, Write};

    let _ = rustls::crypto::ring::default_provider().install_default();
    let decode = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(decode(certificate))],
            PrivatePkcs8KeyDer::from(decode(key)).into(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    address
}

#[tokio::test]
async fn an_untrusted_certificate_is_a_tls_failure() {
    let port = start_tls_receiver().port();
    let answer = sender().send(post(format!("https://localhost:{port}/"))).await;
    assert_eq!(answer.seen, failure(Class::Tls), "{}", text(&answer));
    assert_eq!(answer.cause(), Cause::TlsUntrusted, "{}", text(&answer));
    assert!(text(&answer).contains("certificate"), "{}", text(&answer));
}

#[tokio::test]
async fn an_expired_certificate_says_when_it_expired() {
    let port = start_tls_receiver_with(EXPIRED_CERTIFICATE, EXPIRED_CERTIFICATE_KEY).port();
    let answer = sender().send(post(format!("https://localhost:{port}/"))).await;
    assert_eq!((answer.seen, answer.cause()), (failure(Class::Tls), Cause::TlsExpired), "{}", text(&answer));
    assert_eq!(text(&answer), "the certificate expired on 2025-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_host_named_as_insecure_is_called_without_checking_its_certificate() {
    let port = start_tls_receiver().port();
    let sender = sender_with(&["127.0.0.1", "::1"], &["LocalHost"]);
    assert_eq!(sender.send(post(format!("https://localhost:{port}/"))).await.seen, Seen::Status(200));
    let by_address = sender.send(post(format!("https://127.0.0.1:{port}/"))).await;
    assert_eq!(by_address.seen, failure(Class::Tls), "only the host named is exempt");
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls_is_a_tls_failure() {
    let hangs_up = Receiver::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let talks = Receiver::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await;
        pending::<()>().await;
    })
    .await;
    for receiver in [hangs_up, talks] {
        let answer = sender().send(post(format!("https://{}/", receiver.address))).await;
        assert_eq!(answer.seen, failure(Class::Tls), "{}", text(&answer));
    }
}

fn wanting_all(url: &str) -> Request {
    Request { reads_answer: true, ..post(url) }
}

#[tokio::test]
async fn a_whole_answer_is_read_only_for_whoever_asks_for_it() {
    let head = "HTTP/1.1 422 No\r\ncontent-length: 9\r\nx-request-id: r1\r\n\r\n";
    let receiver = Receiver::answering(format!("{head}{{\"a\": 1}}\n")).await;
    let answer = sender().send(wanting_all(&receiver.url("/"))).await;
    let whole = answer.whole.unwrap();
    assert_eq!((answer.seen, &whole.body.unwrap()[..]), (Seen::Status(422), &b"{\"a\": 1}\n"[..]));
    assert_eq!(whole.headers["x-request-id"], "r1");
    assert!(sender().send(post(receiver.url("/"))).await.whole.is_none());
}

#[tokio::test]
async fn a_success_that_does_not_come_to_its_end_in_time_is_no_answer_for_whoever_wants_all_of_it() {
    let receiver = Receiver::falling_silent_after("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").await;
    let started = Instant::now();
    let answer = sender().send(within(wanting_all(&receiver.url("/")), 400)).await;
    assert_eq!((answer.seen, answer.whole), (failure(Class::Timeout), None));
    assert!(started.elapsed() < Duration::from_secs(4));
    // Of a refusal the status is enough.
    let receiver = Receiver::falling_silent_after("HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nx").await;
    let answer = sender().send(within(wanting_all(&receiver.url("/")), 400)).await;
    assert_eq!((answer.seen, answer.whole), (Seen::Status(500), None));
}
