//! Reading requests: bodies within their bounds, and headers and queries with every fault told at once.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::V1;
use super::problem::Problem;
use crate::domain::fault::Fault;

/// A body, and the room it takes among all bodies in hand.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Room for bodies is given in pieces of this many bytes.
pub(super) const ROOM_BYTES: usize = 1024;

/// Bytes of a refused body that are read before the answer, and how long that may take.
const PASSED_OVER_MAX: usize = 1 << 20;
const PASSING_OVER_MAX: Duration = Duration::from_secs(1);

/// Reads a body of at most `bytes_max`.
///
/// Room is taken as the bytes arrive: however many requests send however slowly, they hold no more than the limit.
pub(super) async fn read_body(v1: &V1, body: Body, bytes_max: usize) -> Result<Held, Problem> {
    let reading = collect(Arc::clone(&v1.room), body, bytes_max);
    let too_slow = || {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            "the body came too slowly",
            "it was not complete in time",
        )
        .header(header::CONNECTION, "close")
    };
    tokio::time::timeout(v1.limits.timeout, reading).await.unwrap_or_else(|_| Err(too_slow()))
}

async fn collect(room: Arc<Semaphore>, body: Body, bytes_max: usize) -> Result<Held, Problem> {
    let mut stream = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut all: Vec<u8> = Vec::new();
    let mut length = 0;
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body broke off"))?;
        length += chunk.len();
        if length > bytes_max {
            drop((held, all, first));
            pass_over(stream).await;
            let detail = format!("the body is larger than {bytes_max} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "too large", detail).hint(
                "send less at once; `limits.body_bytes_max` and `limits.event_bytes_max` say how much",
            ));
        }
        // For all of it, not for each chunk: chunks of one byte would take a thousand times their bytes.
        let had = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let pieces = length.div_ceil(ROOM_BYTES).saturating_sub(had);
        let more = Arc::clone(&room).try_acquire_many_owned(u32::try_from(pieces).unwrap_or(u32::MAX));
        let Ok(more) = more else {
            drop((held, all, first));
            pass_over(stream).await;
            return Err(Problem::unavailable("too many bodies are being read at once"));
        };
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        // Most bodies are one piece, which is not copied.
        match (&first, all.is_empty()) {
            (None, true) => first = Some(chunk),
            (Some(begin), true) => {
                all.extend_from_slice(begin);
                all.extend_from_slice(&chunk);
            }
            _ => all.extend_from_slice(&chunk),
        }
    }
    let bytes = if all.is_empty() { first.unwrap_or_default() } else { all.into() };
    Ok(Held { bytes, _room: held })
}

/// Reads a little of what is refused and forgets it: a connection that is closed with bytes unread is reset, and
/// whoever is still sending would never see the answer.
async fn pass_over(mut stream: BodyDataStream) {
    let mut left = PASSED_OVER_MAX;
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PASSING_OVER_MAX, reading).await;
}

/// Reads a JSON body.
pub(super) async fn read_json(
    v1: &V1,
    request: Request,
    media_types: &[&str],
) -> Result<(Value, Held), Problem> {
    check_media_type(request.headers(), media_types)?;
    let held = read_body(v1, request.into_body(), v1.limits.document_bytes_max).await?;
    Ok((parse(&held.bytes)?, held))
}

/// Reads a JSON body of known members; an empty one is as good as `{}`. Every fault of it is told.
pub(super) async fn read_optional<T: DeserializeOwned + Default>(
    v1: &V1,
    request: Request,
    members: &[&str],
) -> Result<(T, Held), Problem> {
    let headers = request.headers().clone();
    let held = read_body(v1, request.into_body(), v1.limits.event_bytes_max).await?;
    if held.bytes.is_empty() {
        return Ok((T::default(), held));
    }
    check_media_type(&headers, &["application/json"])?;
    let Value::Object(fields) = parse::<Value>(&held.bytes)? else {
        return Err(Problem::faults(vec![Fault::new("", "must be an object")]));
    };
    let known = || {
        format!("known are {}", members.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
    };
    let unknown = fields.keys().filter(|name| !members.contains(&name.as_str()));
    let mut faults: Vec<Fault> =
        unknown.map(|name| Fault::new(name.as_str(), "is not a known field").hint(known())).collect();
    for (name, value) in fields.iter().filter(|(name, _)| members.contains(&name.as_str())) {
        let alone = serde_json::json!({ name: value }).to_string();
        let Err(error) = serde_json::from_str::<T>(&alone) else { continue };
        // Of the parser's words only those that name members: the others may repeat what was sent.
        let text = error.to_string();
        let expected = text.split_once(", expected ").map(|(_, rest)| rest.split(" at line ").next());
        let fault = Fault::new(name.as_str(), "cannot be used");
        faults.push(match expected.flatten() {
            Some(expected) => fault.hint(format!("expected is {expected}")),
            None => fault,
        });
    }
    if !faults.is_empty() {
        return Err(Problem::faults(faults));
    }
    Ok((parse(&held.bytes)?, held))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The place, not the parser's words: they may repeat what stands there.
        let place = format!("at line {}, column {}", error.line(), error.column());
        Problem::malformed(format!("the body is not JSON ({place})"))
    })
}

/// Holds the body to the media types that are taken.
pub(super) fn check_media_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let given = media_type(headers);
    if taken.contains(&given.as_str()) {
        return Ok(());
    }
    let detail = match given.as_str() {
        "" => "`content-type` is missing",
        _ => "the body's `content-type` is not taken here",
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "not this kind of body", detail)
        .hint(format!("send `content-type: {}`", taken.join("` or `"))))
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether an answer of one of these types is acceptable (RFC 9110 §12.5.1; `q=0` refuses).
pub(super) fn accepts(headers: &HeaderMap, produced: &[&str]) -> bool {
    let mut is_said = false;
    for value in headers.get_all(header::ACCEPT) {
        // What cannot be read is taken as if it were not there.
        let Ok(value) = value.to_str() else { return true };
        for range in value.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            is_said = true;
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let is_refused = parts
                .filter_map(|part| part.strip_prefix("q="))
                .any(|quality| quality.parse::<f32>().is_ok_and(|quality| quality == 0.0));
            let fits = |kind: &&str| {
                let family = kind.split('/').next().unwrap_or_default();
                name == "*/*" || name == **kind || name.strip_suffix("/*") == Some(family)
            };
            if !is_refused && (produced.is_empty() || produced.iter().any(fits)) {
                return true;
            }
        }
    }
    !is_said
}

/// The parameters of a query, each known and given once.
pub(super) struct Query {
    given: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Query {
    /// Reads the query of a request; what is not `known` is a fault.
    pub(super) fn read(request: &Request, known: &[&str]) -> Query {
        let mut query = Query { given: BTreeMap::new(), faults: Vec::new() };
        let text = request.uri().query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let fault = if !known.contains(&name.as_ref()) {
                let hint = format!(
                    "known are {}",
                    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                );
                Some(Fault::new("", "an unknown parameter was given").hint(hint))
            } else if query.given.contains_key(name.as_ref()) {
                Some(Fault::new(name.as_ref(), "is given twice"))
            } else if value.chars().any(char::is_control) {
                Some(Fault::new(name.as_ref(), "holds a control character"))
            } else {
                query.given.insert(name.into_owned(), value.into_owned());
                None
            };
            query.faults.extend(fault);
        }
        query
    }

    /// A text, if it is given.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).filter(|text| !text.is_empty())
    }

    /// What `read` makes of it; its words continue "`name` …".
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        read(&text).map_err(|why| self.faults.push(Fault::new(name, why))).ok()
    }

    /// What has a type of its own.
    pub(super) fn of<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        self.parsed(name, |text| text.parse().map_err(|why: T::Err| why.to_string()))
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| text.parse().map_err(|_| "must be `true` or `false`".to_owned()))
    }

    /// How many at most: 1 to `max`, else 100.
    pub(super) fn limit(&mut self, max: u32) -> u32 {
        let read = |text: &str| match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
            _ => Err(format!("must be a whole number from 1 to {max}")),
        };
        self.parsed("limit", read).unwrap_or(100)
    }

    /// All faults there were.
    pub(super) fn end(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::parameters(self.faults)) }
    }
}

/// What a change may be made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Nothing was said, or `*`.
    Any,
    /// One of these versions; a tag that is none of ours matches nothing.
    OneOf(Vec<u64>),
}

/// Reads `If-Match` (RFC 9110 §13.1.1).
pub(super) fn if_match(headers: &HeaderMap) -> Result<IfMatch, Problem> {
    versions(headers, &header::IF_MATCH)
}

/// Whether `If-None-Match` names this version.
pub(super) fn is_known(headers: &HeaderMap, version: u64) -> bool {
    let weak = |value: &str| value.replace("W/", "");
    let value = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(weak);
    value.is_some_and(|value| {
        value.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag(version))
    })
}

fn versions(headers: &HeaderMap, name: &HeaderName) -> Result<IfMatch, Problem> {
    let Some(value) = headers.get(name) else { return Ok(IfMatch::Any) };
    let wrong = || {
        Problem::malformed(format!("`{name}` is not a tag in quotes"))
            .hint("send the `ETag` of a GET as it is")
    };
    let value = value.to_str().map_err(|_| wrong())?.trim();
    if value == "*" {
        return Ok(IfMatch::Any);
    }
    let mut versions = Vec::new();
    for tag in value.split(',').map(str::trim) {
        let strong = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        match strong {
            Some(text) => versions.extend(text.parse::<u64>().ok()),
            // A weak tag never matches where a strong one is asked for.
            None if tag.starts_with("W/\"") && tag.ends_with('"') => {}
            None => return Err(wrong()),
        }
    }
    Ok(IfMatch::OneOf(versions))
}

/// A version as an `ETag`.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Whether `Prefer: wait` was said (RFC 7240 §4.3; how long is ours to say).
pub(super) fn prefers_wait(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|part| {
        let name = part.split('=').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("wait")
    })
}

/// Reads `Idempotency-Key`: 1 to 255 visible characters.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(text.to_owned()));
    }
    Err(Problem::malformed("`Idempotency-Key` must be 1 to 255 visible ASCII characters")
        .hint("a random UUID for each creation is a good one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[tokio::test]
    async fn a_body_takes_room_for_its_bytes_however_it_is_cut() {
        let room = Arc::new(Semaphore::new(4));
        let body = |bytes: usize, chunk: usize| {
            let chunks = vec![b'x'; bytes].chunks(chunk).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let chunks = chunks.into_iter().map(Ok::<_, std::convert::Infallible>);
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let held = collect(Arc::clone(&room), body(3 * ROOM_BYTES, 1), usize::MAX).await;
        assert_eq!(
            (held.map(|held| held.bytes.len()).ok(), room.available_permits()),
            (Some(3 * ROOM_BYTES), 4)
        );
        let held = collect(Arc::clone(&room), body(3 * ROOM_BYTES + 1, ROOM_BYTES), usize::MAX).await;
        assert_eq!((held.is_ok(), room.available_permits()), (true, 0));
        drop(held);
        assert!(collect(Arc::clone(&room), body(4 * ROOM_BYTES + 1, 100), usize::MAX).await.is_err());
        assert_eq!(room.available_permits(), 4);
    }

    #[test]
    fn accept_is_read_as_http_has_it() {
        let json = ["application/json"];
        for good in [
            "*/*",
            "application/json",
            "APPLICATION/*",
            "text/html, */*;q=0.1",
            "application/json;charset=utf-8",
            "",
        ] {
            assert!(accepts(&headers("accept", good), &json), "{good}");
        }
        for bad in ["text/html", "application/xml, text/*", "application/json;q=0"] {
            assert!(!accepts(&headers("accept", bad), &json), "{bad}");
        }
        assert!(accepts(&HeaderMap::new(), &json));
    }

    #[test]
    fn tags_are_versions_and_weak_ones_match_nothing() {
        let read = |value| if_match(&headers("if-match", value));
        assert_eq!(read("\"7\"").unwrap(), IfMatch::OneOf(vec![7]));
        assert_eq!(read("\"7\", W/\"8\", \"x\"").unwrap(), IfMatch::OneOf(vec![7]));
        assert_eq!(read("*").unwrap(), IfMatch::Any);
        assert!(read("7").is_err());
        assert!(
            is_known(&headers("if-none-match", "W/\"7\""), 7)
                && !is_known(&headers("if-none-match", "\"8\""), 7)
        );
    }

    #[test]
    fn waiting_is_asked_for_by_its_name() {
        for good in ["wait", "respond-async, wait=10", "Wait"] {
            assert!(prefers_wait(&headers("prefer", good)), "{good}");
        }
        assert!(!prefers_wait(&headers("prefer", "respond-async")) && !prefers_wait(&HeaderMap::new()));
    }
}
