//! Platforms' own objects, as their documents show them.

use super::*;
use crate::domain::name::SubscriptionId;
use crate::domain::preset::answer;
use crate::domain::subscription::Subscription;

fn imported(preset: &str, object: Value) -> Result<Imported, Vec<Fault>> {
    import(Preset::find(preset).unwrap(), &Tenant::parse("acme").unwrap(), &object)
}

fn complete(mut spec: SubscriptionSpec) -> (SubscriptionSpec, Subscription) {
    let id = SubscriptionId::parse("sub_1").unwrap();
    spec.complete(id, "2026-11-22T09:00:07Z", [7; 32]).unwrap();
    let subscription = spec.check().unwrap();
    (spec, subscription)
}

fn left(imported: &Imported) -> Vec<&str> {
    imported.not_taken.iter().map(|left| left.field.as_str()).collect()
}

fn faults(preset: &str, object: Value) -> Vec<String> {
    imported(preset, object).unwrap_err().into_iter().map(|fault| fault.field).collect()
}

#[test]
fn contractfits_examples_are_taken_as_they_stand() {
    let object = json!({
        "type": "webhook",
        "events": ["document_predict"],
        "target": "http://localhost:3000/alfred/document_predict",
        "headers": {"Authorization": "Bearer abcdefg1234567989"}
    });
    let all = imported("contractfit", object.clone()).unwrap();
    assert_eq!(all.not_taken, []);
    let (spec, subscription) = complete(all.spec);
    assert_eq!(spec.events, ["document.processed", "document_predict"]);
    assert_eq!(subscription.request.url.to_string(), "http://localhost:3000/alfred/document_predict");
    let headers: Vec<_> = subscription.request.own_headers(&subscription.auth).collect();
    assert_eq!(headers, [("Authorization", "Bearer abcdefg1234567989")]);
    assert!(subscription.signatures.is_empty());
    let shown = answer(Preset::find("contractfit").unwrap(), &object, &spec);
    assert_eq!((shown["id"].as_str(), &shown["headers"]), (Some("sub_1"), &json!({"Authorization": "***"})));
}

#[test]
fn a_host_or_address_alone_is_called_over_http() {
    for (target, url) in [
        ("10.0.0.7", "http://10.0.0.7"),
        ("localhost:3000/x", "http://localhost:3000/x"),
        ("https://h.example/x", "https://h.example/x"),
    ] {
        let object =
            json!({"type": "webhook", "events": ["document_text"], "target": target, "header": {"X-A": 1}});
        let all = imported("contractfit", object).unwrap();
        assert_eq!(all.spec.request.url.as_deref(), Some(url));
        assert_eq!(all.spec.request.headers["X-A"].expose(), "1");
        complete(all.spec);
    }
}

#[test]
fn what_is_missing_wrong_or_unknown_is_named_by_the_platforms_field() {
    assert_eq!(
        faults("contractfit", json!({"type": "smtp", "headers": {"a": []}})),
        ["type", "events", "target", "headers"]
    );
    assert_eq!(
        faults("contractfit", json!({"type": "webhook", "events": ["nothing"], "target": "h"})),
        ["events"]
    );
    let object = json!({"type": "webhook", "events": ["document_fail", "odd"], "target": "h", "retry_backoff": 30, "x": 1, "id": "a"});
    let all = imported("contractfit", object).unwrap();
    assert_eq!(left(&all), ["events[1]", "retry_backoff", "id", "x"]);
    assert!(imported("contractfit", json!([])).is_err());
}

fn idexa() -> Value {
    json!({
        "name": "Webhook 1", "type": 0, "method": "POST", "headers": {"Content-Type": "application/json"},
        "headerAuth": "Bearer", "url": "http://localhost:5000/ocr_feedback/:id", "authorization": null,
        "authorizationUrl": "http://localhost:5000/login", "authorizationMethod": "POST",
        "authorizationHeaders": {"Content-Type": "application/x-www-form-urlencoded"},
        "authorizationBody": {"username": "root", "password": "root"},
        "authorizationResponseTokenAttr": "access_token",
    })
}

#[test]
fn idexas_example_is_taken_and_answered_without_credentials() {
    let all = imported("idexa", idexa()).unwrap();
    assert_eq!(all.not_taken, []);
    let (spec, subscription) = complete(all.spec);
    let login = subscription.auth.token_request().unwrap().request(std::time::Duration::from_secs(1));
    assert_eq!(
        (login.url.as_str(), &login.body.joined()[..]),
        ("http://localhost:5000/login", &b"password=root&username=root"[..])
    );
    assert!(spec.events.contains(&"document.processed".to_owned()));
    let shown = answer(Preset::find("idexa").unwrap(), &idexa(), &spec);
    let expected = json!({
        "id": "sub_1", "clientId": "acme", "name": "Webhook 1", "type": 0, "method": "POST",
        "headers": {"Content-Type": "application/json"}, "headerAuth": "Bearer",
        "url": "http://localhost:5000/ocr_feedback/:id", "authorizationUrl": "http://localhost:5000/login",
        "authorizationMethod": "POST", "authorizationResponseTokenAttr": "access_token",
        "authorizationHeaders": {"Content-Type": "application/x-www-form-urlencoded"},
        "createdAt": "2026-11-22T09:00:07Z", "updatedAt": "2026-11-22T09:00:07Z",
    });
    assert_eq!(shown, expected);
}

#[test]
fn a_fixed_authorization_is_sent_unless_there_is_a_login() {
    let mut both = idexa();
    both["authorization"] = json!("Bearer eyJ0");
    assert_eq!(left(&imported("idexa", both.clone()).unwrap()), ["authorization"]);
    both["authorizationUrl"] = Value::Null;
    let all = imported("idexa", both).unwrap();
    assert_eq!(
        left(&all),
        [
            "headerAuth",
            "authorizationMethod",
            "authorizationHeaders",
            "authorizationBody",
            "authorizationResponseTokenAttr"
        ]
    );
    let (_, subscription) = complete(all.spec);
    assert!(
        subscription
            .request
            .own_headers(&subscription.auth)
            .any(|header| header == ("Authorization", "Bearer eyJ0"))
    );
}

#[test]
fn invofoxs_fields_sign_with_the_chosen_algorithm() {
    let object = json!({"method": "put", "url": "https://h.example/x", "events": "document.processed, file.rejected",
        "customHeaders": {"X-Mine": "1"}, "hashingAlgorithm": "SHA-512", "secret": "s3"});
    let all = imported("invofox", object).unwrap();
    assert_eq!(all.not_taken, []);
    assert_eq!(all.spec.events, ["document.processed", "file.rejected"]);
    let (spec, subscription) = complete(all.spec);
    assert_eq!((spec.request.method.as_deref(), subscription.signatures.len()), (Some("PUT"), 1));
    let signature = &spec.signatures.unwrap()[0];
    assert_eq!(
        (signature.header.as_deref(), signature.algorithm.as_deref()),
        (Some("x-invofox-signature"), Some("sha512"))
    );
    let unsigned =
        json!({"url": "https://h.example/x", "events": ["document.processed"], "algorithm": "sha1"});
    let all = imported("invofox", unsigned).unwrap();
    assert_eq!((left(&all), all.spec.signatures.as_deref()), (vec!["secret"], Some(&[][..])));
}

fn hook() -> Value {
    json!({
        "id": 781, "type": "webhook", "name": "Vendor matching", "url": "https://acme.rossum.app/api/v1/hooks/781",
        "queues": ["https://acme.rossum.app/api/v1/queues/8236", "https://acme.rossum.app/api/v1/queues/8237"],
        "active": true, "events": ["annotation_content", "annotation_status.changed"], "sideload": [], "run_after": [],
        "metadata": {"team": "ap"}, "settings": {"vat_mode": "strict", "odd": "{tenant}"}, "test": {},
        "config": {"url": "https://h.example/user_update", "secret": "s3", "insecure_ssl": false, "timeout_s": 10,
            "retry_count": 2, "retry_on_any_non_2xx": true, "max_polling_time_s": 60},
    })
}

#[test]
fn a_rossum_hook_with_its_config_and_queues_is_taken() {
    let all = imported("rossum", hook()).unwrap();
    assert_eq!(left(&all), ["config.max_polling_time_s", "id"]);
    let (spec, subscription) = complete(all.spec);
    assert_eq!(spec.scope["queue"], ["8236", "8237"]);
    assert_eq!(
        spec.events,
        [
            "document.processed",
            "annotation_content.initialize",
            "document.exported",
            "annotation_content.export",
            "document.status_changed",
            "annotation_status.changed"
        ]
    );
    assert_eq!(spec.interactive.len(), 4, "{:?}", spec.interactive);
    assert_eq!((subscription.retry.policy.max_attempts(), spec.request.timeout_s), (3, Some(10)));
    assert_eq!(spec.retry.unwrap().on, Some(vec!["any".to_owned()]));
    assert_eq!(spec.signatures.unwrap()[0].prefix.as_deref(), Some("sha256="));
    let body = spec.request.body.unwrap();
    assert!(body.contains(r#""hook":"https://acme.rossum.app/api/v1/hooks/781""#), "{body}");
    assert!(body.contains(r#""settings":{"odd":"{{tenant}","vat_mode":"strict"}"#), "{body}");
}

#[test]
fn a_hook_without_queues_is_imported_disabled() {
    let mut object = hook();
    object["queues"] = json!([]);
    let all = imported("rossum", object).unwrap();
    assert_eq!((all.spec.enabled, all.spec.scope.len()), (Some(false), 0));
    assert!(left(&all).contains(&"queues"));
}

#[test]
fn ocrolus_gives_one_object_for_an_account_and_another_for_an_organization() {
    let object = json!({"webhook_endpoint": "https://user:pw@h.example:8443/hook?x=1", "events": "BOOK_VERIFIED,DOC_VERIFIED,OLD"});
    let all = imported("ocrolus-account", object).unwrap();
    assert_eq!(left(&all), ["events[2]"]);
    let (spec, subscription) = complete(all.spec);
    assert_eq!(spec.request.url.as_deref(), Some("https://h.example:8443/hook?x=1"));
    assert_eq!(subscription.auth.header_name(), Some("authorization"));
    let ended =
        imported("ocrolus-account", json!({"webhook_endpoint": "https://h.example/", "events": []})).unwrap();
    assert_eq!(ended.spec.enabled, Some(false));

    let object = json!({"webhook": {"url": "https://h.example/x", "description": "Loans", "is_active": false, "other": 1},
        "event_names": ["book.completed", "document.verification_succeeded"]});
    let all = imported("ocrolus", object).unwrap();
    assert_eq!(left(&all), ["webhook.other"]);
    assert_eq!((all.spec.name.as_deref(), all.spec.enabled), (Some("Loans"), Some(false)));
    complete(all.spec);
    let both = faults("ocrolus", json!({"webhook": {"url": "h"}, "event_names": []}));
    assert_eq!(both, ["event_names", "webhook.url"], "a host without a domain is another fault");
}

#[test]
fn no_fault_and_nothing_left_repeats_a_secret() {
    let object = json!({"config": {"url": "https://h.example/", "secret": 5, "client_ssl_key": "canary"}, "secrets": {"a": "canary"},
        "name": "x", "events": ["email.received"]});
    let faults = imported("rossum", object).unwrap_err();
    assert!(!format!("{faults:?}").contains("canary"));
}
