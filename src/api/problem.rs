//! What goes wrong, as RFC 9457 has it: which field, why, and what to write instead.

use std::borrow::Cow;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tracing::warn;

use crate::desk::Refused;
use crate::domain::fault::Fault;
use crate::domain::preset::Second;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Problem(Box<Told>);

/// What it tells.
#[derive(Debug)]
struct Told {
    status: StatusCode,
    /// The last word of its `type`, for programs.
    kind: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    errors: Vec<Fault>,
    headers: Vec<(HeaderName, String)>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Problem {
        let detail = detail.into();
        Problem(Box::new(Told {
            status,
            kind,
            title,
            detail,
            hint: None,
            errors: Vec::new(),
            headers: Vec::new(),
        }))
    }

    /// What to do about it.
    pub(super) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Problem {
        self.0.hint = Some(hint.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Problem {
        self.0.headers.push((name, value.into()));
        self
    }

    /// 400: the request cannot be understood.
    pub(super) fn malformed(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", "malformed request", detail)
    }

    /// 400: parameters that are wrong, all of them.
    pub(super) fn parameters(errors: Vec<Fault>) -> Problem {
        Problem::malformed("some parameters cannot be used").errors(errors)
    }

    /// 422: everything wrong with a body.
    pub(super) fn faults(errors: Vec<Fault>) -> Problem {
        let detail = match errors.len() {
            1 => "one thing is wrong with the body".to_owned(),
            count => format!("{count} things are wrong with the body"),
        };
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "faults", "the body has faults", detail).errors(errors)
    }

    fn errors(mut self, errors: Vec<Fault>) -> Problem {
        self.0.errors = errors;
        self
    }

    pub(super) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "not allowed", detail)
    }

    pub(super) fn missing(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "not found", detail)
    }

    /// 503: a service behind us does not do its part.
    pub(super) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not available now", detail)
            .header(header::RETRY_AFTER, "1")
    }

    pub(super) fn text(&self) -> &str {
        &self.0.detail
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let text = refused.to_string();
        match refused {
            Refused::Faults(faults) => Problem::faults(faults),
            Refused::Missing { .. } => Problem::missing(text),
            Refused::Forbidden(_) => Problem::forbidden(text),
            Refused::Busy(why) => Problem::unavailable(why),
            Refused::Stale { .. } => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "changed", "changed meanwhile", text)
                    .hint("GET it again and repeat the change with its new `ETag`")
            }
            Refused::Conflict { hint, .. } => {
                Problem::new(StatusCode::CONFLICT, "conflict", "does not fit what is there", text).hint(hint)
            }
            Refused::Second { preset, id } => {
                let hint = match preset.rules.second {
                    Some(Second::Update) => format!(
                        "change it with `PATCH /v1/subscriptions/{id}`, or set it up with `?preset={}`",
                        preset.name
                    ),
                    Some(Second::Refuse) | None => {
                        format!("remove it first: `DELETE /v1/subscriptions/{id}`")
                    }
                };
                Problem::new(StatusCode::CONFLICT, "second", "one is there already", text).hint(hint)
            }
            Refused::Failed(error) => {
                // The chain may name hosts and files: it is for the log.
                warn!("a request of the API failed: {error:#}");
                Problem::unavailable("the store or the broker did not answer as it should; the log says more")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let told = *self.0;
        let mut body = json!({
            "type": format!("urn:paperboy:problem:{}", told.kind),
            "title": told.title,
            "status": told.status.as_u16(),
            "detail": told.detail,
        });
        if let Some(hint) = &told.hint {
            body["hint"] = json!(hint);
        }
        if !told.errors.is_empty() {
            body["errors"] = told.errors.iter().map(error).collect();
        }
        let mut response =
            (told.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string())
                .into_response();
        for (name, value) in told.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// One fault: the field as people write it, and as a JSON Pointer (RFC 6901) for programs.
fn error(fault: &Fault) -> Value {
    let mut error = Map::new();
    error.insert("field".to_owned(), json!(fault.field));
    error.insert("pointer".to_owned(), json!(pointer(&fault.field)));
    error.insert("detail".to_owned(), json!(fault.message));
    if let Some(hint) = &fault.hint {
        error.insert("hint".to_owned(), json!(hint));
    }
    Value::Object(error)
}

/// `signatures[0].secrets[1]` is `/signatures/0/secrets/1`. Names of headers and of scope may hold dots.
fn pointer(field: &str) -> String {
    let (parents, own) =
        match ["request.headers.", "scope."].iter().find(|parent| field.starts_with(**parent)) {
            Some(parent) => (&field[..parent.len() - 1], Some(&field[parent.len()..])),
            None => (field, None),
        };
    let escape = |part: &str| part.replace('~', "~0").replace('/', "~1");
    let parts =
        parents.split(['.', '[']).map(|part| part.trim_end_matches(']')).filter(|part| !part.is_empty());
    parts.chain(own).map(|part| format!("/{}", escape(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_pointers_too() {
        assert_eq!(pointer("signatures[0].secrets[1]"), "/signatures/0/secrets/1");
        assert_eq!(pointer("request.headers.X.a/b~"), "/request/headers/X.a~1b~0");
        assert_eq!(pointer("scope.in.box"), "/scope/in.box");
        assert_eq!((pointer("").as_str(), pointer("tenant").as_str()), ("", "/tenant"));
    }
}
