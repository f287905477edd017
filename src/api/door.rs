//! The door of `/v1`: who asks, may they, how often, and in which form. Behind it an operation is done.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{RequestExt as _, http};
use tokio::time::timeout;

use super::V1;
use super::operation::{Answer, Call, Operation};
use super::problem::Problem;
use super::request;
use crate::desk::Caller;
use crate::desk::keys::Denied;

/// Lets a request in, has its operation done, and answers.
pub(super) async fn enter(v1: Arc<V1>, operation: Arc<Operation>, request: Request) -> Response {
    let name = operation.id;
    let response = match done(v1, operation, request).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(operation = name, "a request of the API was refused: {}", problem.text());
            problem.into_response()
        }
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!("paperboy_api_requests_total", "operation" => name, "status" => status).increment(1);
    response
}

async fn done(v1: Arc<V1>, operation: Arc<Operation>, mut request: Request) -> Answer {
    // A change waits for every process to use it, if it is asked to.
    let limit = v1.limits.timeout + v1.desk.rules.refresh;
    let too_long = || Problem::unavailable("this took too long");
    let caller = timeout(limit, caller(&v1, request.headers())).await.map_err(|_| too_long())??;
    v1.buckets.take(&caller.actor, Instant::now()).map_err(|wait| {
        let title = "too many requests";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", title, "this key asks more often than it may")
            .hint("`limits.requests_per_s` says how often; several events fit into one request")
            .header(header::RETRY_AFTER, wait.as_secs_f64().ceil().max(1.0).to_string())
    })?;
    caller.allow(operation.scope)?;
    let produced = operation.produces();
    if !request::accepts(request.headers(), &produced) {
        let detail = format!("the answer is `{}`", produced.join("` or `"));
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "`Accept` excludes the answer",
            detail,
        ));
    }
    if !operation.has_query() && request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Problem::malformed("this takes no parameters in its query"));
    }
    let id = match operation.path.contains("{id}") {
        true => path_id(&mut request).await?,
        false => String::new(),
    };
    let call = Call { v1: Arc::clone(&v1), caller, id, request };
    let doing = (operation.handler)(call);
    let answer = if operation.is_change {
        let task = v1.changes.spawn(doing);
        timeout(limit, task).await.map(|task| task.unwrap_or_else(|_| Err(broken())))
    } else {
        timeout(limit, doing).await
    };
    answer.unwrap_or_else(|_| Err(too_long()))
}

fn broken() -> Problem {
    let title = "a mistake in Paperboy";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", title, "the log says more; please report it")
}

/// The `{id}` of the path; one that cannot be read names nothing that is there.
async fn path_id(request: &mut Request) -> Result<String, Problem> {
    let missing = || Problem::missing("nothing of this id is there");
    let parameters = request.extract_parts::<RawPathParams>().await.map_err(|_| missing())?;
    let id = parameters.iter().find(|(name, _)| *name == "id").map(|(_, id)| id.to_owned());
    id.filter(|id| id.len() <= 200 && !id.chars().any(char::is_control)).ok_or_else(missing)
}

/// Who has the key that the request brings.
async fn caller(v1: &V1, headers: &HeaderMap) -> Result<Caller, Problem> {
    let unauthorized = |detail: &'static str| {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a key is needed", detail)
            .hint("send `Authorization: Bearer KEY`; `paperboy key create` makes one")
    };
    match v1.keys.caller(bearer(headers)).await {
        Ok(caller) => Ok(caller),
        Err(Denied::NoneMade) if !v1.is_loopback => {
            Err(Problem::forbidden("`/v1` is not served beyond loopback while no key is set")
                .hint("run `paperboy key create`, set `api.keys`, or listen on 127.0.0.1"))
        }
        // Whoever is on this machine may, but no page in a browser on it.
        Err(Denied::NoneMade) if is_from_here(headers) => Ok(Caller::operator("loopback")),
        Err(Denied::NoneMade) => {
            Err(Problem::forbidden("without a key, only programs on this machine may ask")
                .hint("send `Host: localhost` and no `Origin`, or make a key with `paperboy key create`"))
        }
        Err(Denied::NoKey) => Err(unauthorized("no key was sent").header(header::WWW_AUTHENTICATE, BEARER)),
        Err(Denied::BadKey) => Err(unauthorized("this key is not known, or has ended")
            .header(header::WWW_AUTHENTICATE, format!("{BEARER}, error=\"invalid_token\""))),
        Err(Denied::Unknown) => Err(Problem::unavailable("the store does not say which keys there are")),
    }
}

const BEARER: &str = "Bearer realm=\"paperboy\"";

/// The key of `Authorization: Bearer KEY`; anything else there is a key that nobody has.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Some(key.trim()),
        _ => Some(""),
    }
}

/// Whether the request names this machine and comes from no page of another: a name that leads here by a
/// stranger's DNS is not this machine's.
fn is_from_here(headers: &HeaderMap) -> bool {
    let is_here = |authority: &str| {
        let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
        let host = authority.host().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    };
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    text(header::HOST).is_none_or(is_here)
        && text(header::ORIGIN)
            .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| is_here(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_page_of_a_stranger_is_not_from_here() {
        for good in
            [&[][..], &[("host", "localhost:8080")], &[("host", "127.0.0.1:1")], &[("host", "[::1]:8080")]]
        {
            assert!(is_from_here(&headers(good)), "{good:?}");
        }
        let here = ("host", "localhost:8080");
        assert!(is_from_here(&headers(&[here, ("origin", "http://localhost:3000")])));
        for bad in [
            &[("host", "evil.example")][..],
            &[here, ("origin", "https://evil.example")],
            &[here, ("origin", "null")],
        ] {
            assert!(!is_from_here(&headers(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_sent_as_a_bearer() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer  abc ")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), Some(""));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
