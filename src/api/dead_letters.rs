//! `/v1/dead-letters`: what was given up, to be looked at, sent again or discarded.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::V1;
use super::filters;
use super::operation::{
    Answer, Call, Operation, answers, answers_page, handler, in_query, json_answer, shared, takes,
};
use super::problem::Problem;
use super::request::{Query, read_optional};
use crate::desk::dead::{Chosen, group_json, letter_json, number, row_json};
use crate::desk::replays::{Asked, CANARIES_MAX, job_json};
use crate::desk::wanted::Wanted;
use crate::desk::{Caller, Refused, now_ms};
use crate::domain::fault::Fault;
use crate::domain::key::Scope;
use crate::store::{DeadFilter, DeadState};

const LIMIT_MAX: u32 = 500;
/// Letters that one request names or discards; its answer says whether there are more.
const AT_ONCE_MAX: usize = 500;
/// The pace of a replay that names none, in letters a second.
const RATE: u32 = 200;
const RATE_MAX: u32 = 100_000;

pub(super) fn operations() -> Vec<Operation> {
    let text = || json!({ "type": "string", "maxLength": 512 });
    let kind =
        || in_query("kind", "only deliveries or only events", json!({ "enum": ["delivery", "event"] }));
    let reason = || in_query("reason", "only this reason, such as `exhausted`", text());
    let host = || in_query("host", "only this receiver", text());
    let states = json!({ "enum": ["open", "replayed", "discarded", "all"] });
    let state = || in_query("state", "in which state", states.clone());
    let mut of_groups = filters::shared_filters("when it died");
    of_groups.extend([kind(), reason(), host(), state(), shared("limit")]);
    let example = json!({ "filter": { "tenant": "acme", "reason": "exhausted" }, "dry_run": true });
    let act = |id, path, scope, summary, description, schema, answers, handler| Operation {
        id,
        method: Method::POST,
        path,
        scope,
        summary,
        description,
        parameters: vec![],
        body: Some(takes(schema, true, json!({ "dry": { "value": example } }))),
        answers,
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
            parameters: filters::parameters([kind(), reason(), host(), state()], "when it died"),
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
            id: "groupDeadLetters",
            method: Method::GET,
            path: "/v1/dead-letters/groups",
            scope: Scope::Read,
            summary: "Count dead letters that died of the same: receiver, cause and status",
            description: "Largest first. `example` is the newest letter of a group.",
            parameters: of_groups,
            body: None,
            answers: vec![(200, answers_page("The largest groups", "DeadLetterGroup"))],
            problems: vec![],
            is_change: false,
            handler: handler!(groups),
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
             one of their tenant. It becomes a job that this or another process works on: `/v1/replays/{id}` shows \
             how far it is. Asked again while letters wait, the same job goes on.",
            "ReplayRequest",
            vec![
                (200, answers("How many it would be, or that there are none", "ReplayBegun")),
                (202, answers("The job that was begun", "ReplayBegun")),
            ],
            handler!(replay),
        ),
        act(
            "discardDeadLetters",
            "/v1/dead-letters/discard",
            Scope::Write,
            "Give dead letters up for good",
            "They stay listed as `discarded` and may still be sent again. What a filter leaves beyond the limit is \
             told as `more`: ask again.",
            "DiscardRequest",
            vec![(200, answers("What was done, or would be", "DiscardResult"))],
            handler!(discard),
        ),
    ]
}

async fn list(call: Call) -> Answer {
    let names: Vec<&str> = Wanted::names_of_dead().chain(["limit", "cursor"]).collect();
    let mut query = Query::read(&call.request, &names);
    let wanted = filters::read(&mut query, Wanted::names_of_dead());
    let limit = query.limit(LIMIT_MAX);
    let before_id =
        query.parsed("cursor", |text| number(text).ok_or_else(|| "is no cursor of ours".to_owned()));
    query.end()?;
    let filter = filters::of_query(wanted.dead(&call.caller, ""))?;
    let filter = DeadFilter { limit, before_id, ..filter };
    let _look = call.v1.look().await;
    let rows = call.v1.desk.store.dead_list(&filter).await.map_err(Refused::from)?;
    let is_full = rows.len() == filter.limit as usize;
    let next = rows.last().filter(|_| is_full).map(|row| format!("dl_{}", row.id));
    let data: Vec<Value> = rows.iter().map(row_json).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": next })))
}

async fn groups(call: Call) -> Answer {
    let names: Vec<&str> = Wanted::names_of_dead().chain(["limit"]).collect();
    let mut query = Query::read(&call.request, &names);
    let wanted = filters::read(&mut query, Wanted::names_of_dead());
    let limit = query.limit(LIMIT_MAX);
    query.end()?;
    let filter = filters::of_query(wanted.dead(&call.caller, ""))?;
    let filter = DeadFilter { limit, ..filter };
    let _look = call.v1.look().await;
    let groups = call.v1.desk.store.dead_groups(&filter).await.map_err(Refused::from)?;
    let data: Vec<Value> = groups.iter().map(group_json).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": null })))
}

async fn show(call: Call) -> Answer {
    let _look = call.v1.look().await;
    let letter = call.v1.desk.dead_letter(&call.caller, &call.id).await?;
    Ok(json_answer(StatusCode::OK, &letter_json(&letter)))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Action {
    ids: Option<Vec<String>>,
    filter: Option<Wanted>,
    dry_run: bool,
    /// Of a replay, as what follows.
    subscription: Option<String>,
    rate: Option<u32>,
    canary: u32,
    /// Of a discard, as what follows.
    limit: Option<usize>,
    note: Option<String>,
}

const OF_REPLAY: [&str; 6] = ["ids", "filter", "dry_run", "subscription", "rate", "canary"];
const OF_DISCARD: [&str; 5] = ["ids", "filter", "dry_run", "limit", "note"];

async fn replay(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let action = read(&v1, request, &OF_REPLAY).await?;
    let rate = action.rate.unwrap_or(RATE);
    if rate > RATE_MAX {
        let fault = Fault::new("rate", format!("must be from 0 to {RATE_MAX}; 0 is as many as go"));
        return Err(Problem::faults(vec![fault]));
    }
    if action.canary > CANARIES_MAX {
        let fault = Fault::new("canary", format!("must be from 0 to {CANARIES_MAX}"));
        return Err(Problem::faults(vec![fault]));
    }
    let _look = v1.look().await;
    let asked = Asked {
        chosen: chosen(&caller, &action, LIMIT_MAX)?,
        subscription: action.subscription,
        rate,
        canary: action.canary,
    };
    if action.dry_run {
        let matched = v1.desk.count_replay(&caller, &asked).await?;
        let body = json!({ "matched": matched, "dry_run": true, "replay": null });
        return Ok(json_answer(StatusCode::OK, &body));
    }
    match v1.desk.begin_replay(&caller, &asked).await? {
        Some(job) => {
            let told = job_json(&job, now_ms());
            let body = json!({ "matched": job.waiting, "dry_run": false, "replay": told });
            Ok(json_answer(StatusCode::ACCEPTED, &body))
        }
        None => {
            let body = json!({ "matched": 0, "dry_run": false, "replay": null });
            Ok(json_answer(StatusCode::OK, &body))
        }
    }
}

async fn discard(call: Call) -> Answer {
    let Call { v1, caller, request, .. } = call;
    let action = read(&v1, request, &OF_DISCARD).await?;
    let limit = action.limit.unwrap_or(AT_ONCE_MAX);
    if !(1..=AT_ONCE_MAX).contains(&limit) {
        let fault = Fault::new("limit", format!("must be from 1 to {AT_ONCE_MAX}"));
        return Err(Problem::faults(vec![fault]));
    }
    let _look = v1.look().await;
    // One more tells whether there are more.
    let page = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
    let chosen = chosen(&caller, &action, page)?;
    if action.dry_run {
        let matched = v1.desk.count_chosen(&caller, &chosen).await?;
        return Ok(result(matched, &[], matched > limit as u64, true));
    }
    let (rows, more) = cut(v1.desk.chosen(&caller, &chosen).await?, limit);
    let open = rows.iter().filter(|row| row.state == DeadState::Open).cloned().collect::<Vec<_>>();
    v1.desk.discard(&caller, &open, action.note.as_deref()).await?;
    let ids: Vec<i64> = open.iter().map(|row| row.id).collect();
    Ok(result(rows.len() as u64, &ids, more, false))
}

/// Reads the body of an action.
async fn read(v1: &V1, request: Request, members: &[&str]) -> Result<Action, Problem> {
    let (action, _body) = read_optional::<Action>(v1, request, members).await?;
    if action.note.as_ref().is_some_and(|note| note.contains('\0')) {
        return Err(Problem::faults(vec![Fault::new("note", "holds a control character")]));
    }
    Ok(action)
}

/// Which letters are meant; of a filter at most `page`, where they are looked at one by one.
fn chosen(caller: &Caller, action: &Action, page: u32) -> Result<Chosen, Problem> {
    match (&action.ids, &action.filter) {
        (Some(ids), None) => {
            let mut faults = Vec::new();
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
            if faults.is_empty() { Ok(Chosen::Ids(numbers)) } else { Err(Problem::faults(faults)) }
        }
        (None, Some(filter)) => {
            let filter = DeadFilter { limit: page, ..filter.dead(caller, "filter.")? };
            Ok(Chosen::Every(Box::new(filter)))
        }
        _ => {
            let fault = Fault::new("", "names no dead letters, or in two ways").hint(
                "give `ids`, or a `filter` such as `{\"reason\": \"exhausted\"}`; `{}` is every open one",
            );
            Err(Problem::faults(vec![fault]))
        }
    }
}

fn cut<T>(mut rows: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    (rows, more)
}

fn result(matched: u64, ids: &[i64], more: bool, is_dry: bool) -> axum::response::Response {
    let ids: Vec<String> = ids.iter().map(|id| format!("dl_{id}")).collect();
    let body = json!({ "matched": matched, "done": ids.len(), "ids": ids, "more": more, "dry_run": is_dry });
    json_answer(StatusCode::OK, &body)
}
