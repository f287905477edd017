//! What a process answers over HTTP: health and metrics, and `/v1`, one file a resource.
//!
//! Everything of `/v1` is an `Operation` in a list; the router and the OpenAPI document
//! are made from that list. What an operation does is in `desk`; here is only how requests come and answers look.

mod audit;
mod batches;
mod calls;
mod creation;
mod dead_letters;
mod deliveries;
mod door;
mod events;
mod filters;
mod health;
mod listener;
pub mod openapi;
mod operation;
mod outlet;
mod problem;
mod replays;
mod request;
mod subscriptions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::desk::calls::{Notes, Waiting};
use crate::desk::keys::{Buckets, KeyRing};
use crate::desk::{Courier, Desk, Publisher};
pub use health::{Probe, Readiness};
pub use listener::Connections;
use operation::Operation;
use problem::Problem;

/// What the handlers look at.
#[derive(Clone)]
pub struct State {
    /// Whether this process can do its work, and why not.
    pub readiness: Readiness,
    /// The process's metrics.
    pub metrics: PrometheusHandle,
    /// What `/v1` works on; none in a process that has no `/v1` (role `worker`).
    pub v1: Option<Arc<V1>>,
}

/// What `/v1` works on.
pub struct V1 {
    desk: Desk,
    keys: Arc<KeyRing>,
    publisher: Arc<dyn Publisher>,
    courier: Arc<dyn Courier>,
    buckets: Buckets,
    limits: Limits,
    /// Only this machine can reach it.
    is_loopback: bool,
    /// Room for bodies, in pieces of [`request::ROOM_BYTES`].
    room: Arc<Semaphore>,
    /// Publishes under way at once.
    publishes: Semaphore,
    /// Looks through the delivery log and the dead letters, of all requests.
    looks: Semaphore,
    /// Calls that wait for answers.
    waiting: Waiting,
    notes: Notes,
    /// Changes under way, which go on when whoever asked has gone.
    changes: TaskTracker,
}

/// Bounds of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one event.
    pub event_bytes_max: usize,
    /// Of a body of many events.
    pub body_bytes_max: usize,
    /// Of any other document.
    pub document_bytes_max: usize,
    /// Of all bodies in hand together.
    pub bodies_bytes_max: usize,
    /// How long a body may take to come, and then its answer.
    pub timeout: Duration,
    /// Of one key; 0 is no limit.
    pub requests_per_s: u32,
}

/// Publishes under way at once, of all requests.
const PUBLISHES_MAX: usize = 1024;
/// Looks through many rows at once, of all requests: half of the store's connections, since deliveries need some too.
const LOOKS_MAX: usize = 2;

impl V1 {
    /// Puts it together for the address it is served at.
    pub fn new(
        desk: Desk,
        keys: Arc<KeyRing>,
        publisher: Arc<dyn Publisher>,
        courier: Arc<dyn Courier>,
        notes: Notes,
        limits: Limits,
        address: SocketAddr,
    ) -> V1 {
        V1 {
            desk,
            keys,
            publisher,
            courier,
            buckets: Buckets::new(limits.requests_per_s),
            limits,
            is_loopback: address.ip().to_canonical().is_loopback(),
            room: Arc::new(Semaphore::new(limits.bodies_bytes_max.div_ceil(request::ROOM_BYTES))),
            publishes: Semaphore::new(PUBLISHES_MAX),
            looks: Semaphore::new(LOOKS_MAX),
            waiting: Waiting::default(),
            notes,
            changes: TaskTracker::new(),
        }
    }

    /// Waits until one may look through many rows; for as long as this is held.
    async fn look(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.looks.acquire().await.ok()
    }

    /// Waits for the changes that are under way.
    pub async fn close(&self) {
        self.changes.close();
        self.changes.wait().await;
    }
}

/// Takes the port, so that a start fails at once when somebody else has it.
///
/// # Errors
/// The port is taken or may not be bound; the text names the address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))
}

/// Serves until `stop`, then finishes the requests under way.
pub async fn serve(listener: TcpListener, state: State, connections: Connections, stop: CancellationToken) {
    let v1 = state.v1.clone();
    listener::serve(listener, router(state), connections, stop).await;
    if let Some(v1) = v1 {
        v1.close().await;
    }
}

/// Every operation of `/v1`.
fn operations() -> Vec<Operation> {
    let resources = [
        events::operations(),
        calls::operations(),
        batches::operations(),
        subscriptions::operations(),
        dead_letters::operations(),
        replays::operations(),
        deliveries::operations(),
        audit::operations(),
    ];
    resources.into_iter().flatten().collect()
}

fn router(state: State) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics));
    if let Some(v1) = &state.v1 {
        router = router.route("/openapi.json", get(openapi::answer));
        for operation in operations() {
            let filter = MethodFilter::try_from(operation.method.clone()).expect("a method that axum knows");
            let (path, operation, v1) = (operation.path, Arc::new(operation), Arc::clone(v1));
            let handler = move |request| door::enter(Arc::clone(&v1), Arc::clone(&operation), request);
            router = router.route(path, on(filter, handler));
        }
    }
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(state)
}

async fn unknown() -> Response {
    Problem::missing("nothing is at this path").hint("`/openapi.json` lists what is").into_response()
}

async fn wrong_method() -> Response {
    let title = "not this method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", title, "this path has other methods")
        .hint("the header `Allow` names them")
        .into_response()
}
