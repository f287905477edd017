//! What a process answers over HTTP: alive, ready, how much of what. `/v1` says that it is not there yet.

mod health;

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use health::{Probe, Readiness};

/// What the handlers look at.
#[derive(Clone)]
pub struct State {
    /// Whether this process can do its work, and why not.
    pub readiness: Readiness,
    /// The process's metrics.
    pub metrics: PrometheusHandle,
    /// What `/v1` answers here.
    pub v1: V1,
}

/// What `/v1` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V1 {
    /// This process has none (role `worker`).
    Absent,
    /// Reachable from other machines and no key set.
    Refused,
    /// Allowed, and not there yet.
    NotYet,
}

/// Takes the port, so that a start fails at once when somebody else has it.
///
/// # Errors
/// The port is taken or may not be bound; the text names the address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))
}

/// Serves until `stop`, then finishes the requests under way.
///
/// # Errors
/// The listener broke.
pub async fn serve(listener: TcpListener, state: State, stop: CancellationToken) -> anyhow::Result<()> {
    let router = router(state);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serving.await.context("the HTTP listener failed")
}

fn router(state: State) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics));
    match state.v1 {
        V1::Absent => {}
        V1::Refused => router = router.route("/v1", any(refused)).route("/v1/{*rest}", any(refused)),
        V1::NotYet => router = router.route("/v1", any(not_yet)).route("/v1/{*rest}", any(not_yet)),
    }
    router.fallback(unknown).with_state(state)
}

async fn refused() -> Response {
    problem(
        StatusCode::FORBIDDEN,
        "no key is set",
        "`/v1` is not served beyond loopback while `api.keys` is empty: set a key or listen on 127.0.0.1",
    )
}

async fn not_yet() -> Response {
    problem(
        StatusCode::NOT_IMPLEMENTED,
        "not supported yet",
        "the HTTP API is not there yet: use the command line (`paperboy subscription`, `paperboy publish`, `paperboy dead`)",
    )
}

async fn unknown() -> Response {
    problem(StatusCode::NOT_FOUND, "not found", "known here are /healthz, /readyz and /metrics")
}

/// A problem as RFC 9457 has it.
fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
