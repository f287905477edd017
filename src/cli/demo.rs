//! `paperboy demo`: real processes, a real broker and a receiver that misbehaves; what is printed is what happened.
//!
//! Everything it makes is its own and goes away at the end, also after ctrl-C: the processes, the queues and
//! keys of a random prefix, the store in a temporary folder. Only a failed demo keeps its folder, for the logs.

mod print;
mod receiver;
mod stage;
mod story;

use std::time::{Duration, Instant};

use clap::Args;
use data_encoding::HEXLOWER;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::{Common, Failure, services};
use crate::config::Config;
use receiver::Receiver;
use stage::Stage;

/// One unit of waiting, a second elsewhere: short enough to watch, long enough to see the waits double.
const UNIT_MS: u32 = 500;
/// Nothing of the clean-up on broker and Redis may take longer.
const REMOVE_WITHIN: Duration = Duration::from_secs(30);

/// See it work: deliveries, retries, a dead letter and its replay, in about a minute.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  ./deploy/local demo        with a private RabbitMQ and Redis, started and removed again
  paperboy demo              with those of `broker.url` and `redis.url`; leaves nothing behind")]
pub(super) struct Demo {}

impl Demo {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut signals = Signals::watch()?;
        let config = own(common.load()?)?;
        let mut reached = Reached::default();
        let mut stage = None;
        let outcome = tokio::select! {
            outcome = Box::pin(play(&config, &mut reached, &mut stage)) => Ending::Played(outcome),
            () = signals.next() => Ending::Interrupted,
        };
        match &outcome {
            Ending::Played(Ok(())) => print::heading("Clean-up"),
            Ending::Interrupted => print::heading("Interrupted: cleaning up"),
            Ending::Played(Err(_)) => {
                if let Some(stage) = &mut stage {
                    stage.show_logs();
                }
            }
        }
        let cleaned = tokio::select! {
            cleaned = Box::pin(clean_up(&config, &reached, stage.as_mut())) => cleaned,
            () = signals.next() => {
                if let Some(stage) = &mut stage {
                    stage.kill();
                }
                drop(stage);
                eprintln!("stopped at once: `{}.*` stays on the broker", config.broker.prefix);
                std::process::exit(130);
            }
        };
        // Dropping it removes the folder.
        drop(stage);
        match outcome {
            Ending::Interrupted => {
                if let Err(failure) = cleaned {
                    failure.report();
                }
                std::process::exit(130);
            }
            Ending::Played(Err(failure)) => {
                // The reason comes last: it is what people look for.
                if let Err(failure) = cleaned {
                    failure.report();
                }
                Err(failure)
            }
            Ending::Played(Ok(())) => {
                cleaned?;
                print::done(&format!("That was Paperboy, in {:.0} seconds.", begun.elapsed().as_secs_f64()));
                Ok(())
            }
        }
    }
}

/// How the play ended.
enum Ending {
    Played(Result<(), Failure>),
    Interrupted,
}

/// What of the outside world this demo has used and therefore cleans.
#[derive(Default)]
struct Reached {
    broker: bool,
    redis: bool,
}

/// The caller's services under names that are the demo's own.
fn own(mut config: Config) -> Result<Config, Failure> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
    config.broker.prefix = format!("demo-{}", HEXLOWER.encode(&random));
    config.broker.delay_unit_ms = UNIT_MS;
    config.broker.declare = true;
    Ok(config)
}

async fn play(config: &Config, reached: &mut Reached, stage: &mut Option<Stage>) -> Result<(), Failure> {
    print::heading("Start");
    // Should ctrl-C come while queues are declared, some are there already.
    reached.broker = true;
    match services::broker(config).await {
        Ok(broker) => broker.close().await,
        Err(failure) => {
            reached.broker = false;
            return Err(failure);
        }
    }
    let (host, port) = (config.broker.url.host(), config.broker.url.port());
    print::say(&format!(
        "RabbitMQ at {host}:{port}, with queues of the demo's own: `{}.*`",
        config.broker.prefix
    ));
    match services::redis(config)? {
        Some(redis) => {
            redis.store().await.map_err(|error| {
                Failure::world(format!("Redis cannot be reached: {error}")).hint(
                    "start it, or leave `redis.url` (PAPERBOY__REDIS__URL) empty: the demo works without",
                )
            })?;
            reached.redis = true;
            print::say("Redis as the cache that all processes share");
        }
        None => print::say("no Redis (`redis.url` is empty): every process asks the store"),
    }
    let mut receiver = Receiver::start().await?;
    let stage = stage.insert(Stage::new(config, receiver.address())?);
    story::tell(stage, &mut receiver).await
}

/// Ends and removes everything; goes on after a failure and reports the last one.
async fn clean_up(config: &Config, reached: &Reached, stage: Option<&mut Stage>) -> Result<(), Failure> {
    let mut failed = None;
    if let Some(stage) = stage {
        failed = stage.stop().await.err();
    }
    if reached.broker {
        match timeout(REMOVE_WITHIN, services::remove_topology(config)).await {
            Ok(Ok(queues)) => {
                print::say(&format!("deleted the exchange and {queues} queues of the demo from RabbitMQ"));
            }
            Ok(Err(failure)) => {
                eprintln!("`{}.*` stays on the broker", config.broker.prefix);
                failed = Some(failure);
            }
            Err(_) => failed = Some(left_behind(config, "queues on RabbitMQ", "no answer")),
        }
    }
    if reached.redis
        && let Some(redis) = services::redis(config)?
    {
        match timeout(REMOVE_WITHIN, redis.remove_all()).await {
            Ok(Ok(keys)) => print::say(&format!("deleted {keys} keys of the demo from Redis")),
            Ok(Err(error)) => failed = Some(left_behind(config, "keys in Redis", &error.to_string())),
            Err(_) => failed = Some(left_behind(config, "keys in Redis", "no answer")),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn left_behind(config: &Config, what: &str, why: &str) -> Failure {
    Failure::world(format!("the {what} could not be deleted: {why}"))
        .hint(format!("delete what begins with `{}`", config.broker.prefix))
}

/// Whoever wants us to end: ctrl-C, SIGTERM, a terminal that is closed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> Result<Signals, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::world(format!("signals cannot be watched: {error}")))
        };
        Ok(Signals {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
