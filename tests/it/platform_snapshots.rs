//! One whole request for every preset and each of its events, beside the one in `tests/golden/`: what a platform's
//! receivers get changes with a change of those files only. `PAPERBOY_UPDATE_GOLDEN=1` writes them anew.

use std::fmt::Write as _;

use bytes::Bytes;
use paperboy::domain::event::{Event, Hints};
use paperboy::domain::name::SubscriptionId;
use paperboy::domain::preset::Preset;
use paperboy::domain::request::{self, AttemptContext};
use paperboy::domain::spec::SubscriptionSpec;
use serde_json::{Value, json};

use crate::support::document::root;

/// A payload that no JSON library writes back unchanged.
const DATA: &str = r#"{"id": "d1",  "total": 1290.50, "number": 12345678901234567890123, "text": "\u00e9 é", "a": 1, "a": 2}"#;
const CONTEXT: AttemptContext<'_> =
    AttemptContext { attempt: 1, now_unix_s: 1_770_109_208, traceparent: None, replay: 0, is_test: false };

fn document(preset: &Preset) -> Value {
    let mut document = json!({
        "tenant": "acme", "name": "ERP", "preset": preset.name, "request": {"url": "https://erp.example.com/ocr/:id"},
    });
    let signers = preset.signers.iter();
    let signatures: Vec<Value> =
        signers.map(|signer| json!({"scheme": signer.name, "secrets": ["sample_secret_1230ab"]})).collect();
    document["signatures"] = json!(signatures);
    document
}

/// The requests as they would stand on the wire, each under its event's type.
fn rendered(preset: &Preset) -> String {
    let mut spec = SubscriptionSpec::read(document(preset)).unwrap();
    spec.complete(SubscriptionId::parse("sub_1").unwrap(), "2026-02-03T09:00:00Z", [7; 32]).unwrap();
    let subscription = spec.check().unwrap();
    let mut text = String::new();
    for kind in preset.events.iter().flat_map(|event| event.all_types()) {
        let json = format!(
            r#"{{"id":"67aa1b2c3d4e5f6071829301","type":"{kind}","tenant":"acme","time":"2026-02-03T09:00:07.12Z",
            "scope":{{"inbox":"i7"}},"document_id":"a7046a49-1fe0-483d-b220-cd93fe50a3a9","data":{DATA}}}"#
        );
        let raw = Bytes::from(json.into_bytes());
        let event = Event::parse(&raw, &Hints::default()).unwrap();
        let request = request::build(&subscription, &event, &raw, &CONTEXT).unwrap();
        let body = request.body.joined();
        let body = std::str::from_utf8(&body).unwrap();
        let parsed: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{kind}: {error}: {body}"));
        assert!(parsed.is_object(), "{kind}");
        // The producer's bytes, in one piece; where they are lent member by member, what is between the braces.
        assert!(body.contains(DATA.trim_matches(['{', '}'])), "{kind}: {body}");
        writeln!(text, "=== {kind}\n{} {}", request.method.as_str(), request.url).unwrap();
        let mut headers: Vec<String> = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.retain(|line| !line.starts_with("user-agent: "));
        headers.sort();
        writeln!(text, "{}", headers.join("\n")).unwrap();
        writeln!(text, "\n{body}\n").unwrap();
    }
    text
}

#[test]
fn every_preset_and_event_is_sent_as_the_snapshots_say() {
    let mut faults = Vec::new();
    for preset in Preset::all() {
        let path = root().join("tests/golden").join(format!("{}.txt", preset.name));
        let now = rendered(preset);
        if std::env::var_os("PAPERBOY_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = golden.lines().zip(now.lines()).find(|(golden, now)| golden != now);
        if golden != now {
            faults.push(format!("`{}` is sent differently: {differs:?}", preset.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_preset_has_its_snapshot_and_every_snapshot_its_preset() {
    let folder = std::fs::read_dir(root().join("tests/golden")).unwrap();
    let mut found: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut known: Vec<String> = Preset::all().iter().map(|preset| format!("{}.txt", preset.name)).collect();
    known.sort();
    assert_eq!(found, known);
}
