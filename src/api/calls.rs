//! `POST /v1/calls`: one event, answered with what its receivers say.

use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::operation::{Answer, Call, Operation, answers, handler};
use super::problem::Problem;
use super::request::{check_media_type, read_body};
use crate::desk::calls::DEADLINE;
use crate::desk::calls::{Called, Way};
use crate::domain::key::Scope;

pub(super) fn operations() -> Vec<Operation> {
    let example = json!({
        "id": "evt_0192d7f2", "type": "annotation_content.user_update", "tenant": "acme",
        "data": { "annotation": { "id": 314_521 } },
    });
    vec![Operation {
        id: "call",
        method: Method::POST,
        path: "/v1/calls",
        scope: Scope::Publish,
        summary: "Send an interactive event and wait for its answers",
        description: "Every subscription of the tenant whose `interactive` words cover the event is asked once, at the \
            same time, and what it says is in `data`; nobody asked is an empty list. Nothing of it is sent again or \
            becomes a dead letter. Ordinary subscribers get the event as if it was published, and have it safe before \
            anybody is asked; do not publish it too. It joins no batch. With 503 nobody was asked. A tenant's key may leave `tenant` out.",
        parameters: vec![
            json!({
                "name": "Prefer", "in": "header",
                "description": "`wait=10`: the seconds to wait for answers at most (RFC 7240), 1 to 30",
                "schema": { "type": "string" },
            }),
            super::events::traceparent_parameter(),
        ],
        body: Some(json!({
            "required": true,
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Event" },
                "examples": { "event": { "value": example } },
            } },
        })),
        answers: vec![(200, answers("What every subscription that was asked said", "Called"))],
        problems: vec![408, 413, 415, 422],
        is_change: false,
        handler: handler!(call),
    }]
}

async fn call(call: Call) -> Answer {
    let began = Instant::now();
    let Call { v1, caller, request, .. } = call;
    let headers = request.headers().clone();
    check_media_type(&headers, &["application/json"])?;
    let waits = preferred_wait(&headers).unwrap_or(DEADLINE).min(v1.limits.timeout);
    let body = read_body(&v1, request.into_body(), v1.limits.event_bytes_max).await?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body.bytes).is_err() {
        return Err(Problem::malformed("the body is not JSON"));
    }
    let traceparent = super::events::traceparent(&headers);
    let way = Way {
        publisher: &*v1.publisher,
        courier: &*v1.courier,
        waiting: &v1.waiting,
        notes: &v1.notes,
        traceparent: traceparent.as_deref(),
        deadline: began + waits,
    };
    let called = v1.desk.call(&caller, body.bytes.clone(), way).await?;
    Ok(written(&called))
}

/// Written at once and not through a tree: the receivers' numbers stay as they wrote them.
fn written(called: &Called) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let text = serde_json::to_string(called).unwrap_or_default();
    (StatusCode::OK, [("content-type", "application/json")], text + "\n").into_response()
}

/// The seconds of `Prefer: wait=10` (RFC 7240 §4.3).
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds: u64 = preferences.find_map(|one| one.strip_prefix("wait=")?.trim().parse().ok())?;
    Some(Duration::from_secs(seconds.clamp(1, DEADLINE.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_may_wait_for_less_and_never_for_more() {
        let wait = |text: &'static str| {
            preferred_wait(&HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("prefer"),
                axum::http::HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(wait("wait=10"), Some(Duration::from_secs(10)));
        assert_eq!(wait("respond-async, wait=0"), Some(Duration::from_secs(1)));
        assert_eq!(wait("wait=500"), Some(DEADLINE));
        assert_eq!((wait("wait"), wait("wait=soon"), preferred_wait(&HeaderMap::new())), (None, None, None));
    }
}
