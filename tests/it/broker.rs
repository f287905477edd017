//! The broker's edge by itself, through the library: what is told as confirmed is in a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use paperboy::broker::rabbitmq::{RabbitMq, Settings};
use paperboy::broker::{Broker, Outgoing, Tags, Target};
use tokio::task::JoinSet;

use crate::support::{App, eventually};

fn settings(app: &App, declare: bool) -> Settings {
    Settings {
        url: app.setting("BROKER__URL").to_owned(),
        prefix: app.prefix.clone(),
        delay_unit_ms: 20,
        declare,
        start_wait: Duration::from_secs(10),
    }
}

fn message() -> Outgoing {
    Outgoing::new(Bytes::from_static(b"{}"), Tags::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_came_back_is_never_told_as_confirmed() {
    const MESSAGES: usize = 2_000;
    let app = App::new();
    // What goes to a queue that nobody declares again comes back, among many that arrive.
    let broker = start_unchecked(&app).await;
    for every in [10, 3, 2] {
        let (arrived, falsely) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut publishes = JoinSet::new();
        for n in 0..MESSAGES {
            let (broker, arrived, falsely) =
                (Arc::clone(&broker), Arc::clone(&arrived), Arc::clone(&falsely));
            publishes.spawn(async move {
                let target = if n % every == 0 { Target::Retries } else { Target::Deliveries };
                let told = broker.publish(target, message()).await;
                let counter = if target == Target::Deliveries { arrived } else { falsely };
                counter.fetch_add(usize::from(told.is_ok()), Ordering::Relaxed);
            });
        }
        let routable = MESSAGES - MESSAGES.div_ceil(every);
        let all = || async { arrived.load(Ordering::Relaxed) == routable };
        eventually("everything that has a queue is confirmed", 60, all).await;
        publishes.shutdown().await;
        assert_eq!(
            falsely.load(Ordering::Relaxed),
            0,
            "one in {every} had no queue, and was told as confirmed"
        );
    }
}

/// A broker that checks nothing and declares nothing after its start: the queue goes in between.
async fn start_unchecked(app: &App) -> Arc<RabbitMq> {
    let broker = RabbitMq::start(settings(app, true)).await.unwrap();
    broker.close().await;
    let broker = RabbitMq::start(settings(app, false)).await.unwrap();
    app.amqp().await.delete_queue("retries").await;
    Arc::new(broker)
}
