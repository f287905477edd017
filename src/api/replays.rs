//! `/v1/replays`: replays that run, wait or are done. One is begun at `/v1/dead-letters/replay`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::operation::{Answer, Call, Operation, answers, answers_page, handler, json_answer, shared};
use super::request::Query;
use crate::desk::now_ms;
use crate::desk::replays::{Turn, job_json};
use crate::domain::key::Scope;

const LIMIT_MAX: u32 = 500;

pub(super) fn operations() -> Vec<Operation> {
    let turn = |id, path, summary, handler| Operation {
        id,
        method: Method::POST,
        path,
        scope: Scope::Replay,
        summary,
        description: "",
        parameters: vec![shared("id")],
        body: None,
        answers: vec![(200, answers("How it stands now", "Replay"))],
        problems: vec![404, 409],
        is_change: true,
        handler,
    };
    vec![
        Operation {
            id: "listReplays",
            method: Method::GET,
            path: "/v1/replays",
            scope: Scope::Read,
            summary: "List replays, newest first",
            description: "A tenant's key sees those that keys of its tenant began.",
            parameters: vec![shared("limit")],
            body: None,
            answers: vec![(200, answers_page("The newest replays", "Replay"))],
            problems: vec![],
            is_change: false,
            handler: handler!(list),
        },
        Operation {
            id: "getReplay",
            method: Method::GET,
            path: "/v1/replays/{id}",
            scope: Scope::Read,
            summary: "Show how far a replay is",
            description: "",
            parameters: vec![shared("id")],
            body: None,
            answers: vec![(200, answers("The replay", "Replay"))],
            problems: vec![404],
            is_change: false,
            handler: handler!(show),
        },
        turn("pauseReplay", "/v1/replays/{id}/pause", "Hold a replay where it is", handler!(pause)),
        turn("resumeReplay", "/v1/replays/{id}/resume", "Let a replay go on", handler!(resume)),
        turn(
            "cancelReplay",
            "/v1/replays/{id}/cancel",
            "End a replay; letters that were not sent are open as before",
            handler!(cancel),
        ),
    ]
}

async fn list(call: Call) -> Answer {
    let mut query = Query::read(&call.request, &["limit"]);
    let limit = query.limit(LIMIT_MAX);
    query.end()?;
    let jobs = call.v1.desk.replays(&call.caller, limit).await?;
    let now_ms = now_ms();
    let data: Vec<Value> = jobs.iter().map(|job| job_json(job, now_ms)).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "data": data, "next_cursor": null })))
}

async fn show(call: Call) -> Answer {
    let job = call.v1.desk.replay(&call.caller, &call.id).await?;
    Ok(json_answer(StatusCode::OK, &job_json(&job, now_ms())))
}

async fn pause(call: Call) -> Answer {
    turned(call, Turn::Pause).await
}

async fn resume(call: Call) -> Answer {
    turned(call, Turn::Resume).await
}

async fn cancel(call: Call) -> Answer {
    turned(call, Turn::Cancel).await
}

async fn turned(call: Call, turn: Turn) -> Answer {
    let job = call.v1.desk.turn_replay(&call.caller, &call.id, turn).await?;
    Ok(json_answer(StatusCode::OK, &job_json(&job, now_ms())))
}
