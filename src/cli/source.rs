//! `paperboy source`: queues that are there already.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Common, Failure, Problem, output, services};
use crate::broker::Message;
use crate::config::Config;
use crate::domain::fault::Fault;
use crate::domain::source::{Mapped, Properties, Source};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Show how messages of a queue would become events, and leave them where they are
    Test(Box<Test>),
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Command::Test(test) => test.run(common).await,
        }
    }
}

/// Show how messages of a queue would become events.
#[derive(Args, Debug)]
#[command(
    after_help = "The mapping is that of `[[sources]]` in the configuration; flags are laid over it. A spot is a JSON Pointer
from the message's top (`/data/id`); what does not begin with `/` is meant as it stands.

While the look lasts nobody else gets these messages. RabbitMQ counts one delivery of each; a quorum queue then puts
them at its end, and one with a small delivery limit may give them up after many looks.

Examples:
  paperboy source test --source legacy --peek 5
  paperboy source test --queue ocr.webhooks --tenant /organization --type /event --document-id /data/id --data /data"
)]
pub(super) struct Test {
    /// A source of the configuration, by its name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Its queue; with the mapping of the source that takes from it, if one is set
    #[arg(long, required_unless_present = "source", conflicts_with = "source")]
    queue: Option<String>,
    /// How many messages to look at, 1 to 100
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    peek: u16,
    #[command(flatten)]
    spots: Spots,
}

/// Where the parts of an event are found.
#[derive(Args, Debug)]
struct Spots {
    /// Where the tenant stands, or the tenant itself
    #[arg(long, value_name = "SPOT")]
    tenant: Option<String>,
    /// Where the type stands (else AMQP `type`, else the routing key)
    #[arg(long = "type", value_name = "SPOT")]
    kind: Option<String>,
    /// Where the id stands (else AMQP `message_id`, else one is made of the bytes)
    #[arg(long, value_name = "SPOT")]
    id: Option<String>,
    /// Where the time stands (else AMQP `timestamp`)
    #[arg(long, value_name = "SPOT")]
    time: Option<String>,
    /// Where the document's id stands
    #[arg(long, value_name = "SPOT")]
    document_id: Option<String>,
    /// Where the batch's id stands
    #[arg(long, value_name = "SPOT")]
    batch_id: Option<String>,
    /// Where a key of the scope stands, such as `inbox=/data/inbox`; repeat for more
    #[arg(long, value_name = "KEY=SPOT")]
    scope: Vec<String>,
    /// Where `data` stands (else it is the whole message)
    #[arg(long, value_name = "POINTER")]
    data: Option<String>,
}

impl Test {
    async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        let source = self.source(common, &config)?;
        let inspector = services::inspector(&config).await?;
        let mut seen = Vec::new();
        let peeked = inspector.peek_first(&source.queue, self.peek, |message| {
            seen.push(Seen::of(&source, &message, config.limits.event_bytes_max));
        });
        let peeked = peeked.await;
        inspector.close().await;
        let peeked =
            peeked.map_err(|error| Failure::world(error.to_string()).maybe_hint(error.hint()))?.ok_or_else(|| {
                Failure::world(format!("there is no queue `{}`", source.queue))
                    .hint("a source never declares its queue: write the name it has, on the virtual host of `broker.url`")
            })?;
        if common.json {
            (1..).zip(&seen).for_each(|(position, seen)| output::json_line(&seen.json(position)));
        } else {
            let rows = (1..).zip(&seen).map(|(position, seen)| seen.row(position)).collect();
            let nothing = match peeked.depth.consumers {
                0 => format!("`{}` is empty", source.queue),
                consumers => {
                    let consumers = output::count(consumers as usize, "consumer");
                    format!("`{}` has nothing ready: {consumers} took what there was", source.queue)
                }
            };
            output::table(&["#", "id", "type", "tenant", "document", "data", "fault"], rows, &nothing);
            if seen.iter().any(|seen| seen.outcome.as_ref().is_ok_and(|mapped| mapped.id_is_made)) {
                eprintln!("* the message has no id: this one is made of its bytes");
            }
        }
        let unmapped = seen.iter().filter(|seen| seen.outcome.is_err()).count();
        if unmapped > 0 {
            return Err(Failure::world(format!("{unmapped} of {} do not map", output::count(seen.len(), "message")))
                .hint("as dead letters of kind `event` they would keep their bytes: `paperboy dead list --kind event`"));
        }
        Ok(())
    }

    /// The source of the configuration with what the flags say laid over it.
    fn source(&self, common: &Common, config: &Config) -> Result<Source, Failure> {
        let is_it = |source: &&Source| match (&self.source, &self.queue) {
            (Some(name), _) => source.name == *name,
            (None, queue) => Some(&source.queue) == queue.as_ref(),
        };
        let known = config.sources.iter().find(is_it);
        if let (Some(name), None) = (&self.source, known) {
            let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "no source is set: write `[[sources]]` into the file of `--config`, or give `--queue`"
                    .to_owned(),
                names => format!("known are `{}`", names.join("`, `")),
            };
            return Err(Failure::usage(format!("there is no source `{name}`")).hint(hint));
        }
        let over = self.spots.document()?;
        match known {
            Some(known) if over.is_empty() => Ok(known.clone()),
            Some(known) => self.merged(common, &known.name, over),
            None => {
                let mut document = Map::from_iter([
                    ("name".to_owned(), json!("test")),
                    ("queue".to_owned(), json!(self.queue)),
                ]);
                document.extend(over);
                Source::read(Value::Object(document)).map_err(refused)
            }
        }
    }

    fn merged(&self, common: &Common, name: &str, over: Map<String, Value>) -> Result<Source, Failure> {
        let tables = crate::config::source_documents(&common.sources()?);
        let document = tables.into_iter().find(|table| table["name"] == name);
        let Some(Value::Object(mut document)) = document else {
            return Err(Failure::world(format!("source `{name}` has left the configuration meanwhile")));
        };
        document.extend(over);
        Source::read(Value::Object(document)).map_err(refused)
    }
}

impl Spots {
    fn document(&self) -> Result<Map<String, Value>, Failure> {
        let spots = [
            ("tenant", &self.tenant),
            ("type", &self.kind),
            ("id", &self.id),
            ("time", &self.time),
            ("document_id", &self.document_id),
            ("batch_id", &self.batch_id),
            ("data", &self.data),
        ];
        let given =
            spots.into_iter().filter_map(|(name, spot)| Some((name.to_owned(), json!(spot.as_ref()?))));
        let mut document: Map<String, Value> = given.collect();
        let mut scope = BTreeMap::new();
        for pair in &self.scope {
            let Some((key, spot)) = pair.split_once('=') else {
                return Err(Failure::usage(format!("`--scope {pair}` has no `=`"))
                    .hint("write `--scope inbox=/data/inbox`"));
            };
            scope.insert(key, spot);
        }
        if !scope.is_empty() {
            document.insert("scope".to_owned(), json!(scope));
        }
        Ok(document)
    }
}

fn refused(faults: Vec<Fault>) -> Failure {
    let flag = |field: &str| match field {
        "tenant" | "type" | "id" | "time" | "document_id" | "batch_id" | "data" => {
            format!("--{}", field.replace('_', "-"))
        }
        scope if scope.starts_with("scope.") => "--scope".to_owned(),
        other => other.to_owned(),
    };
    let problem = |fault: Fault| Problem {
        message: format!("`{}` {}", flag(&fault.field), fault.message),
        hint: fault.hint,
    };
    Failure::refused(faults.into_iter().map(problem).collect())
}

/// A message, and what it would become.
struct Seen {
    body_bytes: usize,
    redelivered: bool,
    outcome: Result<Mapped, String>,
}

impl Seen {
    fn of(source: &Source, message: &Message, bytes_max: usize) -> Seen {
        let body_bytes = message.body.len();
        let outcome = if body_bytes > bytes_max {
            Err(format!("too large: {body_bytes} bytes, at most {bytes_max} are read"))
        } else {
            let tags = &message.tags;
            let properties = Properties {
                message_id: tags.message_id.as_deref(),
                kind: tags.kind.as_deref(),
                routing_key: &message.routing_key,
                time: tags.time.as_deref(),
            };
            source.mapping.map(&message.body, &properties).map_err(|unmapped| unmapped.to_string())
        };
        Seen { body_bytes, redelivered: message.redelivered, outcome }
    }

    fn event(&self) -> Value {
        let event = self.outcome.as_ref().ok().and_then(|mapped| serde_json::from_slice(&mapped.event).ok());
        event.unwrap_or(Value::Null)
    }

    fn row(&self, position: u32) -> Vec<String> {
        let event = self.event();
        let text = |name: &str| output::printable(event[name].as_str().unwrap_or("-"));
        let (made, data, fault) = match &self.outcome {
            Ok(mapped) => {
                let data = event
                    .get("data")
                    .map_or("-".to_owned(), |data| format!("{} bytes", data.to_string().len()));
                (if mapped.id_is_made { "*" } else { "" }, data, "-".to_owned())
            }
            Err(fault) => ("", "-".to_owned(), output::printable(fault)),
        };
        vec![
            position.to_string(),
            text("id") + made,
            text("type"),
            text("tenant"),
            text("document_id"),
            data,
            fault,
        ]
    }

    fn json(&self, position: u32) -> Value {
        json!({
            "position": position,
            "body_bytes": self.body_bytes,
            "redelivered": self.redelivered,
            "maps": self.outcome.is_ok(),
            "event": self.event(),
            "id_is_made": self.outcome.as_ref().is_ok_and(|mapped| mapped.id_is_made),
            "fault": self.outcome.as_ref().err(),
        })
    }
}
