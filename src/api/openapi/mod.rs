//! The OpenAPI document, made from the operations that the router is made of.

mod batches;
mod letters;
mod schemas;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::operation::Operation;

/// What any operation may answer beside its own.
const PROBLEMS_OF_ALL: [u16; 7] = [400, 401, 403, 406, 429, 500, 503];

/// The document, without a server: it is served by whoever answers.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in super::operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Paperboy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Webhooks for document platforms. A key is an operator's or a tenant's; what is another \
                tenant's is answered with 403 or 404. Problems are RFC 9457, with every fault at once.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "tags": [
            { "name": "events" }, { "name": "batches" }, { "name": "subscriptions" }, { "name": "dead-letters" },
            { "name": "replays" }, { "name": "deliveries" }, { "name": "audit" },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": {
                "type": "http", "scheme": "bearer", "description": "made by `paperboy key create`, or of `api.keys`",
            } },
            "parameters": schemas::parameters(),
            "headers": { "ETag": {
                "description": "the version, for `If-Match`", "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" },
            } },
            "responses": problems(),
            "schemas": schemas::schemas(),
        },
    })
}

pub(super) async fn answer() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", document()))
        .into_response()
}

fn described(operation: &Operation) -> Value {
    let mut answers: Map<String, Value> =
        operation.answers.iter().map(|(status, answer)| (status.to_string(), answer.clone())).collect();
    for status in PROBLEMS_OF_ALL.iter().chain(&operation.problems) {
        let reference = format!("#/components/responses/{status}");
        answers.insert(status.to_string(), json!({ "$ref": reference }));
    }
    let tag = operation.path.split('/').nth(2).unwrap_or_default();
    let scope = format!("Needs the scope `{}`.", operation.scope.as_str());
    let description = [operation.description, &scope].into_iter().filter(|text| !text.is_empty());
    let mut described = json!({
        "operationId": operation.id,
        "tags": [tag],
        "summary": operation.summary,
        "description": description.collect::<Vec<_>>().join(" "),
        "parameters": operation.parameters,
        "responses": answers,
        "x-paperboy-scope": operation.scope.as_str(),
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = body.clone();
    }
    described
}

/// The problems by their status.
fn problems() -> Value {
    let told = [
        (400, "The request cannot be understood: a parameter, a header, or a body that is no JSON"),
        (401, "No key was sent, or one that is not known or has ended"),
        (403, "The key may not do this, or not for this tenant"),
        (404, "It is not there, or not this key's to see"),
        (406, "`Accept` excludes the answer"),
        (408, "The body did not come in time"),
        (409, "It does not fit what is there"),
        (412, "It has another version than `If-Match` names"),
        (413, "The body is too large"),
        (415, "The body is of another kind than is taken"),
        (422, "The body has faults, all of which are told"),
        (429, "This key asks too often"),
        (500, "A mistake in Paperboy"),
        (503, "RabbitMQ or the store does not do its part now: ask again"),
    ];
    let header = |name: &str, description: &str| json!({ name: { "description": description, "schema": { "type": "string" } } });
    let problem = |(status, description): (u16, &str)| {
        let mut response = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        match status {
            401 => response["headers"] = header("WWW-Authenticate", "`Bearer`"),
            429 => response["headers"] = header("Retry-After", "seconds"),
            503 => response["headers"] = header("Retry-After", "seconds"),
            _ => {}
        }
        (status.to_string(), response)
    };
    Value::Object(told.into_iter().map(problem).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subscription::SubscriptionSpec;

    /// Run with `UPDATE_DOCUMENTS=1` to write it anew.
    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let served = format!("{:#}\n", document());
        if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == served, "docs/openapi.json is old: UPDATE_DOCUMENTS=1 cargo test --lib openapi");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document();
        let text = document.to_string();
        let mut named = std::collections::BTreeSet::new();
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "`{pointer}` leads nowhere");
            named.insert(pointer.to_owned());
        }
        for kind in ["parameters", "headers", "responses", "schemas"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let pointer = format!("/components/{kind}/{name}");
                // It describes lines, which no schema can refer to.
                assert!(named.contains(&pointer) || name == "PublishedLine", "nothing uses `{pointer}`");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_and_a_path_of_its_own() {
        let operations = super::super::operations();
        let mut ids: Vec<_> = operations.iter().map(|operation| operation.id).collect();
        let mut places: Vec<_> =
            operations.iter().map(|operation| (operation.path, operation.method.to_string())).collect();
        let count = operations.len();
        ids.sort_unstable();
        ids.dedup();
        places.sort_unstable();
        places.dedup();
        assert_eq!((ids.len(), places.len()), (count, count));
    }

    /// The schema names what the document has, neither more nor less, section by section.
    #[test]
    fn the_schema_of_a_subscription_has_its_members() {
        let known = |fault: &str| -> Vec<String> {
            let mut names: Vec<String> = fault.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            names.sort();
            names
        };
        let members = |document: Value| {
            let faults = SubscriptionSpec::read(document).unwrap_err();
            known(faults[0].hint.as_deref().unwrap())
        };
        let schemas = schemas::schemas();
        let described = |name: &str| {
            let mut names: Vec<String> =
                schemas[name]["properties"].as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(described("Subscription"), members(json!({ "none": 1 })));
        assert_eq!(described("RequestOptions"), members(json!({ "request": { "none": 1 } })));
        assert_eq!(described("Auth"), members(json!({ "auth": { "none": 1 } })));
        assert_eq!(described("Signature"), members(json!({ "signatures": [{ "none": 1 }] })));
        assert_eq!(described("Retry"), members(json!({ "retry": { "none": 1 } })));
    }

    #[test]
    fn the_examples_of_subscriptions_are_good() {
        let document = document();
        let bodies = ["/v1/subscriptions/post", "/v1/subscriptions~1{id}/put"];
        for body in bodies {
            let (path, method) = body.rsplit_once('/').unwrap();
            let path = path.replace("~1", "/");
            let examples =
                &document["paths"][path][method]["requestBody"]["content"]["application/json"]["examples"];
            // Those with a description are a platform's.
            let own =
                examples.as_object().unwrap().iter().filter(|(_, example)| example["description"].is_null());
            for (name, example) in own {
                let new = crate::desk::subscriptions::New::complete(
                    example["value"].clone(),
                    "2026-11-22T09:00:07Z",
                );
                assert!(new.unwrap().is_ok(), "`{name}`");
            }
        }
    }
}
