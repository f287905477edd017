//! The HTTP API of a running `paperboy serve`, for commands that were given `--api` or PAPERBOY_API.
//!
//! Only how to ask is here. What is printed is printed by the command, the same as without `--api`.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::failure::Problem;
use super::{Common, Failure};
use crate::domain::secret::Secret;

/// A little longer than the API gives itself by default.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read: more than a page of 500 documents of the usual largest size.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Entries asked for at once.
const PAGE: u32 = 500;

/// A process to ask.
pub(super) struct Remote {
    client: reqwest::Client,
    url: Url,
    key: Option<Secret>,
}

/// What became of a platform's object.
pub(super) struct SetUp {
    pub(super) id: String,
    pub(super) is_new: bool,
    pub(super) answer: Value,
}

/// An answer, read to its end.
struct Answered {
    status: StatusCode,
    location: String,
    text: String,
}

/// A text as one part of a path.
pub(super) fn segment(text: &str) -> String {
    // A dot alone would be taken as a step, and an empty part as none.
    let escaped: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    if matches!(escaped.as_str(), "" | "." | "..") { "_".to_owned() } else { escaped.replace('+', "%20") }
}

impl Remote {
    /// The process that `--api` or PAPERBOY_API names, if any.
    pub(super) fn of(common: &Common) -> Result<Option<Remote>, Failure> {
        let variable = || std::env::var("PAPERBOY_API").ok().filter(|text| !text.is_empty());
        let Some(text) = common.api.clone().or_else(variable) else { return Ok(None) };
        let url =
            Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| {
            Failure::usage(format!("`{text}` is not the address of an API"))
                .hint("write `http://127.0.0.1:8080` or `https://paperboy.example.com`")
        })?;
        let key = std::env::var("PAPERBOY_API_KEY").ok().filter(|key| !key.is_empty()).map(Secret::from);
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("paperboy/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::world(format!("no HTTP client: {error}")))?;
        Ok(Some(Remote { client, url, key }))
    }

    /// What to say of a command that has no counterpart there.
    pub(super) fn only_here(&self, command: &str) -> Failure {
        Failure::usage(format!("`{command}` does not go over the API"))
            .hint("run it where the store is, without `--api` and PAPERBOY_API")
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(Method::GET, path)).await
    }

    /// As [`Remote::get`]; none where nothing is there.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        let response = self.ask(self.request(Method::GET, path)).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let text = self.judged(response)?.text;
        serde_json::from_str(&text).map(Some).map_err(|_| self.strange())
    }

    pub(super) async fn post(&self, path: &str, body: &Value, wait: bool) -> Result<Value, Failure> {
        self.json(
            waiting(self.request(Method::POST, path), wait).header(CONTENT_TYPE, JSON).body(body.to_string()),
        )
        .await
    }

    pub(super) async fn delete(&self, path: &str, wait: bool) -> Result<(), Failure> {
        self.json(waiting(self.request(Method::DELETE, path), wait)).await.map(drop)
    }

    /// Adds one; asked twice for whatever reason, it is added once.
    pub(super) async fn create_subscription(&self, document: &Value, wait: bool) -> Result<Value, Failure> {
        let request = waiting(self.request(Method::POST, "/v1/subscriptions"), wait)
            .header("idempotency-key", uuid::Uuid::new_v4().to_string());
        self.json(request.header(CONTENT_TYPE, JSON).body(document.to_string())).await
    }

    /// Sets up a platform's own configuration object; asked twice for whatever reason, it is done once.
    pub(super) async fn set_up(
        &self,
        preset: &str,
        tenant: Option<&str>,
        object: &Value,
        wait: bool,
    ) -> Result<SetUp, Failure> {
        let mut url = self.address("/v1/subscriptions");
        url.query_pairs_mut().append_pair("preset", preset);
        url.query_pairs_mut().extend_pairs(tenant.map(|tenant| ("tenant", tenant)));
        let request = waiting(self.keyed(self.client.post(url)), wait)
            .header("idempotency-key", uuid::Uuid::new_v4().to_string());
        let response = self.send(request.header(CONTENT_TYPE, JSON).body(object.to_string())).await?;
        let id = response.location.rsplit('/').next().unwrap_or_default().to_owned();
        let answer = serde_json::from_str(&response.text).map_err(|_| self.strange())?;
        Ok(SetUp { id, is_new: response.status == StatusCode::CREATED, answer })
    }

    pub(super) async fn change_subscription(
        &self,
        id: &str,
        patch: &Value,
        wait: bool,
    ) -> Result<Value, Failure> {
        let path = format!("/v1/subscriptions/{}", segment(id));
        let request = waiting(self.request(Method::PATCH, &path), wait);
        self.json(request.header(CONTENT_TYPE, "application/merge-patch+json").body(patch.to_string())).await
    }

    /// Entries of a list, at most `limit`, page by page.
    pub(super) async fn list(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        limit: u32,
    ) -> Result<Vec<Value>, Failure> {
        let mut entries: Vec<Value> = Vec::new();
        let mut cursor = None;
        while entries.len() < limit as usize {
            let left = limit - u32::try_from(entries.len()).unwrap_or(limit);
            let (page, next) = self.page(path, query, cursor, left).await?;
            entries.extend(page);
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        Ok(entries)
    }

    /// One page of a list, of at most `limit` entries, and the cursor of the next if there is one. Without a cursor
    /// it is the page of the query's own, else the first.
    pub(super) async fn page(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        cursor: Option<String>,
        limit: u32,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let mut url = self.address(path);
        {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in query.iter().filter(|(name, _)| *name != "cursor" || cursor.is_none()) {
                pairs.extend_pairs(value.as_ref().map(|value| (name, value)));
            }
            pairs.extend_pairs(cursor.as_ref().map(|cursor| ("cursor", cursor)));
            pairs.append_pair("limit", &limit.min(PAGE).to_string());
        }
        let mut page = self.json(self.keyed(self.client.get(url))).await?;
        let next = page["next_cursor"].as_str().map(str::to_owned);
        if next.is_some() && next == cursor {
            // Whoever answers so would answer so for ever.
            return Err(self.strange());
        }
        match page["data"].take() {
            Value::Array(data) => Ok((data, next)),
            _ => Err(self.strange()),
        }
    }

    /// Discards dead letters, request by request until none are left; how many.
    pub(super) async fn discard_dead_letters(&self, body: &Value) -> Result<u64, Failure> {
        let mut discarded = 0;
        loop {
            let result = self.post("/v1/dead-letters/discard", body, false).await?;
            let done = result["done"].as_u64().unwrap_or(0);
            discarded += done;
            if result["more"] != true || done == 0 {
                return Ok(discarded);
            }
        }
    }

    /// Publishes lines; one answer for each, in their order.
    pub(super) async fn publish_lines(&self, lines: Vec<u8>) -> Result<Vec<Value>, Failure> {
        let request =
            self.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "application/x-ndjson").body(lines);
        let text = self.text(request).await?;
        let parsed = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        parsed.map_err(|_| self.strange())
    }

    /// Publishes one event that is no line.
    pub(super) async fn publish(&self, event: Vec<u8>) -> Result<Value, Failure> {
        self.json(self.request(Method::POST, "/v1/events").header(CONTENT_TYPE, JSON).body(event)).await
    }

    fn address(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{base}{path}"));
        url.set_query(query);
        url
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.keyed(self.client.request(method, self.address(path)))
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, format!("Bearer {}", key.expose())),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let text = self.text(request).await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| self.strange())
    }

    async fn text(&self, request: RequestBuilder) -> Result<String, Failure> {
        Ok(self.send(request).await?.text)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answered, Failure> {
        self.judged(self.ask(request).await?)
    }

    /// Asks, and asks again where it was too often (RFC 6585 §4), as long as a request may take.
    async fn ask(&self, mut request: RequestBuilder) -> Result<Answered, Failure> {
        let until = Instant::now() + TIMEOUT;
        loop {
            let next = request.try_clone();
            let response = request.send().await.map_err(|error| self.away(&error))?;
            match (pause(&response), next) {
                (Some(pause), Some(next)) if Instant::now() + pause < until => {
                    sleep(pause).await;
                    request = next;
                }
                _ => return self.read(response).await,
            }
        }
    }

    async fn read(&self, mut response: Response) -> Result<Answered, Failure> {
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.away(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.strange());
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| self.strange())?;
        Ok(Answered { status, location, text })
    }

    fn judged(&self, answered: Answered) -> Result<Answered, Failure> {
        if answered.status.is_success() {
            return Ok(answered);
        }
        match serde_json::from_str::<Value>(&answered.text) {
            Ok(problem) if problem["title"].is_string() => Err(refused(answered.status, &problem)),
            _ => Err(self.strange()),
        }
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        // Its own words would repeat the address, with whatever stands in it.
        let why = if error.is_timeout() { "no answer in time" } else { "no connection" };
        Failure::world(format!("the API at `{}` cannot be asked: {why}", self.shown()))
            .hint("is `paperboy serve` running there? `--api` and PAPERBOY_API name it")
    }

    fn shown(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}", self.url.scheme())
    }

    fn strange(&self) -> Failure {
        Failure::world(format!("what answers at `{}` is not the API of paperboy", self.shown()))
    }
}

const JSON: &str = "application/json";

/// How long to wait before the same is asked again, where it was asked too often.
fn pause(response: &Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn waiting(request: RequestBuilder, wait: bool) -> RequestBuilder {
    if wait { request.header("prefer", "wait") } else { request }
}

/// A problem as a failed command tells it.
fn refused(status: StatusCode, problem: &Value) -> Failure {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let errors = problem["errors"].as_array().into_iter().flatten().map(|error| Problem {
        message: match text(&error["field"]).unwrap_or_default().as_str() {
            "" => text(&error["detail"]).unwrap_or_default(),
            field => format!("`{field}`: {}", text(&error["detail"]).unwrap_or_default()),
        },
        hint: text(&error["hint"]),
    });
    let errors: Vec<Problem> = errors.collect();
    if !errors.is_empty() {
        return Failure::refused(errors);
    }
    let detail = text(&problem["detail"]).unwrap_or_default();
    let failure = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Failure::usage(detail),
        _ => Failure::world(detail),
    };
    let hint = match status {
        StatusCode::UNAUTHORIZED => Some("put a key into PAPERBOY_API_KEY".to_owned()),
        _ => text(&problem["hint"]),
    };
    failure.maybe_hint(hint)
}

/// What is told of one published line.
pub(super) fn line_error(line: &Value) -> Option<String> {
    match line["status"].as_str() {
        Some("published") => None,
        _ => Some(line["error"].as_str().unwrap_or("it was not published").to_owned()),
    }
}

/// An answer to one event in the form of a line.
pub(super) fn as_line(answer: Result<Value, Failure>) -> Result<Value, Failure> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(failure) if failure.is_usage() => Ok(json!({ "status": "invalid", "error": failure.text() })),
        Err(failure) => Err(failure),
    }
}
