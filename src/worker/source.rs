//! Takes from a queue that is there already and publishes what it finds as events.
//!
//! Take, map, publish, confirmed, acknowledge: a crash in between repeats a message under the same id and loses none.
//! What does not map never will with this mapping, so it becomes a dead letter at once and nothing stands behind it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::settle::all_confirmed;
use super::{clock, fresh, report};
use crate::broker::{Broker, Message, Outgoing, Tags, Taken, Target};
use crate::domain::retry::Reason;
use crate::domain::source::{Properties, Source};

/// Forwards the messages of one source.
pub struct Forwarder<B> {
    pub broker: B,
    pub source: Source,
    /// A larger message is not looked into.
    pub event_bytes_max: usize,
    /// How long an unconfirmed publish is tried before its source is handed back.
    pub publish_patience: Duration,
    /// How long a stop waits for what is running.
    pub grace: Duration,
}

/// What a message became.
enum Fate {
    Event,
    DeadLetter,
}

impl<B: Broker> Forwarder<B> {
    /// Forwards until `taken` ends (its owner was told to stop), then waits at most the grace for what still runs;
    /// what is left then is handed back.
    pub async fn run(self, mut taken: mpsc::Receiver<Taken>) {
        let forwarder = Arc::new(self);
        let mut running = JoinSet::new();
        // Bounded by the prefetch.
        while let Some(taken) = taken.recv().await {
            running.spawn(Arc::clone(&forwarder).forward(taken));
            while running.try_join_next().is_some() {}
        }
        let all = async { while running.join_next().await.is_some() {} };
        if timeout(forwarder.grace, all).await.is_err() {
            // A receipt that is dropped hands its message back.
            running.shutdown().await;
        }
    }

    async fn forward(self: Arc<Self>, Taken { message, receipt, .. }: Taken) {
        if !receipt.is_live() {
            // Its channel died while it waited here: somebody else gets it.
            return;
        }
        let (fate, target, outgoing) = self.outgoing(&message);
        drop(message);
        let copies = vec![(target, outgoing)];
        let is_safe = all_confirmed(&self.broker, copies, &receipt, self.publish_patience).await;
        if is_safe {
            receipt.acknowledge();
        } else {
            receipt.hand_back();
        }
        report::forwarded(
            &self.source.name,
            match (is_safe, fate) {
                (true, Fate::Event) => "forwarded",
                (true, Fate::DeadLetter) => "dead",
                (false, _) => "given_back",
            },
        );
    }

    /// The event a message becomes, or its dead letter.
    fn outgoing(&self, message: &Message) -> (Fate, Target, Outgoing) {
        let bytes = message.body.len();
        if bytes > self.event_bytes_max {
            let why = format!("too large: {bytes} bytes, at most {} are read", self.event_bytes_max);
            return self.dead_letter(message, &why);
        }
        let tags = &message.tags;
        let properties = Properties {
            message_id: tags.message_id.as_deref(),
            kind: tags.kind.as_deref(),
            routing_key: &message.routing_key,
            time: tags.time.as_deref(),
        };
        // No limit of ours ends the returns of somebody else's queue: a panic must not hand its message back for ever.
        let mapped = catch_unwind(AssertUnwindSafe(|| self.source.mapping.map(&message.body, &properties)));
        match mapped {
            Ok(Ok(mapped)) => {
                report::mapped(&self.source.name, &mapped.id, mapped.id_is_made);
                let tags = Tags {
                    message_id: Some(mapped.id),
                    kind: Some(mapped.kind),
                    traceparent: tags.traceparent.clone(),
                    ..Tags::default()
                };
                (Fate::Event, Target::Events, Outgoing::new(mapped.event, tags))
            }
            Ok(Err(unmapped)) => self.dead_letter(message, &unmapped.to_string()),
            Err(_) => self.dead_letter(message, "mapping it failed, which is a fault of paperboy"),
        }
    }

    fn dead_letter(&self, message: &Message, why: &str) -> (Fate, Target, Outgoing) {
        let reason = format!("{}: source `{}`: {why}", Reason::Unreadable.as_str(), self.source.name);
        report::unreadable(message, &reason);
        (Fate::DeadLetter, Target::DeadEvents, fresh::unreadable_copy(message, reason, clock::now_ms()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use serde_json::json;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::broker::receipt::Settlement;
    use crate::broker::{Original, Queue, Receipt, Unconfirmed};

    struct Headers;

    impl Original for Headers {
        fn describe(&self, _: usize) -> String {
            r#"{"header x":"y"}"#.to_owned()
        }
    }

    /// Keeps what is published; refuses all of it while `is_full`.
    #[derive(Default)]
    struct Kept {
        is_full: bool,
        published: Mutex<Vec<(Target, Outgoing)>>,
    }

    impl Broker for Kept {
        async fn publish(&self, target: Target, message: Outgoing) -> Result<(), Unconfirmed> {
            if self.is_full {
                return Err(Unconfirmed::Refused);
            }
            self.published.lock().unwrap().push((target, message));
            Ok(())
        }
    }

    async fn forward(broker: Kept, bodies: &[&str]) -> (Vec<(Target, Outgoing)>, Vec<Settlement>) {
        let broker = Arc::new(broker);
        let source =
            Source::read(json!({ "name": "legacy", "queue": "q", "tenant": "/t", "type": "/e" })).unwrap();
        let forwarder = Forwarder {
            broker: Arc::clone(&broker),
            source,
            event_bytes_max: 64,
            publish_patience: Duration::from_secs(600),
            grace: Duration::from_secs(3600),
        };
        let (line, mut settled): (_, UnboundedReceiver<(u64, Settlement)>) = unbounded_channel();
        let (sink, taken) = mpsc::channel(bodies.len());
        for (tag, body) in (1..).zip(bodies) {
            let message = Message {
                body: Bytes::copy_from_slice(body.as_bytes()),
                tags: Tags { traceparent: Some("00-a-b-01".into()), ..Tags::default() },
                routing_key: "key".into(),
                redelivered: false,
                asker: None,
                original: Box::new(Headers),
            };
            let taken = Taken { queue: Queue::Events, message, receipt: Receipt::new(tag, line.clone()) };
            sink.send(taken).await.unwrap();
        }
        drop((sink, line));
        forwarder.run(taken).await;
        let mut settlements = Vec::new();
        while let Ok((_, settlement)) = settled.try_recv() {
            settlements.push(settlement);
        }
        (std::mem::take(&mut *broker.published.lock().unwrap()), settlements)
    }

    #[tokio::test(start_paused = true)]
    async fn what_maps_is_published_as_an_event_and_then_acknowledged() {
        let (published, settled) = forward(Kept::default(), &[r#"{"t": "acme", "e": "done"}"#]).await;
        let (target, outgoing) = &published[0];
        assert_eq!((*target, settled), (Target::Events, vec![Settlement::Acknowledged]));
        assert_eq!(
            (outgoing.tags.kind.as_deref(), outgoing.tags.traceparent.as_deref()),
            (Some("done"), Some("00-a-b-01"))
        );
        let event: serde_json::Value = serde_json::from_slice(&outgoing.body).unwrap();
        assert_eq!(event["id"].as_str(), outgoing.tags.message_id.as_deref());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_map_is_a_dead_letter_with_its_bytes_and_headers() {
        let large = format!(r#"{{"t": "acme", "e": "{}"}}"#, "x".repeat(64));
        let (published, settled) = forward(Kept::default(), &[r#"{"e": 1}"#, "no", &large]).await;
        assert_eq!(settled, [Settlement::Acknowledged; 3]);
        let mut reasons: Vec<&str> =
            published.iter().map(|(_, outgoing)| outgoing.tags.reason.as_deref().unwrap()).collect();
        reasons.sort_unstable();
        assert_eq!(
            reasons,
            [
                "unreadable: source `legacy`: not JSON: expected ident at line 1 column 2",
                "unreadable: source `legacy`: nothing at `/t` for `tenant`",
                "unreadable: source `legacy`: too large: 86 bytes, at most 64 are read",
            ]
        );
        for (target, outgoing) in &published {
            assert_eq!(
                (*target, outgoing.tags.original.as_deref()),
                (Target::DeadEvents, Some(r#"{"header x":"y"}"#))
            );
        }
        assert!(published.iter().any(|(_, outgoing)| outgoing.body == large));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_confirmed_is_handed_back() {
        let full = Kept { is_full: true, ..Kept::default() };
        let (published, settled) = forward(full, &[r#"{"t": "acme", "e": "done"}"#]).await;
        assert_eq!((published.len(), settled), (0, vec![Settlement::HandedBack]));
    }
}
