//! One request out, one answer back.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{Either, FutureExt as _, TryFutureExt as _};
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use tracing::{debug, error};

use super::{
    Transport,
    clients::Clients,
    drains::Drains,
    failure::Failure,
    guard::Guard,
    pieces,
    tokens::{LoginAnswer, Shelf, Tokens, is_too_long},
    whole,
};
use crate::domain::{
    auth::{Auth, TokenRequest},
    outcome::{Answer, parse_retry_after},
    request::{Method, Request},
    secret::Secret,
    statuses::{Class, Seen},
    veil::Veil,
};

/// Bytes kept of an answer that is no success.
pub(super) const EXCERPT_BYTES_MAX: usize = 1024;
/// Time the excerpt is waited for; the answer itself is known by then.
const EXCERPT_TIMEOUT: Duration = Duration::from_millis(250);

/// The one way out of the process for requests of subscriptions.
pub struct Sender {
    guard: Arc<Guard>,
    clients: Clients,
    drains: Drains,
    tokens: Tokens,
    reads_every_answer: bool,
}

pub struct SenderSettings {
    pub guard: Arc<Guard>,
    /// Hosts whose certificate is not checked.
    pub insecure_tls: Vec<String>,
}

impl Sender {
    /// Prepares the clients. A rustls crypto provider must be installed before.
    pub fn new(settings: SenderSettings) -> anyhow::Result<Sender> {
        let clients = Clients::new(&settings.guard, &settings.insecure_tls)?;
        Ok(Sender {
            guard: settings.guard,
            clients,
            drains: Drains::new(),
            tokens: Tokens::new(None),
            reads_every_answer: false,
        })
    }

    /// Shares the tokens of logins with other processes.
    #[must_use]
    pub fn sharing_tokens(mut self, shelf: Arc<dyn Shelf>) -> Sender {
        self.tokens = Tokens::new(Some(shelf));
        self
    }

    /// Waits for the beginning of a success's body too: for people who want to see it.
    #[must_use]
    pub fn reading_every_answer(mut self) -> Sender {
        self.reads_every_answer = true;
        self
    }

    /// Waits for the side tasks that read answers to their end, at most 2 s.
    pub async fn close(&self) {
        self.drains.close().await;
    }

    /// Sends, after a login where there is one. Gives back the token beside the answer, which may repeat it.
    fn exchange(
        &self,
        mut request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<(Response, Option<Secret>), Failure>> + Send {
        match request.token.take() {
            None => Either::Left(self.head_by(request, deadline).map_ok(|response| (response, None))),
            // A login is rare; without the box its states would be part of every delivery's.
            Some(login) => Either::Right(Box::pin(self.exchange_after(login, request, deadline))),
        }
    }

    /// Sends once more after a new login if the token is refused (RFC 6750 §3.1 answers 401 to one that has ended).
    async fn exchange_after(
        &self,
        login: Arc<TokenRequest>,
        request: Request,
        deadline: Instant,
    ) -> Result<(Response, Option<Secret>), Failure> {
        let token = self.token(&login, None, deadline).await?;
        let response = self.head_by(authorized(request.clone(), &token), deadline).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok((response, Some(token)));
        }
        self.drains.take(response);
        let token = self.token(&login, Some(&token), deadline).await?;
        Ok((self.head_by(authorized(request, &token), deadline).await?, Some(token)))
    }

    async fn token(
        &self,
        login: &TokenRequest,
        rejected: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Secret, Failure> {
        let call = |request| async move {
            let mut response = self.head(request).await?;
            let (status, mut body) = (response.status().as_u16(), Vec::new());
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if is_too_long(body.len()) {
                    return Ok(LoginAnswer { status, body, is_cut: true });
                }
            }
            Ok(LoginAnswer { status, body, is_cut: false })
        };
        self.tokens.get(login, rejected, deadline, call).await
    }

    /// Fails as `timeout` when the head of the answer is not complete at `deadline`.
    fn head_by(
        &self,
        request: Request,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response, Failure>> + Send {
        let timeout = request.timeout;
        let head = tokio::time::timeout_at(deadline.into(), self.head(request));
        head.map(move |head| {
            head.unwrap_or_else(|_| {
                Err(Failure::new(Class::Timeout, format!("no answer within {} s", timeout.as_secs_f32())))
            })
        })
    }

    /// Sends and returns when the head of the answer is there. The request is handed to the client before anything is
    /// waited for, so that no delivery carries it along.
    fn head(&self, request: Request) -> impl Future<Output = Result<Response, Failure>> + Send {
        let begun = self.begin(request);
        async move {
            let response = begun?.await?;
            self.check_connection(&response)?;
            Ok(response)
        }
    }

    fn begin(
        &self,
        request: Request,
    ) -> Result<impl Future<Output = reqwest::Result<Response>> + Send + use<>, Failure> {
        self.guard.check_literal(&request.url)?;
        let Some(client) = self.clients.of(&request.url) else {
            return Err(Failure::new(Class::Template, "the URL has no host or port"));
        };
        Ok(client.execute(outbound(request)))
    }

    /// Compares what we are really connected to. Only a mistake in this program could make it differ.
    fn check_connection(&self, response: &Response) -> Result<(), Failure> {
        if response.remote_addr().is_some_and(|address| self.guard.permits(address)) {
            return Ok(());
        }
        metrics::counter!("paperboy_address_mismatch_total").increment(1);
        error!("connected to an address the guard denies and dropped the answer; please report this");
        Err(Failure::new(Class::Blocked, "connected to a denied address"))
    }

    async fn answer(&self, mut response: Response, elapsed_ms: u64) -> Answer {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let mut excerpt = Vec::new();
        // After a success nothing is waited for: the message is settled while a side task reads.
        let is_glanced_at = self.reads_every_answer || !status.is_success();
        if !is_glanced_at || read_excerpt(&mut response, &mut excerpt).await == Rest::Coming {
            self.drains.take(response);
        }
        let seen = Seen::Status(status.as_u16());
        Answer { seen, cause: None, retry_after, elapsed_ms, excerpt, whole: None, is_our_fault: false }
    }
}

impl Transport for Sender {
    /// Fails as `timeout` when the head of the answer (all of it with `reads_answer`) is not complete within
    /// `request.timeout`, and as `auth` when a
    /// login before it brings no token.
    fn send(&self, request: Request) -> impl Future<Output = Answer> + Send {
        let started = Instant::now();
        let (deadline, reads_answer) = (started + request.timeout, request.reads_answer);
        let head = self.exchange(request, deadline);
        async move {
            let head = head.await;
            let elapsed_ms = elapsed_ms(started);
            let (response, token) = match head {
                Ok(answered) => answered,
                Err(failure) => return failed(failure, elapsed_ms),
            };
            let mut answer = if reads_answer {
                // Rare and large: in a box, so that no delivery carries room for it.
                Box::pin(whole::read(response, started, deadline))
                    .await
                    .unwrap_or_else(failed_within(started))
            } else {
                self.answer(response, elapsed_ms).await
            };
            if let Some(token) = token {
                let text = String::from_utf8_lossy(&answer.excerpt);
                let bare = token.expose().rsplit(' ').next().unwrap_or_default();
                let veil = Veil::new(&[bare.into()], &Auth::None);
                answer.excerpt = veil.hide(&text).into_bytes();
                whole::hide(&mut answer, &veil);
            }
            answer
        }
    }
}

fn authorized(mut request: Request, token: &Secret) -> Request {
    // Whoever read the token checked that it is a value.
    if let Ok(mut value) = HeaderValue::from_str(token.expose()) {
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
    }
    request
}

/// Makes an answer of a failure, with our own words where an answer has the receiver's.
fn failed(failure: Failure, elapsed_ms: u64) -> Answer {
    debug!(class = failure.cause.as_str(), elapsed_ms, reason = failure.text, "an attempt brought no answer");
    let mut excerpt = failure.text.into_bytes();
    excerpt.truncate(EXCERPT_BYTES_MAX);
    let (seen, cause, is_our_fault) = (Seen::Failure(failure.class), Some(failure.cause), failure.is_ours);
    Answer { seen, cause, retry_after: None, elapsed_ms, excerpt, whole: None, is_our_fault }
}

fn failed_within(started: Instant) -> impl FnOnce(Failure) -> Answer {
    move |failure| failed(failure, elapsed_ms(started))
}

pub(super) fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Translates a request; the body is the same memory.
fn outbound(request: Request) -> reqwest::Request {
    let method = match request.method {
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Get => reqwest::Method::GET,
        Method::Delete => reqwest::Method::DELETE,
    };
    let mut outbound = reqwest::Request::new(method, request.url);
    *outbound.headers_mut() = request.headers;
    *outbound.body_mut() = Some(pieces::body(&request.body));
    outbound
}

#[derive(PartialEq)]
enum Rest {
    /// More of the body may come, in good time.
    Coming,
    /// The body has ended, broke off or is too slow to wait for.
    Over,
}

/// Reads the first bytes of a body for as long as is worth waiting.
async fn read_excerpt(response: &mut Response, excerpt: &mut Vec<u8>) -> Rest {
    let read = async {
        while excerpt.len() < EXCERPT_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = EXCERPT_BYTES_MAX - excerpt.len();
                    excerpt.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                Ok(None) | Err(_) => return Rest::Over,
            }
        }
        Rest::Coming
    };
    tokio::time::timeout(EXCERPT_TIMEOUT, read).await.unwrap_or(Rest::Over)
}

pub(super) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    parse_retry_after(
        headers.get(RETRY_AFTER)?.to_str().ok()?,
        i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    )
}

#[cfg(test)]
mod tests;
