//! `POST /v1/subscriptions`: a document of ours, or a platform's own configuration object.
//!
//! With `Idempotency-Key` the answer is kept in the transaction that writes, so that the same request is answered the
//! same and done once.

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::V1;
use super::operation::{Answer, Call, Operation, handler, in_query, json_answer, shared, takes};
use super::problem::Problem;
use super::request::{self, Held, Query, read_json};
use super::subscriptions::{COLLECTION, JSON, note_wait, set, shown, spread};
use crate::desk::platform::Planned;
use crate::desk::{Caller, Refused, now_ms};
use crate::domain::fault::Fault;
use crate::domain::key::Scope;
use crate::domain::name::Tenant;
use crate::domain::preset::Preset;
use crate::store::{Given, KeptAnswer, SaveError};

/// What is answered to a creation, now and when it comes again.
struct Made {
    status: StatusCode,
    id: String,
    body: Value,
}

/// A platform's object is for a tenant; our own document says whose it is.
struct Platform {
    preset: &'static Preset,
    tenant: Tenant,
}

/// The name somebody gave the request, and what it is known again by.
struct Once {
    actor: String,
    key: String,
    digest: [u8; 32],
}

/// What it is called, takes and answers; `example` is a document of ours.
pub(super) fn operation(example: Value, with_tag: impl Fn(&str) -> Value) -> Operation {
    let either = |one: &str, other: &str| {
        let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        json!({ "anyOf": [schema(one), schema(other)] })
    };
    let made = |description: &str| {
        let mut answer = with_tag(description);
        answer["content"]["application/json"]["schema"] = either("CreatedSubscription", "PlatformRecord");
        answer["headers"]["Location"] = json!({ "schema": { "type": "string" } });
        answer
    };
    Operation {
        id: "createSubscription",
        method: Method::POST,
        path: COLLECTION,
        scope: Scope::Write,
        summary: "Add a subscription, or set up what a platform's own configuration object says",
        description: "Without `signatures` a `standard` secret is made and answered as `secret`, this once. With \
            `Idempotency-Key` the same request is answered the same for a day, and made once. With `preset` the body \
            is a configuration object of that platform as it stands; it is answered as the platform does, and \
            `not_taken` names each field that has no effect here. A second one where the platform takes one is a \
            409 that names the first; where it has \"set up or update\", it replaces the first (200).",
        parameters: vec![
            in_query(
                "preset",
                "the platform whose configuration object the body is",
                json!({ "enum": Preset::all().iter().map(|preset| &preset.name).collect::<Vec<_>>() }),
            ),
            in_query(
                "tenant",
                "with `preset`: whose it is; a tenant's key stands for its tenant",
                json!({ "type": "string", "pattern": format!("^{}$", Tenant::RULE) }),
            ),
            shared("idempotencyKey"),
            shared("prefer"),
        ],
        body: Some({
            let object = json!({ "description": "with `?preset=idexa&tenant=acme`", "value": {
                "name": "Webhook 1", "type": 0, "method": "POST", "url": "https://erp.example.com/ocr/:id",
            } });
            let mut body = takes("NewSubscription", true, example);
            let json = &mut body["content"]["application/json"];
            json["schema"] = either("NewSubscription", "PlatformObject");
            json["examples"]["platform"] = object;
            body
        }),
        answers: vec![
            (201, made("The new subscription, with its secret if one was made")),
            (200, made("With `preset`: the one that was there, as the object says")),
        ],
        problems: vec![408, 409, 413, 415, 422],
        is_change: true,
        handler: handler!(create),
    }
}

async fn create(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let platform = platform_of(&request, &caller)?;
    let key = request::idempotency_key(request.headers())?;
    let wait = request::prefers_wait(request.headers());
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (document, body) = read_json(&v1, request, JSON).await?;
    let once = key.map(|key| Once { actor: caller.actor.clone(), key, digest: digest(&target, &body) });
    if let Some(once) = &once
        && let Some(given) = given(&v1, once).await?
    {
        return again(&given, once);
    }
    let done = match &platform {
        Some(platform) => set_up(&v1, &caller, platform, &document, once.as_ref()).await?,
        None => add(&v1, &caller, document, once.as_ref()).await?,
    };
    let Some((made, counter)) = done else {
        // Of two that came together the other was first.
        let once = once.ok_or_else(|| Problem::unavailable("an answer is kept that nobody named"))?;
        let given = given(&v1, &once).await?;
        return again(&given.ok_or_else(|| Problem::unavailable("the answer given before is gone"))?, &once);
    };
    let is_waited_for = spread(&v1.desk, counter, wait).await;
    let mut response = made.answer(counter);
    note_wait(&mut response, is_waited_for);
    Ok(response)
}

/// The platform whose object the body is, if it is one's.
fn platform_of(request: &Request, caller: &Caller) -> Result<Option<Platform>, Problem> {
    let mut query = Query::read(request, &["preset", "tenant"]);
    let preset = query.parsed("preset", |name| {
        Preset::find(name).ok_or_else(|| format!("is unknown: known are {}", Preset::known()))
    });
    let tenant = query.of::<Tenant>("tenant");
    query.end()?;
    let missing = |message: &str| Problem::parameters(vec![Fault::new("tenant", message)]);
    let Some(preset) = preset else {
        return match tenant {
            Some(_) => Err(missing("says whose a platform's object is: without `preset` the body says it")),
            None => Ok(None),
        };
    };
    let tenant = caller.tenant_of_list(tenant)?;
    let tenant = tenant.ok_or_else(|| missing("is missing: a platform's object does not say whose it is"))?;
    Ok(Some(Platform { preset, tenant }))
}

/// Adds what a document of ours says; `None`: it was done before.
async fn add(
    v1: &V1,
    caller: &Caller,
    document: Value,
    once: Option<&Once>,
) -> Result<Option<(Made, u64)>, Problem> {
    let new = v1.desk.prepare(caller, document, &jiff::Timestamp::now().to_string())?;
    let mut body = shown(&new.spec)?;
    if let Some(secret) = &new.secret {
        body["secret"] = json!(secret.expose());
    }
    let made = Made { status: StatusCode::CREATED, id: new.spec.id.clone().unwrap_or_default(), body };
    let kept = once.map(|once| once.keep(&made.body));
    match v1.desk.add(caller, std::slice::from_ref(&new), kept).await {
        Ok(counter) => Ok(Some((made, counter))),
        Err(SaveError::Repeated) => Ok(None),
        Err(error) => Err(Refused::from(error).into()),
    }
}

/// Sets up, or up anew, what a platform's object says; `None`: it was done before.
async fn set_up(
    v1: &V1,
    caller: &Caller,
    platform: &Platform,
    object: &Value,
    once: Option<&Once>,
) -> Result<Option<(Made, u64)>, Problem> {
    let Platform { preset, tenant } = platform;
    let keep = |planned: &Planned| once.map(|once| once.keep(&Made::of(planned, preset).kept()));
    let done = v1.desk.set_up(caller, preset, tenant, object, keep).await?;
    Ok(done.map(|(planned, counter)| (Made::of(&planned, preset), counter)))
}

impl Made {
    fn of(planned: &Planned, preset: &Preset) -> Made {
        let mut body = planned.answer(preset);
        if let Some(secret) = planned.secret() {
            body["secret"] = json!(secret.expose());
        }
        if !planned.not_taken.is_empty() {
            body["not_taken"] = json!(planned.not_taken);
        }
        let status = if planned.is_new() { StatusCode::CREATED } else { StatusCode::OK };
        Made { status, id: planned.spec().id.clone().unwrap_or_default(), body }
    }

    /// A platform's record need not hold the id, and may have been there before.
    fn kept(&self) -> Value {
        json!({ "set_up": { "status": self.status.as_u16(), "id": self.id, "body": self.body } })
    }

    fn read(bytes: &[u8]) -> anyhow::Result<Made> {
        let mut value: Value = serde_json::from_slice(bytes)?;
        let (status, mut body) = match value.get_mut("set_up").map(Value::take) {
            Some(kept) => (kept["status"].as_u64(), kept),
            None => (None, json!({ "id": value["id"], "body": value })),
        };
        let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        Ok(Made {
            status: status.unwrap_or(StatusCode::CREATED),
            id: body["id"].as_str().unwrap_or_default().to_owned(),
            body: body["body"].take(),
        })
    }

    fn answer(&self, version: u64) -> axum::response::Response {
        let mut response = json_answer(self.status, &self.body);
        set(&mut response, header::LOCATION, &format!("{COLLECTION}/{}", self.id));
        set(&mut response, header::ETAG, &request::etag(version));
        response
    }
}

impl Once {
    fn keep(&self, answer: &Value) -> KeptAnswer {
        KeptAnswer {
            actor: self.actor.clone(),
            key: self.key.clone(),
            request: self.digest,
            answer: Zeroizing::new(answer.to_string().into_bytes()),
            at_ms: now_ms(),
        }
    }
}

async fn given(v1: &V1, once: &Once) -> Result<Option<Given>, Problem> {
    let given = v1.desk.store.kept_answer(&once.actor, &once.key, now_ms()).await;
    given.map_err(|error| Refused::from(error).into())
}

/// The answer that was given before, if this is the request it was given to.
fn again(given: &Given, once: &Once) -> Answer {
    if given.request == once.digest {
        return Ok(Made::read(&given.answer).map_err(Refused::Failed)?.answer(given.version));
    }
    let fault = Fault::new("", "is another than the one this `Idempotency-Key` was sent with before");
    Err(Problem::faults(vec![fault.hint("choose a new key for a new request")]))
}

fn digest(target: &str, body: &Held) -> [u8; 32] {
    Sha256::new().chain_update(target).chain_update([0]).chain_update(&body.bytes).finalize().into()
}
