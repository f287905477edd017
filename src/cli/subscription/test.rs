//! `paperboy subscription test`: one marked event, sent once from this process, past every queue.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{documents, id, missing};
use crate::cli::{Common, Failure, output, services};
use crate::config::Config;
use crate::domain::event::{Event, Hints};
use crate::domain::outcome::{Answer, Outcome};
use crate::domain::request::{self, AttemptContext, Request};
use crate::domain::secret::MASK;
use crate::domain::statuses::Seen;
use crate::domain::subscription::Subscription;
use crate::http::Transport as _;
use crate::store::Store;

/// Bytes shown of a body.
const SHOWN_BYTES_MAX: usize = 1024;
/// Send one marked event.
#[derive(Args, Debug)]
#[command(
    after_help = "The request is what a delivery would be, with header `paperboy-test: 1` and an event id that
begins with `test_`. It is sent once, without retry, also to a disabled subscription. Exit 0 if the
answer is one of the subscription's `success`, 1 otherwise.

Examples:
  paperboy subscription test sub_1
  paperboy subscription test sub_1 --type document.processed --data '{\"pages\": 3}'
  paperboy subscription test sub_1 --event event.json"
)]
pub(in crate::cli) struct Test {
    /// The subscription's id
    id: String,
    /// The sample's payload, any JSON
    #[arg(long, value_name = "JSON", conflicts_with = "event")]
    data: Option<String>,
    /// A whole event of the subscription's tenant instead of a sample, `-` for standard input; it keeps its id
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// The sample's type; else one the subscription wants
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "event")]
    kind: Option<String>,
}

impl Test {
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let spec = store.subscription(&id(&self.id)?).await?.ok_or_else(|| missing(&self.id))?;
        let subscription = spec.check().map_err(documents::refused)?;
        let now = jiff::Timestamp::now();
        let body = match &self.event {
            Some(path) => read(path)?,
            None => self.sample(&subscription)?,
        };
        let (test_id, wanted, time) = (test_id(), wanted_type(&subscription), now.to_string());
        let hints =
            Hints { message_id: Some(&test_id), kind: Some(&wanted), time: Some(&time), ..Hints::default() };
        let event = self.parse(&body, &hints, &subscription)?;
        if !subscription.matches(&event) {
            eprintln!("note: the subscription does not want this event and would not get it");
        }
        let context = AttemptContext {
            attempt: 1,
            now_unix_s: now.as_second(),
            traceparent: None,
            replay: 0,
            is_test: true,
        };
        let request = request::build(&subscription, &event, &body, &context).map_err(|error| {
            Failure::world(format!("the request cannot be built: {error}"))
                .hint("give `--data` or `--event` what the URL takes from an event")
        })?;
        let sender = services::sender(config)?.reading_every_answer();
        let answer = sender.send(request.clone()).await;
        sender.close().await;

        let outcome = Outcome::judge(&subscription.success, &answer);
        let is_delivered = matches!(outcome, Outcome::Delivered { .. });
        let shown = Shown::new(&subscription, &request, &answer);
        if common.json {
            let mut told = shown.to_json();
            told["id"] = json!(self.id);
            told["event"] = json!(event.id.as_str());
            told["delivered"] = json!(is_delivered);
            output::json_line(&told);
        } else {
            shown.print();
        }
        if is_delivered {
            return Ok(());
        }
        Err(Failure::world(format!("the test was not delivered: {}", shown.seen())))
    }

    fn parse<'a>(
        &self,
        body: &'a Bytes,
        hints: &Hints<'a>,
        subscription: &Subscription,
    ) -> Result<Event<'a>, Failure> {
        let what = if self.event.is_some() { "`--event`" } else { "the sample" };
        let event = Event::parse(body, hints)
            .map_err(|unreadable| Failure::usage(format!("{what} is not an event: {unreadable}")))?;
        if event.tenant != subscription.tenant {
            let message = format!("the event is of tenant `{}`", event.tenant);
            return Err(Failure::usage(message)
                .hint(format!("the subscription belongs to tenant `{}`", subscription.tenant)));
        }
        Ok(event)
    }

    /// An event the subscription wants, with something for every placeholder that is not of the payload.
    fn sample(&self, subscription: &Subscription) -> Result<Bytes, Failure> {
        #[derive(Serialize)]
        struct Sample<'a> {
            id: String,
            #[serde(rename = "type")]
            kind: &'a str,
            tenant: &'a str,
            scope: Map<String, Value>,
            document_id: &'a str,
            batch_id: &'a str,
            data: &'a RawValue,
        }
        let data = self.data.as_deref().unwrap_or(r#"{"test": true}"#);
        let data = serde_json::from_str(data)
            .map_err(|error| Failure::usage(format!("`--data` is not JSON: {error}")))?;
        let scope = subscription.scope.iter();
        let scope = scope.filter_map(|(key, values)| Some((key.clone(), json!(values.first()?))));
        let wanted = wanted_type(subscription);
        let sample = Sample {
            id: test_id(),
            kind: self.kind.as_deref().unwrap_or(&wanted),
            tenant: subscription.tenant.as_str(),
            scope: scope.collect(),
            document_id: "test_document",
            batch_id: "test_batch",
            data,
        };
        Ok(serde_json::to_vec(&sample).context("the sample cannot be written")?.into())
    }
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    Ok(crate::cli::publish::read(path)?.into())
}

fn test_id() -> String {
    format!("test_{}", uuid::Uuid::now_v7().simple())
}

/// A type that the first pattern covers.
fn wanted_type(subscription: &Subscription) -> String {
    let pattern = subscription.events.first().map_or("#", |pattern| pattern.as_str());
    let word = |word| if matches!(word, "*" | "#") { "test" } else { word };
    pattern.split('.').map(word).collect::<Vec<_>>().join(".")
}

/// Request and answer as they may be shown.
struct Shown<'a> {
    method: &'static str,
    url: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: String,
    answer: &'a Answer,
    answer_body: String,
}

impl<'a> Shown<'a> {
    fn new(subscription: &Subscription, request: &'a Request, answer: &'a Answer) -> Shown<'a> {
        let own = || subscription.request.own_headers(&subscription.auth);
        let is_hidden = |name: &str| own().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let headers = request.headers.iter().map(|(name, value)| {
            let name = name.as_str();
            (name, if is_hidden(name) { MASK } else { value.to_str().unwrap_or_default() })
        });
        // A receiver may send back what it was sent.
        let answer_body = subscription.veil.hide(&start_of(&answer.excerpt));
        Shown {
            method: request.method.as_str(),
            url: request.url.as_str(),
            headers: headers.collect(),
            body: start_of(&request.body.joined()),
            answer,
            answer_body,
        }
    }

    /// The status or what happened instead, for a sentence.
    fn seen(&self) -> String {
        match self.answer.seen {
            Seen::Status(status) => format!("status {status}"),
            Seen::Failure(class) => class.as_str().to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        let headers: Map<String, Value> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let (status, class) = match self.answer.seen {
            Seen::Status(status) => (Some(status), None),
            Seen::Failure(class) => (None, Some(class.as_str())),
        };
        json!({
            "request": { "method": self.method, "url": self.url, "headers": headers, "body": self.body },
            "answer": {
                "status": status, "class": class, "ms": self.answer.elapsed_ms, "body": self.answer_body,
            },
        })
    }

    /// What was sent behind `>`, what came back behind `<`.
    fn print(&self) {
        println!("> {} {}", self.method, self.url);
        for (name, value) in &self.headers {
            println!("> {name}: {value}");
        }
        print_body('>', &self.body);
        println!("< {} after {} ms", self.seen(), self.answer.elapsed_ms);
        print_body('<', &self.answer_body);
    }
}

fn print_body(mark: char, body: &str) {
    if !body.is_empty() {
        println!("{mark}");
    }
    for line in output::printable(body).lines() {
        println!("{mark} {line}");
    }
}

/// The beginning of a body, as text.
fn start_of(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).into_owned();
    if body.len() > SHOWN_BYTES_MAX { format!("{start}… ({} bytes)", body.len()) } else { start }
}
