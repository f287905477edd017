//! `paperboy status`: queues, waiting retries, processes, the balance, and what is wrong in words.

mod troubled;
mod warnings;

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::heartbeat::{self, Counts, Heartbeat, SlowEndpoint};
use super::{Common, Failure, output, services};
use crate::broker::Queue;
use crate::broker::rabbitmq::inspect::Depth;
use crate::config::Config;
use crate::domain::delay;
use crate::store::{Store, StoreStatus};

/// Queues, waiting retries, processes, the balance, and what is wrong.
#[derive(Args, Debug)]
#[command(
    after_help = "Processes are seen by their heartbeats, which are in Redis: without `redis.url` there are none to see.
What they say may be two seconds old, so a total can differ from the queues beside it.

Examples:
  paperboy status
  paperboy status --json | jq -e '.warnings == []'"
)]
pub(super) struct Status {}

/// All that is known of a deployment at one moment.
struct Facts {
    /// What is taken from, fresh to dead.
    queues: Vec<(Queue, Counted)>,
    /// Every delay level with what one of its messages waits, in milliseconds.
    levels: Vec<(u64, Counted)>,
    processes: Processes,
    store: Kept,
    /// Whether this deployment means to move dead letters into its store.
    drains: bool,
}

/// A queue with what is in it; none where it does not exist.
struct Counted {
    name: String,
    depth: Option<Depth>,
}

/// What can be known of the processes.
enum Processes {
    Heard(Vec<Heartbeat>),
    /// No `redis.url`.
    NoRedis,
    /// Redis does not answer.
    Unknown(String),
}

/// What is in the store.
enum Kept {
    There(StoreStatus),
    Missing,
    Unknown(String),
}

impl Status {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        let facts = Facts::gather(&config).await?;
        let warnings = facts.warnings();
        if common.json {
            output::json_line(&facts.json(&warnings));
            return Ok(());
        }
        facts.print();
        for warning in warnings {
            eprintln!("warning: {}", output::printable(&warning));
        }
        Ok(())
    }
}

impl Facts {
    async fn gather(config: &Config) -> Result<Facts, Failure> {
        let inspector = services::inspector(config).await?;
        let topology = inspector.topology().clone();
        let kinds = [
            Queue::Events,
            Queue::Deliveries,
            Queue::Retries,
            Queue::Calls,
            Queue::DeadDeliveries,
            Queue::DeadEvents,
        ];
        let names: Vec<String> = kinds
            .iter()
            .map(|queue| topology.queue(*queue))
            .chain((0..delay::LEVELS).map(|level| topology.level(level)))
            .collect();
        let depths = inspector.depths(&names).await;
        inspector.close().await;
        let depths = depths.map_err(|error| Failure::world(error.to_string()).maybe_hint(error.hint()))?;
        let mut counted = names.into_iter().zip(depths).map(|(name, depth)| Counted { name, depth });
        let queues = kinds.into_iter().zip(counted.by_ref()).collect();
        let wait_ms = (0..delay::LEVELS).map(|level| u64::from(config.broker.delay_unit_ms) << level);
        let levels = wait_ms.zip(counted).collect();
        Ok(Facts {
            queues,
            levels,
            processes: processes(config).await?,
            store: kept(config).await,
            drains: config.dead.drain,
        })
    }

    fn heard(&self) -> &[Heartbeat] {
        match &self.processes {
            Processes::Heard(heard) => heard,
            Processes::NoRedis | Processes::Unknown(_) => &[],
        }
    }

    /// Of all processes that deliver; none where no such process is seen.
    fn balance(&self) -> Option<Counts> {
        let mut balances = self.heard().iter().filter_map(|process| process.balance.as_ref());
        let mut sum = balances.next()?.clone();
        balances.for_each(|balance| sum.add(balance));
        Some(sum)
    }

    /// Slow endpoints over all processes, most places first.
    fn slow(&self) -> Vec<SlowEndpoint> {
        let mut sum: BTreeMap<&str, SlowEndpoint> = BTreeMap::new();
        for slow in self.heard().iter().flat_map(|process| &process.slow) {
            let known =
                sum.entry(&slow.subscription).or_insert_with(|| SlowEndpoint { held: 0, ..slow.clone() });
            known.held += slow.held;
            known.pace_ms = known.pace_ms.max(slow.pace_ms);
        }
        let mut slow: Vec<_> = sum.into_values().collect();
        slow.sort_by_key(|slow| std::cmp::Reverse(slow.held));
        slow
    }

    fn waiting(&self) -> impl Iterator<Item = (u64, &str, u32)> {
        self.levels.iter().filter_map(|(wait_ms, level)| {
            let ready = level.depth?.ready;
            (ready > 0).then_some((*wait_ms, level.name.as_str(), ready))
        })
    }

    fn print(&self) {
        let number = |depth: Option<u32>| depth.map_or("missing".to_owned(), |number| number.to_string());
        let row = |(_, queue): &(Queue, Counted)| {
            let (ready, consumers) = (queue.depth.map(|it| it.ready), queue.depth.map(|it| it.consumers));
            vec![queue.name.clone(), number(ready), number(consumers)]
        };
        output::table(&["queue", "ready", "consumers"], self.queues.iter().map(row).collect(), "");
        println!();
        if self.waiting().next().is_none() {
            println!("nothing waits in the delay levels");
        }
        for (wait_ms, name, ready) in self.waiting() {
            println!("{ready} wait {} in {name}", output::duration(wait_ms));
        }
        println!();
        match &self.processes {
            Processes::NoRedis => println!("processes are only seen with Redis, and `redis.url` is not set"),
            Processes::Unknown(why) => println!("processes are not seen: Redis does not answer ({why})"),
            Processes::Heard(heard) if heard.is_empty() => println!("no process is running"),
            Processes::Heard(heard) => {
                let header =
                    ["role", "host", "pid", "version", "started", "state", "taken", "in hand", "given back"];
                output::table(&header, heard.iter().map(process_row).collect(), "");
            }
        }
        if let Some(sum) = self.balance() {
            println!();
            let sign = if sum.adds_up() { "=" } else { "!=" };
            println!(
                "balance: taken {} {sign} settled {} + in hand {} + given back {}",
                sum.taken,
                sum.settled_in_all(),
                sum.in_hand,
                sum.given_back
            );
            let settled: Vec<String> = sum
                .by_ending()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(ending, count)| format!("{} {count}", ending.replace('_', " ")))
                .collect();
            if !settled.is_empty() {
                println!("settled: {}", settled.join(", "));
            }
        }
        let slow = self.slow();
        if !slow.is_empty() {
            println!();
            let row = |slow: &SlowEndpoint| {
                let subscription = output::printable(&slow.subscription);
                vec![subscription, output::printable(&slow.tenant), slow.held.to_string(), pace(slow.pace_ms)]
            };
            output::table(
                &["slow endpoint", "tenant", "in hand", "answers in"],
                slow.iter().map(row).collect(),
                "",
            );
        }
        println!();
        match &self.store {
            Kept::There(store) => {
                println!("open dead letters in the store: {}", store.dead_letters);
                let days = output::count(usize::try_from(store.deliveries.days).unwrap_or(usize::MAX), "day");
                println!("delivery log: {days}, {}", output::bytes(store.deliveries.bytes));
                troubled::print(&store.troubled);
            }
            Kept::Missing => println!("there is no store to look for dead letters in"),
            Kept::Unknown(why) => println!("open dead letters are not known: {}", output::printable(why)),
        }
    }

    fn json(&self, warnings: &[String]) -> Value {
        let counted = |queue: &Counted| {
            json!({
                "name": queue.name,
                "exists": queue.depth.is_some(),
                "ready": queue.depth.map(|depth| depth.ready),
                "consumers": queue.depth.map(|depth| depth.consumers),
            })
        };
        let levels = self
            .waiting()
            .map(|(wait_ms, name, ready)| json!({ "name": name, "wait_ms": wait_ms, "ready": ready }));
        json!({
            "queues": self.queues.iter().map(|(_, queue)| counted(queue)).collect::<Vec<_>>(),
            "levels": levels.collect::<Vec<_>>(),
            "processes": match &self.processes {
                Processes::Heard(heard) => heard.iter().map(process_json).collect(),
                Processes::NoRedis | Processes::Unknown(_) => Value::Null,
            },
            "balance": self.balance().as_ref().map(counts_json),
            "slow_endpoints": self.slow(),
            "dead_letters_open": match &self.store {
                Kept::There(store) => json!(store.dead_letters),
                Kept::Missing | Kept::Unknown(_) => Value::Null,
            },
            "delivery_log": match &self.store {
                Kept::There(store) => json!({ "days": store.deliveries.days, "bytes": store.deliveries.bytes }),
                Kept::Missing | Kept::Unknown(_) => Value::Null,
            },
            "troubled": match &self.store {
                Kept::There(store) => troubled::json(&store.troubled),
                Kept::Missing | Kept::Unknown(_) => Value::Null,
            },
            "warnings": warnings,
        })
    }
}

async fn processes(config: &Config) -> Result<Processes, Failure> {
    let Some(redis) = services::redis(config)? else { return Ok(Processes::NoRedis) };
    Ok(match heartbeat::heard(&redis).await {
        Ok(heard) => Processes::Heard(heard),
        Err(error) => Processes::Unknown(error.to_string()),
    })
}

async fn kept(config: &Config) -> Kept {
    match Store::status(&config.store.url).await {
        Ok(status) if status.exists => Kept::There(status),
        Ok(_) => Kept::Missing,
        Err(error) => Kept::Unknown(error.to_string()),
    }
}

fn process_row(process: &Heartbeat) -> Vec<String> {
    let count =
        |of: fn(&Counts) -> u64| process.balance.as_ref().map_or("-".to_owned(), |it| of(it).to_string());
    let state = match (process.faults.as_slice(), process.troubles.as_slice()) {
        ([], []) => "ready".to_owned(),
        // What it is stands among the warnings.
        ([], _) => "ready, with trouble".to_owned(),
        (faults, _) => faults.join("; "),
    };
    vec![
        process.role.clone(),
        output::printable(&process.host),
        process.pid.to_string(),
        output::printable(&process.version),
        output::moment(process.started_ms),
        output::printable(&state),
        count(|it| it.taken),
        count(|it| it.in_hand),
        count(|it| it.given_back),
    ]
}

fn process_json(process: &Heartbeat) -> Value {
    json!({
        "id": process.id,
        "role": process.role,
        "host": process.host,
        "pid": process.pid,
        "version": process.version,
        "started": output::moment(process.started_ms),
        "seen": output::moment(process.at_ms),
        "ready": process.faults.is_empty(),
        "faults": process.faults,
        "troubles": process.troubles,
        "drains": process.drains,
        "balance": process.balance.as_ref().map(counts_json),
    })
}

fn counts_json(counts: &Counts) -> Value {
    json!({
        "taken": counts.taken,
        "settled": counts.settled,
        "settled_in_all": counts.settled_in_all(),
        "in_hand": counts.in_hand,
        "given_back": counts.given_back,
        "adds_up": counts.adds_up(),
    })
}

/// What answers take; nothing longer than a second is told apart.
fn pace(ms: Option<u64>) -> String {
    match ms {
        None => "no answer yet".to_owned(),
        Some(1000..) => "1 s or more".to_owned(),
        Some(ms) => format!("{ms} ms"),
    }
}
