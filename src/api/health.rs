//! Health: is the process alive, can it do its work, what has it done.

use std::sync::Arc;

use axum::extract::State as From;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;

use super::State;

/// One thing that must be well for this process to be ready.
#[derive(Clone)]
pub struct Probe {
    /// Its name, as `/readyz` shows it.
    pub name: &'static str,
    /// What is wrong with it, if anything.
    pub fault: watch::Receiver<Option<String>>,
}

/// Everything that must be well.
#[derive(Clone, Default)]
pub struct Readiness {
    probes: Arc<Vec<Probe>>,
    beside: Arc<Vec<Probe>>,
}

impl Readiness {
    /// Ready while none of these has a fault.
    pub fn new(probes: Vec<Probe>) -> Readiness {
        Readiness { probes: Arc::new(probes), beside: Arc::default() }
    }

    /// Tells of these as well, though the process is ready without them.
    #[must_use]
    pub fn beside(self, probes: Vec<Probe>) -> Readiness {
        Readiness { beside: Arc::new(probes), ..self }
    }

    /// Name and reason of everything that is wrong now.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        told(&self.probes)
    }

    /// Name and reason of what is wrong now and keeps the process from nothing else.
    pub fn troubles(&self) -> Vec<(&'static str, String)> {
        told(&self.beside)
    }
}

fn told(probes: &[Probe]) -> Vec<(&'static str, String)> {
    let fault = |probe: &Probe| probe.fault.borrow().clone().map(|reason| (probe.name, reason));
    probes.iter().filter_map(fault).collect()
}

fn reasons(told: Vec<(&'static str, String)>) -> serde_json::Value {
    told.into_iter().map(|(name, reason)| (name.to_owned(), serde_json::Value::from(reason))).collect()
}

pub(super) async fn alive() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(From(state): From<State>) -> Response {
    let faults = state.readiness.faults();
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "ready": status == StatusCode::OK, "faults": reasons(faults) });
    let troubles = state.readiness.troubles();
    if !troubles.is_empty() {
        body["troubles"] = reasons(troubles);
    }
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

pub(super) async fn metrics(From(state): From<State>) -> Response {
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
