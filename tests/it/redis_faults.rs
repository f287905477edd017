//! Redis as it should not be: whatever it answers, or does not, events are neither lost nor let go.

use lapin::BasicProperties;
use serde_json::json;

use crate::support::app::{event, subscription};
use crate::support::redis_tap::RedisTap;
use crate::support::services::{PrivatePostgres, PrivateRedis};
use crate::support::{Amqp, App, Receiver, Reply, Serve, eventually};

/// What a Redis may answer instead of doing what it is asked, and the class it is counted under.
const REFUSALS: [(&str, &str); 8] = [
    ("LOADING Redis is loading the dataset in memory", "loading"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "oom"),
    ("NOAUTH Authentication required.", "noauth"),
    ("READONLY You can't write against a read only replica.", "readonly"),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "masterdown"),
    ("CLUSTERDOWN The cluster is down", "clusterdown"),
    ("MOVED 3999 127.0.0.1:6381", "moved"),
    ("BUSY Redis is busy running a script.", "busy"),
];

async fn publish(amqp: &Amqp, id: &str, tenant: &str) {
    amqp.publish("a.b", &event(id, tenant, "a.b"), BasicProperties::default()).await;
}

/// How often Redis failed a process, by class.
async fn faults(serve: &Serve, class: &str) -> f64 {
    serve.metric("paperboy_redis_faults_total", &format!("class=\"{class}\"")).await
}

async fn assert_nothing_let_go(serve: &Serve) {
    for name in ["paperboy_no_subscriber_total", "paperboy_dead_total", "paperboy_deferred_total"] {
        assert!(serve.metric(name, "").await < 0.5, "{name}:\n{}", serve.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_redis_answers_every_worker_uses_a_change_and_lets_nothing_go() {
    let redis = PrivateRedis::start().await;
    let tap = RedisTap::before(redis.port()).await;
    let mut app = App::new();
    app.set("REDIS__URL", &tap.url());
    app.set("CACHE__REFRESH_S", "1");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("known", &receiver.url("/known"))).await;
    let workers = [app.serve("worker").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    let mut expected = 0;
    for (error, class) in REFUSALS {
        // Full and read-only ones still answer who reads.
        let is_for_writers = ["oom", "readonly"].contains(&class);
        if is_for_writers {
            tap.refuse_writes(error)
        } else {
            tap.refuse(error)
        }
        let new = app.subscribe(subscription(class, &receiver.url(&format!("/{class}")))).await;
        for n in 0..10 {
            publish(&amqp, &format!("{class}_{n}"), class).await;
            publish(&amqp, &format!("known_{class}_{n}"), "known").await;
        }
        expected += 20;
        let hits = receiver.wait_for(expected, 20).await;
        let path = format!("/{class}");
        assert_eq!(hits.iter().filter(|hit| hit.path == path && hit.is_signed_with(&new.secret)).count(), 10);
        for worker in &workers {
            let counted = || async { faults(worker, class).await > 0.5 };
            eventually(&format!("`{class}` is counted"), 10, counted).await;
            assert!(worker.is_ready().await, "{class}: {}", worker.log());
        }
        tap.work();
    }
    for worker in &workers {
        let told = || async { worker.log().contains("reading from Redis works again") };
        eventually("it is told that Redis is back", 10, told).await;
        assert_nothing_let_go(worker).await;
    }
    assert_eq!(receiver.count(), expected, "nothing twice");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_before_a_redis_that_refuses_takes_nothing_and_says_why() {
    let redis = PrivateRedis::start().await;
    let tap = RedisTap::before(redis.port()).await;
    let mut app = App::new();
    app.set("REDIS__URL", &tap.url());
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("acme", &receiver.url("/x"))).await;
    let amqp = app.amqp().await;
    for (error, class) in [REFUSALS[0], REFUSALS[2], REFUSALS[4]] {
        tap.refuse(error);
        let worker = app.serve_unready("worker").await;
        let told = "Redis cannot be reached: ";
        let why = || async { worker.get("/readyz").await.is_some_and(|(_, body)| body.contains(told)) };
        eventually(&format!("it says why: {class}"), 15, why).await;
        let before = receiver.count();
        // Declares the queues, and has nothing to do with them.
        publish(&amqp, class, "acme").await;
        let seen = faults(&worker, class).await;
        let again = || async { faults(&worker, class).await > seen + 1.5 };
        eventually("it looks again and again", 15, again).await;
        assert!(worker.metric("paperboy_taken_total", "").await < 0.5);
        tap.work();
        receiver.wait_for(before + 1, 20).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_of_redis_is_an_empty_cache_and_one_that_is_not_there_is_told() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    app.set("CACHE__REFRESH_S", "1");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("acme", &receiver.url("/first"))).await;
    app.set("REDIS__URL", &redis.url_of_database(1));
    let astray = app.serve("worker").await;
    app.set("REDIS__URL", &redis.url());
    let amqp = app.amqp().await;
    publish(&amqp, "evt_1", "acme").await;
    receiver.wait_for(1, 10).await;
    // A change it is not told of by its own Redis: the store tells it, as soon.
    app.subscribe(subscription("beta", &receiver.url("/second"))).await;
    publish(&amqp, "evt_2", "beta").await;
    receiver.wait_for(2, 10).await;
    assert_nothing_let_go(&astray).await;
    astray.stop().await;
    app.set("REDIS__URL", &redis.url_of_database(99));
    let nowhere = app.serve_unready("worker").await;
    let why = || async {
        nowhere.get("/readyz").await.is_some_and(|(_, body)| body.contains("Redis cannot be reached"))
    };
    eventually("it says why", 15, why).await;
    nowhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_keeps_nobody_waiting_but_the_first() {
    const TENANTS: usize = 60;
    let mut redis = PrivateRedis::start().await;
    let tap = RedisTap::before(redis.port()).await;
    let mut app = App::new();
    app.set("REDIS__URL", &tap.url());
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let documents: Vec<_> = ["pipe", "stopped", "paused"]
        .iter()
        .flat_map(|way| (0..TENANTS).map(move |n| format!("{way}{n}")))
        .chain([String::from("known")])
        .map(|tenant| subscription(&tenant, &receiver.url(&format!("/{tenant}"))))
        .collect();
    app.subscribe_all(&documents).await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    publish(&amqp, "known_0", "known").await;
    let mut expected = 1;
    receiver.wait_for(expected, 10).await;
    for way in ["pipe", "stopped", "paused"] {
        match way {
            "pipe" => tap.fall_silent(),
            "stopped" => redis.signal("-STOP").await,
            _ => redis.command(&["CLIENT", "PAUSE", "60000", "ALL"]).await,
        }
        let before = faults(&worker, "timeout").await;
        let silent = || async { faults(&worker, "timeout").await > before + 0.5 };
        eventually("the silence is noticed", 10, silent).await;
        let before = faults(&worker, "timeout").await;
        for n in 0..TENANTS {
            publish(&amqp, &format!("{way}_{n}"), &format!("{way}{n}")).await;
            publish(&amqp, &format!("known_{way}_{n}"), "known").await;
        }
        expected += 2 * TENANTS;
        receiver.wait_for(expected, 20).await;
        // Only those who follow the changes and the heartbeat still wait for Redis; no tenant does.
        let waited = faults(&worker, "timeout").await - before;
        assert!(waited < TENANTS as f64 / 2.0, "{way}: {waited} waited in vain");
        assert!(worker.is_ready().await, "{way}: {}", worker.log());
        match way {
            "pipe" => tap.work(),
            "stopped" => redis.signal("-CONT").await,
            _ => redis.restart().await,
        }
        let told = || async { worker.log().matches("reading from Redis works again").count() > 0 };
        eventually("Redis works again", 20, told).await;
    }
    assert_nothing_let_go(&worker).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_cache_before_a_backlog_reads_each_tenant_once() {
    const TENANTS: usize = 100;
    const EVENTS: usize = 2_000;
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let documents: Vec<_> =
        (0..TENANTS).map(|n| subscription(&format!("t{n}"), &receiver.url(&format!("/t{n}")))).collect();
    app.subscribe_all(&documents).await;
    app.serve("worker").await.stop().await;
    let amqp = app.amqp().await;
    // The same tenant many times in a row.
    let tenant = |n: usize| format!("t{}", n / (EVENTS / TENANTS));
    amqp.publish_all(
        (0..EVENTS).map(|n| (String::from("a.b"), event(&format!("evt_{n}"), &tenant(n), "a.b"))),
    )
    .await;
    redis.stop().await;
    redis.resume().await;
    let workers = [app.serve("worker").await, app.serve("worker").await];
    let hits = receiver.wait_for(EVENTS, 60).await;
    assert_eq!(hits.len(), EVENTS);
    let asked = redis.calls("hmget").await;
    assert!(
        asked <= 2 * TENANTS as u64,
        "Redis was asked {asked} times for {TENANTS} tenants by two workers"
    );
    for worker in workers {
        let reads = worker.metric("paperboy_tenant_reads_total", "from=\"store\"").await;
        assert!(reads <= TENANTS as f64, "{reads} reads of the store");
        assert_nothing_let_go(&worker).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_of_a_thousand_tenants_are_read_once_by_each_process() {
    const TENANTS: usize = 1_000;
    let mut app = App::new();
    app.set("REDIS__URL", "");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let documents: Vec<_> = (0..10 * TENANTS)
        .map(|n| {
            let mut document = subscription(&format!("t{}", n / 10), &receiver.url(&format!("/t{}", n / 10)));
            document["events"] = json!([format!("kind{}", n % 10)]);
            document["signatures"] = json!([]);
            document
        })
        .collect();
    app.subscribe_all(&documents).await;
    let workers = [app.serve("worker").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    let events = (0..4 * TENANTS).map(|n| {
        (String::from("a.b"), event(&format!("evt_{n}"), &format!("t{}", n / 4), &format!("kind{}", n % 10)))
    });
    amqp.publish_all(events).await;
    let hits = receiver.wait_for(4 * TENANTS, 120).await;
    assert_eq!(hits.len(), 4 * TENANTS);
    assert!(hits.iter().all(|hit| {
        let n: usize = hit.id()[4..].parse().unwrap();
        hit.path == format!("/t{}", n / 4)
    }));
    let mut all = 0.0;
    for worker in workers {
        let reads = worker.metric("paperboy_tenant_reads_total", "from=\"store\"").await;
        assert!(reads <= TENANTS as f64, "{reads} reads of {TENANTS} tenants");
        all += reads;
        assert!(worker.metric("paperboy_lookups_unknown_total", "").await < 0.5, "{}", worker.log());
        worker.stop().await;
    }
    assert!(all >= TENANTS as f64, "the reads are counted: {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_returned_is_used_by_every_worker_with_redis_and_without() {
    let mut redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    app.set("CACHE__REFRESH_S", "1");
    app.set("BROKER__PREFETCH", "8");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let made = app.subscribe(subscription("acme", &receiver.url("/0"))).await;
    let workers = [app.serve("worker").await, app.serve("worker").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    for (round, way) in [(1, "as ever"), (2, "flushed"), (3, "gone"), (4, "back")] {
        match way {
            "flushed" => redis.command(&["FLUSHALL"]).await,
            "gone" => redis.stop().await,
            "back" => redis.resume().await,
            _ => {}
        }
        // Everybody has it in memory as it was.
        publish_many(&amqp, &format!("before{round}")).await;
        receiver.wait_for((round - 1) * 120 + 60, 30).await;
        let patch = json!({ "request": { "url": receiver.url(&format!("/{round}")) } }).to_string();
        app.ok_with_input(&["subscription", "update", &made.id, "--file", "-"], &patch).await;
        publish_many(&amqp, &format!("after{round}")).await;
        let hits = receiver.wait_for(round * 120, 30).await;
        let path = format!("/{round}");
        let wrong =
            hits.iter().filter(|hit| hit.id().starts_with(&format!("after{round}_")) && hit.path != path);
        assert_eq!(wrong.count(), 0, "Redis {way}: delivered as before the change");
    }
    for worker in &workers {
        let delivered = worker.metric("paperboy_settled_total", "delivered").await;
        assert!(delivered > 20.0, "each of them was at work: {delivered}");
        assert_nothing_let_go(worker).await;
    }
    for worker in workers {
        worker.stop().await;
    }
}

async fn publish_many(amqp: &Amqp, name: &str) {
    amqp.publish_all((0..60).map(|n| (String::from("a.b"), event(&format!("{name}_{n}"), "acme", "a.b"))))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_and_store_away_known_tenants_are_served_for_a_while_and_then_everything_waits() {
    let (mut redis, postgres) = (PrivateRedis::start().await, PrivatePostgres::start().await);
    let mut app = App::with_store(&postgres.url);
    app.set("REDIS__URL", &redis.url());
    app.set("CACHE__MAX_STALE_S", "4");
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.subscribe(subscription("known", &receiver.url("/known"))).await;
    let workers = [app.serve("worker").await, app.serve("worker").await];
    let amqp = app.amqp().await;
    let many = |name: &'static str| {
        (0..40).map(move |n| (String::from("a.b"), event(&format!("{name}_{n}"), "known", "a.b")))
    };
    amqp.publish_all(many("before")).await;
    receiver.wait_for(40, 20).await;
    redis.stop().await;
    postgres.kill().await;
    amqp.publish_all(many("meanwhile")).await;
    receiver.wait_for(80, 20).await;
    for worker in &workers {
        let away =
            || async { worker.get("/readyz").await.is_some_and(|(_, body)| body.contains("are away")) };
        eventually("what is known has become too old", 20, away).await;
    }
    amqp.publish_all(many("late")).await;
    eventually("nothing is taken", 10, || async { amqp.ready("events").await == Some(40) }).await;
    postgres.restart().await;
    redis.resume().await;
    let hits = receiver.wait_for(120, 30).await;
    assert!(hits.iter().all(|hit| hit.header("paperboy-attempt") == "1"), "no attempt was used up");
    for worker in workers {
        worker.wait_ready().await;
        assert_nothing_let_go(&worker).await;
        worker.stop().await;
    }
    postgres.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_under_way_follow_what_became_of_their_subscription() {
    const EVENTS: usize = 20;
    let app = App::new();
    app.migrate().await;
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/moved" { 200 } else { 500 })).await;
    let mut made = Vec::new();
    for tenant in ["moves", "goes", "rests"] {
        let mut document = subscription(tenant, &receiver.url(&format!("/{tenant}")));
        document["retry"] = json!({ "kind": "fixed", "delay_s": 256, "max_attempts": 10 });
        made.push(app.subscribe(document).await);
    }
    let serve = app.serve("all").await;
    let amqp = app.amqp().await;
    let tenants = ["moves", "goes", "rests"].into_iter().cycle().zip(0..3 * EVENTS);
    amqp.publish_all(
        tenants.map(|(tenant, n)| (String::from("a.b"), event(&format!("evt_{n}"), tenant, "a.b"))),
    )
    .await;
    receiver.wait_for(3 * EVENTS, 20).await;
    let patch = json!({ "request": { "url": receiver.url("/moved") } }).to_string();
    app.ok_with_input(&["subscription", "update", &made[0].id, "--file", "-"], &patch).await;
    app.ok(&["subscription", "remove", &made[1].id, "--yes"]).await;
    app.ok(&["subscription", "disable", &made[2].id]).await;
    let letters = app.wait_for_dead(2 * EVENTS, 40).await;
    let of = |reason: &str| letters.iter().filter(|letter| letter["reason"] == reason).count();
    assert_eq!((of("gone"), of("disabled"), letters.len()), (EVENTS, EVENTS, 2 * EVENTS));
    let hits = receiver.wait_for(4 * EVENTS, 20).await;
    assert_eq!(hits.iter().filter(|hit| hit.path == "/moved" && hit.nth == 1).count(), EVENTS);
    assert_eq!(hits.len(), 4 * EVENTS, "nobody was asked again where it was before");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_whose_names_look_like_keys_stay_apart() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let tenants = ["t1", "t1:subs", "t1:tenant:t1", "tenant:t1", "store", "changes", ":", "..", "process:1"];
    let documents: Vec<_> = tenants
        .iter()
        .enumerate()
        .map(|(n, tenant)| subscription(tenant, &receiver.url(&format!("/{n}"))))
        .collect();
    app.subscribe_all(&documents).await;
    let serve = app.serve("all").await;
    let amqp = app.amqp().await;
    for (n, tenant) in tenants.iter().enumerate() {
        publish(&amqp, &format!("evt_{n}"), tenant).await;
    }
    let hits = receiver.wait_for(tenants.len(), 20).await;
    let mut seen: Vec<_> = hits.iter().map(|hit| format!("{} {}", hit.id(), hit.path)).collect();
    seen.sort();
    let expected: Vec<_> = (0..tenants.len()).map(|n| format!("evt_{n} /{n}")).collect();
    assert_eq!(seen, expected);
    let mut keys: Vec<_> = redis.sealed_records(&app.prefix).await.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    let mut own: Vec<_> = tenants.iter().map(|tenant| format!("{}:tenant:{tenant}", app.prefix)).collect();
    own.sort();
    assert_eq!(keys, own, "a record for each, and no other");
    for bad in ["t1\n", "*", "t1}{t2", "t1 ", "", "t1\0", "tä"] {
        let document = subscription(bad, &receiver.url("/bad")).to_string();
        let refused = app.output_of(app.command(&["subscription", "add", "--file", "-"]), &document).await;
        assert_eq!(refused.status.code(), Some(2), "tenant {bad:?}");
        publish(&amqp, "evt_bad", bad).await;
    }
    let letters = app.wait_for_dead(7, 20).await;
    assert!(letters.iter().all(|letter| letter["kind"] == "event"), "{letters:#?}");
    assert_eq!(receiver.count(), tenants.len());
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_forged_in_redis_is_not_used() {
    let redis = PrivateRedis::start().await;
    let mut app = App::new();
    app.set("REDIS__URL", &redis.url());
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    for tenant in ["acme", "evil"] {
        app.subscribe(subscription(tenant, &receiver.url(&format!("/{tenant}")))).await;
    }
    let first = app.serve("worker").await;
    let amqp = app.amqp().await;
    publish(&amqp, "evt_1", "acme").await;
    publish(&amqp, "evt_2", "evil").await;
    receiver.wait_for(2, 10).await;
    first.stop().await;
    // The record of one tenant put in the place of the other's, at its version.
    let key = |tenant: &str| format!("{}:tenant:{tenant}", app.prefix);
    let records = redis.sealed_records(&app.prefix).await;
    let (_, evil) = records.into_iter().find(|(name, _)| *name == key("evil")).unwrap();
    redis.set_field(&key("acme"), "sealed", &evil).await;
    let second = app.serve("worker").await;
    publish(&amqp, "evt_3", "acme").await;
    let hits = receiver.wait_for(3, 10).await;
    assert_eq!(hits.iter().filter(|hit| hit.path == "/acme").count(), 2);
    assert!(second.log().contains("the record in Redis cannot be used"), "{}", second.log());
    assert_ne!(
        redis.sealed_records(&app.prefix).await.iter().find(|(name, _)| *name == key("acme")).unwrap().1,
        evil
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_record_defers_its_tenant_and_no_other() {
    let app = App::new();
    app.migrate().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let broken = app.subscribe(subscription("broken", &receiver.url("/broken"))).await;
    app.subscribe(subscription("well", &receiver.url("/well"))).await;
    app.sql(&format!("UPDATE subscriptions SET sealed = substr(sealed, 1, 60) WHERE id = '{}'", broken.id))
        .await;
    let worker = app.serve("worker").await;
    let amqp = app.amqp().await;
    publish(&amqp, "evt_1", "broken").await;
    publish(&amqp, "evt_2", "well").await;
    receiver.wait_for(1, 10).await;
    let deferred = || async { worker.metric("paperboy_deferred_total", "").await > 1.5 };
    eventually("it is put off, again and again", 20, deferred).await;
    let log = worker.log();
    assert!(log.contains("a subscription of tenant `broken` cannot be read; its events wait"), "{log}");
    assert!(worker.is_ready().await);
    // Made anew and removed: what waited is delivered, by its first attempt.
    app.subscribe(subscription("broken", &receiver.url("/mended"))).await;
    app.ok(&["subscription", "remove", &broken.id, "--yes"]).await;
    let hits = receiver.wait_for(2, 20).await;
    assert_eq!((hits[1].path.as_str(), hits[1].header("paperboy-attempt")), ("/mended", "1"));
    worker.stop().await;
}
