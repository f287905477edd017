//! `POST /v1/events`: one event or many, each answered once the broker has confirmed it.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::V1;
use super::operation::{Answer, Call, Operation, answers, handler, json_answer};
use super::problem::Problem;
use super::request::{check_media_type, media_type, read_body};
use crate::broker::{Outgoing, Target};
use crate::desk::events::{self, CONFIRM_WAIT, Ready};
use crate::desk::{Caller, Refused};
use crate::domain::fault::Fault;
use crate::domain::key::Scope;

/// Lines of one request.
const LINES_MAX: usize = 10_000;
/// Publishes of one request under way at once.
const CONCURRENCY: usize = 256;
const NDJSON: &str = "application/x-ndjson";
/// Longest W3C trace context that travels with an event.
const TRACEPARENT_BYTES_MAX: usize = 64;

pub(super) fn operations() -> Vec<Operation> {
    let event = json!({ "$ref": "#/components/schemas/Event" });
    let lines =
        json!({ "type": "string", "description": "one JSON object a line, as in `application/json`" });
    let example = json!({
        "id": "evt_0192d7f0", "type": "document.processed", "tenant": "acme",
        "document_id": "a7046a49", "data": { "pages": 3 },
    });
    let many = format!(
        "{example}\n{}\n",
        json!({ "id": "evt_0192d7f1", "type": "batch.completed", "tenant": "acme" })
    );
    let result = json!({ "schema": { "type": "string", "description": "one `PublishedLine` for each line, in their order" } });
    let mut published = answers("Everything is in RabbitMQ, confirmed", "Published");
    published["content"][NDJSON] = result.clone();
    vec![Operation {
        id: "publishEvents",
        method: Method::POST,
        path: "/v1/events",
        scope: Scope::Publish,
        summary: "Publish events",
        description: "Answers once RabbitMQ has confirmed. Send an event again with the same id when the answer is \
            lost or says 503: receivers can tell repetitions by `webhook-id`. With `application/x-ndjson`, at most \
            10000 events, each line is answered by one: `published`, `invalid` with its faults, or `failed`, which \
            may be sent again. A tenant's key may leave `tenant` out.",
        parameters: vec![traceparent_parameter()],
        body: Some(json!({
            "required": true,
            "content": {
                "application/json": { "schema": event, "examples": { "event": { "value": example } } },
                NDJSON: { "schema": lines, "examples": { "events": { "value": many } } },
            },
        })),
        answers: vec![
            (202, published),
            (
                207,
                json!({ "description": "Some lines were not published; each says why", "content": { NDJSON: result } }),
            ),
        ],
        problems: vec![408, 413, 415, 422],
        is_change: false,
        handler: handler!(publish),
    }]
}

async fn publish(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let headers = request.headers().clone();
    check_media_type(&headers, &["application/json", NDJSON, "application/ndjson"])?;
    let is_one = media_type(&headers) == "application/json";
    let bytes_max = if is_one { v1.limits.event_bytes_max } else { v1.limits.body_bytes_max };
    let body = read_body(&v1, request.into_body(), bytes_max).await?;
    let deadline = Instant::now() + CONFIRM_WAIT.min(v1.limits.timeout);
    if is_one {
        return publish_one(&v1, &caller, body.bytes.clone(), &headers, deadline).await;
    }
    publish_lines(&v1, &caller, &body.bytes, &headers, deadline).await
}

async fn publish_one(
    v1: &V1,
    caller: &Caller,
    body: Bytes,
    headers: &HeaderMap,
    deadline: Instant,
) -> Answer {
    // A body that is no JSON is malformed; what is JSON and no event has faults.
    let mut ready = match events::read(caller, body.clone(), v1.limits.event_bytes_max) {
        Ok(ready) => ready,
        Err(Refused::Faults(faults)) if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() => {
            let why = faults.into_iter().map(|fault| fault.message).next().unwrap_or_default();
            return Err(Problem::malformed(why));
        }
        Err(refused) => return Err(refused.into()),
    };
    ready.tags.traceparent = traceparent(headers);
    match confirmed(v1, Outgoing::new(ready.body, ready.tags), deadline).await {
        Ok(()) => Ok(json_answer(StatusCode::ACCEPTED, &json!({ "id": ready.id, "status": "published" }))),
        Err(why) => Err(Problem::unavailable(why).hint("publish it again with the same id")),
    }
}

/// What becomes of one line.
enum Line {
    Ready(Box<Ready>),
    Invalid(Vec<Fault>),
}

async fn publish_lines(
    v1: &V1,
    caller: &Caller,
    body: &Bytes,
    headers: &HeaderMap,
    deadline: Instant,
) -> Answer {
    let traceparent = traceparent(headers);
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if lines.len() == LINES_MAX {
            let detail = format!("there are more than {LINES_MAX} lines");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "too large", detail)
                .hint("send them in several requests"));
        }
        match events::read(caller, body.slice_ref(line), v1.limits.event_bytes_max) {
            Ok(mut ready) => {
                ready.tags.traceparent.clone_from(&traceparent);
                lines.push((number, Line::Ready(Box::new(ready))));
            }
            Err(Refused::Faults(faults)) => lines.push((number, Line::Invalid(faults))),
            // Nothing of a request that speaks for others is published.
            Err(refused) => return Err(refused.into()),
        }
        if lines.len() % CONCURRENCY == 0 {
            tokio::task::yield_now().await;
        }
    }
    if lines.is_empty() {
        return Err(Problem::faults(vec![
            Fault::new("", "holds no event").hint("write one JSON object a line"),
        ]));
    }
    let answered = stream::iter(lines).map(async |(number, line)| match line {
        Line::Ready(ready) => match confirmed(v1, Outgoing::new(ready.body, ready.tags), deadline).await {
            Ok(()) => (true, json!({ "line": number, "id": ready.id, "status": "published" })),
            Err(why) => (false, json!({ "line": number, "id": ready.id, "status": "failed", "error": why })),
        },
        Line::Invalid(faults) => {
            let error = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            (false, json!({ "line": number, "id": Value::Null, "status": "invalid", "error": error }))
        }
    });
    let mut answered = std::pin::pin!(answered.buffered(CONCURRENCY));
    let (mut is_all, mut text) = (true, String::new());
    while let Some((is_published, line)) = answered.next().await {
        is_all &= is_published;
        text.push_str(&line.to_string());
        text.push('\n');
    }
    let status = if is_all { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    Ok((status, [(header::CONTENT_TYPE, NDJSON)], text).into_response())
}

/// Publishes within the deadline; else says why it may not be there.
async fn confirmed(v1: &V1, message: Outgoing, deadline: Instant) -> Result<(), String> {
    let publish = async {
        let _place = v1.publishes.acquire().await;
        v1.publisher.publish(Target::Events, message).await.map_err(|error| error.to_string())
    };
    let late = |_| Err("RabbitMQ did not confirm it in time".to_owned());
    tokio::time::timeout_at(deadline, publish).await.unwrap_or_else(late)
}

pub(super) fn traceparent_parameter() -> Value {
    json!({
        "name": "traceparent", "in": "header", "description": "W3C trace context that travels with the event",
        "schema": { "type": "string", "maxLength": TRACEPARENT_BYTES_MAX },
    })
}

/// The trace context, if it is one that may travel.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let is_good = (1..=TRACEPARENT_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_good.then(|| value.to_owned())
}
