//! Publishes notices that were written to the store: confirmed first, forgotten after. Cut off in between, one is
//! published again under the same id.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock;
use crate::broker::{Broker, Outgoing, Tags, Target, Unconfirmed};
use crate::domain::notice::Notice;
use crate::domain::time;
use crate::store::notices::Outbox;

/// How often the store is asked.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a fault.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Notices published before the store is told.
const BATCH: u32 = 20;
/// How long a process that died keeps its notices from others: longer than a confirm may take.
const LEASE_MS: i64 = 60_000;

/// Publishes one notice; once this returns well it is in every queue that wants it.
///
/// # Errors
/// [`Unconfirmed`]: it may not have arrived, and is to be published again.
pub async fn publish(broker: &impl Broker, notice: &Notice) -> Result<(), Unconfirmed> {
    let tags = Tags {
        message_id: Some(notice.id.clone()),
        kind: Some(notice.kind.clone()),
        time: Some(time::rfc3339(notice.at_ms)),
        ..Tags::default()
    };
    let body = Bytes::from(notice.body.clone());
    broker.publish(Target::Notices, Outgoing::new(body, tags)).await
}

/// Publishes what comes into the outbox until `stop`.
pub async fn run(outbox: impl Outbox, broker: impl Broker, stop: CancellationToken) {
    let mut was_well = true;
    loop {
        let (more, fault) = publish_some(&outbox, &broker).await;
        if let Some(fault) = &fault
            && was_well
        {
            warn!("notices wait in the store: {fault}");
        }
        was_well = fault.is_none();
        let pause = match (more, was_well) {
            (true, true) => Duration::ZERO,
            (false, true) => LOOK,
            (_, false) => LOOK_AFTER_FAILURE,
        };
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether there may be more at once, and what went wrong.
async fn publish_some(outbox: &impl Outbox, broker: &impl Broker) -> (bool, Option<String>) {
    let now_ms = clock::now_ms();
    let notices = match outbox.take_notices(BATCH, now_ms, now_ms + LEASE_MS).await {
        Ok(notices) => notices,
        Err(error) => return (false, Some(format!("{error:#}"))),
    };
    let more = notices.len() == BATCH as usize;
    let (mut published, mut fault) = (Vec::new(), None);
    for notice in &notices {
        if let Err(error) = publish(broker, notice).await {
            fault = Some(error.to_string());
            break;
        }
        metrics::counter!("paperboy_notices_total", "type" => notice.kind.clone()).increment(1);
        info!(notice = notice.id, "told the platform: {}", notice.kind);
        published.push(notice.id.clone());
    }
    if !published.is_empty()
        && let Err(error) = outbox.forget_notices(&published).await
    {
        fault = fault.or(Some(format!("{error:#}")));
    }
    (more, fault)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Map;

    use super::*;
    use crate::domain::notice::NoticeKind;

    /// Notices with the end of their leases.
    #[derive(Clone, Default)]
    struct Box(Arc<Mutex<Vec<(Notice, i64)>>>);

    impl Outbox for Box {
        async fn take_notices(&self, limit: u32, now_ms: i64, until_ms: i64) -> anyhow::Result<Vec<Notice>> {
            let mut notices = self.0.lock().unwrap();
            let free = notices.iter_mut().filter(|(_, lease_ms)| *lease_ms < now_ms).take(limit as usize);
            Ok(free
                .map(|(notice, lease_ms)| {
                    *lease_ms = until_ms;
                    notice.clone()
                })
                .collect())
        }

        async fn forget_notices(&self, ids: &[String]) -> anyhow::Result<()> {
            self.0.lock().unwrap().retain(|(notice, _)| !ids.contains(&notice.id));
            Ok(())
        }
    }

    /// Refuses what it is told to.
    #[derive(Default)]
    struct Refusing {
        refused: Mutex<Option<String>>,
        published: Mutex<Vec<String>>,
    }

    impl Broker for Arc<Refusing> {
        async fn publish(&self, target: Target, message: Outgoing) -> Result<(), Unconfirmed> {
            assert_eq!(target, Target::Notices);
            let id = message.tags.message_id.clone().unwrap();
            if self.refused.lock().unwrap().as_ref() == Some(&id) {
                return Err(Unconfirmed::Refused);
            }
            self.published.lock().unwrap().push(id);
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_was_not_confirmed_stays_and_what_was_is_published_once() {
        let outbox = Box::default();
        for id in ["ntc_1", "ntc_2", "ntc_3"] {
            let notice = Notice::new(id, NoticeKind::SubscriptionFailing, "acme", 0, Map::new());
            outbox.0.lock().unwrap().push((notice, 0));
        }
        let broker = Arc::new(Refusing::default());
        *broker.refused.lock().unwrap() = Some("ntc_2".into());
        let (_, fault) = publish_some(&outbox, &Arc::clone(&broker)).await;
        assert!(fault.is_some());
        assert_eq!(outbox.0.lock().unwrap().len(), 2);
        // Whoever took them keeps them for a while.
        assert_eq!(publish_some(&outbox, &Arc::clone(&broker)).await, (false, None));
        *broker.refused.lock().unwrap() = None;
        outbox.0.lock().unwrap().iter_mut().for_each(|(_, lease_ms)| *lease_ms = 0);
        assert_eq!(publish_some(&outbox, &Arc::clone(&broker)).await, (false, None));
        assert_eq!(*broker.published.lock().unwrap(), ["ntc_1", "ntc_2", "ntc_3"]);
        assert!(outbox.0.lock().unwrap().is_empty());
    }
}
