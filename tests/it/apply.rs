//! Subscriptions as files, and filters on the payload, as an operator uses them.

use std::collections::BTreeSet;
use std::process::Output;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::app::subscription;
use crate::support::document::{blocks, read, root};
use crate::support::failure::{USAGE, WORLD};
use crate::support::{App, Receiver, Reply, eventually};

/// A store to write to, and nothing that runs.
async fn migrated() -> App {
    let app = App::new();
    app.migrate().await;
    app
}

fn write(app: &App, name: &str, text: &str) -> String {
    let path = app.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Applies, and what is said on standard error.
async fn apply(app: &App, arguments: &[&str]) -> (String, String) {
    let arguments = [&["subscription", "apply", "--no-wait"], arguments].concat();
    let Output { status, stdout, stderr } = app.run(&arguments).await;
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{stderr}");
    (String::from_utf8(stdout).unwrap(), stderr)
}

async fn is_nothing_to_do(app: &App, arguments: &[&str]) -> bool {
    let (stdout, stderr) = apply(app, arguments).await;
    stdout.is_empty() && stderr.contains("nothing to do")
}

async fn all(app: &App) -> Vec<Value> {
    let mut all = app.json(&["subscription", "list"]).await;
    all.sort_by_key(|spec| (spec["tenant"].to_string(), spec["name"].to_string()));
    all
}

async fn names(app: &App) -> Vec<String> {
    all(app)
        .await
        .iter()
        .map(|spec| format!("{}/{}", spec["tenant"], spec["name"]).replace('"', ""))
        .collect()
}

// ---- the example ---------------------------------------------------------------------------------------

#[tokio::test]
async fn the_example_is_applied_and_a_second_time_there_is_nothing_to_do() {
    let app = migrated().await;
    let example = root().join("config/subscriptions.example.toml").display().to_string();
    let (printed, _) = apply(&app, &[&example, "--yes"]).await;
    assert!(printed.contains("+ acme/ERP ") && printed.contains("2 to add, 0 to change"), "{printed}");
    assert_eq!(printed.matches("whsec_").count(), 1, "a secret is made for the one that names none");
    assert_eq!(names(&app).await, ["acme/ERP", "acme/Invoices to finance"]);
    assert!(is_nothing_to_do(&app, &[&example]).await);
    assert!(is_nothing_to_do(&app, &[&example, "--prune", "--dry-run"]).await);
}

#[test]
fn the_example_shows_every_field() {
    let example = read("config/subscriptions.example.toml");
    let document = read("src/domain/spec/mod.rs");
    let structs = document.split("#[cfg(test)]").next().unwrap();
    let fields: BTreeSet<&str> = structs
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| !name.contains('('))
        .collect();
    assert!(fields.len() > 40, "{fields:?}");
    let is_shown = |field: &&str| {
        let written = [format!("{field} = "), format!(".{field}]"), format!(".{field}.")];
        written.iter().any(|written| example.contains(written.as_str()))
    };
    let missing: Vec<&str> = fields.iter().copied().filter(|field| !is_shown(field)).collect();
    assert_eq!(missing, [""; 0], "config/subscriptions.example.toml lacks them");
    for (number, line) in example.lines().enumerate() {
        assert!(line.chars().count() <= 120, "line {} is long", number + 1);
    }
}

// ---- apply ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_plan_is_shown_field_by_field_without_secrets_and_then_carried_out() {
    let app = migrated().await;
    let mut changed = subscription("acme", "https://h.example/old");
    changed["name"] = json!("Changed");
    changed["request"]["headers"] = json!({ "X-Key": "canary-old" });
    let mut gone = subscription("acme", "https://h.example/gone");
    gone["name"] = json!("Gone");
    let mut stranger = subscription("other", "https://h.example/other");
    stranger["name"] = json!("Stranger");
    let made = app.subscribe_all(&[changed, gone, stranger]).await;
    let file = write(
        &app,
        "files/acme.toml",
        r##"
            [[subscriptions]]
            tenant = "acme"
            name = "New"
            events = ["#"]
            request.url = "https://h.example/new"

            [[subscriptions]]
            tenant = "acme"
            name = "Changed"
            events = ["#"]
            request = { url = "https://u:canary-user@h.example/new", headers = { X-Key = "canary-new" } }
        "##,
    );
    let folder = app.path("files").display().to_string();

    let before = all(&app).await;
    let (plan, _) = apply(&app, &[&folder, "--dry-run"]).await;
    assert_eq!(
        plan.lines().collect::<Vec<_>>(),
        [
            format!("+ acme/New  https://h.example/new  ({file}, subscription 1)"),
            format!("~ acme/Changed {}  https://h.example/new  ({file}, subscription 2)", made[0].id),
            r#"    auth.kind: (absent) → "basic""#.to_owned(),
            r#"    auth.password: (absent) → "***""#.to_owned(),
            r#"    auth.username: (absent) → "u""#.to_owned(),
            r#"    request.headers.X-Key: "***" → "***" (another secret)"#.to_owned(),
            r#"    request.url: "https://h.example/old" → "https://h.example/new""#.to_owned(),
            "1 to add, 1 to change, 0 to remove, 0 unchanged".to_owned(),
        ]
    );
    let planned = app.json(&["subscription", "apply", &folder, "--dry-run", "--prune"]).await;
    let actions: Vec<&str> = planned.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["add", "change", "remove"]);
    assert_eq!((&planned[0]["id"], &planned[0]["secret"]), (&Value::Null, &Value::Null));
    assert_eq!(planned[2]["id"], made[1].id);
    assert!(!json!(planned).to_string().contains("canary"));
    assert_eq!(all(&app).await, before, "a dry run changes nothing");

    let refused = app.run(&["subscription", "apply", &folder]).await;
    assert_eq!(refused.status.code(), Some(USAGE), "nobody is there to ask");
    let refused = app.run(&["subscription", "apply", &folder, "--json"]).await;
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(USAGE), 0));
    assert_eq!(all(&app).await, before);

    let (applied, _) = apply(&app, &[&folder, "--yes"]).await;
    assert!(applied.contains("secret: whsec_") && !applied.contains("canary"), "{applied}");
    assert_eq!(names(&app).await, ["acme/Changed", "acme/Gone", "acme/New", "other/Stranger"]);
    assert!(is_nothing_to_do(&app, &[&folder]).await);

    let pruned: Vec<Value> = apply(&app, &[&file, "--yes", "--prune", "--json"])
        .await
        .0
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let actions: Vec<&str> = pruned.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["none", "none", "remove"]);
    assert_eq!(
        names(&app).await,
        ["acme/Changed", "acme/New", "other/Stranger"],
        "only of the tenants named"
    );
}

#[tokio::test]
async fn what_a_person_disabled_stays_so_and_what_is_named_by_id_may_get_another_name() {
    let app = migrated().await;
    let id = app.subscribe(subscription("acme", "https://h.example/x")).await.id;
    app.ok(&["subscription", "disable", &id, "--no-wait"]).await;
    let document =
        json!({ "id": id, "name": "ERP", "events": ["#"], "request": { "url": "https://h.example/x" } });
    let file = write(&app, "one.json", &document.to_string());
    let (plan, _) = apply(&app, &[&file, "--yes"]).await;
    assert!(plan.contains(r#"    name: (absent) → "ERP""#), "{plan}");
    let spec = all(&app).await.remove(0);
    assert_eq!(
        (&spec["enabled"], &spec["tenant"], &spec["name"]),
        (&json!(false), &json!("acme"), &json!("ERP"))
    );
    assert!(is_nothing_to_do(&app, &[&file]).await);
}

#[tokio::test]
async fn every_fault_of_every_file_is_told_and_nothing_is_changed() {
    let app = migrated().await;
    let mut twin = subscription("acme", "https://h.example/x");
    twin["name"] = json!("Twin");
    app.subscribe_all(&[twin.clone(), twin]).await;
    let before = all(&app).await;
    let named = |name: &str| json!({ "tenant": "acme", "name": name, "events": ["#"], "request": { "url": "https://h.example/x" } });
    let mut nameless = named("");
    nameless.as_object_mut().unwrap().remove("name");
    let mut masked = named("Masked");
    masked["request"]["headers"] = json!({ "X-Key": "***" });
    // Its secret may be either's.
    let mut twin = named("Twin");
    twin["request"]["headers"] = json!({ "X-Key": "***" });
    let a = write(&app, "a.json", &json!([named("Good"), nameless, masked, twin, named("Good")]).to_string());
    let b = write(&app, "b.toml", "tenant = \"acme\"\nname = \"B\"\nevents = []\nevnts = 1\n");
    let c = write(&app, "c.toml", "not toml");
    let missing = app.path("missing.toml").display().to_string();

    let output = app.run(&["subscription", "apply", &a, &b, "--yes"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{text}");
    let errors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(
        errors,
        [
            format!("{a}, subscription 2: `name`: is missing, and so is `id`"),
            format!(
                "{a}, subscription 3: `request.headers.X-Key`: is `***`, the stand-in for a secret that is not shown"
            ),
            format!("{a}, subscription 4: `name`: is that of 2 subscriptions of `acme`"),
            format!(
                "{a}, subscription 5: `name`: is that of {a}, subscription 1 already, of the same tenant"
            ),
            format!("{b}: `evnts`: is not a known field"),
            format!("{b}: `events`: must hold 1 to 100 patterns"),
            format!("{b}: `request.url`: is missing"),
        ]
    );
    let output = app.run(&["subscription", "apply", &a, &c, &missing, "--yes"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("`{c}` cannot be read")) && text.contains(&format!("cannot read `{missing}`")),
        "{text}"
    );
    assert_eq!(all(&app).await, before);
}

// ---- export --------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_export_is_applied_again_as_it_is_and_with_secrets_to_another_store() {
    let app = migrated().await;
    let example = root().join("config/subscriptions.example.toml").display().to_string();
    apply(&app, &[&example, "--yes"]).await;
    let mut other = subscription("other", "https://h.example/x");
    other["name"] = json!("Other");
    other["request"]["headers"] = json!({ "X-Key": "canary" });
    app.subscribe(other).await;

    for format in ["toml", "json"] {
        let text = app.ok(&["subscription", "export", "--format", format]).await;
        assert!(text.contains("***") && !text.contains("canary") && !text.contains("change me"), "{text}");
        let file = write(&app, &format!("all.{format}"), &text);
        assert!(is_nothing_to_do(&app, &[&file, "--prune"]).await, "{format}");
        let dir = app.path(&format!("dir-{format}")).display().to_string();
        app.ok(&["subscription", "export", "--format", format, "--dir", &dir]).await;
        assert!(is_nothing_to_do(&app, &[&dir, "--prune"]).await, "{format}");
        let again = app.run(&["subscription", "export", "--format", format, "--dir", &dir]).await;
        assert_eq!(again.status.code(), Some(USAGE), "files are not written over unasked");
        app.ok(&["subscription", "export", "--format", format, "--dir", &dir, "--yes"]).await;
    }
    let acme = app.ok(&["subscription", "export", "--tenant", "acme", "--json"]).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&acme).unwrap().len(), 2);

    let elsewhere = migrated().await;
    let masked = elsewhere.path("masked.toml").display().to_string();
    std::fs::copy(app.path("all.toml"), &masked).unwrap();
    let refused = elsewhere.run(&["subscription", "apply", &masked, "--yes"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`request.headers.X-Key`: is `***`"));
    assert!(names(&elsewhere).await.is_empty());

    let open = app.run(&["subscription", "export", "--with-secrets"]).await;
    let warned = String::from_utf8(open.stderr).unwrap();
    assert!(
        warned.contains("warning: this holds the secrets of 3 subscriptions of all tenants in clear"),
        "{warned}"
    );
    let noted = app.json(&["audit", "list"]).await;
    assert_eq!(
        (&noted[0]["action"], &noted[0]["detail"]["subscriptions"]),
        (&json!("subscription.export_secrets"), &json!(3))
    );
    let open = String::from_utf8(open.stdout).unwrap();
    assert!(open.contains("canary") && open.contains("change me") && !open.contains("***"));
    let file = write(&elsewhere, "open.toml", &open);
    apply(&elsewhere, &[&file, "--yes"]).await;
    let again = elsewhere.ok(&["subscription", "export", "--with-secrets"]).await;
    assert_eq!(again, open, "ids, secrets and birthdays go along");
}

#[tokio::test]
async fn what_toml_cannot_say_is_exported_as_json() {
    let app = migrated().await;
    let mut noted = subscription("acme", "https://h.example/x");
    noted["metadata"] = json!({ "note": null });
    let id = app.subscribe(noted).await.id;
    let output = app.run(&["subscription", "export"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(WORLD));
    assert!(text.contains(&id) && text.contains("`--format json`"), "{text}");
    let file = write(&app, "all.json", &app.ok(&["subscription", "export", "--format", "json"]).await);
    assert!(is_nothing_to_do(&app, &[&file]).await);
}

// ---- filters -------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn only_events_whose_payload_fits_are_sent_and_the_others_are_counted() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let shown = blocks(&read("docs/subscriptions.md"), "json").remove(0);
    let mut document: Value = serde_json::from_str(&shown).unwrap();
    document["request"]["url"] = json!(receiver.url("/fits"));
    app.subscribe(document).await;
    let amqp = app.amqp().await;
    let publish = async |id: &str, data: &str| {
        let body = format!(r#"{{"id": "{id}", "tenant": "acme", "data": {data}}}"#);
        amqp.publish("document.processed", body.as_bytes(), BasicProperties::default()).await;
    };
    publish("other_status", r#"{"status": "new", "total": 1, "pages": 1}"#).await;
    publish("no_total", r#"{"status": "done", "pages": 1}"#).await;
    publish("a_test", r#"{"status": "done", "total": 1, "number": "TEST-7", "pages": 1}"#).await;
    publish("many_pages", r#"{"status": "done", "total": 1, "pages": 2}"#).await;
    publish("no_data", "null").await;
    publish("one_page", r#"{"status": "done", "total": null, "pages": 1.0}"#).await;
    publish("urgent", r#"{"status": "corr\u0065cted", "total": 9.5, "pages": 7, "urgent": true}"#).await;
    eventually("all are looked at", 10, || async {
        serve.metric("paperboy_filtered_total", "").await >= 5.0
    })
    .await;
    let hits = receiver.wait_for(2, 10).await;
    let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.id()).collect();
    assert_eq!(ids, BTreeSet::from(["one_page", "urgent"]));
    assert_eq!(serve.metric("paperboy_filtered_total", "").await, 5.0, "each is counted once");
    assert_eq!(serve.metric("paperboy_no_subscriber_total", "").await, 5.0);
    serve.stop().await;
    assert_eq!(receiver.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_under_way_is_not_filtered_again() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let serve = app.serve("all").await;
    let mut document = subscription("acme", &receiver.url("/x"));
    document["filter"] = json!({ "pointer": "/data/a", "equals": 1 });
    let id = app.subscribe(document).await.id;
    let body = br#"{"id": "evt_1", "tenant": "acme", "type": "t", "data": {"a": 1}}"#;
    app.amqp().await.publish("t", body, BasicProperties::default()).await;
    receiver.wait_for(1, 10).await;
    let change = json!({ "filter": { "equals": 2 } }).to_string();
    app.ok_with_input(&["subscription", "update", &id, "--file", "-"], &change).await;
    receiver.change(|_| Reply::status(204));
    eventually("the retry is delivered", 10, || async {
        receiver.hits().iter().any(|hit| hit.status == 204)
    })
    .await;
    serve.stop().await;
}
