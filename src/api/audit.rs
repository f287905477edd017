//! `GET /v1/audit`: who changed what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::operation::{Answer, Call, Operation, answers_page, handler, in_query, json_answer, shared};
use super::request::Query;
use crate::desk::audit::line_json;
use crate::domain::key::Scope;
use crate::domain::name::Tenant;
use crate::store::AuditFilter;

const LIMIT_MAX: u32 = 500;

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation {
        id: "listAudit",
        method: Method::GET,
        path: "/v1/audit",
        scope: Scope::Read,
        summary: "List who changed what, newest first",
        description: "A tenant's key sees the lines of its tenant; whoever is no key of it is `operator` there.",
        parameters: vec![
            shared("tenant"),
            in_query("object", "only lines of this id", json!({ "type": "string", "maxLength": 200 })),
            in_query(
                "since",
                "only lines from this time on",
                json!({ "type": "string", "format": "date-time" }),
            ),
            shared("limit"),
            shared("cursor"),
        ],
        body: None,
        answers: vec![(200, answers_page("A page of lines", "AuditLine"))],
        problems: vec![],
        is_change: false,
        handler: handler!(list),
    }]
}

async fn list(call: Call) -> Answer {
    let mut query = Query::read(&call.request, &["tenant", "object", "since", "limit", "cursor"]);
    let mut filter = AuditFilter {
        tenant: query.of::<Tenant>("tenant"),
        object: query.text("object"),
        since_ms: query.parsed("since", |text| {
            let time = text.parse::<jiff::Timestamp>();
            time.map(|time| time.as_millisecond())
                .map_err(|_| "must be RFC 3339, such as `2026-11-22T09:00:07Z`".into())
        }),
        before_id: query.parsed("cursor", |text| text.parse().map_err(|_| "is no cursor of ours".to_owned())),
        limit: query.limit(LIMIT_MAX),
    };
    query.end()?;
    filter.tenant = call.caller.tenant_of_list(filter.tenant)?;
    let lines = call.v1.desk.store.audit(&filter).await.map_err(crate::desk::Refused::from)?;
    let next = (lines.len() == filter.limit as usize)
        .then(|| lines.last().map(|line| line.id.to_string()))
        .flatten();
    let data: Vec<Value> = lines.iter().map(|line| line_json(line, call.caller.tenant.is_some())).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": next })))
}
