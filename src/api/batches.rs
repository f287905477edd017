//! `/v1/batches`: documents that belong together, and whether all of them are finished.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::operation::{
    Answer, Call, Operation, answers, answers_page, handler, in_query, json_answer, shared, takes,
};
use super::request::{Query, read_optional};
use crate::desk::batches::{row_json, shown_json};
use crate::domain::batch::State;
use crate::domain::key::Scope;
use crate::domain::name::Tenant;
use crate::store::batches::BatchFilter;

const LIMIT_MAX: u32 = 500;
const MEMBERS: [&str; 3] = ["tenant", "id", "scope"];

pub(super) fn operations() -> Vec<Operation> {
    let one = |id, method, path, scope, summary, description, handler| Operation {
        id,
        method,
        path,
        scope,
        summary,
        description,
        parameters: vec![shared("id"), shared("tenant")],
        body: None,
        answers: vec![],
        problems: vec![404, 409],
        is_change: false,
        handler,
    };
    vec![
        Operation {
            id: "listBatches",
            method: Method::GET,
            path: "/v1/batches",
            scope: Scope::Read,
            summary: "List batches, newest first",
            description: "",
            parameters: vec![
                shared("tenant"),
                in_query("state", "in which state", json!({ "enum": ["open", "closed", "completed"] })),
                shared("limit"),
                shared("cursor"),
            ],
            body: None,
            answers: vec![(200, answers_page("A page of batches", "Batch"))],
            problems: vec![],
            is_change: false,
            handler: handler!(list),
        },
        Operation {
            id: "openBatch",
            method: Method::POST,
            path: "/v1/batches",
            scope: Scope::Publish,
            summary: "Open a batch that documents may join",
            description: "Not needed: the first event with a new `batch_id` opens one. A batch of that id that is there \
                 already is answered as it is.",
            parameters: vec![],
            body: Some(takes(
                "NewBatch",
                false,
                json!({ "named": { "value": { "tenant": "acme", "id": "b_17", "scope": { "inbox": "i7" } } } }),
            )),
            answers: vec![
                (201, answers("The new batch", "Batch")),
                (200, answers("The batch that is there", "Batch")),
            ],
            problems: vec![408, 413, 415, 422],
            is_change: true,
            handler: handler!(open),
        },
        Operation {
            answers: vec![(200, answers("The batch with its first 1,000 documents", "BatchFull"))],
            ..one(
                "getBatch",
                Method::GET,
                "/v1/batches/{id}",
                Scope::Read,
                "Show a batch with its documents",
                "Ids are a tenant's own: an operator says with `tenant` whose it is where several have one.",
                handler!(show),
            )
        },
        Operation {
            answers: vec![(202, answers("It is closed, or will be in a moment", "Batch"))],
            is_change: true,
            ..one(
                "closeBatch",
                Method::POST,
                "/v1/batches/{id}/close",
                Scope::Publish,
                "Say that no document of it follows",
                "It is closed as soon as everything that was published before has been taken from the queue, and \
                 completed once every document of it is finished.",
                handler!(close),
            )
        },
    ]
}

#[derive(Deserialize, Default)]
struct New {
    tenant: Option<String>,
    id: Option<String>,
    scope: Option<BTreeMap<String, String>>,
}

async fn list(call: Call) -> Answer {
    let mut query = Query::read(&call.request, &["tenant", "state", "limit", "cursor"]);
    let filter = BatchFilter {
        tenant: query.of::<Tenant>("tenant"),
        state: query.parsed("state", |text| {
            State::parse(text).ok_or_else(|| "must be `open`, `closed` or `completed`".to_owned())
        }),
        id: None,
        before: query.parsed("cursor", |text| text.parse().map_err(|_| "is no cursor of ours".to_owned())),
        limit: query.limit(LIMIT_MAX),
    };
    query.end()?;
    let limit = filter.limit as usize;
    let rows = call.v1.desk.batches(&call.caller, filter).await?;
    let last = rows.last().filter(|_| rows.len() == limit);
    let next = last.map(|row| row.number.to_string());
    let data: Vec<Value> = rows.iter().map(row_json).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": next })))
}

async fn open(call: Call) -> Answer {
    let (new, _held) = read_optional::<New>(&call.v1, call.request, &MEMBERS).await?;
    let scope = new.scope.unwrap_or_default();
    let opened = call.v1.desk.open_batch(&call.caller, new.tenant.as_deref(), new.id.as_deref(), scope);
    let (row, is_new) = opened.await?;
    let mut answer = json_answer(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &row_json(&row));
    let id: String = url::form_urlencoded::byte_serialize(row.id.as_str().as_bytes()).collect();
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/batches/{}", id.replace('+', "%20"))) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

async fn show(call: Call) -> Answer {
    let mut query = Query::read(&call.request, &["tenant"]);
    let tenant = query.of::<Tenant>("tenant");
    query.end()?;
    let (row, members) = call.v1.desk.batch(&call.caller, tenant, &call.id).await?;
    Ok(json_answer(StatusCode::OK, &shown_json(&row, &members)))
}

async fn close(call: Call) -> Answer {
    let mut query = Query::read(&call.request, &["tenant"]);
    let tenant = query.of::<Tenant>("tenant");
    query.end()?;
    let row = call.v1.desk.close_batch(&call.caller, tenant, &call.id).await?;
    Ok(json_answer(StatusCode::ACCEPTED, &row_json(&row)))
}
