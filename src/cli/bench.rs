//! `paperboy bench`: what a delivery costs, beside the floor: the least a worker can do on the same machine.
//!
//! Ratios within one run are what counts; a shared machine's absolute figures are its own. Everything it makes is
//! its own and goes away at the end, also after ctrl-C: the processes, the queues of a random prefix, the store in
//! a temporary folder. Only a failed bench keeps its folder, for the logs.

mod contender;
mod event;
mod figures;
mod floor;
mod histogram;
mod load;
mod prefix;
mod process;
mod receiver;
mod report;
mod round;
mod tally;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokio::time::sleep;

use super::stage::{Ending, Signals, Stage, free_addresses, own, remove_queues};
use super::{Common, Failure, output, services};
use crate::config::Config;
use contender::Contender;
pub(super) use floor::Floor;
pub(super) use receiver::Receiver;
use report::Report;
use round::Round;

/// Measure a worker against the least a worker can do.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy bench                                    against `broker.url`; leaves nothing behind
  paperboy bench --runs 1 --events 5000 --json      a quick look, for a script")]
pub(super) struct Bench {
    /// Events in the queue that each worker empties
    #[arg(long, default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(2..=10_000_000))]
    events: usize,
    /// Endpoints they go to, one subscription each
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    endpoints: usize,
    /// Bytes of one event
    #[arg(long, default_value_t = 777,
        value_parser = RangedU64ValueParser::<usize>::new().range(event::BYTES_MIN as u64..=16_000_000))]
    body_bytes: usize,
    /// Runs, of which the medians are shown; each measures every worker once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Events a second while the time from publish to arrival is measured
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds that takes, for each worker in each run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    latency_s: u32,
    /// Seconds until an idle worker's memory is read
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_s: u32,
}

impl Bench {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut signals = Signals::watch()?;
        let config = own(common.load()?, "bench")?;
        super::log::start(&crate::config::LogConfig { filter: "warn".into(), ..config.log.clone() });
        let mut declared = false;
        let mut stage = None;
        let ending = tokio::select! {
            outcome = Box::pin(self.measure(&config, &mut declared, &mut stage)) => Ending::Played(outcome),
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
        report.print(&self, common.json);
        Ok(())
    }

    async fn measure(
        &self,
        config: &Config,
        declared: &mut bool,
        stage: &mut Option<Stage>,
    ) -> Result<Report, Failure> {
        // Should ctrl-C come while queues are declared, some are there already.
        *declared = true;
        let broker = match services::broker(config).await {
            Ok(broker) => broker,
            Err(failure) => {
                *declared = false;
                return Err(failure);
            }
        };
        let [receiver, health] = free_addresses()?;
        let stage = stage.insert(Stage::new(config, receiver)?);
        // What the caller set up for workers is what is measured.
        stage.set("PAPERBOY__BROKER__PREFETCH", config.broker.prefetch.to_string());
        stage.set("PAPERBOY__WORKER__LISTEN", health.to_string());
        stage.start("receiver", &["bench-receiver", "--listen", &receiver.to_string()])?;
        stage.ready(receiver, |_, _| {}).await?;
        let receiver_pid = stage.pid();
        self.subscribe(stage, receiver).await?;

        let idle_rss_mib = self.idle(stage, health).await?;
        let mut runs = [const { Vec::new() }; Contender::ALL.len()];
        let mut round = Round {
            stage,
            broker: &broker,
            receiver,
            receiver_pid,
            broker_pid: process::listener(config.broker.url.host(), config.broker.url.port()),
            events: self.events,
            endpoints: self.endpoints,
            body_bytes: self.body_bytes,
            rate: self.rate,
            latency: Duration::from_secs(self.latency_s.into()),
        };
        for run in 1..=self.runs {
            for contender in Contender::ALL {
                let label = format!("run {run} of {}", self.runs);
                runs[contender as usize].push(round.play(contender, &label).await?);
            }
        }
        broker.close().await;
        Ok(Report { runs, idle_rss_mib, prefetch: config.broker.shares().events })
    }

    /// The store, with one subscription an endpoint.
    async fn subscribe(&self, stage: &Stage, receiver: SocketAddr) -> Result<(), Failure> {
        let subscriptions = event::subscriptions(self.endpoints, &receiver.to_string()).to_string();
        let add = ["subscription", "add", "--file", "-", "--no-wait"];
        for (arguments, input) in [(&["store", "migrate"][..], None), (&add, Some(subscriptions.as_str()))] {
            let printed = stage.run(arguments, input).await?;
            if !printed.status.success() {
                eprint!("{}", printed.stderr);
            }
            printed.checked(arguments)?;
        }
        Ok(())
    }

    /// What a worker with nothing to do holds in memory.
    async fn idle(&self, stage: &mut Stage, health: SocketAddr) -> Result<Option<f64>, Failure> {
        let bar = output::progress(self.idle_s as usize);
        bar.set_message("an idle worker  ");
        stage.start("idle", &["serve", "--role", "worker"])?;
        stage.ready(health, |_, _| {}).await?;
        for _ in 0..self.idle_s {
            sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let rss_mib = process::rss_kib(stage.pid()).map(round::mib);
        stage.stop_all_but(1).await?;
        Ok(rss_mib)
    }
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
