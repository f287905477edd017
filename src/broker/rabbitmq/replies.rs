//! Answering callers, on a connection of its own.
//!
//! Where an answer goes is a stranger's word. A `reply_to` that looks like RabbitMQ's direct reply-to and is none
//! closes the whole connection it is used on (541 on 3.10.8), so nothing else happens on this one. Whoever was under
//! way when it closed is sent again alone, one after the other: the one that closes it again is dropped, the others
//! arrive.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::link::Link;
use super::topology::Topology;
use crate::broker::{Asker, Replier};

/// Answers under way at once; beyond it callers queue.
const WINDOW: usize = 256;
/// Nobody waits longer to get rid of an answer.
const WAIT: Duration = Duration::from_secs(10);
/// A broker that confirms nothing for this long is as good as gone.
const CONFIRM_WAIT: Duration = Duration::from_secs(5);
/// Closed connections that an answer may have been under way on.
const LOSSES_MAX: u8 = 2;
/// What nobody has fetched by then is not waited for; without it answers would pile up in queues of callers long gone.
const EXPIRATION_MS: &str = "60000";

/// The task that answers callers, and the way to it.
pub struct Replies {
    requests: mpsc::Sender<Request>,
    topology: Topology,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Request {
    to: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    done: oneshot::Sender<()>,
    /// Connections that closed while it was under way.
    losses: u8,
}

impl Replies {
    pub(super) fn start(link: Link, topology: Topology) -> Replies {
        let (requests, inbox) = mpsc::channel(WINDOW);
        let stop = CancellationToken::new();
        let owner = Owner { link, inbox, suspects: VecDeque::new(), stop: stop.clone() };
        Replies { requests, topology, stop, task: tokio::spawn(owner.run()) }
    }

    /// Waits for what is under way and closes the connection.
    pub async fn close(self) {
        drop(self.requests);
        if timeout(Duration::from_secs(2), self.task).await.is_err() {
            self.stop.cancel();
        }
    }

    async fn send(&self, asker: Asker, replies: u32, body: Vec<u8>) {
        let Some(to) = asker.reply_to.as_deref() else { return counted("nowhere") };
        if self.topology.owns_queue(to) {
            debug!("a call wants its answer in a queue of ours, which is not done");
            return counted("own_queue");
        }
        let Ok(to) = ShortString::try_new(to) else { return counted("nowhere") };
        let (done, answered) = oneshot::channel();
        let properties = properties(&asker, replies);
        let sent = async {
            let request = Request { to, properties, body, done, losses: 0 };
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        match timeout(WAIT, sent).await {
            Ok(Some(())) => counted("sent"),
            Ok(None) => counted("dropped"),
            Err(_) => counted("late"),
        }
    }
}

impl Replier for Replies {
    fn reply(
        &self,
        asker: Asker,
        replies: u32,
        body: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.send(asker, replies, body))
    }
}

fn counted(ending: &'static str) {
    metrics::counter!("paperboy_replies_total", "ending" => ending).increment(1);
}

/// Nothing of a call but its correlation id goes back.
fn properties(asker: &Asker, replies: u32) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("paperboy-replies".into(), AMQPValue::LongInt(i32::try_from(replies).unwrap_or(i32::MAX)));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_expiration(EXPIRATION_MS.into())
        .with_headers(headers);
    match asker.correlation_id.as_deref().and_then(|id| ShortString::try_new(id).ok()) {
        Some(id) => properties.with_correlation_id(id),
        None => properties,
    }
}

struct Owner {
    link: Link,
    inbox: mpsc::Receiver<Request>,
    /// Were under way when a connection closed; sent alone, before anything else.
    suspects: VecDeque<Request>,
    stop: CancellationToken,
}

/// Why a connection is no longer used.
enum End {
    /// Nobody is left who could ask.
    Finished,
    Lost,
}

impl Owner {
    async fn run(mut self) {
        // The first one is waited for before anything is dialled.
        while !self.suspects.is_empty() || self.wait_for_one().await {
            let Some(connection) = self.link.redial(&self.stop).await else { return };
            let end = self.serve(&connection).await;
            let _ = timeout(Duration::from_secs(1), connection.close(200, "bye".into())).await;
            if let End::Finished = end {
                return;
            }
        }
    }

    async fn wait_for_one(&mut self) -> bool {
        let first = self.inbox.recv().await;
        self.suspects.extend(first);
        !self.suspects.is_empty()
    }

    async fn serve(&mut self, connection: &Connection) -> End {
        let Ok(channel) = open(connection).await else {
            // A broker that accepts connections and no channels is not asked in a busy loop.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return End::Lost;
        };
        while let Some(suspect) = self.suspects.pop_front() {
            if suspect.done.is_closed() {
                continue;
            }
            let (request, is_confirmed) = publish(channel.clone(), suspect).await;
            if !is_confirmed {
                self.suspect(request);
                return End::Lost;
            }
            let _ = request.done.send(());
        }
        let mut under_way = FuturesUnordered::<BoxFuture<'static, (Request, bool)>>::new();
        loop {
            tokio::select! {
                biased;
                Some((request, is_confirmed)) = under_way.next(), if !under_way.is_empty() => {
                    if is_confirmed {
                        let _ = request.done.send(());
                        continue;
                    }
                    self.suspect(request);
                    // All of these end: the connection is gone, or they have waited long enough.
                    while let Some((request, is_confirmed)) = under_way.next().await {
                        if is_confirmed {
                            let _ = request.done.send(());
                        } else {
                            self.suspect(request);
                        }
                    }
                    return End::Lost;
                }
                request = self.inbox.recv(), if under_way.len() < WINDOW => match request {
                    // Who waited for it to be sent has given up.
                    Some(request) if request.done.is_closed() => {}
                    Some(request) => under_way.push(publish(channel.clone(), request).boxed()),
                    None if under_way.is_empty() => return End::Finished,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                },
            }
        }
    }

    /// Keeps it for another try, unless it has closed connections enough.
    fn suspect(&mut self, mut request: Request) {
        request.losses += 1;
        if request.losses < LOSSES_MAX {
            self.suspects.push_back(request);
        } else {
            warn!(
                "an answer is dropped: RabbitMQ closed the connection over its `reply_to`, or was gone twice"
            );
        }
    }
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes and waits for the confirm. Not mandatory: a caller that has gone is nobody's fault.
async fn publish(channel: Channel, request: Request) -> (Request, bool) {
    let published = async {
        let (options, properties) = (BasicPublishOptions::default(), request.properties.clone());
        let to = request.to.clone();
        channel.basic_publish("".into(), to, options, &request.body, properties).await?.await
    };
    let is_confirmed = matches!(timeout(CONFIRM_WAIT, published).await, Ok(Ok(_)));
    (request, is_confirmed)
}
