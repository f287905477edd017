//! The one task that publishes: it alone calls `basic_publish` and judges the confirms, which say less than they
//! seem to; [`super::returns`] tells what.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::codec;
use super::groups::Groups;
use super::health::{self, Health};
use super::link::{Link, Pauses};
use super::returns::{Fate, Returns};
use super::topology::Topology;
use crate::broker::{Outgoing, Target, Unconfirmed};

/// Confirms waited for at once; beyond it publishers queue.
const WINDOW: usize = 2048;
/// A confirm that takes longer, with no alarm, is not coming.
const CONFIRM_WAIT: Duration = Duration::from_secs(30);
/// lapin works an acknowledgement off in microseconds; after this long every return of it has been seen.
const JUDGE_LATER: Duration = Duration::from_millis(250);
/// The topology is put right at most this often.
const MEND_PAUSE: Duration = Duration::from_secs(1);
/// Pauses before a returned message is published again: at once where the topology could be mended, then
/// until a person has mended it.
const STRAY_PAUSES_MS: [u64; 4] = [100, 1_000, 2_000, 5_000];

/// Handle to the publishing task.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    health: Arc<Health>,
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

/// A hop that is under way.
struct Hop {
    published_at: Instant,
    /// The group it belongs to; 0 for one that was published again.
    group: u64,
    request: Request,
}

impl Publisher {
    /// Starts publishing over `connection`, dialling `link` again whenever it is gone.
    pub(super) fn start(link: Link, connection: Connection, topology: Topology, declare: bool) -> Publisher {
        let (requests, inbox) = mpsc::channel(WINDOW);
        let stop = CancellationToken::new();
        let health = Arc::new(Health::new());
        let owner = Owner { link, topology, declare, inbox, health: Arc::clone(&health), stop: stop.clone() };
        Publisher { requests, health, stop, task: tokio::spawn(owner.run(connection)) }
    }

    /// What is wrong with publishing.
    pub(super) fn health(&self) -> &Health {
        &self.health
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
        let mut pauses = Pauses::new();
        while let Some(open) = connection.take() {
            self.health.connected();
            let lost = CancellationToken::new();
            let watcher =
                tokio::spawn(health::watch(open.events_listener(), Arc::clone(&self.health), lost.clone()));
            let began = Instant::now();
            let ended = self.serve(&open, &lost).await;
            watcher.abort();
            let Err(reason) = ended else {
                let _ = open.close(200, "bye".into()).await;
                return;
            };
            warn!("the publishing connection is gone: {reason}");
            self.health.disconnected(&reason);
            drop(open);
            pauses.wait(began.elapsed(), &self.stop).await;
            connection = self.link.redial(&self.stop).await;
            // The exchange itself may be gone: publishing to it would only end the channel.
            if let Some(open) = &connection {
                self.mend(open).await;
            }
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
        let mut mended_at: Option<Instant> = None;
        loop {
            let is_blocked = self.health.is_blocked();
            if !is_blocked {
                line.publish_group(&self.topology);
            }
            let left = WINDOW.saturating_sub(line.waiting.len() + line.groups.len());
            let room = left > 0 && !is_blocked;
            let group_due = line.groups.due().filter(|_| !is_blocked);
            let stray_due = line.strays.front().map(|(due, _)| *due);
            let doubt_due = line.doubtful.front().map(|(due, _, _)| *due);
            tokio::select! {
                biased;
                () = lost.cancelled() => return Err("lost".into()),
                () = self.stop.cancelled() => return Ok(()),
                Some(first) = line.confirms.next(), if !line.confirms.is_empty() => {
                    line.take_in(first, &self.health)?;
                    if line.wants_mending && mended_at.is_none_or(|at| at.elapsed() > MEND_PAUSE) {
                        line.wants_mending = false;
                        self.mend(connection).await;
                        mended_at = Some(Instant::now());
                    }
                }
                () = until(doubt_due) => line.judge_doubtful(&self.health),
                () = until(stray_due), if room => {
                    if let Some((_, request)) = line.strays.pop_front() {
                        line.publish(&self.topology, request, 0);
                    }
                }
                () = until(group_due) => {}
                _ = tick.tick() => line.check_age(&self.health)?,
                come = self.inbox.recv_many(line.groups.door(), left), if room => match come {
                    0 if line.is_idle() => {
                        let _ = line.channel.close(200, "bye".into()).await;
                        return Ok(());
                    }
                    // Nobody can ask any more; what is under way is waited for.
                    0 => sleep(Duration::from_millis(1)).await,
                    _ => {}
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
    waiting: HashMap<u64, Hop>,
    /// What is to be published next.
    groups: Groups<Request>,
    returns: Returns,
    /// Confirmed, but with another hop's return: their own may still come.
    doubtful: VecDeque<(Instant, u64, Request)>,
    /// Came back; to be published again when due.
    strays: VecDeque<(Instant, Request)>,
    wants_mending: bool,
    heard_at: Instant,
    /// Looked up when first used: the first connection is there before anything is kept.
    confirm_seconds: OnceLock<metrics::Histogram>,
}

impl Line {
    fn new(channel: Channel) -> Line {
        Line {
            channel,
            next_hop: 1,
            confirms: FuturesUnordered::new(),
            waiting: HashMap::new(),
            groups: Groups::new(),
            returns: Returns::default(),
            doubtful: VecDeque::new(),
            strays: VecDeque::new(),
            wants_mending: false,
            heard_at: Instant::now(),
            confirm_seconds: OnceLock::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.groups.len() == 0
            && self.doubtful.is_empty()
            && self.strays.is_empty()
    }

    /// Starts what has come together, if it may go.
    fn publish_group(&mut self, topology: &Topology) {
        let Some((number, group)) = self.groups.next(Instant::now(), |request| request.message.body.len())
        else {
            return;
        };
        for request in group {
            self.publish(topology, request, number);
        }
    }

    /// Starts one publish. Writing it is part of what is waited for: an alarm holds the write up, and must not
    /// hold up the confirms of others.
    fn publish(&mut self, topology: &Topology, request: Request, group: u64) {
        if request.reply.is_closed() {
            // Whoever asked has given up: publishing now would only make a duplicate.
            self.groups.answered(group);
            return;
        }
        let hop = self.next_hop;
        self.next_hop += 1;
        let message = &request.message;
        let (exchange, key) = topology.route(request.target, message.tags.kind.as_deref());
        let mandatory = request.target.is_mandatory();
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let properties = codec::encode(&message.tags, hop);
        let (channel, body) = (self.channel.clone(), message.body.clone());
        self.waiting.insert(hop, Hop { published_at: Instant::now(), group, request });
        self.confirms.push(Box::pin(async move {
            let publish = channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
            let confirmed = match publish.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (hop, confirmed)
        }));
    }

    /// Takes in every confirm that is ready, returns first, and judges them.
    fn take_in(&mut self, first: (u64, lapin::Result<Confirmation>), health: &Health) -> Result<(), String> {
        let mut ready = vec![first];
        // The set may yield before it is through; twice nothing is nothing.
        let mut nothing = 0;
        while nothing < 2 {
            match self.confirms.next().now_or_never() {
                Some(Some(next)) => ready.push(next),
                Some(None) => break,
                None => nothing += 1,
            }
        }
        self.heard_at = Instant::now();
        let mut carried = Vec::with_capacity(ready.len());
        for (hop, confirmation) in ready {
            let message = match confirmation.map_err(|error| error.to_string())? {
                Confirmation::Ack(message) => message,
                Confirmation::Nack(message) => {
                    self.answer(hop, Err(Unconfirmed::Refused));
                    message
                }
                Confirmation::NotRequested => return Err("confirms are off on the publishing channel".into()),
            };
            let returned = match message {
                Some(message) => Some(
                    codec::hop_of(&message.delivery.properties)
                        .ok_or("the broker returned a message that is not ours")?,
                ),
                None => None,
            };
            carried.push((hop, returned));
        }
        for (hop, fate) in self.returns.take_in(&carried) {
            // Gone already: its asker was told that it was refused, or that its fate is unknown.
            let Some((published_at, request)) = self.take(hop) else { continue };
            let seconds =
                self.confirm_seconds.get_or_init(|| metrics::histogram!("paperboy_confirm_seconds"));
            seconds.record(published_at.elapsed().as_secs_f64());
            match fate {
                Fate::Doubtful => self.doubtful.push_back((Instant::now() + JUDGE_LATER, hop, request)),
                Fate::CameBack => self.stray(request, health),
                Fate::Arrived => arrived(request, health),
            }
        }
        Ok(())
    }

    fn answer(&mut self, hop: u64, answer: Result<(), Unconfirmed>) {
        if let Some((_, request)) = self.take(hop) {
            let _ = request.reply.send(answer);
        }
    }

    /// Takes out a hop that is no longer waited for.
    fn take(&mut self, hop: u64) -> Option<(Instant, Request)> {
        let Hop { published_at, group, request } = self.waiting.remove(&hop)?;
        self.groups.answered(group);
        Some((published_at, request))
    }

    /// By now every return of the acknowledgements that brought these has been seen.
    fn judge_doubtful(&mut self, health: &Health) {
        let now = Instant::now();
        while self.doubtful.front().is_some_and(|(due, _, _)| *due <= now) {
            let Some((_, hop, request)) = self.doubtful.pop_front() else { return };
            match self.returns.settle(hop) {
                Fate::CameBack => self.stray(request, health),
                Fate::Arrived | Fate::Doubtful => arrived(request, health),
            }
        }
    }

    fn stray(&mut self, mut request: Request, health: &Health) {
        metrics::counter!("paperboy_returned_total").increment(1);
        let target = request.target;
        // Once per trouble, not once per try.
        if health.came_back(target) {
            error!(
                target_queue = ?target,
                "RabbitMQ returned a message: its queue or binding is missing; the source stays unacknowledged"
            );
        }
        self.wants_mending = true;
        let pause_ms = STRAY_PAUSES_MS[request.returns.min(STRAY_PAUSES_MS.len() - 1)];
        request.returns += 1;
        let due = Instant::now() + Duration::from_millis(pause_ms);
        let place = self.strays.partition_point(|(earlier, _)| *earlier <= due);
        self.strays.insert(place, (due, request));
    }

    /// Tells askers whose confirm is overdue that its fate is unknown: one queue without a majority must not
    /// end everybody's connection. Only silence on the whole channel does.
    fn check_age(&mut self, health: &Health) -> Result<(), String> {
        if health.is_blocked() {
            return Ok(());
        }
        let unblocked_at = health.unblocked_at();
        let since = |at: Instant| unblocked_at.map_or(at, |unblocked| unblocked.max(at));
        let overdue: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, hop)| since(hop.published_at).elapsed() > CONFIRM_WAIT)
            .map(|(hop, _)| *hop)
            .collect();
        if !overdue.is_empty() && since(self.heard_at).elapsed() > CONFIRM_WAIT {
            return Err(format!("no confirm for {} s", CONFIRM_WAIT.as_secs()));
        }
        for hop in overdue {
            let why = format!("no confirm for {} s", CONFIRM_WAIT.as_secs());
            self.answer(hop, Err(Unconfirmed::Unknown(why)));
        }
        Ok(())
    }
}

fn arrived(request: Request, health: &Health) {
    health.arrived(request.target);
    // The asker may have gone; the message is where it belongs all the same.
    let _ = request.reply.send(Ok(()));
}

impl Drop for Line {
    /// Everything still under way has an unknown fate; the askers decide.
    fn drop(&mut self) {
        let waiting = self.waiting.drain().map(|(_, hop)| hop.request).chain(self.groups.drain());
        let doubtful = self.doubtful.drain(..).map(|(_, _, request)| request);
        for request in waiting.chain(doubtful).chain(self.strays.drain(..).map(|(_, request)| request)) {
            let _ = request.reply.send(Err(Unconfirmed::Unknown("the connection was lost".into())));
        }
    }
}
