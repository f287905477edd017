//! The command line as a black box: exit codes, sentences, and what must never be printed.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::{event, subscription};
use crate::support::failure::{CONFIG, USAGE, WORLD, failure, one_error};
use crate::support::{App, Receiver, Reply, eventually, free_port};

/// An app with nothing to warn about at a start.
fn quiet() -> App {
    let mut app = App::new();
    app.set("EGRESS__ALLOW", "");
    app
}

/// As [`quiet`], with a store and its key, so that a start has nothing to make.
async fn migrated() -> App {
    let app = quiet();
    app.migrate().await;
    app
}

#[tokio::test]
async fn every_fault_of_the_configuration_is_listed_at_once() {
    let mut app = App::new();
    app.set("BROKER__PREFETCHH", "64");
    app.set("BROKER__URL", "http://guest:canary@h");
    app.set("REDIS__URL", "canary");
    app.set("BROKER__PREFETCH", "3");
    app.set("EGRESS__ALLOW", "10.0.0.0/8,not-an-address");
    app.set("SECRETS__KEY", "canary");
    let file = app.path("paperboy.toml");
    std::fs::write(&file, "[brokr]\nurl = \"x\"\n[log]\nformat = \"xml\"\n").unwrap();
    for command in [["serve"].as_slice(), &["config", "check"], &["dead", "list"]] {
        let lines = failure(&app, &[command, &["--config", file.to_str().unwrap()]].concat(), CONFIG).await;
        let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("error: ")).collect();
        let told = [
            "unknown key `brokr.url` in `",
            "unknown variable `PAPERBOY__BROKER__PREFETCHH`",
            "`broker.url` from `PAPERBOY__BROKER__URL` has scheme `http`",
            "`redis.url` from `PAPERBOY__REDIS__URL` is not a URL",
            "`broker.prefetch` from `PAPERBOY__BROKER__PREFETCH` is 3, which is out of range",
            "in `egress.allow` from `PAPERBOY__EGRESS__ALLOW`, ",
            "`secrets.key` from `PAPERBOY__SECRETS__KEY` cannot be used",
            "`log.format` in `",
        ];
        for what in told {
            assert!(errors.iter().any(|line| line.contains(what)), "{what}\n{lines:#?}");
        }
        assert_eq!(errors.len(), told.len(), "{lines:#?}");
        assert_eq!(lines.len(), 2 * told.len(), "each with a hint: {lines:#?}");
        assert!(!lines.concat().contains("canary"), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_mistyped_key_is_told_with_the_nearest_one() {
    let app = App::new();
    let told = one_error(&app, &["config", "show", "--set", "broker.prefx=a"], CONFIG).await;
    assert_eq!(told, ("unknown key `broker.prefx`".to_owned(), "did you mean `broker.prefix`?".to_owned()));
}

#[tokio::test]
async fn bad_urls_are_told_with_what_to_write_instead() {
    for (name, url, says) in [
        ("BROKER__URL", "embedded", "`embedded` is not supported yet"),
        ("BROKER__URL", "amqp://h/", "names the virtual host with the empty name"),
        ("STORE__URL", "postgres:paperboy", "not a Postgres address"),
        ("STORE__URL", "postgres://h/d?passwd=p", "is unknown; known are sslmode,"),
        ("STORE__URL", "postgres://u:p@h/d", "`secrets.key` is empty"),
        ("STORE__URL", "mysql://h/d", "unknown kind of store"),
        ("REDIS__URL", "http://h", "`redis.url` from"),
        ("API__LISTEN", "8080", "is not an IP address with a port"),
    ] {
        let mut app = App::new();
        app.set(name, url);
        let (error, hint) = one_error(&app, &["serve"], CONFIG).await;
        assert!(error.contains(says) && hint.starts_with("write "), "{url}: {error}\n{hint}");
    }
}

#[tokio::test]
async fn a_worker_with_a_local_store_and_a_broker_elsewhere_is_a_fault() {
    let mut app = App::new();
    app.set("BROKER__URL", "amqp://guest:guest@broker.example");
    let (error, hint) = one_error(&app, &["serve", "--role", "worker"], CONFIG).await;
    assert!(
        error.contains("a worker cannot use `store.url`") && hint.contains("store.single_host"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_login_ends_a_start_at_once() {
    let mut app = migrated().await;
    let (_, host) = app.setting("BROKER__URL").rsplit_once('@').unwrap();
    let (place, _) = host.split_once('/').unwrap();
    let (wrong, place) = (format!("amqp://guest:canary@{host}"), place.to_owned());
    let nowhere = format!("amqp://guest:guest@{place}/nowhere");
    for (url, says) in [(wrong, "ACCESS_REFUSED"), (nowhere, "vhost nowhere not found")] {
        app.set("BROKER__URL", &url);
        let started = Instant::now();
        let (error, hint) = one_error(&app, &["serve"], WORLD).await;
        assert!(
            error.starts_with(&format!("RabbitMQ at `{place}` refused the login of `guest`: ")),
            "{error}"
        );
        assert!(error.contains(says) && hint.contains("PAPERBOY__BROKER__URL"), "{error}\n{hint}");
        assert!(!error.contains("canary"));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn an_unreachable_broker_ends_a_start_after_the_wait() {
    let mut app = migrated().await;
    let place = format!("127.0.0.1:{}", free_port());
    app.set("BROKER__URL", &format!("amqp://guest:guest@{place}"));
    app.set("BROKER__START_WAIT_S", "1");
    for command in [["serve"].as_slice(), &["publish", "--tenant", "acme", "--type", "a.b"]] {
        let started = Instant::now();
        let (error, hint) = one_error(&app, command, WORLD).await;
        assert!(error.starts_with(&format!("RabbitMQ at `{place}` cannot be reached: ")), "{error}");
        assert!(hint.contains("./deploy/local up") && hint.contains("`broker.url`"), "{hint}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_port_that_never_answers_does_not_outlast_the_wait() {
    let mut app = migrated().await;
    // Accepted by the system, read by nobody.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    app.set("BROKER__URL", &format!("amqp://guest:guest@{}", silent.local_addr().unwrap()));
    app.set("BROKER__START_WAIT_S", "1");
    let started = Instant::now();
    let (error, _) = one_error(&app, &["serve"], WORLD).await;
    assert!(error.contains("cannot be reached: no answer within 2 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_occupied_port_ends_a_start_naming_the_key() {
    let app = migrated().await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = other.local_addr().unwrap().to_string();
    for (role, key) in [("all", "api.listen"), ("api", "api.listen"), ("worker", "worker.listen")] {
        let set = format!("{key}={place}");
        let (error, hint) = one_error(&app, &["serve", "--role", role, "--set", &set], WORLD).await;
        assert!(error.contains(&place) && error.contains("in use"), "{error}");
        assert!(hint.contains(&format!("`{key}`")), "{hint}");
    }
}

#[tokio::test]
async fn a_mismatched_queue_ends_a_start_naming_queue_and_argument() {
    let app = migrated().await;
    app.amqp().await.declare_odd_queue("dead.events").await;
    let (error, hint) = one_error(&app, &["serve"], WORLD).await;
    let name = format!("`{}.dead.events`", app.prefix);
    assert!(error.starts_with(&format!("{name} exists on the broker with other arguments: ")), "{error}");
    assert!(error.contains("inequivalent arg 'x-"), "{error}");
    assert!(hint.contains(&name) && hint.contains("`broker.prefix`"), "{hint}");
}

#[tokio::test]
async fn with_declare_off_what_is_missing_ends_a_start() {
    let mut app = migrated().await;
    app.set("BROKER__DECLARE", "false");
    let (error, hint) = one_error(&app, &["serve"], WORLD).await;
    let name = format!("`{}.events`", app.prefix);
    assert_eq!(error, format!("{name} does not exist on the broker and `broker.declare` is false"));
    assert!(hint.contains("`broker.declare = true`"), "{hint}");
}

#[tokio::test]
async fn commands_without_a_store_say_how_to_make_one() {
    let app = quiet();
    let url = app.setting("STORE__URL");
    let sentence =
        format!("error: no store at `{url}`: start `paperboy serve` or run `paperboy store migrate`");
    for command in [
        ["subscription", "list"].as_slice(),
        &["subscription", "add", "--tenant", "acme", "--url", "https://h.example", "--events", "#"],
        &["subscription", "show", "sub_1"],
        &["dead", "list"],
        &["dead", "replay", "dl_1"],
        &["dead", "discard", "dl_1", "--yes"],
        &["serve", "--role", "worker"],
    ] {
        assert_eq!(failure(&app, command, WORLD).await, std::slice::from_ref(&sentence), "{command:?}");
    }
    assert!(!app.path("paperboy.db").exists() && !app.path("paperboy.key").exists(), "nothing was made");
}

#[tokio::test]
async fn store_status_tells_without_making_anything() {
    let app = App::new();
    let before = app.json(&["store", "status"]).await.remove(0);
    assert_eq!((&before["exists"], &before["store_id"]), (&json!(false), &Value::Null));
    assert!(!app.path("paperboy.db").exists());
    app.migrate().await;
    app.ok(&["subscription", "add", "--tenant", "acme", "--url", "https://h.example", "--events", "#"]).await;
    let after = app.json(&["store", "status"]).await.remove(0);
    assert_eq!(
        (&after["exists"], &after["pending"], &after["subscriptions"]),
        (&json!(true), &json!(0), &json!(1))
    );
    assert!(after["store_id"].is_string() && after["key_check"].is_string(), "{after}");
}

#[tokio::test]
async fn a_lost_key_is_told_and_nothing_is_changed() {
    let app = migrated().await;
    let key = std::fs::read(app.path("paperboy.key")).unwrap();
    std::fs::remove_file(app.path("paperboy.key")).unwrap();
    for command in [["subscription", "list"].as_slice(), &["serve"], &["store", "migrate"]] {
        let (error, _) = one_error(&app, command, WORLD).await;
        assert!(error.contains("paperboy.key"), "{command:?}: {error}");
    }
    assert!(!app.path("paperboy.key").exists(), "a new key beside an old store would open nothing");
    std::fs::write(app.path("paperboy.key"), key).unwrap();
    app.ok(&["subscription", "list"]).await;
}

#[tokio::test]
async fn words_that_are_no_command_and_commands_that_come_later_are_told_apart() {
    let app = App::new();
    for command in [["doctor"].as_slice(), &["serve", "--embedded"]] {
        let (error, _) = one_error(&app, command, USAGE).await;
        assert!(error.ends_with(" is not supported yet"), "{command:?}: {error}");
    }
    for command in [["nonsense"].as_slice(), &["subscription", "nonsense"], &["dead", "nonsense"]] {
        let (error, hint) = one_error(&app, command, USAGE).await;
        assert!(error.starts_with("`nonsense` is not a command of "), "{error}");
        assert!(hint.ends_with(" lists them"), "{hint}");
    }
    assert_eq!(app.run(&["serve", "--nonsense"]).await.status.code(), Some(USAGE));
    assert_eq!(app.run(&[]).await.status.code(), Some(USAGE));
}

#[tokio::test]
async fn every_command_has_help_and_says_so_on_standard_output() {
    let app = App::new();
    for command in
        [["help"].as_slice(), &["--help"], &["-h"], &["help", "subscription"], &["dead", "help", "replay"]]
    {
        assert!(app.ok(command).await.contains("Usage: paperboy"), "{command:?}");
    }
    let version = app.ok(&["--version"]).await;
    assert_eq!(version, format!("paperboy {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn every_fault_of_new_subscriptions_is_listed_at_once() {
    let app = migrated().await;
    let documents = json!([
        { "tenant": "a b", "events": ["a..b"], "request": { "url": "ftp://h/:id", "headers": { "Host": "h" } },
          "retry": { "kind": "exponential", "max_attempts": 200 } },
        { "events": [], "request": { "url": "nope" }, "signatures": [{ "scheme": "hmac-sha265", "secrets": ["s"] }] },
        { "tenant": "acme", "events": ["#"], "request": { "url": "https://h.example" } },
    ]);
    let file = app.path("subscriptions.json");
    std::fs::write(&file, documents.to_string()).unwrap();
    let lines = failure(&app, &["subscription", "add", "--file", file.to_str().unwrap()], USAGE).await;
    let fields: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("error: subscription ")).collect();
    let told = [
        "1: `tenant`: ",
        "1: `events[0]`: ",
        "1: `request.url`: ",
        "1: `request.headers.Host`: ",
        "1: `retry.max_attempts`: ",
        "2: `tenant`: ",
        "2: `events`: ",
        "2: `request.url`: ",
        "2: `signatures[0].scheme`: ",
    ];
    for what in told {
        assert!(fields.iter().any(|line| line.starts_with(what)), "{what}\n{lines:#?}");
    }
    assert_eq!(fields.len(), told.len(), "{lines:#?}");
    assert!(app.json(&["subscription", "list"]).await.is_empty(), "all or none");

    let lines = failure(&app, &["subscription", "add"], USAGE).await;
    assert_eq!(
        lines[..3],
        ["--tenant", "--url", "--events"].map(|flag| format!("error: `{flag}` is missing"))
    );
}

#[tokio::test]
async fn the_stand_in_for_a_secret_is_refused_as_a_secret() {
    let app = migrated().await;
    let document = json!({
        "tenant": "acme", "events": ["#"],
        "request": { "url": "https://h.example", "headers": { "X-Key": "***" } },
        "auth": { "kind": "bearer", "token": "***" },
        "signatures": [{ "scheme": "standard", "secrets": ["***"] }],
    });
    let file = app.path("subscription.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let lines = failure(&app, &["subscription", "add", "--file", file.to_str().unwrap()], USAGE).await;
    for (place, field) in
        ["request.headers.X-Key", "auth.token", "signatures[0].secrets[0]"].iter().enumerate()
    {
        assert!(lines[2 * place].starts_with(&format!("error: `{field}`: is `***`")), "{lines:#?}");
        assert_eq!(lines[2 * place + 1], "hint: write the secret itself");
    }
    assert_eq!(lines.len(), 6);
}

#[tokio::test]
async fn a_subscription_is_shown_switched_and_removed_only_on_purpose() {
    let app = migrated().await;
    let id = app.subscribe(subscription("acme", "https://h.example/x")).await.id;
    let enabled = async || app.json(&["subscription", "show", &id]).await[0]["enabled"].clone();
    app.ok(&["subscription", "disable", &id]).await;
    assert_eq!(enabled().await, json!(false));
    app.ok(&["subscription", "enable", &id]).await;
    assert_eq!(enabled().await, json!(true));
    assert!(app.ok(&["subscription", "list"]).await.contains(&id));
    assert!(app.json(&["subscription", "list", "--tenant", "other"]).await.is_empty());

    let (error, hint) = one_error(&app, &["subscription", "remove", &id], USAGE).await;
    assert!(
        error.contains("nobody to ask") && hint.contains("--yes") && hint.contains("--dry-run"),
        "{error}\n{hint}"
    );
    let told = app.run(&["subscription", "remove", &id, "--dry-run"]).await;
    assert!(told.status.success() && String::from_utf8_lossy(&told.stderr).contains("would remove"));
    assert_eq!(enabled().await, json!(true), "still there");
    app.ok(&["subscription", "remove", &id, "--yes"]).await;
    for command in ["show", "enable", "disable", "remove"] {
        let (error, _) = one_error(&app, &["subscription", command, &id], WORLD).await;
        assert_eq!(error, format!("there is no subscription `{id}`"), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_discarded_only_on_purpose() {
    let app = App::new();
    let api = app.serve("all").await;
    let amqp = app.amqp().await;
    for body in [b"one".as_slice(), b"two", b"three"] {
        amqp.publish("a.b", body, BasicProperties::default()).await;
    }
    let letters = app.wait_for_dead(3, 10).await;
    let open = async || app.json(&["dead", "list"]).await.len();
    let (_, hint) = one_error(&app, &["dead", "discard"], USAGE).await;
    assert!(hint.contains("`--all`"), "{hint}");
    let (error, _) = one_error(&app, &["dead", "discard", "--all"], USAGE).await;
    assert!(error.contains("nobody to ask"), "{error}");
    let told = app.run(&["dead", "discard", "--all", "--dry-run"]).await;
    assert_eq!(String::from_utf8_lossy(&told.stderr), "would discard 3 dead letters\n");
    assert_eq!(open().await, 3);
    let first = letters[0]["id"].as_str().unwrap();
    app.ok(&["dead", "discard", first, "--yes", "--note", "a test"]).await;
    assert_eq!(open().await, 2);
    app.ok(&["dead", "discard", "--all", "--kind", "event", "--yes"]).await;
    assert_eq!(open().await, 0);
    let discarded = app.json(&["dead", "list", "--state", "discarded"]).await;
    assert_eq!(discarded.len(), 3, "discarded letters stay listed");
    assert!(discarded.iter().any(|letter| letter["id"] == first && letter["note"] == "a test"));
    let (error, _) = one_error(&app, &["dead", "show", "dl_999999"], WORLD).await;
    assert_eq!(error, "there is no dead letter `dl_999999`");
    assert!(one_error(&app, &["dead", "show", "17x"], USAGE).await.1.contains("dl_17"));
    api.stop().await;
}

#[tokio::test]
async fn events_with_faults_are_named_and_none_is_published() {
    let app = App::new();
    let file = app.path("events.ndjson");
    let good = r#"{"id": "1", "type": "a.b", "tenant": "acme"}"#;
    std::fs::write(&file, format!("{good}\n{{\"tenant\": \"acme\"}}\n{good}\n{{\"id\": \"3\", \"type\": \"a b\", \"tenant\": \"acme\"}}\n")).unwrap();
    let lines = failure(&app, &["publish", file.to_str().unwrap()], USAGE).await;
    assert!(lines[0].starts_with("error: event 2: `id` is missing; `type` "), "{lines:#?}");
    assert!(lines[1].starts_with("error: event 4: `type` "), "{lines:#?}");
    assert_eq!(lines[2], "hint: nothing was published; put these right and publish again");
    assert_eq!(lines.len(), 3);
    assert_eq!(app.amqp().await.ready("events").await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_events_is_published_and_each_is_delivered() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    app.migrate().await;
    app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let serve = app.serve("all").await;
    let line = |n: usize| String::from_utf8(event(&format!("evt_{n}"), "acme", "a.b")).unwrap() + "\n";
    let file = app.path("events.ndjson");
    std::fs::write(&file, (0..100).map(line).collect::<String>()).unwrap();
    let told = app.run(&["publish", file.to_str().unwrap()]).await;
    assert_eq!(String::from_utf8_lossy(&told.stderr), "published 100 events, each confirmed\n");
    assert!(told.status.success());
    receiver.wait_for(100, 20).await;

    let results = app.ok_with_input(&["publish", "-", "--json"], &line(100)).await;
    let result: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(result, json!({ "line": 1, "id": "evt_100", "status": "published", "error": null }));
    let flags = ["publish", "--tenant", "acme", "--type", "a.b", "--data", "{\"n\":  1.0}"];
    let id = app.ok(&flags).await.trim().to_owned();
    let hits = receiver.wait_for(102, 10).await;
    let last = hits.iter().find(|hit| hit.id() == id).unwrap();
    assert!(String::from_utf8_lossy(&last.body).ends_with(r#""data":{"n":  1.0}}"#));
    assert_eq!(hits.len(), 102);
    serve.stop().await;
}

#[tokio::test]
async fn config_show_hides_passwords_and_tells_where_values_come_from() {
    let mut app = App::new();
    app.set("BROKER__URL", "amqp://ann:canary@h.example/v");
    app.set("REDIS__URL", "redis://:canary@h.example");
    app.set("API__KEYS", "canary-canary-canary");
    app.set("SECRETS__KEY", "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTEyMzQ=");
    let shown = app.ok(&["config", "show", "--set", "log.format=json"]).await;
    assert!(!shown.contains("canary") && !shown.contains("Y2Fu"), "{shown}");
    for line in [
        r#"url = "amqp://ann:***@h.example/v"  # environment PAPERBOY__BROKER__URL"#,
        r#"keys = ["***"]  # environment PAPERBOY__API__KEYS"#,
        r#"format = "json"  # flag"#,
        "declare = true  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    let checked = app.run(&["config", "check"]).await;
    assert!(checked.status.success() && !String::from_utf8_lossy(&checked.stderr).contains("canary"));
}

/// On a terminal, which `script` of util-linux makes.
#[tokio::test]
async fn no_color_is_honoured() {
    let mut app = migrated().await;
    app.set("BROKER__URL", &format!("amqp://guest:guest@127.0.0.1:{}", free_port()));
    app.set("BROKER__START_WAIT_S", "0");
    app.set("EGRESS__INSECURE_TLS", "h.example");
    let binary = env!("CARGO_BIN_EXE_paperboy");
    for arguments in ["--help", "serve"] {
        for (no_color, is_coloured) in [("", true), ("1", false)] {
            let mut command = app.command_of("script");
            command.args(["-qec", &format!("{binary} {arguments}"), "/dev/null"]);
            command.env("NO_COLOR", no_color).env("TERM", "xterm");
            let seen = command.output().await.unwrap().stdout;
            assert!(seen.len() > 100, "{}", String::from_utf8_lossy(&seen));
            assert_eq!(seen.contains(&0x1b), is_coloured, "{arguments}: {}", String::from_utf8_lossy(&seen));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let app = App::new();
    let receiver = Receiver::start(|hit| {
        let pause = if hit.nth == 1 { Duration::from_secs(25) } else { Duration::ZERO };
        Reply::status(200).after(pause)
    })
    .await;
    app.migrate().await;
    app.subscribe(subscription("acme", &receiver.url("/"))).await;
    let mut serve = app.serve("all").await;
    app.amqp().await.publish("a.b", &event("evt_1", "acme", "a.b"), BasicProperties::default()).await;
    let metric = async || serve.metric("paperboy_in_hand", "").await;
    eventually("the event is in hand", 10, async || metric().await == 1.0).await;
    serve.signal("-TERM").await;
    eventually("the stop is told", 5, async || serve.log().contains("stopping: ")).await;
    assert!(serve.child.try_wait().unwrap().is_none(), "it waits for what is running");
    let status = serve.stop_within(2).await;
    assert_eq!(status.code(), Some(130));
    assert!(serve.log().contains("stopped at once"), "{}", serve.log());

    let again = app.serve("all").await;
    eventually("the event is delivered by the next process", 10, async || {
        receiver.hits().iter().any(|hit| hit.id() == "evt_1" && hit.status == 200)
    })
    .await;
    again.stop().await;
}

#[tokio::test]
async fn what_changes_something_answers_scripts_too() {
    let app = App::new();
    assert!(app.json(&["store", "migrate"]).await[0]["store_id"].is_string());
    assert_eq!(app.json(&["config", "check"]).await[0]["fine"], true);
    let shown = app.json(&["config", "show"]).await.remove(0);
    assert_eq!(shown["broker"]["prefix"], app.prefix.as_str());
    let added = [
        "subscription",
        "add",
        "--tenant",
        "acme",
        "--url",
        "https://a.example/x",
        "--events",
        "#",
        "--no-wait",
    ];
    let id = app.json(&added).await[0]["id"].as_str().unwrap().to_owned();
    let disabled = app.json(&["subscription", "disable", &id, "--no-wait"]).await.remove(0);
    assert_eq!((disabled["id"].as_str(), disabled["enabled"].as_bool()), (Some(id.as_str()), Some(false)));
    let removed = app.json(&["subscription", "remove", &id, "--yes", "--no-wait"]).await.remove(0);
    assert_eq!(removed["status"], "removed");
    assert_eq!(app.json(&["dead", "discard", "--all", "--yes"]).await[0]["discarded"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_looked_for_where_it_would_be_listed() {
    let app = App::new();
    app.migrate().await;
    for (arguments, list) in [
        (["batch", "show", "b_1"], "batch list"),
        (["subscription", "show", "sub_1"], "subscription list"),
        (["dead", "show", "dl_1"], "dead list"),
    ] {
        let (_, hint) = one_error(&app, &arguments, WORLD).await;
        assert_eq!(hint, format!("`paperboy {list}` shows them"));
    }
}
