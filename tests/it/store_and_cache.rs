//! Who wants what, through a Redis that forgets, stops or belongs to somebody else.

use lapin::BasicProperties;

use crate::support::app::{event, subscription};
use crate::support::services::PrivateRedis;
use crate::support::{App, Ledger, Receiver, Reply, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_after_add_returned_is_delivered() {
    let mut app = App::new();
    app.set("CACHE__REFRESH_S", "1");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let api = app.serve("api").await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    // The worker learns that nobody is there, twice over.
    for id in ["evt_a", "evt_b"] {
        amqp.publish("a.b", &event(id, "acme", "a.b"), BasicProperties::default()).await;
    }
    let let_go = || async { worker.metric("paperboy_no_subscriber_total", "").await > 1.5 };
    eventually("two events nobody wants", 10, let_go).await;

    app.subscribe(subscription("acme", &receiver.url("/first"))).await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;

    app.subscribe(subscription("acme", &receiver.url("/second"))).await;
    amqp.publish("a.b", &event("evt_2", "acme", "a.b"), BasicProperties::default()).await;
    let hits = receiver.wait_for(3, 10).await;
    let mut seen: Vec<_> = hits.iter().map(|hit| (hit.id(), hit.path.as_str())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("evt_1", "/first"), ("evt_2", "/first"), ("evt_2", "/second")]);
    worker.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wait_is_still_found_before_an_event_is_let_go() {
    let mut app = App::new();
    // Nothing is polled and nobody gives notice: only the question before letting go finds the subscription.
    app.set("CACHE__REFRESH_S", "600");
    app.set("REDIS__URL", "");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_0", "acme", "a.b"), BasicProperties::default()).await;
    let let_go = || async { serve.metric("paperboy_no_subscriber_total", "").await > 0.5 };
    eventually("an event nobody wants", 10, let_go).await;
    let url = receiver.url("/x");
    app.ok(&["subscription", "add", "--no-wait", "--tenant", "acme", "--events", "#", "--url", &url]).await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_flushed_and_stopped_lets_nothing_go() {
    const EVENTS: usize = 3_000;
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let api = app.serve("api").await;
    let mut ledger = Ledger::default();
    for tenant in 0..30 {
        let path = format!("/t{tenant}");
        let made = app.subscribe(subscription(&format!("t{tenant}"), &receiver.url(&path))).await;
        ledger.subscription(&path, &made.secret);
    }
    let workers = [app.serve("worker").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    for third in 0..3 {
        let numbers = (third * EVENTS / 3)..((third + 1) * EVENTS / 3);
        for n in numbers.clone() {
            ledger.expect(&format!("evt_{n}"), &format!("/t{}", n % 30));
        }
        let events = numbers
            .map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{}", n % 30), "a.b")));
        let publish = amqp.publish_all(events);
        match third {
            0 => {
                tokio::join!(publish, redis.command(&["FLUSHALL"]));
            }
            1 => {
                tokio::join!(publish, redis.stop());
            }
            _ => {
                tokio::join!(publish, redis.resume());
            }
        }
    }
    let hits = receiver.wait_for(ledger.len(), 60).await;
    assert_eq!(ledger.assert_conserved(&hits), 0);
    for worker in workers {
        assert!(worker.metric("paperboy_no_subscriber_total", "").await < 0.5);
        worker.stop().await;
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_change_while_redis_is_away() {
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/first"))).await;
    redis.stop().await;
    app.subscribe(subscription("acme", &receiver.url("/second"))).await;
    let amqp = app.amqp().await;
    let both = || async {
        let before = receiver.hits().iter().filter(|hit| hit.path == "/second").count();
        amqp.publish("a.b", &event(&crate::support::unique(), "acme", "a.b"), BasicProperties::default())
            .await;
        before > 0
    };
    eventually("the change is seen without Redis", 15, both).await;
    redis.resume().await;
    eventually("ready again", 15, || serve.is_ready()).await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_store_consumes_nothing_and_says_why() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    serve.stop().await;

    let store = format!("sqlite://{}", app.path("other/empty.db").display());
    app.set("STORE__URL", &store);
    let stranger = app.serve_unready("all").await;
    let why = || async {
        stranger.get("/readyz").await.is_some_and(|(_, body)| body.contains("Redis belongs to store"))
    };
    eventually("it says why", 15, why).await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    amqp.publish_to_queue("dead.events", b"{}", BasicProperties::default()).await;
    for queue in ["events", "dead.events"] {
        eventually("it is there to be taken", 10, async || amqp.ready(queue).await == Some(1)).await;
    }
    // Nobody who could take is there, however long one waits.
    assert_eq!(amqp.consumers("events").await, Some(0), "nothing is taken");
    assert_eq!(amqp.consumers("dead.events").await, Some(0), "no letter is put into the wrong store");
    assert!(!stranger.is_ready().await);
    stranger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_never_reached_keeps_a_process_from_taking() {
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    redis.stop().await;
    let serve = app.serve_unready("all").await;
    let not_ready = || async {
        serve.get("/readyz").await.is_some_and(|(status, body)| status == 503 && body.contains("Redis"))
    };
    eventually("not ready, because of Redis", 15, not_ready).await;
    redis.resume().await;
    eventually("ready once Redis answers", 15, || serve.is_ready()).await;
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_holds_is_sealed() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/canary-path"))).await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("{}:tenant:acme", app.prefix);
    let sealed: Vec<u8> =
        redis::cmd("HGET").arg(key).arg("sealed").query_async(&mut connection).await.unwrap();
    let text = String::from_utf8_lossy(&sealed).into_owned();
    assert!(sealed.len() > 100 && !text.contains("canary-path") && !text.contains(&made.secret[6..20]));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_redis_missed_is_posted_with_the_next_one() {
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    // Nothing is compared with the store within the test: the next change has to bring the missed one along.
    app.set("CACHE__REFRESH_S", "10");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.migrate().await;
    let add = async |tenant: &str, path: &str| {
        let url = receiver.url(path);
        app.ok(&["subscription", "add", "--no-wait", "--tenant", tenant, "--events", "#", "--url", &url])
            .await;
    };
    add("acme", "/first").await;
    let serve = app.serve("all").await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    redis.command(&["CLIENT", "PAUSE", "1500", "ALL"]).await;
    add("acme", "/second").await;
    eventually("the pause is over", 10, || redis.answers()).await;
    add("beta", "/beta").await;
    let both = || async {
        amqp.publish("a.b", &event(&crate::support::unique(), "acme", "a.b"), BasicProperties::default())
            .await;
        receiver.hits().iter().any(|hit| hit.path == "/second")
    };
    eventually("the missed change is seen", 8, both).await;
    serve.stop().await;
    redis.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_defers_strangers_and_serves_the_known() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.migrate().await;
    app.subscribe(subscription("known", &receiver.url("/known"))).await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    amqp.publish("a.b", &event("evt_1", "known", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    for file in ["paperboy.db", "paperboy.db-wal"] {
        std::fs::write(app.path(file), "this is no database any more".repeat(1000)).unwrap();
    }
    // In place, since processes have it mapped: no connection trusts the pages that it still has in memory.
    let index = std::fs::OpenOptions::new().write(true).open(app.path("paperboy.db-shm")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&index, &[7; 136], 0).unwrap();
    amqp.publish("a.b", &event("evt_2", "stranger", "a.b"), BasicProperties::default()).await;
    let deferred = || async { worker.metric("paperboy_deferred_total", "").await > 2.5 };
    eventually("the stranger's event is put off, again and again", 20, deferred).await;
    amqp.publish("a.b", &event("evt_3", "known", "a.b"), BasicProperties::default()).await;
    receiver.wait_for(2, 10).await;
    assert!(worker.is_ready().await, "{}", worker.log());
    assert_eq!(amqp.ready("dead.events").await, Some(0));
    assert!(worker.metric("paperboy_given_back_total", "").await < 0.5);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_older_than_redis_takes_nothing_until_somebody_decides() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.migrate().await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    redis.command(&["SET", &format!("{}:changes", app.prefix), "99"]).await;
    let serve = app.serve_unready("all").await;
    let why = || async { serve.get("/readyz").await.is_some_and(|(_, body)| body.contains("older")) };
    eventually("it says why", 15, why).await;
    // Several polls of Redis alone pass between two comparisons with the store.
    let before = redis.calls("mget").await;
    eventually("Redis was asked again and again", 15, async || {
        assert!(why().await, "forgotten before anything was put right");
        redis.calls("mget").await >= before + 12
    })
    .await;
    redis.command(&["DEL", &format!("{}:changes", app.prefix)]).await;
    eventually("ready once our keys are made anew", 15, || serve.is_ready()).await;
    serve.stop().await;
}
