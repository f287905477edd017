use std::future::pending;
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::*;
use crate::broker::{Outgoing, Tags, Target, Unconfirmed, Windows};
use crate::cache::TenantSubscriptions;
use crate::domain::outcome::{Answer, Whole};
use crate::domain::request::Request;
use crate::domain::spec::SubscriptionSpec;
use crate::domain::statuses::Seen;
use crate::worker::balance::Balance;
use crate::worker::fakes::{Known, Nothing};
use crate::worker::{Places, Settings};

/// A broker that takes everything.
struct Open;

impl Broker for Open {
    async fn publish(&self, _: Target, _: Outgoing) -> Result<(), Unconfirmed> {
        Ok(())
    }
}

/// `/3/7` answers after three seconds with seven bytes.
struct Receivers;

impl Transport for Receivers {
    async fn send(&self, request: Request) -> Answer {
        let (seconds, bytes) = request.url.path()[1..].split_once('/').unwrap();
        sleep(Duration::from_secs(seconds.parse().unwrap())).await;
        let body = Some(vec![b'x'; bytes.parse().unwrap()]);
        Answer {
            seen: Seen::Status(200),
            cause: None,
            retry_after: None,
            elapsed_ms: 1,
            excerpt: Vec::new(),
            whole: Some(Box::new(Whole { headers: http::HeaderMap::new(), body })),
            is_our_fault: false,
        }
    }
}

/// Notes what callers are told, and in which second.
struct Told {
    began: Instant,
    said: Mutex<Vec<(u64, Value)>>,
    /// It gets rid of nothing.
    is_held_up: bool,
}

impl Replier for Told {
    fn reply(&self, _: Asker, _: u32, body: Vec<u8>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let said = (self.began.elapsed().as_secs(), serde_json::from_slice(&body).unwrap());
            self.said.lock().unwrap().push(said);
            if self.is_held_up {
                pending::<()>().await;
            }
        })
    }
}

/// Makes one call to these receivers by a process that has no time left after so many seconds. What was told, and
/// how long it took.
async fn call(paths: &[&str], is_held_up: bool, overdue_s: u64) -> (Vec<(u64, Value)>, u64) {
    let subscription = |path: &&str| {
        let url = format!("https://h.example{path}");
        let document = json!({"id": format!("sub{}", path.replace('/', "_")), "tenant": "acme", "events": [],
            "interactive": ["#"], "signatures": [], "request": {"url": url}});
        Arc::new(SubscriptionSpec::read(document).unwrap().check().unwrap())
    };
    let subscriptions = paths.iter().map(subscription).collect();
    let directory = Known(Arc::new(TenantSubscriptions { version: 1, subscriptions }));
    let settings = Settings {
        event_bytes_max: 1_000,
        unit: Duration::from_secs(1),
        wait_age_max: Duration::from_secs(60),
        grace: Duration::from_secs(1),
        publish_patience: Duration::from_secs(1),
    };
    let places = Arc::new(Places::new(Arc::<Windows>::default()));
    let worker = Worker::new(Open, directory, Receivers, settings, Arc::<Balance>::default(), places);
    let told = Arc::new(Told { began: Instant::now(), said: Mutex::default(), is_held_up });
    let calls = Calls::new(Arc::clone(&told) as Arc<dyn Replier>);
    let (line, _settled) = unbounded_channel();
    let message = Message {
        body: Bytes::from_static(br#"{"id":"e","type":"a.b","tenant":"acme","time":"2026-11-22T09:00:00Z"}"#),
        tags: Tags::default(),
        routing_key: "a.b".to_owned(),
        redelivered: false,
        asker: None,
        original: Box::new(Nothing),
    };
    let taken = Taken { queue: Queue::Calls, message, receipt: Receipt::new(1, line) };
    let stop = async {
        sleep(Duration::from_secs(overdue_s)).await;
        worker.overdue.cancel();
        pending().await
    };
    tokio::select! {
        () = worker.answer_call(&calls, taken) => {}
        () = stop => {}
    }
    (std::mem::take(&mut *told.said.lock().unwrap()), told.began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_be_told_holds_up_no_answer_and_no_stop() {
    let (said, took) = call(&["/0/1", "/1/1", "/2/1", "/40/1", "/50/1"], true, 5).await;
    let seconds: Vec<_> = said.iter().map(|(second, _)| *second).collect();
    assert_eq!((seconds, took), (vec![0, 1, 2, 5, 5], 5 + LAST_WORDS.as_secs()));
    assert!(said[..3].iter().all(|(_, reply)| reply["status"] == 200), "{said:?}");
    assert!(said[3..].iter().all(|(_, reply)| reply["error"] == "interrupted"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_is_waited_for_no_longer_than_the_answers_take() {
    let (said, took) = call(&["/0/1", "/3/1"], false, 60).await;
    assert_eq!((said.len(), took), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn the_answers_to_one_call_are_bounded_together() {
    let three_mib = (3 << 20).to_string();
    let paths = ["0", "1", "2"].map(|second| format!("/{second}/{three_mib}"));
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.push("/3/5");
    let (said, _) = call(&paths, false, 60).await;
    let errors: Vec<_> = said.iter().map(|(_, reply)| reply["error"].as_str()).collect();
    assert_eq!(errors, [None, None, Some("too large"), None], "the last one is short enough");
    assert_eq!((&said[2].1["status"], said[2].1.get("body")), (&json!(200), None));
}
