//! A receiver as a customer would write one: takes requests, checks signatures by itself, answers as it is told.
//!
//! The check is made from the specification with the plain hash and shares nothing with the code that signs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Failure;

/// Requests that may wait to be looked at.
const ARRIVALS_MAX: usize = 256;
/// A larger body is answered with 413 and not looked at.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events whose requests are counted; beyond that counting starts anew.
const COUNTED_MAX: usize = 10_000;
/// How far a signature's time may be from ours, as the specification advises.
pub(super) const TIMESTAMP_TOLERANCE_S: u64 = 300;

/// The running receiver and what has arrived at it.
pub(super) struct Receiver {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    serving: JoinHandle<()>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) at: Instant,
    pub(super) at_ms: i64,
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Which request of this path and `webhook-id` it is, from 1.
    pub(super) nth: u32,
}

/// A request with what was made of it.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) request: Incoming,
    pub(super) signature: Signature,
    /// What was answered.
    pub(super) status: StatusCode,
}

/// What a look at the signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signature {
    /// One of the secrets made it, this many seconds ago (below zero: ahead of our clock).
    Verified { age_s: i64 },
    /// It is not what one of the secrets makes.
    Wrong(String),
    /// There is none.
    Unsigned,
    /// There is one, and no secret to check it with.
    Unchecked,
}

impl Signature {
    /// Made with one of the secrets and not too old: what a receiver accepts.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Signature::Verified { age_s } if age_s.unsigned_abs() <= TIMESTAMP_TOLERANCE_S)
    }
}

/// What a script answers: the status and a line of text.
pub(super) type Answer = (StatusCode, &'static str);

type Script = dyn Fn(&Incoming) -> (Signature, Answer) + Send + Sync;

/// What the handler knows.
struct Desk {
    arrivals: mpsc::Sender<Arrival>,
    seen: Mutex<HashMap<(String, String), u32>>,
    script: Box<Script>,
}

impl Receiver {
    /// Listens and answers every request as `script` says.
    pub(super) async fn start(
        address: SocketAddr,
        script: impl Fn(&Incoming) -> (Signature, Answer) + Send + Sync + 'static,
    ) -> Result<Receiver, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::world(format!("the receiver cannot listen on `{address}`: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let desk = Desk { arrivals: sender, seen: Mutex::default(), script: Box::new(script) };
        let router = Router::new().fallback(take).with_state(Arc::new(desk));
        let serving = tokio::spawn(async move {
            // Ends with the task; a listener that broke shows as requests that do not come.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Receiver { address, arrivals, serving })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request; none once the listener is gone.
    pub(super) async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Takes no more and returns what nobody has looked at yet.
    pub(super) fn rest(&mut self) -> Vec<Arrival> {
        self.serving.abort();
        std::iter::from_fn(|| self.arrivals.try_recv().ok()).take(ARRIVALS_MAX).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Incoming {
    /// A header's text; empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Desk {
    fn count(&self, path: &str, webhook_id: &str) -> u32 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= COUNTED_MAX {
            seen.clear();
        }
        let times = seen.entry((path.to_owned(), webhook_id.to_owned())).or_default();
        *times += 1;
        *times
    }
}

async fn take(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Answer {
    let at = Instant::now();
    let now = jiff::Timestamp::now();
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or did not come whole\n");
    };
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let mut request = Incoming {
        at,
        at_ms: now.as_millisecond(),
        method: parts.method.to_string(),
        path,
        headers: parts.headers,
        body,
        nth: 0,
    };
    request.nth = desk.count(&request.path, request.header("webhook-id"));
    let (signature, answer) = (desk.script)(&request);
    // Fails only when nobody looks any more.
    let _ = desk.arrivals.send(Arrival { request, signature, status: answer.0 }).await;
    answer
}

/// The bytes behind `whsec_`, which may be left out.
pub(super) fn key(secret: &str) -> Option<Vec<u8>> {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret).as_bytes();
    let key = BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).ok();
    key.filter(|key| !key.is_empty())
}

/// Standard Webhooks, verification: HMAC-SHA256 over `id.timestamp.body` with any of the keys, compared in
/// constant time. How old it may be is the caller's matter.
pub(super) fn check(keys: &[Vec<u8>], request: &Incoming) -> Signature {
    if !request.headers.contains_key("webhook-signature") {
        return Signature::Unsigned;
    }
    if keys.is_empty() {
        return Signature::Unchecked;
    }
    match age_s(keys, &request.headers, &request.body, request.at_ms.div_euclid(1000)) {
        Ok(age_s) => Signature::Verified { age_s },
        Err(why) => Signature::Wrong(why),
    }
}

/// How old a signature is that one of the keys made.
fn age_s(keys: &[Vec<u8>], headers: &HeaderMap, body: &[u8], now_s: i64) -> Result<i64, String> {
    let header = |name: &str| {
        let value = headers.get(name).ok_or_else(|| format!("no `{name}`"))?;
        value.to_str().map_err(|_| format!("`{name}` is not text"))
    };
    let (id, timestamp, signatures) =
        (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let sent_s: i64 = timestamp.parse().map_err(|_| "`webhook-timestamp` is not a number".to_owned())?;
    for key in keys {
        let mut expected = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            expected.update(part);
        }
        let is_ours = |entry: &str| {
            let given = entry.strip_prefix("v1,").and_then(|text| BASE64.decode(text.as_bytes()).ok());
            given.is_some_and(|given| expected.clone().verify_slice(&given).is_ok())
        };
        if signatures.split(' ').any(is_ours) {
            return Ok(now_s.saturating_sub(sent_s));
        }
    }
    Err("no signature in `webhook-signature` is made with the secret".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT_S: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const GOOD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn request(signature: Option<&str>, body: &'static [u8], now_s: i64) -> Incoming {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap());
        headers.insert("webhook-timestamp", SENT_S.to_string().parse().unwrap());
        if let Some(signature) = signature {
            headers.insert("webhook-signature", signature.parse().unwrap());
        }
        Incoming {
            at: Instant::now(),
            at_ms: now_s * 1000,
            method: "POST".into(),
            path: "/".into(),
            headers,
            body: Bytes::from_static(body),
            nth: 1,
        }
    }

    fn keys(secrets: &[&str]) -> Vec<Vec<u8>> {
        secrets.iter().map(|secret| key(secret).unwrap()).collect()
    }

    #[test]
    fn takes_the_example_of_the_specification() {
        let good = request(Some(GOOD), BODY, SENT_S);
        assert_eq!(check(&keys(&[SECRET]), &good), Signature::Verified { age_s: 0 });
        let rotating = format!("v1,AAAA v1a,{} {GOOD}", &GOOD[3..]);
        let later = request(Some(&rotating), BODY, SENT_S + 299);
        assert_eq!(check(&keys(&["whsec_AAAA", SECRET]), &later), Signature::Verified { age_s: 299 });
    }

    #[test]
    fn refuses_another_body_and_another_key() {
        let changed = request(Some(GOOD), br#"{"test": 2432232315}"#, SENT_S);
        assert!(matches!(check(&keys(&[SECRET]), &changed), Signature::Wrong(_)));
        let good = request(Some(GOOD), BODY, SENT_S);
        assert!(matches!(check(&keys(&["whsec_AAAA"]), &good), Signature::Wrong(_)));
        assert!(matches!(check(&keys(&[SECRET]), &request(Some("v1,"), BODY, SENT_S)), Signature::Wrong(_)));
    }

    #[test]
    fn an_old_signature_is_verified_and_not_good() {
        for (now_s, is_good) in [(SENT_S + 300, true), (SENT_S + 301, false), (SENT_S - 301, false)] {
            let signature = check(&keys(&[SECRET]), &request(Some(GOOD), BODY, now_s));
            assert_eq!(signature, Signature::Verified { age_s: now_s - SENT_S });
            assert_eq!(signature.is_good(), is_good, "{now_s}");
        }
    }

    #[test]
    fn unsigned_and_unchecked_are_told_apart() {
        assert_eq!(check(&keys(&[SECRET]), &request(None, BODY, SENT_S)), Signature::Unsigned);
        assert_eq!(check(&[], &request(Some(GOOD), BODY, SENT_S)), Signature::Unchecked);
        assert!(!Signature::Unsigned.is_good() && !Signature::Unchecked.is_good());
    }

    #[test]
    fn a_secret_is_base64_with_or_without_its_prefix() {
        assert_eq!(key("whsec_AAEC"), Some(vec![0, 1, 2]));
        assert_eq!((key("AAEC"), key("AAE")), (Some(vec![0, 1, 2]), Some(vec![0, 1])));
        assert_eq!((key("whsec_"), key("not base64!")), (None, None));
    }
}
