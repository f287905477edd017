//! `/v1/dead-letters`: what was given up, to be looked at, sent again or discarded.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::V1;
use super::operation::{
    Answer, Call, Operation, answers, answers_page, handler, in_query, json_answer, shared, takes,
};
use super::problem::Problem;
use super::request::{Query, read_optional};
use crate::desk::dead::{Chosen, letter_json, number, row_json};
use crate::desk::{Caller, Refused};
use crate::domain::fault::Fault;
use crate::domain::key::Scope;
use crate::domain::name::Tenant;
use crate::store::dead::Kind;
use crate::store::{DeadFilter, DeadState};

const LIMIT_MAX: u32 = 500;
/// Letters that one request sends again or discards; its answer says whether there are more.
const AT_ONCE_MAX: usize = 500;
const MEMBERS: [&str; 6] = ["ids", "filter", "dry_run", "limit", "subscription", "note"];

pub(super) fn operations() -> Vec<Operation> {
    let text = || json!({ "type": "string", "maxLength": 512 });
    let act = |id, path, scope, summary, description, handler| Operation {
        id,
        method: Method::POST,
        path,
        scope,
        summary,
        description,
        parameters: vec![],
        body: Some(takes(
            "DeadLetterAction",
            true,
            json!({ "dry": { "value": { "filter": { "tenant": "acme", "reason": "exhausted" }, "dry_run": true } } }),
        )),
        answers: vec![(200, answers("What was done, or would be", "DeadLetterResult"))],
        problems: vec![404, 408, 409, 413, 415, 422],
        is_change: true,
        handler,
    };
    vec![
        Operation {
            id: "listDeadLetters",
            method: Method::GET,
            path: "/v1/dead-letters",
            scope: Scope::Read,
            summary: "List dead letters, newest first",
            description: "Without `state`, those that are open.",
            parameters: vec![
                shared("tenant"),
                in_query(
                    "state",
                    "in which state",
                    json!({ "enum": ["open", "replayed", "discarded", "all"] }),
                ),
                in_query("kind", "only deliveries or only events", json!({ "enum": ["delivery", "event"] })),
                in_query("reason", "only this reason, such as `exhausted`", text()),
                in_query("subscription", "only this subscription's", text()),
                in_query("event", "only this event's id", text()),
                in_query("document", "only this document's", text()),
                shared("limit"),
                shared("cursor"),
            ],
            body: None,
            answers: vec![(
                200,
                answers_page("A page of dead letters, without their contents", "DeadLetter"),
            )],
            problems: vec![],
            is_change: false,
            handler: handler!(list),
        },
        Operation {
            id: "getDeadLetter",
            method: Method::GET,
            path: "/v1/dead-letters/{id}",
            scope: Scope::Read,
            summary: "Show a dead letter with the event, every attempt and the last answer",
            description: "",
            parameters: vec![shared("id")],
            body: None,
            answers: vec![(200, answers("The dead letter", "DeadLetterFull"))],
            problems: vec![404],
            is_change: false,
            handler: handler!(show),
        },
        act(
            "replayDeadLetters",
            "/v1/dead-letters/replay",
            Scope::Replay,
            "Send dead letters again",
            "Named by `ids` or by a `filter`, with a fresh count of attempts, to their own subscription or to another \
             one of their tenant. What a filter leaves beyond the limit is told as `more`: ask again.",
            handler!(replay),
        ),
        act(
            "discardDeadLetters",
            "/v1/dead-letters/discard",
            Scope::Write,
            "Give dead letters up for good",
            "They stay listed as `discarded` and may still be sent again.",
            handler!(discard),
        ),
    ]
}

async fn list(call: Call) -> Answer {
    let known = ["tenant", "state", "kind", "reason", "subscription", "event", "document", "limit", "cursor"];
    let mut query = Query::read(&call.request, &known);
    let tenant = query.of::<Tenant>("tenant");
    let state = query.parsed("state", |text| match text {
        "all" => Ok(None),
        text => DeadState::parse(text).map(Some).ok_or_else(|| "is not a state".to_owned()),
    });
    let filter = DeadFilter {
        tenant: None,
        state: state.unwrap_or(Some(DeadState::Open)),
        kind: query.parsed("kind", kind),
        reason: query.text("reason"),
        subscription: query.text("subscription"),
        event_id: query.text("event"),
        document_id: query.text("document"),
        limit: query.limit(LIMIT_MAX),
        before_id: query
            .parsed("cursor", |text| number(text).ok_or_else(|| "is no cursor of ours".to_owned())),
        ..DeadFilter::default()
    };
    query.end()?;
    let tenant = call.caller.tenant_of_list(tenant)?.map(|tenant| tenant.to_string());
    let filter = DeadFilter { tenant, ..filter };
    let rows = call.v1.desk.store.dead_list(&filter).await.map_err(Refused::from)?;
    let is_full = rows.len() == filter.limit as usize;
    let next = rows.last().filter(|_| is_full).map(|row| format!("dl_{}", row.id));
    let data: Vec<Value> = rows.iter().map(row_json).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": next })))
}

async fn show(call: Call) -> Answer {
    let letter = call.v1.desk.dead_letter(&call.caller, &call.id).await?;
    Ok(json_answer(StatusCode::OK, &letter_json(&letter)))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Action {
    ids: Option<Vec<String>>,
    filter: Option<FilterBody>,
    dry_run: bool,
    limit: Option<usize>,
    /// Of a replay.
    subscription: Option<String>,
    /// Of a discard.
    note: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilterBody {
    tenant: Option<String>,
    kind: Option<String>,
    reason: Option<String>,
    subscription: Option<String>,
    event: Option<String>,
    document: Option<String>,
}

async fn replay(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let action = read(&v1, request, "note").await?;
    let (chosen, limit) = chosen(&caller, &action)?;
    let rows = v1.desk.chosen(&caller, &chosen).await?;
    let (rows, more) = cut(rows, limit);
    let subscription = action.subscription.as_deref();
    v1.desk.check_replay(&caller, &rows, subscription).await?;
    if action.dry_run {
        return Ok(result(rows.len(), &[], more, true));
    }
    let (done, ended) = v1.desk.replay(&caller, &*v1.publisher, &rows, subscription, |_| ()).await;
    match ended {
        // What was sent is marked: asking again goes on with the rest.
        Err(refused) if done.ids.is_empty() => Err(refused.into()),
        Err(refused) => {
            tracing::warn!("{refused}");
            Ok(result(done.matched, &done.ids, true, false))
        }
        Ok(()) => Ok(result(done.matched, &done.ids, more, false)),
    }
}

async fn discard(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let action = read(&v1, request, "subscription").await?;
    let (chosen, limit) = chosen(&caller, &action)?;
    let (rows, more) = cut(v1.desk.chosen(&caller, &chosen).await?, limit);
    if action.dry_run {
        return Ok(result(rows.len(), &[], more, true));
    }
    let open = rows.iter().filter(|row| row.state == DeadState::Open).cloned().collect::<Vec<_>>();
    v1.desk.discard(&caller, &open, action.note.as_deref()).await?;
    let ids: Vec<i64> = open.iter().map(|row| row.id).collect();
    Ok(result(rows.len(), &ids, more, false))
}

/// Reads the body of an action; `foreign` is the member that belongs to the other one.
async fn read(v1: &V1, request: Request, foreign: &str) -> Result<Action, Problem> {
    let members: Vec<&str> = MEMBERS.into_iter().filter(|name| *name != foreign).collect();
    let (action, _body) = read_optional::<Action>(v1, request, &members).await?;
    if action.note.as_ref().is_some_and(|note| note.contains('\0')) {
        return Err(Problem::faults(vec![Fault::new("note", "holds a control character")]));
    }
    Ok(action)
}

/// Which letters are meant, and how many at most.
fn chosen(caller: &Caller, action: &Action) -> Result<(Chosen, usize), Problem> {
    let mut faults = Vec::new();
    let limit = action.limit.unwrap_or(AT_ONCE_MAX);
    if !(1..=AT_ONCE_MAX).contains(&limit) {
        faults.push(Fault::new("limit", format!("must be from 1 to {AT_ONCE_MAX}")));
    }
    let chosen = match (&action.ids, &action.filter) {
        (Some(ids), None) => {
            let mut numbers = Vec::with_capacity(ids.len());
            for (place, id) in ids.iter().enumerate() {
                match number(id) {
                    Some(number) => numbers.push(number),
                    None => faults.push(
                        Fault::new(format!("ids[{place}]"), "is not the id of a dead letter")
                            .hint("ids look like `dl_17`"),
                    ),
                }
            }
            if numbers.len() > AT_ONCE_MAX {
                faults.push(Fault::new("ids", format!("names more than {AT_ONCE_MAX}")));
            }
            Chosen::Ids(numbers)
        }
        (None, Some(filter)) => Chosen::Every(Box::new(DeadFilter {
            // One more tells whether there are more.
            limit: u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1),
            ..filter_of(caller, filter, &mut faults)?
        })),
        _ => {
            faults.push(Fault::new("", "names no dead letters, or in two ways").hint(
                "give `ids`, or a `filter` such as `{\"reason\": \"exhausted\"}`; `{}` is every open one",
            ));
            return Err(Problem::faults(faults));
        }
    };
    if faults.is_empty() { Ok((chosen, limit)) } else { Err(Problem::faults(faults)) }
}

fn filter_of(caller: &Caller, filter: &FilterBody, faults: &mut Vec<Fault>) -> Result<DeadFilter, Problem> {
    let texts = [
        ("reason", &filter.reason),
        ("subscription", &filter.subscription),
        ("event", &filter.event),
        ("document", &filter.document),
    ];
    for (name, text) in texts {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            faults.push(Fault::new(format!("filter.{name}"), "holds a control character"));
        }
    }
    let kind = filter.kind.as_deref().map(kind).transpose();
    let tenant = filter.tenant.as_deref().map(Tenant::parse).transpose();
    if let Err(why) = &kind {
        faults.push(Fault::new("filter.kind", why.as_str()));
    }
    if let Err(why) = &tenant {
        faults.push(Fault::new("filter.tenant", why.to_string()));
    }
    let tenant = caller.tenant_of_list(tenant.unwrap_or_default())?;
    Ok(DeadFilter {
        tenant: tenant.map(|tenant| tenant.to_string()),
        kind: kind.unwrap_or_default(),
        reason: filter.reason.clone(),
        subscription: filter.subscription.clone(),
        event_id: filter.event.clone(),
        document_id: filter.document.clone(),
        ..DeadFilter::default()
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "must be `delivery` or `event`".to_owned())
}

fn cut<T>(mut rows: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    (rows, more)
}

fn result(matched: usize, ids: &[i64], more: bool, is_dry: bool) -> axum::response::Response {
    let ids: Vec<String> = ids.iter().map(|id| format!("dl_{id}")).collect();
    let body = json!({ "matched": matched, "done": ids.len(), "ids": ids, "more": more, "dry_run": is_dry });
    json_answer(StatusCode::OK, &body)
}
