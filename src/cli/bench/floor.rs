//! The floor: the least a worker can do. Consume, sign, post, acknowledge; nothing is looked up, judged or kept.
//!
//! Same queue, prefetch, runtime, client library and client settings as the real worker, in a process of its own,
//! so that the difference is what Paperboy adds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use data_encoding::BASE64;
use futures_util::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use reqwest::{Client, Url, redirect, retry};
use sha2::Sha256;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::prefix::Prefix;
use crate::broker::Queue;
use crate::broker::rabbitmq::topology::Topology;
use crate::cli::stage::{Signals, end_with_parent};
use crate::cli::{Common, Failure};

/// How often finished tags are told in the coalescing floor.
const FLUSH: Duration = Duration::from_millis(5);
const KEY: &[u8] = b"the floor signs with any key at all";

/// The least a worker can do.
#[derive(Args, Debug)]
pub(in crate::cli) struct Floor {
    /// How messages are acknowledged
    #[arg(long)]
    acknowledge: Acknowledge,
    /// Where the addresses of the endpoints begin
    #[arg(long)]
    addresses: String,
    /// How many endpoints there are
    #[arg(long)]
    endpoints: usize,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledge {
    /// One acknowledgement a message.
    Single,
    /// The finished prefix by `multiple`, every 5 ms.
    Coalesced,
}

/// What every delivery shares.
struct Way {
    channel: Channel,
    client: Client,
    key: Hmac<Sha256>,
    /// To the task that coalesces; none: each delivery acknowledges by itself.
    finished: Option<UnboundedSender<u64>>,
}

impl Floor {
    pub(in crate::cli) async fn run(self, common: &Common) -> Result<(), Failure> {
        let mut signals = Signals::watch()?;
        end_with_parent();
        let config = common.load()?;
        let topology = Topology::new(&config.broker.prefix, config.broker.delay_unit_ms);
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(config.broker.url.expose(), properties).await;
        let connection = connection.context("no connection to RabbitMQ")?;
        let channel = connection.create_channel().await.context("no channel")?;
        let prefetch = config.broker.shares().events;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.context("no prefetch")?;
        let name = topology.queue(Queue::Events);
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(name.into(), "".into(), options, none).await;
        let mut consumer = consumer.context("cannot consume")?;

        let urls = self.urls()?;
        let mut acknowledging = None;
        let mut finished = None;
        if self.acknowledge == Acknowledge::Coalesced {
            // Unbounded by type, bounded by the prefetch.
            let (line, tags) = unbounded_channel();
            finished = Some(line);
            acknowledging = Some(tokio::spawn(acknowledge(channel.clone(), tags)));
        }
        let key = Hmac::new_from_slice(KEY).context("no key")?;
        let way = Arc::new(Way { channel, client: client()?, key, finished });
        let mut urls = urls.iter().cycle();
        loop {
            let next = tokio::select! {
                () = signals.next() => break,
                next = consumer.next() => next,
            };
            let next = next.context("the broker cancelled the consumer")?;
            let delivery = next.context("the channel is gone")?;
            let Some(url) = urls.next() else { break };
            tokio::spawn(deliver(Arc::clone(&way), delivery, url.clone()));
        }
        if let Some(acknowledging) = acknowledging {
            acknowledging.abort();
        }
        let _ = connection.close(200, "bye".into()).await;
        Ok(())
    }

    fn urls(&self) -> Result<Vec<Url>, Failure> {
        let urls = (0..self.endpoints).map(|endpoint| format!("{}/{endpoint}/0", self.addresses).parse());
        let urls: Result<Vec<Url>, _> = urls.collect();
        Ok(urls.context("`--addresses` is no address")?)
    }
}

/// The settings of the worker's own client, without its address guard.
fn client() -> anyhow::Result<Client> {
    let client = Client::builder()
        .http1_only()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .retry(retry::never().max_retries_per_request(0))
        .referer(false)
        .connect_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(5));
    client.build().context("no HTTP client")
}

/// One message from taking to acknowledging. One that is not taken stays in hand, and the bench sees it missing.
async fn deliver(way: Arc<Way>, delivery: Delivery, url: Url) {
    let body = Bytes::from(delivery.data);
    let signature = BASE64.encode(&way.key.clone().chain_update(&body).finalize().into_bytes());
    let request = way.client.post(url).header("content-type", "application/json");
    let answer = request.header("webhook-signature", signature).body(body).send().await;
    match answer {
        Ok(answer) if answer.status().is_success() => {}
        Ok(answer) => return eprintln!("the receiver answered {}", answer.status()),
        Err(error) => return eprintln!("no answer: {error}"),
    }
    match &way.finished {
        // Closed only when the process ends.
        Some(finished) => drop(finished.send(delivery.delivery_tag)),
        None => {
            let told = way.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await;
            if let Err(error) = told {
                eprintln!("cannot acknowledge: {error}");
            }
        }
    }
}

/// Acknowledges the finished prefix at every tick.
async fn acknowledge(channel: Channel, mut tags: UnboundedReceiver<u64>) {
    let mut prefix = Prefix::default();
    let mut tick = interval(FLUSH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while let Ok(tag) = tags.try_recv() {
            prefix.finish(tag);
        }
        if let Some(tag) = prefix.take()
            && let Err(error) = channel.basic_ack(tag, BasicAckOptions { multiple: true }).await
        {
            return eprintln!("cannot acknowledge: {error}");
        }
    }
}
