//! The demo's receiver: checks every signature by itself, and misbehaves by path.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::time::timeout;

use super::Failure;
use crate::cli::receiver::{self, Answer, Incoming, Signature};

/// How often `/flaky` fails.
const FLAKY_FAILURES: u32 = 2;

/// The running receiver and what has arrived at it.
pub(super) struct Receiver {
    inner: receiver::Receiver,
    memory: Arc<Mutex<Memory>>,
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

#[derive(Default)]
struct Memory {
    keys: HashMap<String, Vec<u8>>,
    repaired: bool,
}

impl Receiver {
    /// Listens on a free port of the loopback.
    pub(super) async fn start() -> Result<Receiver, Failure> {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let known = Arc::clone(&memory);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let inner = receiver::Receiver::start(free, move |request| {
            let memory = known.lock().unwrap_or_else(PoisonError::into_inner);
            let endpoint = endpoint(request);
            let keys: Vec<_> = memory.keys.get(endpoint).cloned().into_iter().collect();
            let signature = receiver::check(&keys, request);
            let answer = match signature.is_good() {
                true => behave(endpoint, request.nth, memory.repaired),
                false => (StatusCode::UNAUTHORIZED, "signature refused\n"),
            };
            (signature, answer)
        });
        Ok(Receiver { inner: inner.await?, memory })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.inner.address()
    }

    /// The address to subscribe an endpoint with.
    pub(super) fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.address())
    }

    /// Gives an endpoint the secret its signatures are checked with.
    pub(super) fn learn(&self, endpoint: &str, secret: &str) {
        let key = receiver::key(secret).unwrap_or_default();
        self.memory(|memory| memory.keys.insert(endpoint.to_owned(), key));
    }

    /// From now on `/broken` takes everything.
    pub(super) fn repair(&self) {
        self.memory(|memory| memory.repaired = true);
    }

    /// The next request, if one comes in time.
    pub(super) async fn next(&mut self, within: Duration) -> Option<Arrival> {
        let arrival = timeout(within, self.inner.next()).await.ok().flatten()?;
        let request = &arrival.request;
        Some(Arrival {
            at: request.at,
            endpoint: endpoint(request).to_owned(),
            webhook_id: request.header("webhook-id").to_owned(),
            attempt: request.header("paperboy-attempt").to_owned(),
            replay: Some(request.header("paperboy-replay").to_owned()).filter(|replay| !replay.is_empty()),
            forged: forged(&arrival.signature),
            status: arrival.status,
        })
    }

    fn memory<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn endpoint(request: &Incoming) -> &str {
    request.path.trim_start_matches('/')
}

/// Why a signature is refused, if it is.
fn forged(signature: &Signature) -> Option<String> {
    match signature {
        _ if signature.is_good() => None,
        Signature::Verified { age_s } => {
            Some(format!("`webhook-timestamp` is {} s away", age_s.unsigned_abs()))
        }
        Signature::Wrong(why) => Some(why.clone()),
        Signature::Unsigned => Some("no `webhook-signature`".to_owned()),
        Signature::Unchecked => Some("this endpoint has no secret".to_owned()),
    }
}

/// What an endpoint answers to the n-th request for one event.
fn behave(endpoint: &str, times: u32, repaired: bool) -> Answer {
    match endpoint {
        "erp" => (StatusCode::OK, "booked\n"),
        "flaky" if times <= FLAKY_FAILURES => (StatusCode::SERVICE_UNAVAILABLE, "restarting\n"),
        "flaky" => (StatusCode::OK, "thank you\n"),
        "broken" if !repaired => (StatusCode::INTERNAL_SERVER_ERROR, "my archive is full\n"),
        "broken" => (StatusCode::OK, "filed\n"),
        _ => (StatusCode::NOT_FOUND, "nobody here\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_a_fresh_verified_signature_is_forged() {
        assert_eq!(forged(&Signature::Verified { age_s: -300 }), None);
        for refused in [
            Signature::Verified { age_s: 301 },
            Signature::Wrong("no signature matches".into()),
            Signature::Unsigned,
            Signature::Unchecked,
        ] {
            assert!(forged(&refused).is_some(), "{refused:?}");
        }
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
