//! `paperboy demo`: real processes, a real broker and a receiver that misbehaves; what is printed is what happened.
//!
//! Everything it makes is its own and goes away at the end, also after ctrl-C: the processes, the queues and
//! keys of a random prefix, the store in a temporary folder. Only a failed demo keeps its folder, for the logs.

mod print;
mod receiver;
mod stage;
mod story;

use std::time::Instant;

use clap::Args;
use tokio::time::timeout;

use super::stage::{Ending, REMOVE_WITHIN, Signals, left_behind, own, remove_queues};
use super::{Common, Failure, services};
use crate::config::Config;
use receiver::Receiver;
use stage::Stage;

/// One unit of waiting, a second elsewhere: short enough to watch, long enough to see the waits double.
const UNIT_MS: u32 = 500;

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
        let mut config = own(common.load()?, "demo")?;
        config.broker.delay_unit_ms = UNIT_MS;
        let mut reached = Reached::default();
        let mut stage = None;
        let ending = tokio::select! {
            outcome = Box::pin(play(&config, &mut reached, &mut stage)) => Ending::Played(outcome),
            () = signals.next() => Ending::Interrupted,
        };
        match &ending {
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
        if let Some(stage) = stage {
            stage.close();
        }
        ending.conclude(cleaned)?;
        print::done(&format!("That was Paperboy, in {:.0} seconds.", begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// What of the outside world this demo has used and therefore cleans.
#[derive(Default)]
struct Reached {
    broker: bool,
    redis: bool,
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
        match remove_queues(config).await {
            Ok(queues) => {
                print::say(&format!("deleted the exchanges and {queues} queues of the demo from RabbitMQ"))
            }
            Err(failure) => failed = Some(failure),
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
