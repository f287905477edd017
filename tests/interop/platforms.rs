//! Deliveries to receivers as platforms' customers write them, and to the platforms' own libraries.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::judge::tools;
use super::support::document::root;
use super::support::{App, Caller, eventually};

/// What `platforms.py` and Rossum's example verify with.
const SECRET: &str = "Your secret key stored in hook.config.secret";

/// The process and what it said.
struct Platforms {
    port: u64,
    lines: Arc<Mutex<Vec<Value>>>,
    _child: Child,
}

impl Platforms {
    async fn start() -> Platforms {
        let mut command = Command::new(tools().join("venv/bin/python"));
        command.arg(root().join("tests/interop/platforms.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                seen.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let mut platforms = Platforms { port: 0, lines, _child: child };
        eventually("the receivers start", 30, async || !platforms.lines.lock().unwrap().is_empty()).await;
        platforms.port = platforms.lines.lock().unwrap()[0]["port"].as_u64().unwrap();
        platforms
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was said of the requests of a path.
    fn of(&self, path: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["path"] == path).cloned().collect()
    }

    async fn wait_for(&self, path: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} requests to {path}"), 30, async || self.of(path).len() >= count).await;
        self.of(path)
    }
}

async fn import(app: &App, preset: &str, object: &Value) {
    std::fs::write(app.path("object.json"), object.to_string()).unwrap();
    let arguments = ["subscription", "import", "--preset", preset, "--tenant", "acme", "object.json"];
    app.ok(&arguments).await;
}

fn hook(url: &str, secret: &str) -> Value {
    json!({"type": "webhook", "name": "Matching", "queues": ["https://acme.rossum.app/api/v1/queues/8236"],
        "events": ["annotation_content"], "config": {"url": url, "secret": secret}})
}

/// An annotation as the platform's documents show it, with what its own library wants beside it.
fn annotation() -> Value {
    let rate = json!({"id": 4, "category": "datapoint", "schema_id": "item_vat_rate", "validation_sources": ["score"],
        "content": {"value": "ZERO", "normalized_value": null, "page": 1, "position": [10, 20, 60, 32]}});
    let tuple = json!({"id": 3, "category": "tuple", "schema_id": "line_item", "children": [rate]});
    let items = json!({"id": 2, "category": "multivalue", "schema_id": "line_items", "children": [tuple]});
    let column = json!({"id": "item_vat_rate", "category": "datapoint", "type": "string", "label": "VAT"});
    let row = json!({"id": "line_item", "category": "tuple", "label": "Item", "children": [column]});
    let table = json!({"id": "line_items", "category": "multivalue", "label": "Items", "children": row});
    json!({
        "annotation": {"id": 314521, "content": [{"id": 1, "category": "section", "schema_id": "s", "children": [items]}]},
        "document": {"id": 314621}, "updated_datapoint_ids": [],
        "schemas": [{"content": [{"id": "s", "category": "section", "label": "S", "children": [table]}]}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receivers_of_platforms_accept_what_is_theirs_and_refuse_a_strangers() {
    let platforms = Platforms::start().await;
    let app = App::new();
    let serve = app.serve("all").await;
    import(&app, "rossum-seed", &hook(&platforms.url("/user_update"), SECRET)).await;
    import(&app, "rossum-seed", &hook(&platforms.url("/stranger/user_update"), "another secret")).await;
    import(&app, "rossum", &hook(&platforms.url("/txscript"), SECRET)).await;
    for (path, secret) in [("/mindee", SECRET), ("/stranger/mindee", "another secret")] {
        let object = json!({"method": "PUT", "url": platforms.url(path), "events": ["document.processed"],
            "algorithm": "SHA-256", "secret": secret});
        import(&app, "invofox", &object).await;
    }
    let amqp = app.amqp().await;
    for kind in ["annotation_content.user_update", "document.processed"] {
        let event = json!({"id": format!("evt_{kind}"), "type": kind, "tenant": "acme", "scope": {"queue": "8236"}, "data": annotation()});
        amqp.publish(kind, event.to_string().as_bytes(), BasicProperties::default()).await;
    }

    let operation = json!({"op": "replace", "id": 4, "value": {"content": {"value": "0.0"}}});
    // `document.processed` is what Rossum calls the first extraction, so there are two requests to each hook.
    for line in platforms.wait_for("/user_update", 2).await {
        assert_eq!((line["status"].as_u64(), &line["answer"]["messages"]), (Some(200), &json!([])), "{line}");
        assert_eq!(line["answer"]["operations"], json!([operation]));
    }
    for line in platforms.wait_for("/txscript", 2).await {
        assert_eq!(line["answer"]["operations"], json!([operation]), "{line}");
    }
    let line = platforms.wait_for("/mindee", 1).await.remove(0);
    assert_eq!(line["status"], 200, "{line}");

    // The stranger's: 401 is above 400, so ten attempts, but one for what is interactive; two retries for Invofox.
    let strangers = platforms.wait_for("/stranger/user_update", 11).await;
    assert!(strangers.iter().all(|line| line["status"] == 401));
    let invofox = platforms.wait_for("/stranger/mindee", 3).await;
    assert!(invofox.iter().all(|line| line["status"] == 401));
    let dead = app.wait_for_dead(2, 30).await;
    let attempts: BTreeSet<u64> = dead.iter().map(|letter| letter["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, BTreeSet::from([3, 10]));
    assert_eq!(platforms.of("/stranger/user_update").len(), 11, "one attempt of the interactive event");
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rossums_example_answers_to_a_user_update_reaches_whoever_called() {
    let platforms = Platforms::start().await;
    let app = App::new();
    let serve = app.serve("all").await;
    import(&app, "rossum-seed", &hook(&platforms.url("/user_update"), SECRET)).await;
    import(&app, "rossum-seed", &hook(&platforms.url("/stranger/user_update"), "another secret")).await;
    let kind = "annotation_content.user_update";
    let event = json!({"id": "evt_call", "type": kind, "tenant": "acme", "scope": {"queue": "8236"}, "data": annotation()});
    let said = Caller::direct(&app).await.call(kind, event.to_string().as_bytes()).await;
    assert_eq!(said.len(), 2);
    let of = |status: u64| said.iter().find(|one| one.json["status"] == status).unwrap();
    let operation = json!({"op": "replace", "id": 4, "value": {"content": {"value": "0.0"}}});
    assert_eq!(of(200).json["body"], json!({"messages": [], "operations": [operation]}));
    assert_eq!(of(401).json["body_encoding"], "text", "the platform's page of an error");
    assert_eq!(
        platforms.of("/user_update").len() + platforms.of("/stranger/user_update").len(),
        2,
        "once each"
    );

    // Without the column the example has a message instead.
    let bare = json!({"id": "evt_bare", "type": kind, "tenant": "acme", "scope": {"queue": "8236"},
        "data": {"annotation": {"content": []}}});
    let said = Caller::direct(&app).await.call(kind, bare.to_string().as_bytes()).await;
    let answer = said.iter().find(|one| one.json["status"] == 200).unwrap();
    assert_eq!(answer.json["body"]["messages"][0]["type"], "error");
    serve.stop().await;
}
