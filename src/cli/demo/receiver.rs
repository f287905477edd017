//! A receiver as a customer would write one: it checks every signature by itself, and misbehaves by path.
//!
//! The check is made from the specification with the plain hash and shares nothing with the code that signs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Failure;

/// Requests that may wait to be told.
const ARRIVALS_MAX: usize = 256;
/// How far a signature's time may be from ours, as the specification advises.
const TIMESTAMP_TOLERANCE_S: i64 = 300;
/// How often `/flaky` fails.
const FLAKY_FAILURES: u32 = 2;

/// The running receiver and what has arrived at it.
pub(super) struct Receiver {
    address: SocketAddr,
    desk: Arc<Desk>,
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinHandle<()>,
}

/// One request, written down when it came.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    /// The path without its slash: `erp`, `flaky` or `broken`.
    pub(super) endpoint: String,
    pub(super) webhook_id: String,
    /// `paperboy-attempt`, as it stood in the request.
    pub(super) attempt: String,
    /// `paperboy-replay`, if it stood there.
    pub(super) replay: Option<String>,
    /// Why the signature is refused, if it is.
    pub(super) forged: Option<String>,
    /// What was answered.
    pub(super) status: StatusCode,
}

/// What the handler knows.
struct Desk {
    arrivals: mpsc::Sender<Arrival>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    secrets: HashMap<String, String>,
    /// Requests seen, by endpoint and webhook id.
    seen: HashMap<(String, String), u32>,
    repaired: bool,
}

impl Receiver {
    /// Listens on a free port of the loopback.
    pub(super) async fn start() -> Result<Receiver, Failure> {
        let cannot =
            |error: std::io::Error| Failure::world(format!("the demo's receiver cannot listen: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let desk = Arc::new(Desk { arrivals: sender, memory: Mutex::default() });
        let router = Router::new().route("/{endpoint}", post(take)).with_state(Arc::clone(&desk));
        let serving = tokio::spawn(async move {
            // Ends with the task; a listener that broke shows as requests that do not come.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Receiver { address, desk, arrivals, serving })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address to subscribe an endpoint with.
    pub(super) fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.address)
    }

    /// Gives an endpoint the secret its signatures are checked with.
    pub(super) fn learn(&self, endpoint: &str, secret: &str) {
        self.desk.memory(|memory| memory.secrets.insert(endpoint.to_owned(), secret.to_owned()));
    }

    /// From now on `/broken` takes everything.
    pub(super) fn repair(&self) {
        self.desk.memory(|memory| memory.repaired = true);
    }

    /// The next request, if one comes in time.
    pub(super) async fn next(&mut self, within: Duration) -> Option<Arrival> {
        timeout(within, self.arrivals.recv()).await.ok().flatten()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Desk {
    fn memory<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn take(
    State(desk): State<Arc<Desk>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let at = Instant::now();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let webhook_id = header("webhook-id").unwrap_or_default();
    let (forged, answer) = desk.memory(|memory| {
        let secret = memory.secrets.get(&endpoint).map_or("", String::as_str);
        let now_s = jiff::Timestamp::now().as_second();
        if let Err(why) = verify(secret, &headers, &body, now_s) {
            return (Some(why), (StatusCode::UNAUTHORIZED, "signature refused\n"));
        }
        let times = memory.seen.entry((endpoint.clone(), webhook_id.clone())).or_default();
        *times += 1;
        (None, behave(&endpoint, *times, memory.repaired))
    });
    let arrival = Arrival {
        at,
        endpoint,
        webhook_id,
        attempt: header("paperboy-attempt").unwrap_or_default(),
        replay: header("paperboy-replay"),
        forged,
        status: answer.0,
    };
    // Fails only when the demo has stopped looking.
    let _ = desk.arrivals.send(arrival).await;
    answer
}

/// What an endpoint answers to the n-th request for one event.
fn behave(endpoint: &str, times: u32, repaired: bool) -> (StatusCode, &'static str) {
    match endpoint {
        "erp" => (StatusCode::OK, "booked\n"),
        "flaky" if times <= FLAKY_FAILURES => (StatusCode::SERVICE_UNAVAILABLE, "restarting\n"),
        "flaky" => (StatusCode::OK, "thank you\n"),
        "broken" if !repaired => (StatusCode::INTERNAL_SERVER_ERROR, "no such table: batches\n"),
        "broken" => (StatusCode::OK, "filed\n"),
        _ => (StatusCode::NOT_FOUND, "nobody here\n"),
    }
}

/// Standard Webhooks §verification: HMAC-SHA256 over `id.timestamp.body` with the bytes behind `whsec_`,
/// compared in constant time, and not too old.
fn verify(secret: &str, headers: &HeaderMap, body: &[u8], now_s: i64) -> Result<(), String> {
    let header = |name: &str| {
        let value = headers.get(name).ok_or_else(|| format!("no `{name}`"))?;
        value.to_str().map_err(|_| format!("`{name}` is not text"))
    };
    let (id, timestamp, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let sent_s: i64 = timestamp.parse().map_err(|_| "`webhook-timestamp` is not a number".to_owned())?;
    if now_s.abs_diff(sent_s) > TIMESTAMP_TOLERANCE_S.unsigned_abs() {
        return Err(format!("`webhook-timestamp` is {} s away", now_s.abs_diff(sent_s)));
    }
    let key = secret.strip_prefix("whsec_").and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let key = key.ok_or("this endpoint has no secret")?;
    let mut expected = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        expected.update(part);
    }
    let is_ours = |entry: &str| {
        let given = entry.strip_prefix("v1,").and_then(|text| BASE64.decode(text.as_bytes()).ok());
        given.is_some_and(|given| expected.clone().verify_slice(&given).is_ok())
    };
    if signatures.split(' ').any(is_ours) { Ok(()) } else { Err("no signature matches".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT_S: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap());
        headers.insert("webhook-timestamp", SENT_S.to_string().parse().unwrap());
        headers.insert("webhook-signature", signature.parse().unwrap());
        headers
    }

    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn takes_the_example_of_the_specification() {
        assert_eq!(verify(SECRET, &headers(GOOD), BODY, SENT_S), Ok(()));
        let rotating = format!("v1,AAAA v1a,{} {GOOD}", &GOOD[3..]);
        assert_eq!(verify(SECRET, &headers(&rotating), BODY, SENT_S + 299), Ok(()));
    }

    #[test]
    fn refuses_another_body_another_key_and_an_old_time() {
        assert!(verify(SECRET, &headers(GOOD), br#"{"test": 2432232315}"#, SENT_S).is_err());
        assert!(verify("whsec_AAAA", &headers(GOOD), BODY, SENT_S).is_err());
        assert!(verify("", &headers(GOOD), BODY, SENT_S).is_err());
        assert!(verify(SECRET, &headers(GOOD), BODY, SENT_S + 301).is_err());
        assert!(verify(SECRET, &HeaderMap::new(), BODY, SENT_S).is_err());
    }

    #[test]
    fn misbehaves_as_announced() {
        let status = |endpoint, times, repaired| behave(endpoint, times, repaired).0.as_u16();
        assert_eq!([1, 2, 3].map(|times| status("flaky", times, false)), [503, 503, 200]);
        assert_eq!([1, 9].map(|times| status("broken", times, false)), [500, 500]);
        assert_eq!(status("broken", 4, true), 200);
        assert_eq!(status("erp", 1, false), 200);
    }
}
