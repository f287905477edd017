//! `paperboy subscription test`: one marked event, sent once from this process, past every queue.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::id;
use crate::cli::remote::{Remote, segment};
use crate::cli::{Common, Failure, output, publish, services};
use crate::config::Config;
use crate::desk::trial::{Load, Trial};
use crate::desk::{Desk, Refused};

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
    pub(super) async fn run(self, common: &Common, config: &Config, desk: &Desk) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let load = self.load()?;
        let sender = services::sender(config)?.reading_every_answer();
        let trial = desk.try_out(&services::caller(), &sender, id.as_str(), &load, Duration::MAX).await;
        sender.close().await;
        let trial = trial.map_err(|refused| match refused {
            Refused::Faults(mut faults) if faults.len() == 1 => self.refused(faults.remove(0)),
            refused => refused.into(),
        })?;
        tell(common, &trial)
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut body = json!({});
        match self.load()? {
            Load::Event(event) => {
                body["event"] = serde_json::from_slice(&event)
                    .map_err(|error| Failure::usage(format!("`--event` is not JSON: {error}")))?;
            }
            Load::Sample { data, kind } => {
                let data = data.map(|data| serde_json::from_str::<Value>(data.get()));
                if let Some(data) = data.transpose().map_err(anyhow::Error::from)? {
                    body["data"] = data;
                }
                if let Some(kind) = kind {
                    body["type"] = json!(kind);
                }
            }
        }
        let path = format!("/v1/subscriptions/{}/test", segment(&self.id));
        let told = remote.post(&path, &body, false).await?;
        tell(common, &serde_json::from_value(told).map_err(anyhow::Error::from)?)
    }

    fn load(&self) -> Result<Load, Failure> {
        if let Some(path) = &self.event {
            return Ok(Load::Event(publish::read(path)?.into()));
        }
        let data = self.data.clone().map(RawValue::from_string).transpose();
        let data = data.map_err(|error| Failure::usage(format!("`--data` is not JSON: {error}")))?;
        Ok(Load::Sample { data, kind: self.kind.clone() })
    }

    /// A fault in the words of the flags.
    fn refused(&self, fault: crate::domain::fault::Fault) -> Failure {
        let what = if self.event.is_some() { "`--event`" } else { "the sample" };
        if fault.message.starts_with("the request cannot be built") {
            return Failure::world(fault.message)
                .hint("give `--data` or `--event` what the URL takes from an event");
        }
        let message = match fault.message.starts_with("is not an event") {
            true => format!("{what} {}", fault.message),
            false => fault.message,
        };
        Failure::usage(message).maybe_hint(fault.hint)
    }
}

fn tell(common: &Common, trial: &Trial) -> Result<(), Failure> {
    if !trial.wanted {
        eprintln!("note: the subscription does not want this event and would not get it");
    }
    if common.json {
        output::json_line(&serde_json::to_value(trial).map_err(anyhow::Error::from)?);
    } else {
        print(trial);
    }
    if trial.delivered {
        return Ok(());
    }
    Err(Failure::world(format!("the test was not delivered: {}", trial.answer.seen())))
}

/// What was sent behind `>`, what came back behind `<`.
fn print(trial: &Trial) {
    let request = &trial.request;
    println!("> {} {}", request.method, request.url);
    for (name, value) in &request.headers {
        println!("> {name}: {}", value.as_str().unwrap_or_default());
    }
    print_body('>', &request.body);
    println!("< {} after {} ms", trial.answer.seen(), trial.answer.ms);
    print_body('<', &trial.answer.body);
}

fn print_body(mark: char, body: &str) {
    if !body.is_empty() {
        println!("{mark}");
    }
    for line in output::printable(body).lines() {
        println!("{mark} {line}");
    }
}
