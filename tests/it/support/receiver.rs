//! A receiver that does as it is told and remembers everything. Imports nothing of paperboy: it is the
//! independent eye on what was sent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use data_encoding::BASE64;
use ring::hmac;
use tokio::task::JoinHandle;

use super::eventually;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    pub(crate) unix_s: u64,
    /// Which request of this path and `webhook-id` it is, from 1.
    pub(crate) nth: usize,
    /// What was answered.
    pub(crate) status: u16,
}

impl Hit {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Checks a Standard Webhooks signature over the bytes that arrived, at most five minutes old.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mut signed = format!("{}.{}.", self.id(), self.header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&self.body);
        let fresh =
            self.header("webhook-timestamp").parse::<u64>().is_ok_and(|at| at.abs_diff(self.unix_s) <= 300);
        let signatures = self.header("webhook-signature").split(' ');
        fresh
            && signatures.filter_map(|signature| signature.strip_prefix("v1,")).any(|signature| {
                BASE64.decode(signature.as_bytes()).is_ok_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
            })
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) after: Duration,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Cow<'static, str>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply { status, after: Duration::ZERO, headers: Vec::new(), body: Cow::Borrowed("") }
    }

    pub(crate) fn after(mut self, pause: Duration) -> Reply {
        self.after = pause;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Cow<'static, str>>) -> Reply {
        self.body = body.into();
        self
    }
}

type Script = dyn Fn(&Hit) -> Reply + Send + Sync;

struct Shared {
    script: Mutex<Arc<Script>>,
    hits: Mutex<Vec<Hit>>,
    counts: Mutex<HashMap<(String, String), usize>>,
}

pub(crate) struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers every request as `script` says.
    pub(crate) async fn start(script: impl Fn(&Hit) -> Reply + Send + Sync + 'static) -> Receiver {
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            hits: Mutex::default(),
            counts: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { port, shared, task }
    }

    /// From now on answers differently.
    pub(crate) fn change(&self, script: impl Fn(&Hit) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.shared.hits.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.hits.lock().unwrap().len()
    }

    /// Waits until at least `count` requests were answered.
    pub(crate) async fn wait_for(&self, count: usize, limit_s: u64) -> Vec<Hit> {
        let what = format!("{count} requests at the receiver");
        eventually(&what, limit_s, || async { self.count() >= count }).await;
        self.hits()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let id = parts.headers.get("webhook-id").map_or(String::new(), |id| id.to_str().unwrap().to_owned());
    let nth = {
        let mut counts = shared.counts.lock().unwrap();
        let count = counts.entry((path.clone(), id)).or_default();
        *count += 1;
        *count
    };
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut hit = Hit {
        method: parts.method.to_string(),
        path,
        headers: parts.headers,
        body,
        at: Instant::now(),
        unix_s,
        nth,
        status: 0,
    };
    let script = Arc::clone(&shared.script.lock().unwrap());
    let reply = script(&hit);
    hit.status = reply.status;
    if !reply.after.is_zero() {
        tokio::time::sleep(reply.after).await;
    }
    shared.hits.lock().unwrap().push(hit);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(reply.body.into_owned())).unwrap()
}
