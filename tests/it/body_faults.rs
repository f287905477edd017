//! Everything wrong with a subscription's document is told in one round, whichever way it comes.

use serde_json::{Value, json};

use crate::support::app::subscription;
use crate::support::failure::{USAGE, failure};
use crate::support::{App, ask};

/// Wrong types, an unknown field, values nobody can use, and rules of the preset.
fn faulty() -> Value {
    json!({
        "tenant": "acme", "name": 7, "evnts": ["#"], "events": ["a..b", 1], "preset": "idexa",
        "request": {"url": "https://erp.example.com/x", "timeout_s": "30", "method": "PATCH"},
        "auth": {"kind": "bearer", "token": ["canary"]},
        "signatures": [{"scheme": "standard", "secrets": ["whsec_canary"]}],
        "retry": {"kind": 1, "base": 0, "jitter": 2},
    })
}

const FIELDS: [&str; 11] = [
    "auth.token",
    "events[0]",
    "events[1]",
    "evnts",
    "name",
    "request.method",
    "request.timeout_s",
    "request.url",
    "retry.jitter",
    "retry.kind",
    "signatures[0].secrets[0]",
];

/// The fields that the lines of a failed command name.
fn named(lines: &[String]) -> Vec<String> {
    let errors = lines.iter().filter(|line| !line.starts_with("hint:"));
    let mut fields: Vec<String> =
        errors.filter_map(|line| line.split('`').nth(1)).map(str::to_owned).collect();
    fields.sort();
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_tells_faults_of_shape_of_meaning_and_of_the_preset_in_one_problem() {
    let app = App::new();
    let serve = app.serve("api").await;
    let made = app.subscribe(subscription("acme", "https://h.example/x")).await;
    let fields = |problem: &Value| {
        let errors = problem["errors"].as_array().unwrap();
        let mut fields: Vec<String> =
            errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect();
        fields.sort();
        fields
    };
    let problem = ask(serve.port, "POST", "/v1/subscriptions").json(&faulty()).send().await.problem(422);
    assert_eq!(fields(&problem), FIELDS);
    assert_eq!(problem["detail"], "11 things are wrong with the body");
    assert!(!problem.to_string().contains("canary"), "{problem}");

    let mut change = faulty();
    change.as_object_mut().unwrap().remove("preset");
    // Without the preset its rules do not hold.
    let expected: Vec<&str> =
        FIELDS.into_iter().filter(|field| !matches!(*field, "request.url" | "request.method")).collect();
    for method in ["PUT", "PATCH"] {
        let path = format!("/v1/subscriptions/{}", made.id);
        let problem = ask(serve.port, method, &path).json(&change).send().await.problem(422);
        assert_eq!(fields(&problem), expected, "{method}");
    }
    serve.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_tell_every_fault_of_every_document_of_a_file() {
    let app = App::new();
    app.migrate().await;
    let file = app.path("faulty.json");
    std::fs::write(&file, faulty().to_string()).unwrap();
    let file = file.to_str().unwrap();
    let told = failure(&app, &["subscription", "add", "--file", file], USAGE).await;
    assert_eq!(named(&told), FIELDS);

    // Nothing says which subscription it is, and that is one more fault.
    let mut nameless = faulty();
    nameless.as_object_mut().unwrap().remove("name");
    std::fs::write(file, json!([faulty(), nameless]).to_string()).unwrap();
    for command in ["apply", "import"] {
        let told = failure(&app, &["subscription", command, file, "--dry-run"], USAGE).await;
        let (first, second): (Vec<String>, Vec<String>) = told
            .iter()
            .filter(|line| line.contains("subscription "))
            .cloned()
            .partition(|line| line.contains("subscription 1:"));
        assert_eq!(named(&first), FIELDS, "{command}: {told:#?}");
        let second = named(&second);
        assert!(FIELDS.iter().all(|field| second.iter().any(|named| named == field)), "{command}: {told:#?}");
    }
}
