//! `paperboy dead list --from-queue`: the dead queues themselves, without a store.
//!
//! For deployments whose dead letters stay in RabbitMQ. Everything looked at is handed back; while the look lasts
//! nobody else sees those messages.

use serde_json::{Value, json};

use super::List;
use crate::broker::Queue;
use crate::broker::rabbitmq::inspect::Inspector;
use crate::broker::rabbitmq::peek::Peeked;
use crate::cli::failure::Problem;
use crate::cli::heartbeat::{self, Heartbeat};
use crate::cli::{Common, Failure, output, services};
use crate::config::Config;
use crate::domain::history::History;
use crate::store::dead::Kind;
use crate::store::{DeadFilter, DeadLetter};
use crate::worker::drain;

/// Letters listed of each queue when nobody says otherwise.
const LISTED: u32 = 100;

impl List {
    /// Lists what is in the dead queues, and says of each that could not be looked into who holds it.
    pub(super) async fn look_into_queues(&self, common: &Common) -> Result<(), Failure> {
        let filter = self.which.filter(self.subscription.as_deref())?;
        let limit = self.limit.unwrap_or(LISTED);
        let config = common.load()?;
        let inspector = services::inspector(&config).await?;
        let looked = look(&inspector, &config, &filter, limit).await;
        inspector.close().await;
        let Looked { found, notes, problems } = looked?;
        if common.json {
            found.iter().for_each(|found| output::json_line(&found.json()));
        } else {
            let header = [
                "queue",
                "#",
                "reason",
                "tenant",
                "event",
                "type",
                "subscription",
                "attempts",
                "last attempt",
            ];
            let nothing =
                if problems.is_empty() { "no dead letters in the queues" } else { "nothing could be listed" };
            output::table(&header, found.iter().map(Found::row).collect(), nothing);
        }
        notes.iter().for_each(|note| eprintln!("{note}"));
        if problems.is_empty() { Ok(()) } else { Err(Failure::world_disagrees(problems)) }
    }
}

/// What a look at the dead queues gave.
#[derive(Default)]
struct Looked {
    found: Vec<Found>,
    notes: Vec<String>,
    problems: Vec<Problem>,
}

/// A dead letter in its queue, without its body.
struct Found {
    queue: String,
    /// From 1, the oldest.
    position: u32,
    body_bytes: usize,
    letter: DeadLetter,
}

async fn look(
    inspector: &Inspector,
    config: &Config,
    filter: &DeadFilter,
    limit: u32,
) -> Result<Looked, Failure> {
    let mut looked = Looked::default();
    for (queue, kind) in [(Queue::DeadDeliveries, Kind::Delivery), (Queue::DeadEvents, Kind::Event)] {
        if filter.kind.is_some_and(|wanted| wanted != kind) {
            continue;
        }
        let name = inspector.topology().queue(queue);
        let (mut position, mut listed, mut unlisted) = (0, 0, 0);
        let peeked = inspector.peek(queue, |message| {
            position += 1;
            let body_bytes = message.body.len();
            let mut letter = drain::letter(queue, &message, jiff::Timestamp::now().as_millisecond());
            // A thousand large bodies have no place in memory, and a list shows none.
            letter.body = bytes::Bytes::new();
            if !is_wanted(filter, &letter) {
                return;
            }
            if listed == limit {
                unlisted += 1;
            } else {
                listed += 1;
                looked.found.push(Found { queue: name.clone(), position, body_bytes, letter });
            }
        });
        match peeked.await.map_err(|error| Failure::world(error.to_string()).maybe_hint(error.hint()))? {
            None => looked.problems.push(Problem {
                message: format!("`{name}` does not exist on the broker"),
                hint: Some("`paperboy topology declare` declares it".into()),
            }),
            Some(peeked) if peeked.seen == 0 && peeked.depth.consumers > 0 => {
                looked.problems.push(held(&name, peeked, &holders(config).await));
            }
            Some(peeked) if peeked.depth.ready > peeked.seen => looked.notes.push(format!(
                "`{name}` holds {}: {} were looked at and stand at its end now, where RabbitMQ puts what is handed back",
                peeked.depth.ready, peeked.seen
            )),
            Some(_) => {}
        }
        if unlisted > 0 {
            looked.notes.push(format!("{unlisted} more in `{name}` are not listed: raise `--limit`"));
        }
    }
    Ok(looked)
}

/// The processes that say they drain the dead queues; only one of them holds a queue at a time.
async fn holders(config: &Config) -> Option<Vec<Heartbeat>> {
    let redis = services::redis(config).ok()??;
    let heard = heartbeat::heard(&redis).await.ok()?;
    Some(heard.into_iter().filter(|process| process.drains).collect())
}

fn held(name: &str, peeked: Peeked, holders: &Option<Vec<Heartbeat>>) -> Problem {
    let count = peeked.depth.consumers;
    let noun = if count == 1 { "consumer" } else { "consumers" };
    let who = match holders.as_deref() {
        Some([]) => format!("{count} {noun} that no heartbeat tells of"),
        Some([one]) => one.place(),
        Some(several) => {
            let places: Vec<String> = several.iter().map(Heartbeat::place).collect();
            format!("one of {}", places.join(", "))
        }
        None => format!("another process ({count} {noun}; heartbeats that would name it need Redis)"),
    };
    Problem {
        message: output::printable(&format!("`{name}` is held by {who}: it hands nothing to anybody else")),
        hint: Some(
            "what it takes is in its store: `paperboy dead list`; or run it with `dead.drain = false`".into(),
        ),
    }
}

fn is_wanted(filter: &DeadFilter, letter: &DeadLetter) -> bool {
    let same =
        |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
    same(&filter.tenant, letter.tenant.as_deref())
        && same(&filter.subscription, letter.subscription.as_deref())
        && same(&filter.event_id, letter.event_id.as_deref())
        && same(&filter.document_id, letter.document_id.as_deref())
        && filter.reason.as_deref().is_none_or(|wanted| reason_word(&letter.reason) == wanted)
}

/// A reason is a word, or a word, a colon and details.
fn reason_word(reason: &str) -> &str {
    reason.split(':').next().unwrap_or(reason)
}

impl Found {
    fn row(&self) -> Vec<String> {
        let letter = &self.letter;
        let or_dash = |text: &Option<String>| output::printable(text.as_deref().unwrap_or("-"));
        let last =
            History::parse(&letter.history).entries().last().map(|entry| output::moment(entry.at_ms()));
        vec![
            self.queue.clone(),
            self.position.to_string(),
            output::printable(&letter.reason),
            or_dash(&letter.tenant),
            or_dash(&letter.event_id),
            or_dash(&letter.event_type),
            or_dash(&letter.subscription),
            letter.attempts.to_string(),
            last.unwrap_or_else(|| "-".to_owned()),
        ]
    }

    fn json(&self) -> Value {
        let letter = &self.letter;
        json!({
            "queue": self.queue,
            "position": self.position,
            "kind": letter.kind.as_str(),
            "reason": letter.reason,
            "tenant": letter.tenant,
            "event": letter.event_id,
            "type": letter.event_type,
            "subscription": letter.subscription,
            "document_id": letter.document_id,
            "batch_id": letter.batch_id,
            "cycle": letter.cycle,
            "attempts": letter.attempts,
            "history": super::history_json(&letter.history),
            "body_bytes": self.body_bytes,
            "first_seen": output::moment(letter.first_seen_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::rabbitmq::inspect::Depth;

    fn letter() -> DeadLetter {
        DeadLetter {
            kind: Kind::Delivery,
            reason: "unreadable: too large".into(),
            tenant: Some("acme".into()),
            event_id: Some("evt_1".into()),
            event_type: None,
            subscription: Some("sub_1".into()),
            document_id: None,
            batch_id: None,
            cycle: 0,
            attempts: 3,
            body: bytes::Bytes::new(),
            headers: Vec::new(),
            history: String::new(),
            answer: Vec::new(),
            first_seen_ms: 0,
            dead_at_ms: 0,
        }
    }

    #[test]
    fn filters_mean_what_they_mean_for_the_store() {
        let some = |text: &str| Some(text.to_owned());
        assert!(is_wanted(&DeadFilter::default(), &letter()));
        assert!(is_wanted(
            &DeadFilter { tenant: some("acme"), subscription: some("sub_1"), ..DeadFilter::default() },
            &letter()
        ));
        assert!(is_wanted(&DeadFilter { reason: some("unreadable"), ..DeadFilter::default() }, &letter()));
        for other in [
            DeadFilter { tenant: some("other"), ..DeadFilter::default() },
            DeadFilter { event_id: some("evt_2"), ..DeadFilter::default() },
            DeadFilter { document_id: some("d"), ..DeadFilter::default() },
            DeadFilter { reason: some("exhausted"), ..DeadFilter::default() },
        ] {
            assert!(!is_wanted(&other, &letter()), "{other:?}");
        }
    }

    fn process(pid: u32) -> Heartbeat {
        Heartbeat {
            id: pid.to_string(),
            role: "api".into(),
            host: "h".into(),
            pid,
            version: "1".into(),
            started_ms: 0,
            at_ms: 0,
            drains: true,
            faults: Vec::new(),
            keys: Vec::new(),
            troubles: Vec::new(),
            balance: None,
            slow: Vec::new(),
        }
    }

    #[test]
    fn who_holds_a_queue_is_told_as_far_as_it_is_known() {
        let peeked = Peeked { depth: Depth { ready: 0, consumers: 2 }, seen: 0 };
        let who = |holders| held("p.dead.events", peeked, &holders).message;
        assert!(who(Some(vec![process(7)])).starts_with("`p.dead.events` is held by api on `h` (pid 7): "));
        assert!(
            who(Some(vec![process(7), process(8)]))
                .contains("held by one of api on `h` (pid 7), api on `h` (pid 8): ")
        );
        assert!(who(Some(Vec::new())).contains("2 consumers that no heartbeat tells of"));
        assert!(who(None).contains("another process (2 consumers; "));
    }
}
