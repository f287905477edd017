//! One publishing channel with what is under way on it: it alone calls `basic_publish` and judges the confirms, which
//! say less than they seem to; [`super::returns`] tells what.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::codec;
use super::groups::Groups;
use super::health::Health;
use super::returns::{Fate, Returns};
use super::topology::Topology;
use crate::broker::{Outgoing, Target, Unconfirmed};

/// A confirm that takes longer, with no alarm, is a fault that is told. It may come all the same (a queue without a
/// majority keeps what it cannot confirm yet), so nothing is published a second time for it.
const CONFIRM_WAIT: Duration = Duration::from_secs(30);
/// A channel that confirms nothing at all for so long is given up with everything on it. Whether the connection lives
/// is for its heartbeat to tell.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// lapin works an acknowledgement off in microseconds; after this long every return of it has been seen.
const JUDGE_LATER: Duration = Duration::from_millis(250);
/// Pauses before a returned message is published again: at once where the topology could be mended, then
/// until a person has mended it.
const STRAY_PAUSES_MS: [u64; 4] = [100, 1_000, 2_000, 5_000];
/// Bytes of bodies that the client is writing at once, or one body: it copies what it is about to write.
const WRITTEN_AT_ONCE: usize = 2 << 20;

/// One message to be published, and who waits for its confirm.
pub(super) struct Request {
    target: Target,
    message: Outgoing,
    reply: oneshot::Sender<Result<(), Unconfirmed>>,
    /// How often the broker returned it.
    returns: usize,
}

impl Request {
    pub(super) fn new(
        target: Target,
        message: Outgoing,
        reply: oneshot::Sender<Result<(), Unconfirmed>>,
    ) -> Request {
        Request { target, message, reply, returns: 0 }
    }
}

/// A hop that is under way.
struct Hop {
    published_at: Instant,
    /// The group it belongs to; 0 for one that was published again.
    group: u64,
    request: Request,
}

type Confirm = BoxFuture<'static, (u64, lapin::Result<Confirmation>)>;

/// One channel in confirm mode; dropped, it tells all who wait that the fate of their message is unknown.
pub(super) struct Line {
    channel: Channel,
    next_hop: u64,
    pub(super) confirms: FuturesUnordered<Confirm>,
    waiting: HashMap<u64, Hop>,
    /// What is to be published next.
    pub(super) groups: Groups<Request>,
    /// Bytes that may still be handed to the client.
    room: Arc<Semaphore>,
    returns: Returns,
    /// Confirmed, but with another hop's return: their own may still come.
    doubtful: VecDeque<(Instant, u64, Request)>,
    /// Came back; to be published again when due.
    strays: VecDeque<(Instant, Request)>,
    /// Something came back since the topology was last put right.
    pub(super) wants_mending: bool,
    heard_at: Instant,
    /// Looked up when first used: the first connection is there before anything is kept.
    confirm_seconds: OnceLock<metrics::Histogram>,
}

impl Line {
    pub(super) async fn open(connection: &Connection) -> lapin::Result<Line> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Line {
            channel,
            next_hop: 1,
            confirms: FuturesUnordered::new(),
            waiting: HashMap::new(),
            groups: Groups::new(),
            room: Arc::new(Semaphore::new(WRITTEN_AT_ONCE)),
            returns: Returns::default(),
            doubtful: VecDeque::new(),
            strays: VecDeque::new(),
            wants_mending: false,
            heard_at: Instant::now(),
            confirm_seconds: OnceLock::new(),
        })
    }

    pub(super) async fn close(&mut self) {
        let _ = self.channel.close(200, "bye".into()).await;
    }

    /// Messages that wait to be published or to be confirmed.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.groups.len()
    }

    /// When the next of those that came back is to be published again.
    pub(super) fn stray_due(&self) -> Option<Instant> {
        self.strays.front().map(|(due, _)| *due)
    }

    /// When the next doubtful one can be judged.
    pub(super) fn doubt_due(&self) -> Option<Instant> {
        self.doubtful.front().map(|(due, _, _)| *due)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0 && self.doubtful.is_empty() && self.strays.is_empty()
    }

    /// Starts what has come together, if it may go.
    pub(super) fn publish_group(&mut self, topology: &Topology) {
        let Some((number, group)) = self.groups.next(Instant::now()) else { return };
        for request in group {
            self.publish(topology, request, number);
        }
    }

    /// Publishes again the first of those that came back.
    pub(super) fn publish_stray(&mut self, topology: &Topology, health: &Health) {
        let Some((_, request)) = self.strays.pop_front() else { return };
        if request.reply.is_closed() && self.strays.iter().all(|(_, other)| other.target != request.target) {
            health.given_up(request.target);
        }
        self.publish(topology, request, 0);
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
        let (channel, room, body) = (self.channel.clone(), Arc::clone(&self.room), message.body.clone());
        self.waiting.insert(hop, Hop { published_at: Instant::now(), group, request });
        self.confirms.push(Box::pin(async move {
            let permits = u32::try_from(body.len().min(WRITTEN_AT_ONCE)).unwrap_or(u32::MAX);
            let room = room.acquire_many(permits).await;
            let publish = channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
            let written = publish.await;
            drop((room, body));
            let confirmed = match written {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (hop, confirmed)
        }));
    }

    /// Takes in every confirm that is ready, returns first, and judges them.
    pub(super) fn take_in(
        &mut self,
        first: (u64, lapin::Result<Confirmation>),
        health: &Health,
    ) -> Result<(), String> {
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
    pub(super) fn judge_doubtful(&mut self, health: &Health) {
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

    /// Tells of a confirm that is overdue: one queue without a majority must not end everybody's connection, nor may
    /// its messages be published again and again. Only silence on the whole channel ends it. What nobody waits for any
    /// more is forgotten.
    pub(super) fn check_age(&mut self, health: &Health) -> Result<(), String> {
        if !self.channel.status().connected() {
            return Err("the publishing channel is closed".into());
        }
        if health.is_blocked() {
            return Ok(());
        }
        let unblocked_at = health.unblocked_at();
        let age = |at: Instant| unblocked_at.map_or(at, |unblocked| unblocked.max(at)).elapsed();
        let is_overdue = |hop: &Hop| age(hop.published_at) > CONFIRM_WAIT;
        let is_abandoned = |hop: &Hop| hop.request.reply.is_closed() && is_overdue(hop);
        let abandoned = self.waiting.iter().filter(|(_, hop)| is_abandoned(hop)).map(|(number, _)| *number);
        for number in abandoned.collect::<Vec<_>>() {
            self.take(number);
        }
        let overdue = self.waiting.values().filter(|hop| is_overdue(hop)).min_by_key(|hop| hop.published_at);
        if overdue.is_some() && age(self.heard_at) > SILENCE_MAX {
            return Err(format!("no confirm for {} s", SILENCE_MAX.as_secs()));
        }
        if let Some(target) = overdue.map(|hop| hop.request.target)
            && health.overdue(Some(target))
        {
            error!(target_queue = ?target, "RabbitMQ has not confirmed a message for {} s", CONFIRM_WAIT.as_secs());
        } else if overdue.is_none() {
            health.overdue(None);
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
