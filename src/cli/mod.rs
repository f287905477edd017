//! The command line: one command a file, real services chosen in `serve` and `services`.
//!
//! Data goes to standard output, everything else to standard error. Exit 0 fine · 1 the world disagrees or the
//! command failed · 2 usage · 64 configuration that is wrong by itself.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "writing to people is what this folder is for"
)]

mod audit;
mod batch;
mod bench;
mod completions;
mod config;
mod dead;
mod deliveries;
mod demo;
mod descriptors;
mod failure;
mod heartbeat;
mod key;
mod later;
mod listen;
mod log;
mod output;
mod preset;
mod publish;
mod receiver;
mod remote;
mod replaying;
mod serve;
mod services;
mod shelf;
mod source;
mod stage;
mod status;
mod store;
mod subscription;
mod sweeping;
mod topology;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::Sources;
pub use failure::{Failure, Problem};

/// Webhooks for document platforms: events from RabbitMQ, delivered signed, retried, never lost.
#[derive(Parser, Debug)]
#[command(name = "paperboy", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  paperboy serve                                   everything in one process
  paperboy subscription add --tenant acme --url https://erp.example.com/hook --events 'document.*'
  paperboy publish --tenant acme --type document.processed --data '{\"pages\": 3}'
  paperboy dead list";

/// What every command takes.
#[derive(Args, Debug, Clone)]
pub(crate) struct Common {
    /// Settings laid over the built-in ones (else PAPERBOY_CONFIG)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, such as `broker.prefix=orders`; wins over file and environment
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Ask a running `paperboy serve` at this address, with the key in PAPERBOY_API_KEY (else PAPERBOY_API); for
    /// `subscription`, `publish`, `dead`, `deliveries` and `batch`
    #[arg(long, global = true, value_name = "URL")]
    api: Option<String>,
    /// Print JSON (one object a line for lists) instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run: take events, deliver them, keep dead letters
    Serve(serve::Serve),
    /// See it work: deliveries, retries, a dead letter and its replay, in about a minute
    Demo(demo::Demo),
    /// Publish events from a file, standard input or flags
    Publish(publish::Publish),
    /// Who wants which events, and how
    #[command(subcommand)]
    Subscription(subscription::Command),
    /// Platforms whose webhooks Paperboy sends as they do
    #[command(subcommand)]
    Preset(preset::Command),
    /// What was given up: look, replay, discard
    #[command(subcommand)]
    Dead(dead::Command),
    /// What became of an event or a document: every attempt, and why
    #[command(subcommand)]
    Deliveries(deliveries::Command),
    /// Documents that belong together: list, show, close
    #[command(subcommand)]
    Batch(batch::Command),
    /// Who may use the HTTP API: make, list, revoke keys
    #[command(subcommand)]
    Key(key::Command),
    /// Who changed what
    #[command(subcommand)]
    Audit(audit::Command),
    /// Where subscriptions and dead letters are kept
    #[command(subcommand)]
    Store(store::Command),
    /// What is set, and what is wrong with it
    #[command(subcommand)]
    Config(config::Command),
    /// Queues, waiting retries, processes, the balance, and what is wrong
    Status(status::Status),
    /// Queues that are there already: how their messages would become events
    #[command(subcommand)]
    Source(source::Command),
    /// The exchanges and queues on RabbitMQ: show, declare, check
    #[command(subcommand)]
    Topology(topology::Command),
    /// A receiver that verifies signatures and prints what arrives
    Listen(listen::Listen),
    /// A script that lets a shell complete commands and flags
    Completions(completions::Completions),
    /// Measure a worker against the least a worker can do, on this machine and this broker
    Bench(bench::Bench),
    /// The least a worker can do; a process of `bench`.
    #[command(hide = true)]
    BenchFloor(bench::Floor),
    /// Takes and counts deliveries; a process of `bench`.
    #[command(hide = true)]
    BenchReceiver(bench::Receiver),
    /// Commands that come later, and words that are none.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// A reader that went away (`| head`) is no reason for a panic's report.
fn end_quietly_without_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") {
            std::process::exit(1);
        }
        report(panic);
    }));
}

/// Runs one command; everything it has to say about a failure is on standard error afterwards.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    end_quietly_without_reader();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not faults; clap knows which stream is whose.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::world(format!("cannot start: {error}")).report(),
    };
    // Two TLS stacks ask for the process's provider; there is one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Failure::world("a TLS provider is installed already").report();
    }
    match runtime.block_on(cli.command.run(cli.common)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Command {
    async fn run(self, common: Common) -> Result<(), Failure> {
        let is_remote = matches!(
            self,
            Command::Subscription(_)
                | Command::Publish(_)
                | Command::Dead(_)
                | Command::Deliveries(_)
                | Command::Batch(_)
        );
        if common.api.is_some() && !is_remote {
            return Err(Failure::usage(
                "`--api` is for `subscription`, `publish`, `dead`, `deliveries` and `batch`",
            )
            .hint("run this one where the store is"));
        }
        match self {
            Command::Serve(serve) => Box::pin(serve.run(&common)).await,
            Command::Demo(demo) => Box::pin(demo.run(&common)).await,
            Command::Publish(publish) => Box::pin(publish.run(&common)).await,
            Command::Subscription(command) => Box::pin(command.run(&common)).await,
            Command::Dead(command) => Box::pin(command.run(&common)).await,
            Command::Deliveries(command) => Box::pin(command.run(&common)).await,
            Command::Batch(command) => Box::pin(command.run(&common)).await,
            Command::Key(command) => Box::pin(command.run(&common)).await,
            Command::Audit(command) => Box::pin(command.run(&common)).await,
            Command::Store(command) => Box::pin(command.run(&common)).await,
            Command::Config(command) => command.run(&common),
            Command::Preset(command) => command.run(&common),
            Command::Status(status) => Box::pin(status.run(&common)).await,
            Command::Source(command) => Box::pin(command.run(&common)).await,
            Command::Topology(command) => Box::pin(command.run(&common)).await,
            Command::Listen(listen) => Box::pin(listen.run(&common)).await,
            Command::Completions(completions) => completions.run(Cli::command()),
            Command::Bench(bench) => Box::pin(bench.run(&common)).await,
            Command::BenchFloor(floor) => Box::pin(floor.run(&common)).await,
            Command::BenchReceiver(receiver) => Box::pin(receiver.run()).await,
            Command::Other(words) => Err(later::refuse(&words)),
        }
    }
}

impl Common {
    /// Where settings come from in this call.
    pub(crate) fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = Sources::gather(self.config.clone(), std::env::vars_os());
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::usage(format!("`--set {pair}` has no `=`"))
                    .hint("write `--set KEY=VALUE`, such as `--set broker.prefix=orders`"));
            };
            sources = sources.flag(key, flag_value(value));
        }
        Ok(sources)
    }

    /// The checked configuration, or every fault of it.
    pub(crate) fn load(&self) -> Result<crate::config::Config, Failure> {
        crate::config::load(&self.sources()?).map_err(Failure::config)
    }
}

/// A flag's value as TOML where it is TOML, else as text: `--set broker.prefetch=64`, `--set broker.prefix=orders`.
fn flag_value(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flag_values_are_toml_or_text() {
        assert_eq!(flag_value("64"), toml::Value::Integer(64));
        assert_eq!(flag_value("orders"), toml::Value::String("orders".into()));
        assert_eq!(flag_value("true"), toml::Value::Boolean(true));
    }
}
