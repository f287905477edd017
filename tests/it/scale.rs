//! Several workers at one queue: they share it, and may come and go while it is worked on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paperboy::config::Sources;
use yaml_rust2::YamlLoader;

use crate::support::app::{event, subscription};
use crate::support::document::{block, read};
use crate::support::{Amqp, App, Ledger, Receiver, Reply, Serve, eventually};

const TENANTS: usize = 6;
/// Events that wait all the while workers come and go.
const LOAD: usize = 500;

/// Tenants with one subscription each.
async fn tenants(app: &App, receiver: &Receiver) -> Ledger {
    let mut ledger = Ledger::default();
    let documents: Vec<_> =
        (0..TENANTS).map(|n| subscription(&format!("t{n}"), &receiver.url(&format!("/t{n}")))).collect();
    for (n, made) in app.subscribe_all(&documents).await.iter().enumerate() {
        ledger.subscription(&format!("/t{n}"), &made.secret);
    }
    ledger
}

fn expect(ledger: &mut Ledger, events: usize) {
    (0..events).for_each(|n| ledger.expect(&format!("evt_{n}"), &format!("/t{}", n % TENANTS)));
}

fn events(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, Vec<u8>)> {
    numbers.map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{}", n % TENANTS), "a.b")))
}

/// Whether a worker has a delivery behind it.
async fn has_delivered(worker: &Serve) -> bool {
    worker.metric("paperboy_settled_total", "delivered").await > 0.0
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_a_queue_evenly() {
    const EVENTS: usize = 3_000;
    const WORKERS: usize = 3;
    let mut app = App::new();
    // So little in hand that nobody takes everything before the others have had their turn.
    app.set("BROKER__PREFETCH", "60");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let mut ledger = tenants(&app, &receiver).await;
    expect(&mut ledger, EVENTS);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(app.serve("worker").await);
    }
    app.amqp().await.publish_all(events(0..EVENTS)).await;
    let hits = receiver.wait_for(EVENTS, 120).await;
    let mut shares = Vec::new();
    for worker in workers {
        shares.push(worker.metric("paperboy_taken_total", "events").await);
        worker.stop().await;
    }
    assert_eq!(ledger.assert_conserved(&hits), 0, "a delivery was made twice");
    // Even is a third; a half of that, and half as much again, is still each its share.
    for share in &shares {
        assert!((500.0..=1_500.0).contains(share), "shares of {EVENTS}: {shares:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_and_go_under_load_lose_and_repeat_nothing() {
    let mut app = App::new();
    app.set("BROKER__PREFETCH", "100");
    app.migrate().await;
    // Never without a request that runs: a stop always finds something to finish.
    let receiver = Receiver::start(|_| Reply::status(204).after(Duration::from_millis(10))).await;
    let mut ledger = tenants(&app, &receiver).await;
    let amqp = app.amqp().await;
    let is_over = AtomicBool::new(false);
    // The first makes the queues that are published to.
    let first = app.serve("worker").await;
    let coming_and_going = async {
        let mut oldest = first;
        for turn in 1..=4 {
            let newest = app.serve("worker").await;
            eventually("the new worker delivers", 60, async || has_delivered(&newest).await).await;
            receiver.wait_for(turn * LOAD, 120).await;
            // SIGTERM, and a clean exit.
            oldest.stop().await;
            oldest = newest;
        }
        is_over.store(true, Ordering::Relaxed);
        oldest
    };
    let (published, last) = tokio::join!(load(&amqp, &receiver, &is_over), coming_and_going);
    expect(&mut ledger, published);
    let hits = receiver.wait_for(published, 120).await;
    last.stop().await;
    assert_eq!(ledger.assert_conserved(&hits), 0, "a delivery was made twice");
    assert_eq!(amqp.ready("events").await, Some(0));
    assert_eq!(receiver.count(), published, "something came again after all had come");
}

/// Keeps so many events waiting until it is over; how many were published.
async fn load(amqp: &Amqp, receiver: &Receiver, is_over: &AtomicBool) -> usize {
    let mut published = 0;
    while !is_over.load(Ordering::Relaxed) {
        if published < receiver.count() + LOAD {
            amqp.publish_all(events(published..published + 100)).await;
            published += 100;
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    published
}

/// The rows of the table with this head, as cells.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let lines = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_worked_table_of_places_follows_the_formula_and_the_defaults() {
    let document = read("docs/scaling.md");
    let places = paperboy::config::load(&Sources::default()).unwrap().broker.shares().events;
    assert!(document.contains(&format!("workers = places in use ÷ ({places} × 0.7)")), "{places}");
    let rows = rows(&document, "| events/s |");
    assert!(rows.len() >= 5, "{rows:?}");
    for row in rows {
        let numbers: Vec<f64> = row.iter().map(|cell| cell.parse().unwrap()).collect();
        let [rate, seconds, in_use, workers] = numbers[..] else { panic!("{row:?}") };
        assert!((rate * seconds - in_use).abs() < 0.01, "{row:?}");
        assert!(((in_use / (f64::from(places) * 0.7)).ceil() - workers).abs() < 0.01, "{row:?}");
    }
}

#[test]
fn what_to_scale_on_names_metrics_and_queues_that_exist() {
    let (document, operations) = (read("docs/scaling.md"), read("docs/operations.md"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: Vec<&str> =
        document.split(|c| !is_name(c)).filter(|word| word.starts_with("paperboy_")).collect();
    assert!(named.len() >= 4, "{named:?}");
    for metric in named {
        assert!(operations.contains(&format!("| `{metric}` |")), "`{metric}` has no row in operations.md");
    }
    let yaml = YamlLoader::load_from_str(&block(&document, "yaml")).unwrap().remove(0);
    let triggers = yaml["spec"]["triggers"].as_vec().unwrap();
    assert_eq!(triggers[0]["metadata"]["queueName"].as_str(), Some("paperboy.events"));
    let places = f64::from(paperboy::config::load(&Sources::default()).unwrap().broker.shares().events);
    let threshold: f64 = triggers[1]["metadata"]["threshold"].as_str().unwrap().parse().unwrap();
    assert!((threshold - (places * 0.7).floor()).abs() < 0.01, "{threshold}");
}
