//! `paperboy bench`: what a delivery costs beside the least a worker can do, and what a bad endpoint costs others.
//!
//! Ratios within one run are what counts; a shared machine's absolute figures are its own. Everything it makes is
//! its own and goes away at the end, also after ctrl-C: the processes, the queues of a random prefix, the store in
//! a temporary folder. Only a failed bench keeps its folder, for the logs.

mod check;
mod contender;
mod crowd;
mod event;
mod figures;
mod floor;
mod histogram;
mod letters;
mod player;
mod prefix;
mod process;
mod producer;
mod receiver;
mod report;
mod scenario;
mod tally;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::stage::{Ending, Signals, Stage, free_addresses, own, remove_queues};
use super::{Common, Failure, output, services};
use crate::config::Config;
use figures::Round;
pub(super) use floor::Floor;
use player::Player;
use producer::Producer;
pub(super) use receiver::Receiver;
use report::{Played, Report};
use scenario::{Play, Scenario, Word};

/// Measure a worker against the least a worker can do, and against the limits it should keep.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy bench                                    `steady`, in a minute or two; leaves nothing behind
  paperboy bench all                                everything, in an hour or so
  paperboy bench hang drip --seconds 20             what one bad endpoint of ten costs the others
  paperboy bench --rounds 1 --events 5000 --json    a quick look, for a script

It uses the broker of `broker.url`. A line that begins with `FAIL` names a limit that does not hold.")]
pub(super) struct Bench {
    /// What to measure
    #[arg(value_enum, value_name = "SCENARIO", default_value = "steady")]
    scenarios: Vec<Word>,
    /// Exit with 1 where a limit does not hold
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    sizes: Sizes,
}

/// How much of everything.
#[derive(Args, Debug, Serialize)]
struct Sizes {
    /// Rounds, of which the medians are shown; each measures everything of a scenario once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Deliveries in the queue that a worker empties; `backlog` has 15 times as many
    #[arg(long, default_value_t = 60_000, value_parser = RangedU64ValueParser::<usize>::new().range(10..=1_000_000))]
    events: usize,
    /// Endpoints they go to, one subscription each
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    endpoints: usize,
    /// Bytes of one event
    #[arg(long, default_value_t = 777,
        value_parser = RangedU64ValueParser::<usize>::new().range(event::BYTES_MIN as u64..=16_000_000))]
    body_bytes: usize,
    /// Events a second while `steady` measures the time from publish to arrival
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds that takes, for each worker in each round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    latency_s: u32,
    /// Seconds until an idle worker's memory is read
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_s: u32,
    /// Seconds of each open loop of `hang`, `slow` and `drip`
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    /// What these offer, in percent of what an open loop carries without a bad endpoint in the same round
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100))]
    load_percent: u32,
}

impl Bench {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut signals = Signals::watch()?;
        let config = own(common.load()?, "bench")?;
        super::log::start(&crate::config::LogConfig { filter: "warn".into(), ..config.log.clone() });
        let mut declared = false;
        let mut stage = None;
        let ending = tokio::select! {
            outcome = Box::pin(self.measure(&config, common.json, &mut declared, &mut stage)) => Ending::Played(outcome),
            () = signals.next() => Ending::Interrupted,
        };
        if let (Ending::Played(Err(_)), Some(stage)) = (&ending, &mut stage) {
            stage.show_logs();
        }
        let cleaned = tokio::select! {
            cleaned = Box::pin(clean_up(&config, declared, stage.as_mut())) => cleaned,
            () = signals.next() => {
                if let Some(stage) = &mut stage {
                    stage.kill();
                }
                drop(stage);
                eprintln!("stopped at once: `{}.*` stays on the broker", config.broker.prefix);
                std::process::exit(130);
            }
        };
        // Also removes the folder.
        drop(stage);
        let report = ending.conclude(cleaned)?;
        if common.json {
            output::json_line(&report.json(&self.sizes));
        } else {
            report.print_footer(&self.sizes);
        }
        match report.failed() {
            failed if self.strict && !failed.is_empty() => {
                Err(Failure::world(format!("these limits do not hold: {}", failed.join("; "))))
            }
            _ => Ok(()),
        }
    }

    async fn measure(
        &self,
        config: &Config,
        as_json: bool,
        declared: &mut bool,
        stage: &mut Option<Stage>,
    ) -> Result<Report, Failure> {
        let load_before = process::load_average();
        // Should ctrl-C come while queues are declared, some are there already.
        *declared = true;
        let broker = match services::broker(config).await {
            Ok(broker) => broker,
            Err(failure) => {
                *declared = false;
                return Err(failure);
            }
        };
        let producer = Producer::connect(config).await?;
        let [receiver, health] = free_addresses()?;
        let stage = stage.insert(Stage::new(config, receiver)?);
        // What the caller set up for workers is what is measured.
        stage.set("PAPERBOY__BROKER__PREFETCH", config.broker.prefetch.to_string());
        stage.set("PAPERBOY__WORKER__LISTEN", health.to_string());
        stage.start("receiver", &["bench-receiver", "--listen", &receiver.to_string()])?;
        stage.ready(receiver, |_, _| {}).await?;
        let receiver_pid = stage.pid();
        checked(stage, &["store", "migrate"], None).await?;

        let mut player = Player {
            stage,
            broker: &broker,
            producer: &producer,
            receiver,
            receiver_pid,
            broker_pid: process::listener(config.broker.url.host(), config.broker.url.port()),
            health,
        };
        let mut played = Vec::new();
        for scenario in Word::chosen(&self.scenarios, &self.sizes) {
            subscribe(player.stage, &scenario, receiver).await?;
            let mut rounds = Vec::new();
            for nth in 1..=self.sizes.rounds {
                let mut round = Round::default();
                for play in &scenario.plays {
                    let label =
                        format!("{}, round {nth} of {}: {}", scenario.name, self.sizes.rounds, play.name);
                    let figures = player.play(play, &round, &label).await?;
                    round.add(play.name, figures);
                }
                rounds.push(round);
            }
            let scenario = Played { scenario, rounds };
            // What is known is shown: the next scenario may take many minutes.
            if !as_json {
                scenario.print();
            }
            played.push(scenario);
        }
        producer.close().await;
        broker.close().await;
        Ok(Report { played, prefetch: config.broker.prefetch, load_before })
    }
}

/// Adds the subscriptions of a scenario's crowds.
async fn subscribe(stage: &Stage, scenario: &Scenario, receiver: SocketAddr) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    let crowds = scenario.plays.iter().flat_map(Play::crowds);
    let new = crowds.filter(|crowd| known.insert(&crowd.name));
    let subscriptions = new.flat_map(|crowd| crowd.subscriptions(&receiver.to_string()));
    let input = serde_json::Value::from_iter(subscriptions).to_string();
    checked(stage, &["subscription", "add", "--file", "-", "--no-wait"], Some(&input)).await
}

/// Runs a command that must work.
async fn checked(stage: &Stage, arguments: &[&str], input: Option<&str>) -> Result<(), Failure> {
    let printed = stage.run(arguments, input).await?;
    if !printed.status.success() {
        eprint!("{}", printed.stderr);
    }
    printed.checked(arguments)?;
    Ok(())
}

/// Ends and removes everything; goes on after a failure and reports the last one.
async fn clean_up(config: &Config, declared: bool, stage: Option<&mut Stage>) -> Result<(), Failure> {
    let mut failed = None;
    if let Some(stage) = stage {
        failed = stage.stop().await.err();
    }
    if declared {
        failed = remove_queues(config).await.err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}
