//! What befell each delivery, handed over to the delivery log without ever waiting for it.
//!
//! A record is plain data: shared texts and numbers, nothing is formatted here. It goes into a bounded line that
//! one owner empties about once a second; when the line is full the record is dropped and counted. Whoever
//! hands over wakes nobody: the owner looks by itself, since a wake-up costs more than the record.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock;
use super::report::Attempted;
use crate::broker::Tags;
use crate::domain::cause::Cause;
use crate::domain::event::Event;
use crate::domain::name::SubscriptionId;
use crate::domain::outcome::Outcome;
use crate::domain::retry::{Reason, Verdict};
use crate::domain::statuses::Seen;
use crate::store::deliveries::{LogError, Record, RecordLog, What};

/// Records on their way to the log; at 250 bytes each, a few megabytes.
const LINE: usize = 16 * 1024;
/// Records written in one transaction.
const BATCH: usize = 8 * 1024;
/// How often the line is emptied.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after a log that could not be written.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a write may take, and how long a stop waits for the last one.
const WRITE_MAX: Duration = Duration::from_secs(30);
const LAST_WRITE_MAX: Duration = Duration::from_secs(3);
/// How often old days are looked for.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);

/// What is worth a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    All,
    /// All but deliveries that succeeded at the first attempt, and events that nobody wanted.
    Failures,
    Nothing,
}

/// The end of the line that the worker holds; clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    recorded: Recorded,
    line: Option<mpsc::Sender<Record>>,
}

/// The other end, for [`Records::run`].
pub struct Records {
    line: mpsc::Receiver<Record>,
}

/// A line with its two ends.
pub fn line(recorded: Recorded) -> (Recorder, Records) {
    let (sender, receiver) = mpsc::channel(LINE);
    let line = (recorded != Recorded::Nothing).then_some(sender);
    (Recorder { recorded, line }, Records { line: receiver })
}

impl Recorder {
    /// One that records nothing.
    pub fn nothing() -> Recorder {
        Recorder { recorded: Recorded::Nothing, line: None }
    }

    /// An attempt that began at `at_ms` was judged; `tags` are those its message came with.
    pub(super) fn attempted(&self, attempted: &Attempted<'_>, tags: &Tags, verdict: &Verdict, at_ms: i64) {
        let Attempted { event, subscription, attempt, answer, .. } = *attempted;
        let (what, reason, wait) = match verdict {
            // Done with, and not taken: interactive.
            Verdict::Done if !matches!(attempted.outcome, Outcome::Delivered { .. }) => {
                (What::Answered, None, None)
            }
            Verdict::Done => (What::Delivered, None, None),
            Verdict::Retry { wait } => (What::Retry, None, Some(*wait)),
            Verdict::Dead(reason) => (What::Dead, Some(*reason), None),
        };
        let at_first = what == What::Delivered && attempt == 1 && tags.cycle == 0;
        if at_first && self.recorded == Recorded::Failures {
            return;
        }
        let status = match answer.seen {
            Seen::Status(status) => Some(status),
            Seen::Failure(_) => None,
        };
        self.hand_over(|| Record {
            subscription: Some(subscription.id.clone()),
            attempt,
            status,
            cause: (what != What::Delivered).then(|| answer.cause()),
            reason,
            elapsed_ms: Some(answer.elapsed_ms),
            wait,
            ..record(what, event, tags, at_ms)
        });
    }

    /// A delivery was given up without an attempt.
    pub(super) fn dead(&self, event: &Event<'_>, tags: &Tags, reason: Reason, cause: Option<Cause>) {
        let at_ms = clock::now_ms();
        self.hand_over(|| Record { reason: Some(reason), cause, ..record(What::Dead, event, tags, at_ms) });
    }

    /// A delivery, or an event without its subscription, was put off for so many units.
    pub(super) fn deferred(&self, event: &Event<'_>, tags: &Tags, wait: u32, at_ms: i64) {
        self.hand_over(|| Record { wait: Some(wait), ..record(What::Deferred, event, tags, at_ms) });
    }

    /// Nobody wanted an event.
    pub(super) fn unmatched(&self, event: &Event<'_>, tags: &Tags, at_ms: i64) {
        if self.recorded == Recorded::Failures {
            return;
        }
        self.hand_over(|| record(What::Unmatched, event, tags, at_ms));
    }

    fn hand_over(&self, record: impl FnOnce() -> Record) {
        let Some(line) = &self.line else { return };
        match line.try_reserve() {
            Ok(place) => place.send(record()),
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => dropped(1),
        }
    }
}

/// What every record says.
fn record(what: What, event: &Event<'_>, tags: &Tags, at_ms: i64) -> Record {
    Record {
        what,
        at_ms,
        // A fresh event was first seen just now.
        received_ms: tags.first_seen_ms.or(Some(at_ms)),
        event: event.id.clone(),
        kind: event.kind.clone(),
        tenant: event.tenant.clone(),
        document: event.document_id.as_deref().map(Box::from),
        batch: event.batch_id.as_deref().map(Box::from),
        subscription: tags.subscription.as_deref().and_then(|id| SubscriptionId::parse(id).ok()),
        attempt: tags.attempt,
        cycle: tags.cycle,
        status: None,
        cause: None,
        reason: None,
        elapsed_ms: None,
        wait: None,
    }
}

fn dropped(records: usize) {
    metrics::counter!("paperboy_delivery_log_dropped_total").increment(records as u64);
}

impl Records {
    /// Writes what is handed over until `stop`, then what is left; drops days older than `days` whole ones at
    /// the start and every hour.
    pub async fn run(mut self, mut log: impl RecordLog, days: u32, stop: CancellationToken) {
        let mut batch: Vec<Record> = Vec::new();
        let mut forget_at = Instant::now();
        let mut is_written = true;
        loop {
            if Instant::now() >= forget_at {
                forget(&mut log, days).await;
                forget_at = Instant::now() + RETENTION_PAUSE;
            }
            let pause = if is_written { PAUSE } else { PAUSE_AFTER_FAILURE };
            let is_last = stop.run_until_cancelled(sleep(pause)).await.is_none();
            loop {
                self.fill(&mut batch);
                if batch.is_empty() {
                    break;
                }
                let limit = if is_last { LAST_WRITE_MAX } else { WRITE_MAX };
                is_written = write(&mut log, &mut batch, is_written, limit).await;
                if !is_written {
                    break;
                }
            }
            if is_last {
                dropped(batch.len());
                return;
            }
        }
    }

    /// Takes what has come, as much as is written at once.
    fn fill(&mut self, batch: &mut Vec<Record>) {
        while batch.len() < BATCH {
            match self.line.try_recv() {
                Ok(record) => batch.push(record),
                Err(_) => return,
            }
        }
    }
}

/// Writes the batch and empties it; it stays where the log cannot be written at the moment, so that a short
/// fault costs nothing and a long one costs what no longer fits the line.
async fn write(
    log: &mut impl RecordLog,
    batch: &mut Vec<Record>,
    was_written: bool,
    limit: Duration,
) -> bool {
    match timeout(limit, log.write(batch)).await {
        Ok(Ok(())) => {
            metrics::counter!("paperboy_delivery_log_written_total").increment(batch.len() as u64);
            if !was_written {
                info!("the delivery log is written again");
            }
            batch.clear();
            true
        }
        Ok(Err(error @ LogError::Refused(_))) => {
            warn!(records = batch.len(), "{error}");
            dropped(batch.len());
            batch.clear();
            true
        }
        Ok(Err(error @ LogError::Unavailable(_))) => failed(&error.to_string(), was_written),
        Err(_) => failed("the delivery log cannot be written: no answer", was_written),
    }
}

fn failed(why: &str, was_written: bool) -> bool {
    metrics::counter!("paperboy_delivery_log_failures_total").increment(1);
    if was_written {
        warn!("{why}; deliveries go on");
    }
    false
}

async fn forget(log: &mut impl RecordLog, days: u32) {
    match log.forget(days, clock::now_ms()).await {
        Ok(0) => {}
        Ok(dropped) => info!(dropped, "dropped {dropped} days of the delivery log"),
        Err(error) => warn!("old days of the delivery log stay: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::domain::event::Hints;

    /// Keeps what it is given, or fails while it is told to.
    #[derive(Clone, Default)]
    struct Log {
        written: Arc<Mutex<Vec<Record>>>,
        is_full: Arc<Mutex<bool>>,
        forgotten: Arc<Mutex<u32>>,
    }

    impl RecordLog for Log {
        async fn write(&mut self, records: &[Record]) -> Result<(), LogError> {
            if *self.is_full.lock().unwrap() {
                return Err(LogError::Unavailable("the disk is full".to_owned()));
            }
            self.written.lock().unwrap().extend_from_slice(records);
            Ok(())
        }

        async fn forget(&mut self, _: u32, _: i64) -> anyhow::Result<u64> {
            *self.forgotten.lock().unwrap() += 1;
            Ok(0)
        }
    }

    impl Log {
        fn count(&self) -> usize {
            self.written.lock().unwrap().len()
        }
    }

    fn hand_over(recorder: &Recorder, count: usize) {
        let hints = Hints { time: Some("2026-11-22T09:00:00Z"), ..Hints::default() };
        let event = Event::parse(br#"{"id":"evt_1","type":"a","tenant":"acme"}"#, &hints).unwrap();
        for _ in 0..count {
            recorder.unmatched(&event, &Tags::default(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_written_within_a_second_or_two_and_the_rest_at_the_end() {
        let (log, stop) = (Log::default(), CancellationToken::new());
        let (recorder, records) = line(Recorded::All);
        let task = tokio::spawn(records.run(log.clone(), 7, stop.clone()));
        hand_over(&recorder, LINE);
        sleep(PAUSE * 2).await;
        assert_eq!(log.count(), LINE);
        hand_over(&recorder, 3);
        stop.cancel();
        task.await.unwrap();
        assert_eq!(log.count(), LINE + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_drops_records_and_holds_nobody_up() {
        let log = Log::default();
        let (recorder, records) = line(Recorded::All);
        hand_over(&recorder, LINE + 500);
        let stop = CancellationToken::new();
        stop.cancel();
        records.run(log.clone(), 7, stop).await;
        assert_eq!(log.count(), LINE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_disk_refused_is_written_once_there_is_room() {
        let (log, stop) = (Log::default(), CancellationToken::new());
        let (recorder, records) = line(Recorded::All);
        let task = tokio::spawn(records.run(log.clone(), 7, stop.clone()));
        *log.is_full.lock().unwrap() = true;
        hand_over(&recorder, 10);
        sleep(PAUSE_AFTER_FAILURE * 4).await;
        assert_eq!(log.count(), 0);
        hand_over(&recorder, 10);
        *log.is_full.lock().unwrap() = false;
        sleep(PAUSE_AFTER_FAILURE * 2).await;
        assert_eq!(log.count(), 20);
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn old_days_are_looked_for_every_hour() {
        let (log, stop) = (Log::default(), CancellationToken::new());
        let (_recorder, records) = line(Recorded::Nothing);
        let task = tokio::spawn(records.run(log.clone(), 7, stop.clone()));
        sleep(RETENTION_PAUSE * 3 + PAUSE).await;
        stop.cancel();
        task.await.unwrap();
        assert!((3..=4).contains(&*log.forgotten.lock().unwrap()));
    }
}
