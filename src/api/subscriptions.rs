//! `/v1/subscriptions`: who wants which events, and how.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tracing::warn;

use super::creation;
use super::operation::{
    Answer, Call, Operation, answers, answers_page, handler, in_query, json_answer, shared, takes,
};
use super::problem::Problem;
use super::request::{self, IfMatch, Query, read_json, read_optional};
use crate::desk::subscriptions::{Changed, Wanted};
use crate::desk::trial::Load;
use crate::desk::{Desk, Refused};
use crate::domain::fault::Fault;
use crate::domain::key::Scope;
use crate::domain::name::{EventType, SubscriptionId, Tenant};
use crate::domain::secret::Secret;
use crate::domain::spec::Overlap;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::Versioned;

pub(super) const COLLECTION: &str = "/v1/subscriptions";
const ONE: &str = "/v1/subscriptions/{id}";
const LIMIT_MAX: u32 = 500;
/// How long a replaced secret signs along when nobody says.
const OVERLAP_S: u32 = 86_400;
pub(super) const JSON: &[&str] = &["application/json"];

pub(super) fn operations() -> Vec<Operation> {
    let example = json!({ "subscription": { "value": {
        "tenant": "acme", "name": "ERP", "events": ["document.*"], "request": { "url": "https://erp.example.com/ocr/:id" },
    } } });
    let with_tag = |description: &str| {
        let mut answer = answers(description, "Subscription");
        answer["headers"] = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
        answer
    };
    let mut patch = takes("SubscriptionPatch", true, json!({ "name": { "value": { "name": "ERP, new" } } }));
    patch["content"]["application/merge-patch+json"] = patch["content"]["application/json"].clone();
    let one = |id, method, scope, summary, description, handler| Operation {
        id,
        method,
        path: ONE,
        scope,
        summary,
        description,
        parameters: vec![shared("id")],
        body: None,
        answers: vec![(200, with_tag("The subscription, secrets masked"))],
        problems: vec![404],
        is_change: false,
        handler,
    };
    let change = |operation: Operation| Operation {
        parameters: [operation.parameters, vec![shared("ifMatch"), shared("prefer")]].concat(),
        problems: [operation.problems, vec![409, 412]].concat(),
        is_change: true,
        ..operation
    };
    let with_body = |body: Value, operation: Operation| Operation {
        body: Some(body),
        problems: [operation.problems, vec![408, 413, 415, 422]].concat(),
        ..operation
    };
    vec![
        Operation {
            id: "listSubscriptions",
            method: Method::GET,
            path: COLLECTION,
            scope: Scope::Read,
            summary: "List subscriptions in the order of their ids, secrets masked",
            description: "",
            parameters: vec![
                shared("tenant"),
                in_query("enabled", "only enabled or only disabled ones", json!({ "type": "boolean" })),
                in_query(
                    "event_type",
                    "only those that want this type",
                    json!({ "type": "string", "maxLength": 128 }),
                ),
                in_query(
                    "preset",
                    "only those of this preset",
                    json!({ "type": "string", "maxLength": 128 }),
                ),
                in_query(
                    "name",
                    "only those with this in their name",
                    json!({ "type": "string", "maxLength": 200 }),
                ),
                shared("limit"),
                shared("cursor"),
            ],
            body: None,
            answers: vec![(200, answers_page("A page of subscriptions", "Subscription"))],
            problems: vec![],
            is_change: false,
            handler: handler!(list),
        },
        creation::operation(example.clone(), with_tag),
        {
            let get = one(
                "getSubscription",
                Method::GET,
                Scope::Read,
                "Show a subscription, secrets masked",
                "",
                handler!(show),
            );
            let unchanged = (304, json!({ "description": "It still has the version of `If-None-Match`" }));
            Operation { answers: [get.answers, vec![unchanged]].concat(), ..get }
        },
        with_body(
            takes("NewSubscription", true, example),
            change(one(
                "replaceSubscription",
                Method::PUT,
                Scope::Write,
                "Replace a subscription",
                "What the document does not name has its default, but `enabled` and `signatures` stay; `***` stands \
                 for the secret that is there.",
                handler!(replace),
            )),
        ),
        with_body(
            patch,
            change(one(
                "changeSubscription",
                Method::PATCH,
                Scope::Write,
                "Change what is named, leave the rest",
                "A JSON merge patch (RFC 7396): `null` removes a member, lists are replaced as a whole.",
                handler!(patch_one),
            )),
        ),
        Operation {
            answers: vec![(
                204,
                json!({ "description": "It is gone; its retries under way become dead letters `gone`" }),
            )],
            ..change(one(
                "removeSubscription",
                Method::DELETE,
                Scope::Write,
                "Remove a subscription",
                "",
                handler!(remove),
            ))
        },
        Operation {
            path: "/v1/subscriptions/{id}/test",
            answers: vec![(
                200,
                answers("Request and answer; a receiver that refuses is no problem", "Trial"),
            )],
            is_change: true,
            ..with_body(
                takes(
                    "TrialRequest",
                    false,
                    json!({ "sample": { "value": {} }, "payload": { "value": { "data": { "pages": 3 } } } }),
                ),
                one(
                    "testSubscription",
                    Method::POST,
                    Scope::Write,
                    "Send one marked event, once, past every queue",
                    "The request is what a delivery would be, with the header `paperboy-test: 1`. Without `event` a \
                     sample is sent that the subscription wants.",
                    handler!(try_out),
                ),
            )
        },
        Operation {
            path: "/v1/subscriptions/{id}/rotate-secret",
            answers: vec![(200, {
                let mut answer = answers("The new secret, unless it was given", "Rotated");
                answer["headers"] = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
                answer
            })],
            ..with_body(
                takes("RotateRequest", false, json!({ "week": { "value": { "overlap_s": 604_800 } } })),
                change(one(
                    "rotateSecret",
                    Method::POST,
                    Scope::Write,
                    "Sign with a new secret; the old one signs along for a while",
                    "",
                    handler!(rotate),
                )),
            )
        },
    ]
}

async fn list(call: Call) -> Answer {
    let known = ["tenant", "enabled", "event_type", "preset", "name", "limit", "cursor"];
    let mut query = Query::read(&call.request, &known);
    let wanted = Wanted {
        tenant: query.of::<Tenant>("tenant"),
        enabled: query.flag("enabled"),
        name: query.text("name"),
        event_type: query.of::<EventType>("event_type"),
        preset: query.text("preset"),
        after: query.of::<SubscriptionId>("cursor"),
        limit: query.limit(LIMIT_MAX),
    };
    query.end()?;
    let page = call.v1.desk.list_subscriptions(&call.caller, &wanted).await?;
    let data = page.items.iter().map(shown).collect::<Result<Vec<Value>, Problem>>()?;
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": page.next })))
}

async fn show(call: Call) -> Answer {
    let Versioned { spec, version } = call.v1.desk.show_subscription(&call.caller, &call.id).await?;
    let mut response = match request::is_known(call.request.headers(), version) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => json_answer(StatusCode::OK, &shown(&spec)?),
    };
    set(&mut response, header::ETAG, &request::etag(version));
    Ok(response)
}

async fn replace(call: Call) -> Answer {
    edit(call, JSON, "subscription.replace", SubscriptionSpec::replaced).await
}

async fn patch_one(call: Call) -> Answer {
    let taken = ["application/json", "application/merge-patch+json"];
    edit(call, &taken, "subscription.change", SubscriptionSpec::patched).await
}

async fn edit(
    call: Call,
    media_types: &[&str],
    action: &'static str,
    edit: fn(&SubscriptionSpec, Value) -> Result<SubscriptionSpec, Vec<Fault>>,
) -> Answer {
    let Call { v1, caller, id, request } = call;
    let headers = request.headers().clone();
    // Before the body: who may not see it learns nothing of its faults.
    let over = over(&v1.desk, &caller, &id, &headers).await?;
    let wait = request::prefers_wait(&headers);
    let (document, _body) = read_json(&v1, request, media_types).await?;
    if let (Some(own), Some(named)) = (&caller.tenant, document.get("tenant").and_then(Value::as_str))
        && named != own.as_str()
    {
        return Err(caller.foreign().into());
    }
    let edit = |before: &SubscriptionSpec| Ok(edit(before, document.clone())?);
    let changed = v1.desk.change(&caller, &id, over, action, wait, edit).await?;
    let mut response = json_answer(StatusCode::OK, &shown(&changed.spec.masked())?);
    tell(&mut response, &changed, wait);
    Ok(response)
}

async fn remove(call: Call) -> Answer {
    let headers = call.request.headers();
    let over = over(&call.v1.desk, &call.caller, &call.id, headers).await?;
    let wait = request::prefers_wait(headers);
    let warning = call.v1.desk.remove_subscription(&call.caller, &call.id, over, wait).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    note_wait(&mut response, wait && warning.is_none());
    warning.into_iter().for_each(|warning| warn!("{warning}"));
    Ok(response)
}

/// What a test sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TrialRequest {
    data: Option<Box<RawValue>>,
    #[serde(rename = "type")]
    kind: Option<String>,
    event: Option<Box<RawValue>>,
}

async fn try_out(call: Call) -> Answer {
    let Call { v1, caller, id, request } = call;
    v1.desk.show_subscription(&caller, &id).await?;
    let (given, _body) = read_optional::<TrialRequest>(&v1, request, &["data", "type", "event"]).await?;
    let load = match given.event {
        Some(_) if given.data.is_some() || given.kind.is_some() => {
            let fault =
                Fault::new("event", "stands beside `data` or `type`").hint("a whole event has its own");
            return Err(Problem::faults(vec![fault]));
        }
        Some(event) => Load::Event(event.get().to_owned().into_bytes().into()),
        None => Load::Sample { data: given.data, kind: given.kind },
    };
    // Whoever asked is told what the receiver did, not that it took too long.
    let longest = v1.limits.timeout * 9 / 10;
    let trial = v1.desk.try_out(&caller, &*v1.courier, &id, &load, longest).await?;
    let trial = serde_json::to_value(trial).map_err(|error| Refused::Failed(error.into()))?;
    Ok(json_answer(StatusCode::OK, &trial))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RotateRequest {
    overlap_s: Option<u32>,
    secret: Option<Secret>,
}

async fn rotate(call: Call) -> Answer {
    let Call { v1, caller, id, request } = call;
    let headers = request.headers().clone();
    let over = over(&v1.desk, &caller, &id, &headers).await?;
    let wait = request::prefers_wait(&headers);
    let (given, _body) = read_optional::<RotateRequest>(&v1, request, &["overlap_s", "secret"]).await?;
    let overlap = Overlap::from_seconds(given.overlap_s.unwrap_or(OVERLAP_S)).ok_or_else(|| {
        Problem::faults(vec![Fault::new("overlap_s", "is longer than 7 days").hint("write 0 to 604800")])
    })?;
    let is_given = given.secret.is_some();
    let (rotated, changed) = v1.desk.rotate(&caller, &id, over, given.secret, overlap, wait).await?;
    let secret = (!is_given).then(|| rotated.secret.expose());
    let answer =
        json!({ "id": id, "tenant": changed.spec.tenant, "secret": secret, "old_until": rotated.until });
    let mut response = json_answer(StatusCode::OK, &answer);
    tell(&mut response, &changed, wait);
    Ok(response)
}

/// The version that `If-Match` asks for.
async fn over(
    desk: &Desk,
    caller: &crate::desk::Caller,
    id: &str,
    headers: &HeaderMap,
) -> Result<Option<u64>, Problem> {
    let now = desk.show_subscription(caller, id).await?.version;
    match request::if_match(headers)? {
        IfMatch::Any => Ok(None),
        IfMatch::OneOf(versions) if versions.contains(&now) => Ok(Some(now)),
        IfMatch::OneOf(_) => Err(Refused::Stale { what: "subscription", id: id.to_owned() }.into()),
    }
}

/// A subscription as it is answered.
pub(super) fn shown(spec: &SubscriptionSpec) -> Result<Value, Problem> {
    serde_json::to_value(spec.masked()).map_err(|error| Refused::Failed(error.into()).into())
}

/// Tells every process; whether all use the change now.
pub(super) async fn spread(desk: &Desk, counter: u64, wait: bool) -> bool {
    match desk.spread(counter, wait).await {
        Some(warning) => {
            warn!("{warning}");
            false
        }
        None => wait,
    }
}

/// The version after a change, and whether it is used everywhere.
fn tell(response: &mut Response, changed: &Changed, wait: bool) {
    changed.warning.iter().for_each(|warning| warn!("{warning}"));
    set(response, header::ETAG, &request::etag(changed.version));
    note_wait(response, wait && changed.warning.is_none());
}

pub(super) fn note_wait(response: &mut Response, is_waited_for: bool) {
    if is_waited_for {
        response.headers_mut().insert("preference-applied", HeaderValue::from_static("wait"));
    }
}

pub(super) fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
