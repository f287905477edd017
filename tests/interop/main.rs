//! Real deliveries, verified by receivers that other people's libraries make up. Needs Python and Node:
//! `./test --interop` sets them up and runs this.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says where its logs are"
)]

mod judge;
mod platforms;
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the whole language of the integration tests, used here in part"
)]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use lapin::BasicProperties;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use judge::{Judge, Verdict, tools};
use support::app::subscription;
use support::document::root;
use support::vector::vectors_of_now;
use support::{App, eventually};

/// A secret that nothing here was signed with.
const STRANGER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const TIME: &str = "2026-11-22T09:00:07.120Z";

/// An event as its producer writes it: the id and `data`, byte for byte.
struct Published {
    id: &'static str,
    data: Option<&'static str>,
}

const EVENTS: [Published; 10] = [
    Published { id: "evt_plain", data: Some(r#"{"pages":3}"#) },
    Published {
        id: "evt_numbers",
        data: Some(
            r#"{"n":1.0,"big":123456789012345678901234567890,"e":1E+2,"zero":-0,"tiny":1e-400,"huge":1e400,"d":0.10000000000000000555}"#,
        ),
    },
    Published {
        id: "evt_unicode",
        data: Some(
            r#"{"ü":"Grüße, 請求書 🦀 e\u0301 \u00e9 \ud83e\udd80 \/ \u0000 \u2028","raw":"é שלום ﷽","lone":"\ud800"}"#,
        ),
    },
    Published { id: "evt_spaces", data: Some("{ \"a\" :\t[ 1 ,2 ],\n\r\n \"a\": 2 }") },
    Published { id: "evt_empty_object", data: Some("{}") },
    Published { id: "evt_empty_list", data: Some("[]") },
    Published { id: "evt_empty_text", data: Some("\"\"") },
    Published { id: "evt_null", data: Some("null") },
    Published { id: "evt_absent", data: None },
    Published { id: "orders/7:1.final", data: Some("-0.0") },
];

impl Published {
    /// Members in another order than paperboy's, with spaces of its own.
    fn message(&self) -> String {
        let data = self.data.map(|data| format!(" \"data\" : {data} ,")).unwrap_or_default();
        format!(
            "{{{data} \"tenant\":\"acme\", \"id\":\"{}\",\"time\":\"{TIME}\",\"type\":\"a.b\" }}",
            self.id
        )
    }

    /// What docs/receiver.md says arrives by default.
    fn envelope(&self) -> String {
        let data = self.data.map(|data| format!(",\"data\":{data}")).unwrap_or_default();
        format!("{{\"type\":\"a.b\",\"id\":\"{}\",\"time\":\"{TIME}\",\"tenant\":\"acme\"{data}}}", self.id)
    }

    /// What docs/receiver.md says of ids with other characters.
    fn webhook_id(&self) -> String {
        if self.id.contains('/') {
            let hash = BASE32_NOPAD.encode(digest(&SHA256, self.id.as_bytes()).as_ref());
            return format!("evt_{}", hash.to_lowercase());
        }
        self.id.to_owned()
    }

    fn body(&self, form: &str) -> String {
        match form {
            "envelope" => self.envelope(),
            "data" => self.data.unwrap_or_default().to_owned(),
            "event" => self.message(),
            _ => String::new(),
        }
    }
}

/// A subscription to judge: its path, its form of body, and which of the secrets told the receiver sign.
struct Expected {
    path: &'static str,
    form: &'static str,
    verifiers: &'static [&'static str],
    verified: &'static [bool],
}

/// Subscribes to everything in every way, publishes, and compares what the receiver says with what was sent.
async fn real_deliveries_are_verified(mut judge: Judge, hmac: &'static [&'static str]) {
    const STANDARD: &[&str] = &["docs/receiver.md", "standardwebhooks"];
    let expected = |path, form, verifiers, verified| Expected { path, form, verifiers, verified };
    let all = [
        expected("/envelope", "envelope", STANDARD, &[true, false]),
        expected("/data", "data", STANDARD, &[true, false]),
        expected("/event", "event", STANDARD, &[true, false]),
        expected("/none", "none", STANDARD, &[true, false]),
        expected("/rotated", "event", STANDARD, &[true, true, false]),
        expected("/stranger", "event", STANDARD, &[false]),
        expected("/hmac", "event", hmac, &[true, false]),
    ];

    let app = App::new();
    let serve = app.serve("all").await;
    let documents = all.each_ref().map(|expected| {
        let mut document = subscription("acme", &judge.url(expected.path));
        document["request"]["body"] = json!(expected.form);
        if expected.path == "/hmac" {
            document["signatures"] = json!([{ "scheme": "hmac", "header": "X-Hub-Signature-256",
                "algorithm": "sha256", "encoding": "hex", "prefix": "sha256=", "secrets": ["s3crét ☂"] }]);
        }
        document
    });
    let made = app.subscribe_all(&documents).await;
    for (expected, made) in all.iter().zip(&made) {
        match expected.path {
            "/hmac" => judge.learn(expected.path, "hmac", &["s3crét ☂", STRANGER]).await,
            "/stranger" => judge.learn(expected.path, "standard", &[STRANGER]).await,
            "/rotated" => {
                let rotated = app.json(&["subscription", "rotate-secret", &made.id]).await.remove(0);
                let new = rotated["secret"].as_str().unwrap();
                judge.learn(expected.path, "standard", &[new, &made.secret, STRANGER]).await;
            }
            _ => judge.learn(expected.path, "standard", &[&made.secret, STRANGER]).await,
        }
    }

    let amqp = app.amqp().await;
    for event in &EVENTS {
        amqp.publish("a.b", event.message().as_bytes(), BasicProperties::default()).await;
    }
    let mut wanted: Vec<Verdict> = Vec::new();
    for Expected { path, form, verifiers, verified } in &all {
        for event in &EVENTS {
            wanted.push(Verdict {
                path: (*path).to_owned(),
                id: event.webhook_id(),
                sha256: HEXLOWER.encode(digest(&SHA256, event.body(form).as_bytes()).as_ref()),
                verified: verifiers.iter().map(|name| ((*name).to_owned(), verified.to_vec())).collect(),
            });
        }
    }
    // Each is delivered at least once.
    let different = async || judge.verdicts().into_iter().collect::<BTreeSet<_>>();
    let count = wanted.len();
    eventually("all verdicts", 60, async || different().await.len() >= count).await;
    let told = different().await;
    let wanted: BTreeSet<Verdict> = wanted.into_iter().collect();
    let (missing, odd) = (wanted.difference(&told), told.difference(&wanted));
    assert_eq!(
        (missing.collect::<Vec<_>>(), odd.collect::<Vec<_>>()),
        (vec![], vec![]),
        "missing, unexpected"
    );
    serve.stop().await;
}

/// Stale, changed and misread requests among good ones, judged one by one.
async fn good_is_told_from_bad(mut judge: Judge) {
    let vectors = vectors_of_now();
    let refused = vectors.iter().filter(|vector| !vector.is_genuine).count();
    assert!(refused > 5 && refused < vectors.len(), "of both kinds");
    for (place, vector) in vectors.iter().enumerate() {
        let path = format!("/{place}");
        judge.learn(&path, "standard", &[&vector.secret]).await;
        let headers = json!({ "webhook-id": vector.id, "webhook-timestamp": vector.timestamp, "webhook-signature": vector.signature });
        let body = BASE64.encode(vector.body.as_bytes());
        judge.tell(&json!({ "path": path, "headers": headers, "body": body })).await;
        eventually("a verdict", 10, async || judge.verdicts().len() > place).await;
        let verdict = judge.verdicts().remove(place);
        assert_eq!(verdict.path, path);
        let answers: Vec<_> = verdict.verified.values().collect();
        assert_eq!(answers, [&[vector.is_genuine], &[vector.is_genuine]], "{verdict:?}\n{vector:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_verifies_real_deliveries() {
    real_deliveries_are_verified(Judge::python().await, &["hmac"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_verifies_real_deliveries() {
    real_deliveries_are_verified(Judge::node().await, &["node:crypto"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_tells_good_from_bad() {
    good_is_told_from_bad(Judge::python().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_tells_good_from_bad() {
    good_is_told_from_bad(Judge::node().await).await;
}

/// Requests made up from the OpenAPI document, good and bad ones: no answer that it does not describe, and no 5xx.
#[tokio::test(flavor = "multi_thread")]
async fn the_http_api_is_what_its_document_says() {
    const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
        response_schema_conformance,response_headers_conformance,unsupported_method,ignored_auth";
    let mut app = App::new();
    app.set("LIMITS__REQUESTS_PER_S", "0");
    app.migrate().await;
    let key = app.json(&["key", "create"]).await[0]["key"].as_str().unwrap().to_owned();
    let serve = app.serve("all").await;
    // Something to find by the names it makes up.
    app.subscribe(subscription("acme", "http://127.0.0.1:9/x")).await;
    let mut command = app.command_of(tools().join("venv/bin/st").to_str().unwrap());
    command.env("PYTHONPATH", root().join("tests/interop")).env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg("run").arg(format!("http://127.0.0.1:{}/openapi.json", serve.port));
    command.args(["--header", &format!("Authorization: Bearer {key}"), "--checks", CHECKS]);
    command.args(["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "20"]);
    command.args(["--suppress-health-check", "all", "--seed", "1", "--workers", "1", "--no-color"]);
    let ran = command.output().await.unwrap();
    let (told, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{told}\n{error}");
    let operations = support::document::read("docs/openapi.json").matches("\"operationId\"").count();
    assert!(told.contains(&format!("Tested: {operations}")), "{told}");
    let broken = |line: &&str| line.contains("a request of the API failed") || line.contains("panicked");
    let log = serve.log();
    assert_eq!(log.lines().filter(broken).collect::<Vec<_>>(), [""; 0]);
    serve.stop().await;
}

/// The tools are the ones that are named, at the versions that are written down.
#[test]
fn every_tool_has_an_exact_version_and_no_address() {
    let requirements = support::document::read("tests/interop/requirements.txt");
    assert!(requirements.lines().all(|line| line.contains("==") && line.contains(" --hash=sha256:")));
    let lock: Value =
        serde_json::from_str(&support::document::read("tests/interop/package-lock.json")).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert_eq!(packages["node_modules/standardwebhooks"]["version"], "1.1.1");
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package["integrity"].is_string() && package["resolved"].is_null(), "`{name}`: {package}");
    }
}
