//! Reading an answer to its end, for whoever asked what a receiver has to say.

use std::time::Instant;

use reqwest::Response;
use tokio::time::timeout_at;

use super::{failure::Failure, sender};
use crate::domain::{
    outcome::{Answer, Whole},
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

/// Hides what a receiver repeats of the login's token. What is no text is left as it is.
pub(super) fn hide(answer: &mut Answer, veil: &Veil) {
    let body = answer.whole.as_mut().and_then(|whole| whole.body.as_mut());
    if let Some(body) = body
        && let Ok(text) = std::str::from_utf8(body)
    {
        *body = veil.hide(text).into_bytes();
    }
}
