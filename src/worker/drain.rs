//! Moves dead letters from their queues into the store, where people can look at them.
//!
//! Looking into a quorum queue reorders it and counts deliveries until the broker drops messages, so the
//! queues are only a way, not a place. Acknowledged after the commit; publishing to the dead queues never
//! waits for the store.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{clock, report};
use crate::broker::{Message, Queue, Receipt, Taken};
use crate::domain::event::{Event, Hints};
use crate::domain::retry::Reason;
use crate::store::dead::{DeadLetter, Kind};
use crate::store::{DeadLetterStore, KeepError};

/// Letters kept in one transaction.
const BATCH: usize = 100;

/// The original headers kept with a message that the broker gave up on.
const ORIGINAL_BYTES_MAX: usize = 8 * 1024;

/// Keeps what comes from the dead queues until `taken` ends; `stop` ends waiting for a store that is away.
pub async fn run(store: impl DeadLetterStore, mut taken: mpsc::Receiver<Taken>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    while taken.recv_many(&mut batch, BATCH).await > 0 {
        let (letters, receipts): (Vec<_>, Vec<_>) = batch.drain(..).map(read).unzip();
        keep(&store, &letters, receipts, &stop).await;
    }
}

/// How often old letters are looked for.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);
/// Letters forgotten in one transaction.
const FORGOTTEN_AT_ONCE: u32 = 1000;

/// Forgets letters older than `age`, now and every hour until `stop`.
pub async fn forget_old(store: impl DeadLetterStore, age: Duration, stop: CancellationToken) {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    loop {
        let before_ms = clock::now_ms().saturating_sub(age_ms);
        let mut forgotten = 0;
        loop {
            match store.forget_dead(before_ms, FORGOTTEN_AT_ONCE).await {
                Ok(0) => break,
                Ok(some) => forgotten += some,
                Err(error) => {
                    warn!("old dead letters stay: {error:#}");
                    break;
                }
            }
        }
        if forgotten > 0 {
            metrics::counter!("paperboy_dead_letters_forgotten_total").increment(forgotten);
            // What is gone is gone: a line that cannot be written is worth a warning, not another try.
            if let Err(error) = store.note_forgotten(forgotten, before_ms, clock::now_ms()).await {
                warn!("that {forgotten} dead letters were forgotten is not in the audit: {error:#}");
            }
            info!(forgotten, "forgot {forgotten} dead letters older than {} days", age.as_secs() / 86_400);
        }
        tokio::select! {
            () = sleep(RETENTION_PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn read(taken: Taken) -> (DeadLetter, Receipt) {
    let letter = letter(taken.queue, &taken.message, clock::now_ms());
    if taken.message.tags.reason.is_none() {
        report::poison(&letter);
    }
    (letter, taken.receipt)
}

/// Tries until the store takes them; what it refuses for good is kept as `undrainable`.
async fn keep(
    store: &impl DeadLetterStore,
    letters: &[DeadLetter],
    receipts: Vec<Receipt>,
    stop: &CancellationToken,
) {
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let kept = match store.keep_dead(letters).await {
            Err(KeepError::Refused(_)) => keep_singly(store, letters).await,
            other => other,
        };
        match kept {
            Ok(new) => {
                metrics::counter!("paperboy_dead_letters_kept_total").increment(new as u64);
                info!(letters = letters.len(), new, "kept dead letters in the store");
                receipts.into_iter().for_each(Receipt::acknowledge);
                return;
            }
            Err(error) => warn!("dead letters stay in their queue: {error}"),
        }
        tokio::select! {
            () = sleep(pauses.next().unwrap_or(Duration::from_secs(30))) => {}
            // Dropping the receipts hands the messages back.
            () = stop.cancelled() => return,
        }
    }
}

async fn keep_singly(store: &impl DeadLetterStore, letters: &[DeadLetter]) -> Result<usize, KeepError> {
    let mut new = 0;
    for letter in letters {
        new += match store.keep_dead(std::slice::from_ref(letter)).await {
            Err(KeepError::Refused(why)) => {
                error!(reason = %letter.reason, "a dead letter is kept as `undrainable`: {why}");
                usize::from(store.keep_undrainable(letter, &why).await?)
            }
            other => other?,
        };
    }
    Ok(new)
}

/// What is kept of a dead message.
pub fn letter(queue: Queue, message: &Message, now_ms: i64) -> DeadLetter {
    let tags = &message.tags;
    let hints = Hints {
        message_id: tags.message_id.as_deref(),
        kind: tags.kind.as_deref(),
        routing_key: None,
        time: Some(tags.time.as_deref().unwrap_or("1970-01-01T00:00:00Z")),
        arrived_ms: None,
    };
    // An event that cannot be read keeps what its envelope says.
    let event = Event::parse(&message.body, &hints).ok();
    let event = event.as_ref();
    DeadLetter {
        kind: if queue == Queue::DeadEvents { Kind::Event } else { Kind::Delivery },
        // Nobody of ours wrote a reason: the broker put it here after too many returns.
        reason: tags.reason.clone().unwrap_or_else(|| Reason::Poison.as_str().to_owned()),
        tenant: event.map(|event| event.tenant.to_string()),
        event_id: event.map(|event| event.id.to_string()).or_else(|| tags.message_id.clone()),
        event_type: event.map(|event| event.kind.to_string()).or_else(|| tags.kind.clone()),
        subscription: tags.subscription.clone(),
        document_id: event.and_then(|event| event.document_id.as_deref().map(str::to_owned)),
        batch_id: event.and_then(|event| event.batch_id.as_deref().map(str::to_owned)),
        cycle: tags.cycle,
        attempts: tags.attempt,
        body: message.body.clone(),
        headers: headers(message),
        history: tags.history.clone(),
        answer: tags.answer.clone().into_bytes(),
        first_seen_ms: tags.first_seen_ms.unwrap_or(now_ms),
        dead_at_ms: now_ms,
    }
}

/// What a replay needs to send the same again, and what an unreadable message arrived with.
fn headers(message: &Message) -> Vec<u8> {
    let tags = &message.tags;
    // The broker moved it here by itself, with everything it arrived with.
    let by_broker = || tags.reason.is_none().then(|| message.original.describe(ORIGINAL_BYTES_MAX));
    let original = tags.original.clone().or_else(by_broker);
    json!({
        "message_id": tags.message_id,
        "type": tags.kind,
        "time": tags.time,
        "traceparent": tags.traceparent,
        "replay": tags.replay,
        "original": original,
    })
    .to_string()
    .into_bytes()
}
