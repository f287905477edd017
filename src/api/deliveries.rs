//! `/v1/deliveries`: what befell deliveries, and the life of one event.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::operation::{
    Answer, Call, Operation, answers, answers_page, handler, in_query, json_answer, shared,
};
use super::problem::Problem;
use super::request::Query;
use crate::desk::Refused;
use crate::desk::deliveries::{Of, hide_worker, row_json};
use crate::desk::moment::precise;
use crate::desk::wanted::Wanted;
use crate::domain::key::Scope;
use crate::store::deliveries::What;

const LIMIT_MAX: u32 = 500;

pub(super) fn operations() -> Vec<Operation> {
    let whats = What::ALL.map(What::as_str);
    let mut page = answers_page("A page of the log", "Delivery");
    let shape = &mut page["content"]["application/json"]["schema"];
    shape["properties"]["since"] = json!({
        "type": ["string", "null"], "format": "date-time",
        "description": "how far back was looked; `null`: as far as the log goes",
    });
    shape["required"] = json!(["data", "next_cursor", "since"]);
    let own = [
        in_query("what", "only this", json!({ "enum": whats })),
        in_query(
            "failures",
            "only failed attempts and what was given up or not taken",
            json!({ "type": "boolean" }),
        ),
    ];
    vec![
        Operation {
            id: "listDeliveries",
            method: Method::GET,
            path: "/v1/deliveries",
            scope: Scope::Read,
            summary: "List attempts and what else befell deliveries, newest first",
            description: "The delivery log: written once a second, kept for `delivery_log_days`. Quick by event, \
                document or subscription; anything else looks at every row since `since`, 24 hours where it is not \
                given.",
            parameters: super::filters::parameters(own, "since the attempt began"),
            body: None,
            answers: vec![(200, page)],
            problems: vec![],
            is_change: false,
            handler: handler!(list),
        },
        Operation {
            id: "getDelivery",
            method: Method::GET,
            path: "/v1/deliveries/{id}",
            scope: Scope::Read,
            summary: "Tell the life of an event from its arrival to its end",
            description: "`id` is the event's. Every attempt and why it failed, waits, dead letters, replays, by \
                subscription; one life for each tenant of the key that has an event of this id.",
            parameters: vec![shared("id")],
            body: None,
            answers: vec![(200, answers("What is known of the event", "DeliveryLives"))],
            problems: vec![404],
            is_change: false,
            handler: handler!(show),
        },
    ]
}

async fn list(call: Call) -> Answer {
    let names: Vec<&str> = Wanted::names_of_deliveries().chain(["limit", "cursor"]).collect();
    let mut query = Query::read(&call.request, &names);
    let wanted = super::filters::read(&mut query, Wanted::names_of_deliveries());
    let (limit, after) = (query.limit(LIMIT_MAX), query.text("cursor"));
    query.end()?;
    let filter = super::filters::of_query(wanted.deliveries(&call.caller, limit, after.as_deref()))?;
    let _look = call.v1.look().await;
    let page = call.v1.desk.store.deliveries(&filter).await.map_err(Refused::from)?;
    let mut data: Vec<Value> = page.rows.iter().map(row_json).collect();
    if call.caller.tenant.is_some() {
        data.iter_mut().for_each(hide_worker);
    }
    let next = page.next.map(|next| next.to_string());
    let since = filter.since_ms.map(precise);
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": next, "since": since })))
}

async fn show(call: Call) -> Answer {
    let of = Of { event: Some(call.id.clone()), ..Of::default() };
    let _look = call.v1.look().await;
    let lives = call.v1.desk.lives(&call.caller, &of).await?;
    if lives.is_empty() {
        return Err(Problem::missing("nothing is known of an event of this id")
            .hint("the delivery log is written once a second and goes back `delivery_log_days`"));
    }
    Ok(json_answer(StatusCode::OK, &json!({ "data": lives })))
}
