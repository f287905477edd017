//! Reading an answer to its end, for whoever asked what a receiver has to say.

use std::time::Instant;

use http::HeaderValue;
use reqwest::Response;
use tokio::time::timeout_at;

use super::{failure::Failure, sender};
use crate::domain::{
    outcome::{Answer, Whole},
    secret::MASK,
    statuses::{Class, Seen},
    veil::Veil,
};

/// Reads the answer until `deadline`. One whose body is too long is told without it, and its connection closed.
///
/// # Errors
/// A success whose body does not come to its end: whoever asked for it has not got it. Of anything else the status
/// says enough, and it comes without the rest.
pub(super) async fn read(
    mut response: Response,
    started: Instant,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let (status, headers) = (response.status(), response.headers().clone());
    let read = timeout_at(deadline.into(), body(&mut response))
        .await
        .unwrap_or_else(|_| Err(Failure::new(Class::Timeout, "the answer did not come to its end in time")));
    let body = match read {
        Ok(body) => Some(body),
        Err(failure) if status.is_success() => return Err(failure),
        Err(_) => None,
    };
    let start = body.iter().flatten().map(Vec::as_slice).next().unwrap_or_default();
    Ok(Answer {
        seen: Seen::Status(status.as_u16()),
        cause: None,
        retry_after: sender::retry_after(&headers),
        elapsed_ms: sender::elapsed_ms(started),
        excerpt: start[..start.len().min(sender::EXCERPT_BYTES_MAX)].to_vec(),
        whole: body.map(|body| Box::new(Whole { headers, body })),
        is_our_fault: false,
    })
}

/// `None` where there is more of it than is read.
async fn body(response: &mut Response) -> Result<Option<Vec<u8>>, Failure> {
    if response.content_length().is_some_and(|bytes| bytes > Whole::BYTES_MAX as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > Whole::BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Hides what a receiver repeats of the login's token, in headers and body.
pub(super) fn hide(answer: &mut Answer, veil: &Veil) {
    let Some(whole) = &mut answer.whole else { return };
    for value in whole.headers.values_mut() {
        let shown = veil.hide_bytes(value.as_bytes());
        if shown != value.as_bytes() {
            *value = HeaderValue::from_bytes(&shown).unwrap_or_else(|_| HeaderValue::from_static(MASK));
        }
    }
    if let Some(body) = &mut whole.body {
        *body = veil.hide_bytes(body);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::*;
    use crate::domain::auth::Auth;

    #[test]
    fn a_token_that_comes_back_is_hidden_in_headers_and_in_bodies_that_are_no_text() {
        let veil = Veil::new(&["tok-canary-1".into()], &Auth::None);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", &b"https://h.example/x?token=tok-canary-1&y"[..]),
            ("x-request-id", b"\xe9 tok-canary-1"),
            ("etag", b"1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        for (body, shown) in [
            (&b"you sent tok-canary-1"[..], &b"you sent ***"[..]),
            (b"caf\xe9 sent tok-canary-1\xe9", b"caf\xe9 sent ***\xe9"),
            (b"\xff\x00", b"\xff\x00"),
        ] {
            let mut answer = Answer {
                seen: Seen::Status(200),
                cause: None,
                retry_after: None,
                elapsed_ms: 7,
                excerpt: Vec::new(),
                whole: Some(Box::new(Whole { headers: headers.clone(), body: Some(body.to_vec()) })),
                is_our_fault: false,
            };
            hide(&mut answer, &veil);
            let whole = answer.whole.unwrap();
            assert_eq!(whole.body.unwrap(), shown);
            assert_eq!(whole.headers["location"], "https://h.example/x?token=***&y");
            assert_eq!(whole.headers["x-request-id"].as_bytes(), b"\xe9 ***");
            assert_eq!(whole.headers["etag"], "1");
        }
    }
}
