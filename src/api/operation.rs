//! One operation of `/v1`: what it is called, who may do it, what it takes and answers, and who does it.
//!
//! The router and the OpenAPI document are both made from these, so neither can know what the other does not.

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::V1;
use super::problem::Problem;
use crate::desk::Caller;
use crate::domain::key::Scope;

/// What an operation is given.
pub(super) struct Call {
    pub(super) v1: std::sync::Arc<V1>,
    pub(super) caller: Caller,
    /// The `{id}` of the path, or nothing.
    pub(super) id: String,
    pub(super) request: Request,
}

pub(super) type Answer = Result<Response, Problem>;

/// Who does it.
pub(super) type Handler = fn(Call) -> BoxFuture<'static, Answer>;

/// Makes a [`Handler`] of a function.
macro_rules! handler {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}
pub(super) use handler;

/// One operation.
pub(super) struct Operation {
    /// Its `operationId`.
    pub(super) id: &'static str,
    pub(super) method: Method,
    /// With `{id}` where one is taken.
    pub(super) path: &'static str,
    pub(super) scope: Scope,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Value>,
    /// OpenAPI's `requestBody`.
    pub(super) body: Option<Value>,
    /// Answers that are no problem, as OpenAPI has them.
    pub(super) answers: Vec<(u16, Value)>,
    /// The problems that not every operation may answer.
    pub(super) problems: Vec<u16>,
    /// It goes on when whoever asked has gone: a change is told of once it is made.
    pub(super) is_change: bool,
    pub(super) handler: Handler,
}

impl Operation {
    /// Whether it takes anything in its query.
    pub(super) fn has_query(&self) -> bool {
        // Those that are shared and not of the query stand for themselves.
        const OTHERS: [&str; 4] = ["id", "ifMatch", "prefer", "idempotencyKey"];
        self.parameters.iter().any(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => !OTHERS.iter().any(|other| reference.ends_with(&format!("/{other}"))),
            None => parameter["in"] == "query",
        })
    }

    /// The media types it may answer with, beside problems.
    pub(super) fn produces(&self) -> Vec<&str> {
        let contents = self.answers.iter().filter_map(|(_, answer)| answer["content"].as_object());
        contents.flat_map(|content| content.keys().map(String::as_str)).collect()
    }
}

/// A JSON answer.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// An answer of OpenAPI whose body is a schema of ours.
pub(super) fn answers(description: &str, schema: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } },
    })
}

/// A list, newest or lowest first, with where the next page begins.
pub(super) fn answers_page(description: &str, schema: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["data", "next_cursor"],
            "additionalProperties": false,
            "properties": {
                "data": { "type": "array", "items": { "$ref": format!("#/components/schemas/{schema}") } },
                "next_cursor": {
                    "type": ["string", "null"],
                    "description": "`cursor` of the next page; `null` at the end",
                },
            },
        } } },
    })
}

/// A body that is a schema of ours.
pub(super) fn takes(schema: &str, is_required: bool, examples: Value) -> Value {
    json!({
        "required": is_required,
        "content": { "application/json": {
            "schema": { "$ref": format!("#/components/schemas/{schema}") },
            "examples": examples,
        } },
    })
}

/// A parameter in the query.
pub(super) fn in_query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

/// A parameter that stands in the components.
pub(super) fn shared(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}
