//! A thousand batches at once, while a worker is killed and Redis is flushed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{PATIENCE, is_at_work, member, publish_all, told, wanting};
use crate::support::services::PrivateRedis;
use crate::support::{App, Receiver, Reply, eventually};

const BATCHES: usize = 1_000;
/// Batches whose events are shuffled among each other. An event's time is when it is published, and nobody can tell
/// a batch that is idle from one whose producer is slow: so those of a batch come within its idle time.
const WINDOW: usize = 100;

/// 1 to 20; with `PAPERBOY_TEST_LONG` set 1 to 200.
fn documents_max() -> usize {
    if std::env::var_os("PAPERBOY_TEST_LONG").is_some() { 200 } else { 20 }
}

/// Numbers without end that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64).unwrap()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_batches_in_a_file() {
    a_thousand_batches(App::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_batches_in_postgres() {
    a_thousand_batches(App::in_postgres().await).await;
}

/// Three workers, one killed, Redis flushed: each batch is completed under exactly one id, none early, none missing.
async fn a_thousand_batches(mut app: App) {
    let redis = PrivateRedis::start().await;
    app.set("REDIS__URL", &redis.url());
    app.set("BATCHES__IDLE_S", "250");
    app.set("BROKER__PREFETCH", "100");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let api = app.serve("api").await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(app.serve("worker").await);
    }
    app.subscribe(wanting(&["batch.completed"], &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    let mut chance = Chance(0x5eed);
    let mut sizes = BTreeMap::new();
    for first in (0..BATCHES).step_by(WINDOW) {
        let (mut events, mut closing) = (Vec::new(), Vec::new());
        for batch in first..first + WINDOW {
            let (name, size) = (format!("b_{batch}"), 1 + chance.below(documents_max()));
            for document in 0..size {
                let of = |kind: &str, word: &str| {
                    let id = format!("evt_{batch}_{document}_{word}");
                    (id, kind.to_owned(), name.clone(), format!("d_{document}"))
                };
                let ending = ["document.processed", "document.failed", "document.rejected"][chance.below(3)];
                events.push(of("document.received", "r"));
                events.push(of(ending, "e"));
            }
            // Every second one is told that nothing follows, once everything of it is published.
            if batch % 2 == 1 {
                closing.push((
                    format!("evt_{batch}_c"),
                    "batch.sent".to_owned(),
                    name.clone(),
                    String::new(),
                ));
            }
            sizes.insert(name, size);
        }
        chance.shuffle(&mut events);
        let written = |(id, kind, batch, document): &(String, String, String, String)| {
            let mut event = member(id, kind, batch, document);
            event["close_batch"] = json!(document.is_empty());
            event
        };
        publish_all(&amqp, &events.iter().map(written).collect::<Vec<Value>>()).await;
        publish_all(&amqp, &closing.iter().map(written).collect::<Vec<Value>>()).await;
        if first == BATCHES / 2 {
            let killed = workers.pop().unwrap();
            eventually("the worker is at work", 30, async || is_at_work(&killed).await).await;
            killed.kill().await;
            redis.command(&["FLUSHALL"]).await;
        }
    }
    let ids = || {
        let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for hit in receiver.hits() {
            let told = told(&hit);
            let of = ids.entry(told["batch_id"].as_str().unwrap().to_owned()).or_default();
            of.push(told["id"].as_str().unwrap().to_owned());
            of.dedup();
        }
        ids
    };
    let all = || async { receiver.count() >= BATCHES && ids().len() == BATCHES };
    eventually("every batch is completed", PATIENCE.as_secs(), all).await;
    for (batch, ids) in ids() {
        assert_eq!(ids.len(), 1, "{batch} is completed under several ids: {ids:?}");
    }
    for hit in receiver.hits() {
        let told = told(&hit);
        let (batch, data) = (told["batch_id"].as_str().unwrap(), &told["data"]);
        assert_eq!(data["counts"]["documents"], sizes[batch], "{batch} was completed early: {data}");
        assert_eq!(data["counts"]["late"], 0, "{data}");
        let outcomes = data["counts"]["outcomes"].as_object().unwrap();
        let finished: u64 = outcomes.values().map(|times| times.as_u64().unwrap()).sum();
        assert_eq!(
            (finished, data["documents"].as_array().unwrap().len()),
            (sizes[batch] as u64, sizes[batch])
        );
    }
    let late = app.json(&["batch", "list", "--limit", "2000"]).await;
    assert!(late.iter().all(|batch| batch["late"] == 0 && batch["state"] == "completed"));
    for worker in workers {
        worker.stop().await;
    }
    api.stop().await;
}
