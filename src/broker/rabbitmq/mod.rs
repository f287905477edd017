//! RabbitMQ through lapin: connections that come back, publishes that are proven, acknowledgements that are fenced.
//!
//! One connection consumes and acknowledges, another publishes, a third answers callers: a memory or disk alarm blocks a publishing
//! connection whole, acknowledgements included (measured on 3.10.8). lapin's own recovery stays off: it
//! leaves a consumer silent for ever after a channel error, so `intake`, `consumer` and `publisher` rebuild.

mod acknowledger;
mod codec;
mod consumer;
mod faults;
mod groups;
mod health;
pub mod inspect;
mod intake;
mod line;
mod link;
pub mod peek;
mod publisher;
mod replies;
mod returns;
mod settlements;
mod stream;
pub mod topology;
mod window;

use std::sync::Arc;
use std::time::Duration;

use lapin::ErrorKind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Broker, Outgoing, Taken, Target, Unconfirmed, Windows};
use faults::Faults;
use intake::Feed;
pub use intake::Share;
pub use link::DialError;
use link::Link;
use publisher::Publisher;
pub use replies::Replies;
use topology::{Topology, TopologyError};

/// What we publish has headers of at most 16 KiB. What others publish may fill a frame of the broker's own size,
/// so a connection that consumes asks for nothing smaller.
const PUBLISH_FRAME_BYTES: u32 = 32 * 1024;

/// How this process reaches RabbitMQ.
#[derive(Clone)]
pub struct Settings {
    /// `amqp(s)://…`, with credentials.
    pub url: String,
    /// First word of every name we own.
    pub prefix: String,
    /// What one unit of waiting lasts, in milliseconds.
    pub delay_unit_ms: u32,
    /// Declare what is missing; else only check.
    pub declare: bool,
    /// How long a start waits for the broker.
    pub start_wait: Duration,
}

/// Why a start failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The queues are not as they must be.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::Dial(error) => Some(error.hint()),
            StartError::Topology(error) => error.hint(),
        }
    }
}

/// The running connection to RabbitMQ.
pub struct RabbitMq {
    settings: Settings,
    topology: Topology,
    publisher: Publisher,
}

impl RabbitMq {
    /// Connects, makes sure of the topology and starts publishing.
    ///
    /// # Errors
    /// No broker within `start_wait`, a refused login, a mismatched queue. After this call has returned
    /// well, a broker's fault is waited out.
    pub async fn start(settings: Settings) -> Result<RabbitMq, StartError> {
        let topology = Topology::new(&settings.prefix, settings.delay_unit_ms);
        let link = Link::new(&settings.url, "publish")?.with_frames(PUBLISH_FRAME_BYTES);
        let connection = link.dial_within(settings.start_wait).await?;
        topology.ensure(&connection, settings.declare).await?;
        let publisher = Publisher::start(link, connection, topology.clone(), settings.declare);
        Ok(RabbitMq { settings, topology, publisher })
    }

    /// Deletes the whole topology of these settings with the messages in it, for demos and tests; how many
    /// queues that were.
    ///
    /// # Errors
    /// No broker within `start_wait`, a refused login, something that may not be deleted.
    pub async fn remove_topology(settings: &Settings) -> Result<usize, StartError> {
        let link = Link::new(&settings.url, "remove")?;
        let connection = link.dial_within(settings.start_wait).await?;
        let removed = Topology::new(&settings.prefix, settings.delay_unit_ms).remove(&connection).await;
        let _ = connection.close(200, "removed".into()).await;
        Ok(removed?)
    }

    /// Takes from these queues, each with its own share of the prefetch, while `gate` is open. How many messages
    /// of each may be in hand at the moment stands in `windows`.
    ///
    /// The task ends after `stop`: it cancels its consumers, hands back what nobody started, waits until
    /// every receipt is settled and closes its connection. Whoever calls awaits it.
    pub fn take(
        &self,
        shares: Vec<Share>,
        windows: Arc<Windows>,
        gate: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Result<Intake, StartError> {
        let feed = |share: Share| Feed {
            share,
            name: self.topology.queue(share.queue),
            label: share.queue.as_str().to_owned(),
        };
        self.take_feeds("consume", shares.into_iter().map(feed).collect(), windows, gate, stop)
    }

    /// Takes from a queue that is not ours, over a connection of its own: what becomes of it stops nobody else.
    /// `share` says what its messages are taken for.
    ///
    /// It is never declared. Taken for events, its messages are strangers': every `paperboy-*` header is ignored.
    pub fn take_from(
        &self,
        name: &str,
        share: Share,
        gate: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Result<Intake, StartError> {
        let feed = Feed { share, name: name.to_owned(), label: name.to_owned() };
        self.take_feeds("source", vec![feed], Arc::default(), gate, stop)
    }

    fn take_feeds(
        &self,
        purpose: &'static str,
        feeds: Vec<Feed>,
        windows: Arc<Windows>,
        gate: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Result<Intake, StartError> {
        let link = Link::new(&self.settings.url, purpose)?;
        let hold: usize = feeds.iter().map(|feed| usize::from(feed.share.prefetch)).sum();
        let (sink, taken) = mpsc::channel(hold.max(1));
        let (faults, fault) = Faults::new();
        let intake = intake::Intake {
            link,
            topology: self.topology.clone(),
            declare: self.settings.declare,
            feeds,
            windows,
            gate,
            sink: Some(sink),
            stop,
            faults,
        };
        Ok(Intake { taken, fault, task: tokio::spawn(intake.run()) })
    }

    /// Answers callers over a connection of its own, which is dialled when there is something to say.
    pub fn replies(&self) -> Result<Replies, StartError> {
        let link = Link::new(&self.settings.url, "reply")?.with_frames(PUBLISH_FRAME_BYTES);
        Ok(Replies::start(link, self.topology.clone()))
    }

    /// Everything that is wrong with publishing, a missing queue included; changes as it happens.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.publisher.health().fault()
    }

    /// What keeps every publish from going out (no connection, an alarm): no use in taking meanwhile.
    pub fn held(&self) -> watch::Receiver<Option<String>> {
        self.publisher.health().held()
    }

    /// Waits for the confirms under way (at most five seconds) and closes the publishing connection.
    pub async fn close(self) {
        self.publisher.close().await;
    }
}

impl Broker for RabbitMq {
    async fn publish(&self, target: Target, message: Outgoing) -> Result<(), Unconfirmed> {
        self.publisher.publish(target, message).await
    }
}

/// What comes out of the queues.
pub struct Intake {
    /// Messages, in the order of their queues; ends after `stop`.
    pub taken: mpsc::Receiver<Taken>,
    /// What keeps this process from taking, if anything.
    pub fault: watch::Receiver<Option<String>>,
    /// Ends once everything taken is settled and the connection is closed.
    pub task: JoinHandle<()>,
}

/// The AMQP reply code and text of an error that the broker itself reported.
fn reply_code(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().to_string())),
        _ => None,
    }
}
