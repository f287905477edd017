//! `paperboy publish`: events from a file, standard input or flags, each confirmed by the broker.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::failure::Problem;
use super::remote::{self, Remote};
use super::{Common, Failure, output, services};
use crate::broker::{Broker as _, Outgoing, Target};
use crate::desk::events::{self, Ready, confirmed};

/// Publishes under way at once; when so many in a row were not confirmed, the rest is given up.
const CONCURRENCY: usize = 256;
/// Faulty events told one by one; the rest is counted.
const PROBLEMS_MAX: usize = 20;

/// Publish events from a file, standard input or flags.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy publish events.ndjson
  producer | paperboy publish -
  paperboy publish --tenant acme --type document.processed --document-id d1 --data '{\"pages\": 3}'")]
pub(super) struct Publish {
    /// JSON or NDJSON of events, `-` for standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["tenant", "kind", "data"])]
    file: Option<PathBuf>,
    /// The tenant the event belongs to
    #[arg(long)]
    tenant: Option<String>,
    /// The event's type, dotted words
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The event's payload, any JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The event's id (else one is made)
    #[arg(long)]
    id: Option<String>,
    /// The document it is about
    #[arg(long)]
    document_id: Option<String>,
    /// The batch it is about
    #[arg(long)]
    batch_id: Option<String>,
    /// No document of that batch follows
    #[arg(long, requires = "batch_id")]
    close_batch: bool,
}

impl Publish {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Some(remote) = Remote::of(common)? {
            return self.run_remote(common, &remote).await;
        }
        let config = common.load()?;
        super::log::start(&quiet(&config.log));
        let source = self.source()?;
        let events = check(&source, config.limits.event_bytes_max)?;
        let broker = services::broker(&config).await?;
        let total = events.len();
        let bar = output::progress(total);
        let (mut failed, mut in_a_row) = (0, 0);
        {
            let broker = &broker;
            let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
            let publishes = (1..).zip(events).map(|(place, Ready { id, body, tags })| async move {
                let message = Outgoing::new(body, tags);
                (place, id, confirmed(broker.publish(Target::Events, message)).await)
            });
            let mut results = stream::iter(publishes).buffered(CONCURRENCY);
            while let Some((place, id, result)) = results.next().await {
                bar.inc(1);
                let error = result.err().map(|error| error.to_string());
                in_a_row = if error.is_some() { in_a_row + 1 } else { 0 };
                failed += usize::from(error.is_some());
                self.tell(common, place, &id, error);
                // Each of the rest would wait as long as these did, for hours in all.
                if in_a_row == CONCURRENCY {
                    failed += ids.len() - place;
                    self.give_up(common, place, &ids[place..]);
                    break;
                }
            }
        }
        bar.finish_and_clear();
        broker.close().await;
        self.end(failed, total)
    }

    /// The same over the HTTP API, which judges the events.
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let source = self.source()?;
        let events = split(&source).map_err(|(place, why)| {
            Failure::usage(format!("event {place}: {why}")).hint("nothing was published")
        })?;
        let (total, mut failed, mut place) = (events.len(), 0, 0);
        let bar = output::progress(total);
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let count = batch(rest);
            let (now, later) = rest.split_at(count);
            rest = later;
            let answers = match now {
                // What spans lines goes alone.
                [event] if event.contains('\n') => {
                    vec![remote::as_line(remote.publish(event.as_bytes().into()).await)?]
                }
                lines => remote.publish_lines(lines.join("\n").into_bytes()).await?,
            };
            for answer in &answers {
                place += 1;
                bar.inc(1);
                let error = remote::line_error(answer);
                failed += usize::from(error.is_some());
                self.tell(common, place, answer["id"].as_str().unwrap_or_default(), error);
            }
        }
        bar.finish_and_clear();
        self.end(failed, total)
    }

    fn source(&self) -> Result<Vec<u8>, Failure> {
        match &self.file {
            Some(path) => read(path),
            None => self.event_from_flags(),
        }
    }

    fn tell(&self, common: &Common, place: usize, id: &str, error: Option<String>) {
        if common.json {
            let status = if error.is_none() { "published" } else { "failed" };
            output::json_line(&json!({ "line": place, "id": id, "status": status, "error": error }));
        } else if let Some(error) = error {
            eprintln!("event {place} `{id}`: {error}");
        } else if self.file.is_none() {
            println!("{id}");
        }
    }

    /// Tells of the events after the first so many, which are no longer waited for.
    fn give_up(&self, common: &Common, place: usize, rest: &[String]) {
        let why = format!("given up: none of the {CONCURRENCY} events before was confirmed");
        if common.json {
            for (place, id) in (place + 1..).zip(rest) {
                self.tell(common, place, id, Some(why.clone()));
            }
        } else if !rest.is_empty() {
            eprintln!("event {} and all after it: {why}", place + 1);
        }
    }

    fn end(&self, failed: usize, total: usize) -> Result<(), Failure> {
        if failed > 0 {
            return Err(Failure::world(format!("{failed} of {total} events were not confirmed"))
                .hint("publish them again: an event keeps its id, so receivers can tell"));
        }
        if self.file.is_some() {
            eprintln!("published {total} events, each confirmed");
        }
        Ok(())
    }

    fn event_from_flags(&self) -> Result<Vec<u8>, Failure> {
        #[derive(Serialize)]
        struct Flags<'a> {
            id: String,
            #[serde(rename = "type")]
            kind: &'a str,
            tenant: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            document_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch_id: Option<&'a str>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            close_batch: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        let (Some(tenant), Some(kind)) = (self.tenant.as_deref(), self.kind.as_deref()) else {
            return Err(Failure::usage("nothing to publish: no FILE, or `--tenant` and `--type` are missing")
                .hint("`paperboy publish FILE`, `paperboy publish -` or `paperboy publish --tenant T --type X --data JSON`"));
        };
        let data = match self.data.as_deref().map(serde_json::from_str::<&RawValue>).transpose() {
            Ok(data) => data,
            Err(error) => return Err(Failure::usage(format!("`--data` is not JSON: {error}"))),
        };
        let event = Flags {
            id: self.id.clone().unwrap_or_else(|| format!("evt_{}", uuid::Uuid::now_v7().simple())),
            kind,
            tenant,
            document_id: self.document_id.as_deref(),
            batch_id: self.batch_id.as_deref(),
            close_batch: self.close_batch,
            data,
        };
        serde_json::to_vec(&event).map_err(|error| Failure::world(error.to_string()))
    }
}

fn quiet(log: &crate::config::LogConfig) -> crate::config::LogConfig {
    crate::config::LogConfig { filter: "warn".into(), ..log.clone() }
}

/// A file's bytes; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes);
    }
    Ok(std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?)
}

/// Every event of the source, or every fault of it: nothing is published of a source with faults.
fn check(source: &[u8], bytes_max: usize) -> Result<Vec<Ready>, Failure> {
    let mut ready = Vec::new();
    let mut problems = Vec::new();
    let caller = services::caller();
    let (events, broken) = parts(source);
    for (place, event) in (1..).zip(events) {
        match events::read(&caller, Bytes::copy_from_slice(event.as_bytes()), bytes_max) {
            Ok(event) => ready.push(event),
            Err(why) => problems.push(format!("event {place}: {why}")),
        }
    }
    problems.extend(broken.map(|(place, why)| format!("event {place}: {why}")));
    if problems.is_empty() {
        return Ok(ready);
    }
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    let mut told: Vec<_> =
        problems.into_iter().take(PROBLEMS_MAX).map(|message| Problem { message, hint: None }).collect();
    if more > 0 {
        told.push(Problem { message: format!("and {more} more events like these"), hint: None });
    }
    if let Some(last) = told.last_mut() {
        last.hint = Some("nothing was published; put these right and publish again".into());
    }
    Err(Failure::refused(told))
}

/// The events of a source: objects in a row, or lists of them.
fn split(source: &[u8]) -> Result<Vec<&str>, (usize, String)> {
    let (events, broken) = parts(source);
    broken.map_or(Ok(events), Err)
}

/// The events, and from which place on the source is no JSON.
fn parts(source: &[u8]) -> (Vec<&str>, Option<(usize, String)>) {
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_slice(source).into_iter::<&RawValue>() {
        match value {
            Ok(value) if value.get().starts_with('[') => {
                let list = serde_json::from_str::<Vec<&RawValue>>(value.get()).unwrap_or_default();
                events.extend(list.into_iter().map(RawValue::get));
            }
            Ok(value) => events.push(value.get()),
            Err(error) => {
                let place = events.len() + 1;
                return (events, Some((place, format!("not JSON: {error}"))));
            }
        }
    }
    (events, None)
}

/// How many of these go into one request: whole lines, 1000 or 1 MiB of them.
fn batch(events: &[&str]) -> usize {
    let mut bytes = 0;
    let fits = |event: &&&str| {
        bytes += event.len();
        !event.contains('\n') && bytes <= 1 << 20
    };
    events.iter().take(1000).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_ndjson_arrays_and_single_objects() {
        let event = r#"{"id": "1", "type": "a.b", "tenant": "t"}"#;
        for source in [event.to_owned(), format!("{event}\n{event}\n"), format!("[{event}, {event}]")] {
            assert!(!check(source.as_bytes(), 1000).unwrap().is_empty(), "{source}");
        }
        assert_eq!(check(format!("{event}\n{event}").as_bytes(), 1000).unwrap().len(), 2);
    }

    #[test]
    fn a_source_with_faults_publishes_nothing_and_tells_all() {
        let source = r#"{"id": "1", "type": "a", "tenant": "t"} {"type": "a", "tenant": "t"} {"id": "3", "type": "a"}"#;
        let failure = check(source.as_bytes(), 1000).map(|_| ()).unwrap_err();
        let text = format!("{failure:?}");
        assert!(text.contains("event 2") && text.contains("event 3"), "{text}");
    }
}
