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
use super::{Common, Failure, output, services};
use crate::broker::{Broker as _, Outgoing, Tags, Target};
use crate::domain::event::{Event, Hints};

/// Publishes under way at once.
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
}

/// One event to publish, already known to be readable.
struct Ready {
    place: usize,
    body: Bytes,
    tags: Tags,
}

impl Publish {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        super::log::start(&quiet(&config.log));
        let source = match &self.file {
            Some(path) => read(path)?,
            None => self.event_from_flags()?,
        };
        let events = check(&source, config.limits.event_bytes_max)?;
        let broker = services::broker(&config).await?;
        let total = events.len();
        let bar = output::progress(total);
        let mut failed = 0;
        {
            let broker = &broker;
            let publishes = events.into_iter().map(|event| async move {
                let id = event.tags.message_id.clone().unwrap_or_default();
                let message = Outgoing { body: event.body, tags: event.tags };
                (event.place, id, services::confirmed(broker.publish(Target::Events, message)).await)
            });
            let mut results = stream::iter(publishes).buffered(CONCURRENCY);
            while let Some((place, id, result)) = results.next().await {
                bar.inc(1);
                let error = result.err().map(|error| error.to_string());
                failed += usize::from(error.is_some());
                if common.json {
                    let status = if error.is_none() { "published" } else { "failed" };
                    output::json_line(&json!({ "line": place, "id": id, "status": status, "error": error }));
                } else if let Some(error) = error {
                    eprintln!("event {place} `{id}`: {error}");
                } else if self.file.is_none() {
                    println!("{id}");
                }
            }
        }
        bar.finish_and_clear();
        broker.close().await;
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
    let mut problem = |place: usize, message: String| problems.push(format!("event {place}: {message}"));
    let mut place = 0;
    for value in serde_json::Deserializer::from_slice(source).into_iter::<&RawValue>() {
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                problem(place + 1, format!("not JSON: {error}"));
                break;
            }
        };
        let one_or_many = match value.get().starts_with('[') {
            true => serde_json::from_str::<Vec<&RawValue>>(value.get()).unwrap_or_default(),
            false => vec![value],
        };
        for event in one_or_many {
            place += 1;
            match ready_event(place, event.get(), bytes_max) {
                Ok(event) => ready.push(event),
                Err(why) => problem(place, why),
            }
        }
    }
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

fn ready_event(place: usize, event: &str, bytes_max: usize) -> Result<Ready, String> {
    if event.len() > bytes_max {
        return Err(format!("{} bytes are more than `limits.event_bytes_max` = {bytes_max}", event.len()));
    }
    // The time is filled in by the first worker; any valid one serves to check the rest.
    let hints = Hints { time: Some("1970-01-01T00:00:00Z"), ..Hints::default() };
    let parsed = Event::parse(event.as_bytes(), &hints).map_err(|unreadable| unreadable.to_string())?;
    let tags = Tags {
        message_id: Some(parsed.id.to_string()),
        kind: Some(parsed.kind.to_string()),
        ..Tags::default()
    };
    Ok(Ready { place, body: Bytes::copy_from_slice(event.as_bytes()), tags })
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
