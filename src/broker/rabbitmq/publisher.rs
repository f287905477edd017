//! The one task that publishes: it alone calls `basic_publish` and reads the confirms in that order.
//!
//! RabbitMQ confirms an unroutable message positively and lapin shows its return inside *some* confirm, often
//! another publish's. With one owner per channel, every confirm in one `FuturesUnordered` in the order of
//! publishing, a hop's return is always seen before its own confirm (measured: none missed). So a hop is safe
//! when its confirm came and its return did not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, Event};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::codec;
use super::link::{Link, pauses};
use super::topology::Topology;
use crate::broker::{Outgoing, Target, Unconfirmed};

/// Confirms waited for at once; beyond it publishers queue.
const WINDOW: usize = 2048;
/// A confirm that takes longer, with no alarm, is not coming.
const CONFIRM_WAIT: Duration = Duration::from_secs(30);
/// Pauses before a returned message is published again: at once where the topology could be mended, then
/// until a person has mended it.
const STRAY_PAUSES_MS: [u64; 4] = [100, 1_000, 2_000, 5_000];

/// Handle to the publishing task.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    fault: watch::Receiver<Option<String>>,
    held: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Request {
    target: Target,
    message: Outgoing,
    reply: oneshot::Sender<Result<(), Unconfirmed>>,
    /// How often the broker returned it.
    returns: usize,
}

impl Publisher {
    /// Starts publishing over `connection`, dialling `link` again whenever it is gone.
    pub(super) fn start(link: Link, connection: Connection, topology: Topology, declare: bool) -> Publisher {
        let (requests, inbox) = mpsc::channel(WINDOW);
        let (tell_fault, fault) = watch::channel(None);
        let (tell_held, held) = watch::channel(None);
        let stop = CancellationToken::new();
        let health =
            Arc::new(Health { fault: tell_fault, held: tell_held, facts: std::sync::Mutex::default() });
        let owner = Owner { link, topology, declare, inbox, health, stop: stop.clone() };
        Publisher { requests, fault, held, stop, task: tokio::spawn(owner.run(connection)) }
    }

    /// Everything that is wrong, a missing queue included.
    pub(super) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.clone()
    }

    /// What keeps every publish from going out: no connection, an alarm.
    pub(super) fn held(&self) -> watch::Receiver<Option<String>> {
        self.held.clone()
    }

    pub(super) async fn publish(&self, target: Target, message: Outgoing) -> Result<(), Unconfirmed> {
        let (reply, answer) = oneshot::channel();
        let request = Request { target, message, reply, returns: 0 };
        self.requests.send(request).await.map_err(|_| Unconfirmed::Closed)?;
        answer.await.map_err(|_| Unconfirmed::Closed)?
    }

    pub(super) async fn close(self) {
        drop(self.requests);
        if timeout(Duration::from_secs(5), self.task).await.is_err() {
            warn!("the publishing connection did not close in time");
            self.stop.cancel();
        }
    }
}

/// What is known to be wrong, boiled down to one sentence for readiness.
struct Health {
    fault: watch::Sender<Option<String>>,
    held: watch::Sender<Option<String>>,
    facts: std::sync::Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    down: Option<String>,
    blocked: Option<String>,
    unroutable: Option<String>,
    unblocked_at: Option<Instant>,
}

impl Health {
    fn update(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut facts);
        let held = facts.down.clone().or(facts.blocked.clone());
        set(&self.fault, held.clone().or(facts.unroutable.clone()));
        set(&self.held, held);
    }

    fn is_unroutable(&self) -> bool {
        self.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).unroutable.is_some()
    }

    fn is_blocked(&self) -> bool {
        self.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).blocked.is_some()
    }

    fn unblocked_at(&self) -> Option<Instant> {
        self.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).unblocked_at
    }
}

fn set(watched: &watch::Sender<Option<String>>, value: Option<String>) {
    watched.send_if_modified(|known| {
        let changed = *known != value;
        *known = value;
        changed
    });
}

struct Owner {
    link: Link,
    topology: Topology,
    declare: bool,
    inbox: mpsc::Receiver<Request>,
    health: Arc<Health>,
    stop: CancellationToken,
}

impl Owner {
    async fn run(mut self, first: Connection) {
        let mut connection = Some(first);
        let mut pauses = pauses();
        while let Some(open) = connection.take() {
            self.health.update(|facts| *facts = Facts::default());
            let lost = CancellationToken::new();
            let watcher = tokio::spawn(watch(open.events_listener(), Arc::clone(&self.health), lost.clone()));
            let began = Instant::now();
            let ended = self.serve(&open, &lost).await;
            watcher.abort();
            let Err(reason) = ended else {
                let _ = open.close(200, "bye".into()).await;
                return;
            };
            warn!("the publishing connection is gone: {reason}");
            self.health.update(|facts| facts.down = Some(format!("publishing connection: {reason}")));
            drop(open);
            if began.elapsed() > Duration::from_secs(10) {
                pauses = super::link::pauses();
            }
            sleep(pauses.next().unwrap_or(Duration::from_secs(5))).await;
            connection = self.link.redial(&self.stop).await;
        }
    }

    /// Publishes until the connection is gone (`Err`) or nobody is left who could ask (`Ok`).
    async fn serve(&mut self, connection: &Connection, lost: &CancellationToken) -> Result<(), String> {
        let opened = tokio::select! {
            opened = open_channel(connection) => opened,
            () = lost.cancelled() => return Err("lost".into()),
        };
        let channel = opened.map_err(|error| error.to_string())?;
        let mut line = Line::new(channel);
        let mut tick = interval(Duration::from_secs(1));
        loop {
            let room = line.waiting.len() < WINDOW && !self.health.is_blocked();
            let stray_due = line.strays.front().map(|(due, _)| *due);
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err("lost".into()),
                () = self.stop.cancelled() => return Ok(()),
                Some((hop, confirmation)) = line.confirms.next(), if !line.confirms.is_empty() => {
                    let confirmation = confirmation.map_err(|error| error.to_string())?;
                    if line.confirmed(hop, confirmation, &self.health)? {
                        self.mend(connection).await;
                    }
                }
                () = until(stray_due), if room => {
                    if let Some((_, request)) = line.strays.pop_front() {
                        line.publish(&self.topology, request, lost).await?;
                    }
                }
                _ = tick.tick() => line.check_age(&self.health)?,
                request = self.inbox.recv(), if room => match request {
                    Some(request) => line.publish(&self.topology, request, lost).await?,
                    None if line.waiting.is_empty() && line.strays.is_empty() => {
                        let _ = line.channel.close(200, "bye".into()).await;
                        return Ok(());
                    }
                    // Nobody can ask any more; what is under way is waited for.
                    None => sleep(Duration::from_millis(1)).await,
                },
            }
        }
    }

    /// Puts the topology right after a return; what cannot be mended is tried again with the stray.
    async fn mend(&self, connection: &Connection) {
        if !self.declare {
            return;
        }
        if let Err(error) = self.topology.ensure(connection, true).await {
            error!("the topology cannot be declared again: {error}");
        }
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Follows alarms and the end of a connection, apart from the loop that such an alarm holds up.
async fn watch(
    mut events: impl futures_util::Stream<Item = Event> + Unpin,
    health: Arc<Health>,
    lost: CancellationToken,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                warn!("RabbitMQ blocks publishing: {reason}");
                health.update(|facts| facts.blocked = Some(format!("RabbitMQ blocks publishing: {reason}")));
            }
            Event::ConnectionUnblocked => health.update(|facts| {
                facts.blocked = None;
                facts.unblocked_at = Some(Instant::now());
            }),
            Event::Error(error) => {
                warn!("connection error: {error}");
                break;
            }
            _ => {}
        }
    }
    lost.cancel();
}

/// Waits until then; for ever where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

type Confirm = futures_util::future::BoxFuture<'static, (u64, lapin::Result<Confirmation>)>;

/// One channel with what is under way on it.
struct Line {
    channel: Channel,
    next_hop: u64,
    confirms: FuturesUnordered<Confirm>,
    waiting: HashMap<u64, (Instant, Request)>,
    returned: HashSet<u64>,
    strays: VecDeque<(Instant, Request)>,
}

impl Line {
    fn new(channel: Channel) -> Line {
        Line {
            channel,
            next_hop: 1,
            confirms: FuturesUnordered::new(),
            waiting: HashMap::new(),
            returned: HashSet::new(),
            strays: VecDeque::new(),
        }
    }

    async fn publish(
        &mut self,
        topology: &Topology,
        request: Request,
        lost: &CancellationToken,
    ) -> Result<(), String> {
        if request.reply.is_closed() {
            // Whoever asked has given up: publishing now would only make a duplicate.
            return Ok(());
        }
        let hop = self.next_hop;
        self.next_hop += 1;
        let message = &request.message;
        let (exchange, key) = topology.route(request.target, message.tags.kind.as_deref());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = codec::encode(&message.tags, hop);
        let publish =
            self.channel.basic_publish(exchange.into(), key.into(), options, &message.body, properties);
        // An alarm holds this call up; a lost connection must not.
        let written = tokio::select! {
            written = publish => written,
            () = lost.cancelled() => return Err("lost".into()),
        };
        let confirm = written.map_err(|error| error.to_string())?;
        self.waiting.insert(hop, (Instant::now(), request));
        self.confirms.push(Box::pin(async move { (hop, confirm.await) }));
        Ok(())
    }

    /// Takes one confirm in; true when a message came back and the topology wants mending.
    fn confirmed(&mut self, hop: u64, confirmation: Confirmation, health: &Health) -> Result<bool, String> {
        let (refused, message) = match confirmation {
            Confirmation::Ack(message) => (false, message),
            Confirmation::Nack(message) => (true, message),
            Confirmation::NotRequested => return Err("confirms are off on the publishing channel".into()),
        };
        if let Some(message) = message {
            match codec::hop_of(&message.delivery.properties) {
                Some(hop) => self.returned.insert(hop),
                None => return Err("the broker returned a message that is not ours".into()),
            };
        }
        let Some((_, request)) = self.waiting.remove(&hop) else { return Ok(false) };
        if self.returned.remove(&hop) {
            self.stray(request, health);
            return Ok(true);
        }
        // Well again once a message that came back has arrived and no other is left.
        if request.returns > 0
            && self.strays.is_empty()
            && self.waiting.values().all(|(_, other)| other.returns == 0)
        {
            health.update(|facts| facts.unroutable = None);
        }
        let answer = if refused { Err(Unconfirmed::Refused) } else { Ok(()) };
        // The asker may have gone; the message is where it belongs all the same.
        let _ = request.reply.send(answer);
        Ok(false)
    }

    fn stray(&mut self, mut request: Request, health: &Health) {
        metrics::counter!("paperboy_returned_total").increment(1);
        let target = request.target;
        // Once per trouble, not once per try.
        if !health.is_unroutable() {
            error!(
                target_queue = ?target,
                "RabbitMQ returned a message: its queue or binding is missing; the source stays unacknowledged"
            );
        }
        let fault = format!(
            "RabbitMQ returned a message for {target:?}: its queue is missing (`broker.declare = true` declares it)"
        );
        health.update(|facts| facts.unroutable = Some(fault));
        let pause_ms = STRAY_PAUSES_MS[request.returns.min(STRAY_PAUSES_MS.len() - 1)];
        request.returns += 1;
        let due = Instant::now() + Duration::from_millis(pause_ms);
        let place = self.strays.partition_point(|(earlier, _)| *earlier <= due);
        self.strays.insert(place, (due, request));
    }

    fn check_age(&self, health: &Health) -> Result<(), String> {
        if health.is_blocked() {
            return Ok(());
        }
        let unblocked_at = health.unblocked_at();
        let overdue = self.waiting.values().any(|(published_at, _)| {
            let since = unblocked_at.map_or(*published_at, |at| at.max(*published_at));
            since.elapsed() > CONFIRM_WAIT
        });
        if overdue { Err(format!("no confirm for {} s", CONFIRM_WAIT.as_secs())) } else { Ok(()) }
    }
}

impl Drop for Line {
    /// Everything still under way has an unknown fate; the askers decide.
    fn drop(&mut self) {
        let waiting = self.waiting.drain().map(|(_, (_, request))| request);
        for request in waiting.chain(self.strays.drain(..).map(|(_, request)| request)) {
            let _ = request.reply.send(Err(Unconfirmed::Unknown("the connection was lost".into())));
        }
    }
}
