//! Writing down what events mean for their batches, before they are settled: one task does it for all, so that what
//! comes together costs one commit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{clock, report};
use crate::domain::batch::{Joined, Rules, Signal};
use crate::domain::event::Event;
use crate::store::batches::MembershipStore;

/// Signals written in one transaction.
const GROUP: usize = 256;
/// Signals that wait for their turn; the prefetch bounds them anyway.
const LINE: usize = 1024;
/// How long an event is kept in hand while the store does not take what it means.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long after its wait something that was put off may still be on its way back.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// What an event means for its batch could not be written down.
#[derive(Debug)]
pub(super) struct NotRecorded;

/// The worker's end of the line.
pub struct Memberships {
    line: Option<mpsc::Sender<Entry>>,
    rules: Arc<Rules>,
    unit: Duration,
    hands: Arc<Hands>,
}

/// The other end: whoever writes.
pub struct Keeper {
    line: mpsc::Receiver<Entry>,
}

struct Entry {
    signal: Signal,
    done: oneshot::Sender<Joined>,
}

/// A line for these rules, in units of this length.
pub fn line(rules: Rules, unit: Duration) -> (Memberships, Keeper) {
    let (sender, receiver) = mpsc::channel(LINE);
    let memberships =
        Memberships { line: Some(sender), rules: Arc::new(rules), unit, hands: Arc::new(Hands::default()) };
    (memberships, Keeper { line: receiver })
}

impl Memberships {
    /// Knows no batches.
    pub(super) fn nothing() -> Memberships {
        Memberships { line: None, rules: Arc::default(), unit: Duration::ZERO, hands: Arc::default() }
    }

    /// What is under way here.
    pub fn hands(&self) -> Arc<Hands> {
        Arc::clone(&self.hands)
    }

    /// Returns once what the event means for its batch is committed, or where it means nothing.
    pub(super) async fn record(&self, event: &Event<'_>, now_ms: i64) -> Result<(), NotRecorded> {
        let Some(line) = &self.line else { return Ok(()) };
        let signal = match self.rules.read(event, now_ms) {
            Ok(Some(signal)) => signal,
            Ok(None) => return Ok(()),
            Err(unkept) => {
                report::unkept_batch(event, unkept);
                return Ok(());
            }
        };
        let ticket = self.hands.ticket();
        let (done, answer) = oneshot::channel();
        let told = (signal.tenant.clone(), signal.batch.clone());
        let recording = async {
            line.send(Entry { signal, done }).await.ok()?;
            answer.await.ok()
        };
        let Ok(Some(joined)) = timeout(PATIENCE, recording).await else { return Err(NotRecorded) };
        ticket.recorded();
        report::joined_batch(event, &told.1, joined);
        Ok(())
    }

    /// Remembers that something unrecorded is put off for so many units and comes back then.
    pub(super) fn hold(&self, units: u32) {
        self.hands.hold(self.unit * units + ON_ITS_WAY);
    }
}

impl Keeper {
    /// Writes what comes until nobody is left who could send more.
    pub async fn run(mut self, store: impl MembershipStore) {
        let mut group: Vec<Entry> = Vec::with_capacity(GROUP);
        let mut is_well = true;
        loop {
            let room = GROUP - group.len();
            if group.is_empty() {
                if self.line.recv_many(&mut group, room).await == 0 {
                    return;
                }
            } else {
                while group.len() < GROUP
                    && let Ok(entry) = self.line.try_recv()
                {
                    group.push(entry);
                }
            }
            // Whoever has given up puts its event off; it comes again.
            group.retain(|entry| !entry.done.is_closed());
            if group.is_empty() {
                continue;
            }
            let signals: Vec<Signal> = group.iter().map(|entry| entry.signal.clone()).collect();
            let began = Instant::now();
            match store.record_signals(&signals, clock::now_ms()).await {
                Ok(joined) => {
                    is_well = true;
                    report::recorded_batches(signals.len(), began.elapsed());
                    for (entry, joined) in group.drain(..).zip(joined) {
                        let _ = entry.done.send(joined);
                    }
                }
                Err(error) => {
                    metrics::counter!("paperboy_batch_unrecorded_total").increment(1);
                    // Once per trouble, not once per try.
                    if is_well {
                        warn!("events with a batch stay in hand, {} of them now: {error:#}", group.len());
                    }
                    is_well = false;
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// What of batches this process has in hand, unrecorded.
#[derive(Debug, Default)]
pub struct Hands {
    tickets: Mutex<Tickets>,
    /// How often something left this process unrecorded.
    turns: AtomicU64,
}

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    open: BTreeSet<u64>,
    held_until: Option<Instant>,
}

/// One recording under way; dropped before it was done, it is a turn.
struct Ticket<'a> {
    hands: &'a Hands,
    number: u64,
    is_recorded: bool,
}

impl Hands {
    fn tickets(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self) -> Ticket<'_> {
        let mut tickets = self.tickets();
        let number = tickets.next;
        tickets.next += 1;
        tickets.open.insert(number);
        Ticket { hands: self, number, is_recorded: false }
    }

    /// Remembers that something unrecorded may come back for so long.
    pub(super) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let held = &mut self.tickets().held_until;
        *held = (*held).max(Some(until));
    }

    /// How often something left unrecorded.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// The number of the next recording, the oldest that is under way, and until when something may come back.
    pub fn look(&self) -> (u64, Option<u64>, Option<Instant>) {
        let tickets = self.tickets();
        (tickets.next, tickets.open.first().copied(), tickets.held_until)
    }
}

impl Ticket<'_> {
    fn recorded(mut self) {
        self.is_recorded = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut tickets = self.hands.tickets();
        if !self.is_recorded {
            self.hands.turns.fetch_add(1, Ordering::SeqCst);
        }
        tickets.open.remove(&self.number);
    }
}
