//! Dead letters as a product: grouped by what they died of, filtered, exported, discarded, and sent again as a
//! job that survives its process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::{App, Receiver, Reply, Serve, eventually, free_port};

/// A subscription that gives up at once.
fn once(tenant: &str, url: &str) -> Value {
    let mut document = subscription(tenant, url);
    document["retry"] = json!({ "kind": "none" });
    document
}

/// So many open letters of one receiver, which takes everything from now on.
async fn letters(app: &App, count: usize) -> (Serve, Receiver) {
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    let serve = app.serve("all").await;
    app.subscribe(once("acme", &receiver.url("/"))).await;
    let events = (0..count).map(|n| ("a".to_owned(), event(&format!("evt_{n}"), "acme", "a")));
    app.amqp().await.publish_all(events).await;
    eventually("the letters are kept", 60, || async { open(app).await == count as u64 }).await;
    receiver.change(|_| Reply::status(204));
    (serve, receiver)
}

async fn open(app: &App) -> u64 {
    app.json(&["store", "status"]).await[0]["dead_letters"].as_u64().unwrap()
}

/// How often each event was delivered by a replay.
fn replayed(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for hit in receiver.hits().iter().filter(|hit| hit.header("paperboy-replay") == "1" && hit.status == 204)
    {
        *counts.entry(hit.id().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_grouped_by_what_they_died_of_and_found_by_it() {
    let app = App::new();
    let receiver = Receiver::start(|hit| Reply::status(if hit.path == "/gone" { 404 } else { 503 })).await;
    let serve = app.serve("all").await;
    let silent = format!("http://localhost:{}/", free_port());
    let documents = [
        once("acme", &receiver.url("/busy")),
        once("other", &receiver.url("/busy")),
        once("third", &receiver.url("/gone")),
        once("fourth", &silent),
    ];
    app.subscribe_all(&documents).await;
    let amqp = app.amqp().await;
    let tenants = ["acme", "acme", "other", "third", "fourth"];
    let events = tenants
        .iter()
        .enumerate()
        .map(|(n, tenant)| ("a".to_owned(), event(&format!("evt_{n}"), tenant, "a")));
    amqp.publish_all(events.chain([("b".to_owned(), b"no json".to_vec())])).await;
    app.wait_for_dead(6, 30).await;

    let groups = app.json(&["dead", "groups"]).await;
    let told = |group: &Value| {
        let text = |name: &str| group[name].to_string().trim_matches('"').to_owned();
        (group["letters"].as_u64().unwrap(), text("kind"), text("host"), text("class"), text("status"))
    };
    let mut found: Vec<_> = groups.iter().map(told).collect();
    assert_eq!((found[0].0, groups[0]["tenants"].as_u64()), (3, Some(2)), "the largest first");
    found.sort();
    let group = |letters, kind: &str, host: &str, class: &str, status: &str| {
        (letters, kind.to_owned(), host.to_owned(), class.to_owned(), status.to_owned())
    };
    assert_eq!(
        found,
        [
            group(1, "delivery", "127.0.0.1", "not_found", "404"),
            // `localhost` may lead to addresses that the guard denies as well.
            group(1, "delivery", "localhost", found[1].3.as_str(), "null"),
            group(1, "event", "null", "unreadable", "null"),
            group(3, "delivery", "127.0.0.1", "unavailable", "503"),
        ]
    );
    assert!(groups[0]["hint"].as_str().unwrap().contains("replayed"), "{}", groups[0]);

    for (filter, count) in [
        (["--class", "unavailable"].as_slice(), 3),
        (&["--status", "4xx"], 1),
        (&["--host", "127.0.0.1"], 4),
        (&["--host", "127.0.0.1", "--tenant", "other"], 1),
        (&["--kind", "event"], 1),
        (&["--type", "a"], 5),
        (&["--since", "1h"], 6),
        (&["--until", "1h"], 0),
        (&["--batch", "b_1"], 0),
    ] {
        let arguments = [&["dead", "list"], filter].concat();
        assert_eq!(app.json(&arguments).await.len(), count, "{filter:?}");
    }
    let gone = app.json(&["dead", "list", "--status", "404"]).await.remove(0);
    let shown = app.ok(&["dead", "show", gone["id"].as_str().unwrap()]).await;
    assert!(shown.contains("there is nothing at this address of 127.0.0.1"), "{shown}");
    assert!(shown.contains("hint           correct the path"), "{shown}");

    let exported = app.ok(&["dead", "export", "--kind", "event"]).await;
    let exported: Value = serde_json::from_str(exported.trim()).unwrap();
    assert_eq!(
        (exported["body"].as_str(), exported["reason"].as_str().map(|it| it.starts_with("unreadable"))),
        (Some("no json"), Some(true))
    );

    // Of a named letter the word is the person's own; of all, it is what they died of.
    let id = gone["id"].as_str().unwrap();
    let wrong = app.run(&["dead", "discard", "--all", "--reason", "the customer left", "--yes"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    app.ok(&["dead", "discard", id, "--reason", "the customer left", "--yes"]).await;
    let discarded = app.json(&["dead", "list", "--state", "discarded"]).await;
    assert_eq!((discarded.len(), discarded[0]["note"].as_str()), (1, Some("the customer left")));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_twice_loses_nothing_and_goes_on() {
    let app = App::new();
    let (serve, receiver) = letters(&app, 120).await;
    for round in 1..=2 {
        let mut command = app.command(&["dead", "replay", "--all", "--since", "1h", "--rate", "60"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        eventually("some were sent", 30, || async { replayed(&receiver).len() >= round * 30 }).await;
        child.kill().await.unwrap();
    }
    assert_eq!(app.json(&["dead", "jobs"]).await.len(), 1);
    app.ok(&["dead", "replay", "--all", "--since", "1h", "--rate", "0"]).await;
    eventually("every event is delivered", 30, || async { replayed(&receiver).len() == 120 }).await;
    assert_eq!(open(&app).await, 0);
    let jobs = app.json(&["dead", "jobs"]).await;
    assert_eq!(
        (jobs.len(), jobs[0]["state"].as_str(), jobs[0]["sent"].as_u64()),
        (1, Some("done"), Some(120))
    );
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_of_the_same_at_once_send_every_letter_once() {
    let app = App::new();
    let (serve, receiver) = letters(&app, 60).await;
    let replay = ["dead", "replay", "--all", "--rate", "60"];
    let other = ["dead", "replay", "--all", "--tenant", "acme", "--rate", "60"];
    let (one, same, another) = tokio::join!(app.run(&replay), app.run(&replay), app.run(&other));
    let codes = [&one, &same, &another].map(|output| output.status.code());
    assert!(codes.contains(&Some(0)), "{codes:?}");
    eventually("every event is delivered", 30, || async { replayed(&receiver).len() == 60 }).await;
    eventually("nothing is open", 10, || async { open(&app).await == 0 }).await;
    assert!(replayed(&receiver).values().all(|times| *times == 1), "{:?}", replayed(&receiver));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_that_fail_stop_a_replay_and_those_that_arrive_let_it_go_on() {
    let app = App::new();
    let (serve, receiver) = letters(&app, 20).await;
    receiver.change(|_| Reply::status(500));
    let replay = ["dead", "replay", "--all", "--canary", "3"];
    let stopped = app.run(&replay).await;
    let error = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(1), "{error}");
    assert!(error.contains("stopped: canary `dl_") && error.contains("was not delivered"), "{error}");
    // The canaries died again and are back in their group, counted.
    eventually("the canaries are kept again", 20, || async { open(&app).await == 20 }).await;
    let groups = app.json(&["dead", "groups"]).await;
    assert_eq!(
        (groups.len(), groups[0]["letters"].as_u64(), groups[0]["again"].as_u64()),
        (1, Some(20), Some(3))
    );

    receiver.change(|_| Reply::status(204));
    app.ok(&replay).await;
    eventually("the rest is delivered", 20, || async { replayed(&receiver).len() == 17 }).await;
    assert_eq!(open(&app).await, 3, "what died again waits for a person");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_left_to_serve_is_paused_resumed_and_cancelled() {
    let app = App::new();
    let (serve, receiver) = letters(&app, 40).await;
    let begun = app.json(&["dead", "replay", "--all", "--detach", "--rate", "5"]).await;
    let id = begun[0]["job"].to_string();
    eventually("serve works on it", 20, || async { !replayed(&receiver).is_empty() }).await;
    let paused = app.json(&["dead", "jobs", "pause", &id]).await.remove(0);
    assert_eq!(paused["state"], "paused");
    assert!(paused["waiting"].as_u64().unwrap() > 0, "{paused}");

    app.ok(&["dead", "jobs", "resume", &id]).await;
    let before = replayed(&receiver).len();
    eventually("it goes on", 20, || async { replayed(&receiver).len() > before + 2 }).await;
    app.ok(&["dead", "jobs", "cancel", &id]).await;
    assert_eq!(app.run(&["dead", "jobs", "resume", &id]).await.status.code(), Some(1));
    eventually("what was sent arrives and the rest stays open", 20, || async {
        let jobs = app.json(&["dead", "jobs"]).await;
        let sent = jobs[0]["sent"].as_u64().unwrap();
        jobs[0]["state"] == "cancelled"
            && replayed(&receiver).len() as u64 == sent
            && open(&app).await == 40 - sent
    })
    .await;
    let output = app.run(&["dead", "replay", "--all", "--dry-run"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("would replay"));
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_for_its_age_leaves_one_line_of_the_audit() {
    let app = App::new();
    let (serve, _receiver) = letters(&app, 3).await;
    serve.stop().await;
    let old_ms = jiff::Timestamp::now().as_millisecond() - 31 * 86_400_000;
    app.sql(&format!("UPDATE dead_letters SET dead_at_ms = {old_ms} WHERE id < 3")).await;
    let serve = app.serve("api").await;
    eventually("two are forgotten", 20, || async { open(&app).await == 1 }).await;
    let lines = async || {
        let lines = app.json(&["audit", "list"]).await;
        lines.into_iter().filter(|line| line["action"] == "dead_letter.forget").collect::<Vec<_>>()
    };
    eventually("it is noted", 20, || async { !lines().await.is_empty() }).await;
    assert_eq!(serve.metric("paperboy_dead_letters_forgotten_total", "").await, 2.0);
    serve.stop().await;
    // Nothing to forget is nothing to note.
    app.serve("api").await.stop().await;
    let lines = lines().await;
    assert_eq!((lines.len(), &lines[0]["actor"]), (1, &json!("paperboy")));
    assert_eq!(lines[0]["detail"]["count"], 2);
}
