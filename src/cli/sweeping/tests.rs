use std::sync::{Arc, Mutex};

use super::*;
use crate::broker::Unconfirmed;
use crate::config::{Sources, load};
use crate::domain::batch::{BatchId, DocumentId, Signal, Told};
use crate::domain::name::{EventType, Tenant};
use crate::domain::seal::SealKey;
use crate::store::StoreUrl;
use crate::store::tests::Folder;

/// Refuses the first completion, and confirms the last only once it sees that the second is marked and the right to
/// sweep renewed; what was published, by its order.
#[derive(Clone)]
struct Reluctant {
    store: Store,
    completions: Vec<String>,
    published: Arc<Mutex<Vec<usize>>>,
}

impl Reluctant {
    async fn waiting(&self) -> Vec<usize> {
        let rows = self.store.outbox_waiting(0, 9, 1 << 20).await.unwrap();
        rows.iter().map(|row| self.place(&row.event_id)).collect()
    }

    fn place(&self, id: &str) -> usize {
        self.completions.iter().position(|known| known == id).unwrap()
    }
}

impl Broker for Reluctant {
    async fn publish(&self, _: Target, message: Outgoing) -> Result<(), Unconfirmed> {
        let place = self.place(message.tags.message_id.as_deref().unwrap());
        self.published.lock().unwrap().push(place);
        match place {
            0 => Err(Unconfirmed::Refused),
            1 => Ok(()),
            _ => {
                let until_ms = self.store.sweep_until().await;
                while self.waiting().await.contains(&1) || self.store.sweep_until().await <= until_ms {
                    sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }
        }
    }
}

fn signal(batch: &str, at_ms: i64) -> Signal {
    Signal {
        tenant: Tenant::parse("acme").unwrap(),
        batch: BatchId::parse(batch).unwrap(),
        kind: EventType::parse("document.processed").unwrap(),
        at_ms,
        document: Some(Told { id: DocumentId::parse("d").unwrap(), is_finished: true }),
        closes: true,
        scope: None,
        idle_ms: 30_000,
    }
}

/// Three completions wait to be told, and one batch to be closed.
async fn sweeper(folder: &Folder) -> Sweeper<Reluctant> {
    let url = format!("sqlite://{}", folder.path().join("paperboy.db").display());
    let store = Store::migrate(&StoreUrl::parse(&url).unwrap(), &SealKey::from_bytes([1; 32])).await.unwrap();
    let now_ms = now_ms();
    let closed = ["b_0", "b_1", "b_2"].map(|batch| signal(batch, now_ms));
    store.record_signals(&closed, now_ms).await.unwrap();
    assert!(store.lease_sweep("before", now_ms, now_ms + 1_000).await.unwrap());
    let round = store.begin_round("before").await.unwrap().unwrap();
    let due = store.batches_due(now_ms, 9).await.unwrap();
    assert!(store.watch_round("before", round).await.unwrap());
    assert_eq!(store.close_batches("before", round, &due, now_ms, now_ms).await.unwrap(), Some(3));
    let done = store.batches_done(9).await.unwrap();
    assert_eq!(store.complete_batches(&done, 1 << 20, now_ms).await.unwrap(), 3);
    store.release_sweep("before").await.unwrap();
    store.record_signals(&[signal("due", now_ms)], now_ms).await.unwrap();
    let completions = store.outbox_waiting(0, 9, 1 << 20).await.unwrap();
    let completions = completions.into_iter().map(|row| row.event_id).collect();
    let broker = Reluctant { store: store.clone(), completions, published: Arc::default() };
    let (_, fault) = watch::channel(None);
    Sweeper::new(store, broker, load(&Sources::default()).unwrap(), fault)
}

#[tokio::test]
async fn what_cannot_be_told_stops_neither_what_can_nor_the_closing() {
    let folder = Folder::new();
    let mut sweeper = sweeper(&folder).await;
    let error = sweeper.sweep().await.unwrap_err();
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    assert_eq!(sweeper.broker.waiting().await, [0], "each is marked as it is confirmed");
    assert!(sweeper.round.is_some(), "a round has begun");
    // Not at once again.
    assert!(sweeper.publish().await.is_ok());
    let mut published = sweeper.broker.published.lock().unwrap().clone();
    published.sort_unstable();
    assert_eq!(published, [0, 1, 2]);
}
