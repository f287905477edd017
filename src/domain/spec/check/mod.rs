//! From the document to a subscription that cannot be wrong, with every fault listed at once.

mod auth;
mod faults;
mod request;
mod retry;
mod signatures;

use std::collections::BTreeMap;
use std::str::FromStr;

use self::auth::check_auth;
use self::faults::{Faults, plain};
use self::request::check_request;
use self::retry::{check_retry, check_success};
use self::signatures::check_signatures;
use super::SubscriptionSpec;
use crate::domain::auth::Auth;
use crate::domain::fault::Fault;
use crate::domain::filter::Filter;
use crate::domain::matching::Pattern;
use crate::domain::name::NameFault;
use crate::domain::request::ConstantHeaders;
use crate::domain::secret::MASK;
use crate::domain::signature::Scheme;
use crate::domain::subscription::{DisabledBy, Subscription};
use crate::domain::veil::Veil;

const NAME_BYTES_MAX: usize = 200;
const PATTERNS_MAX: usize = 100;
const SCOPE_KEYS_MAX: usize = 32;
const SCOPE_VALUES_MAX: usize = 1_000;
const SCOPE_TEXT_BYTES_MAX: usize = 256;
const METADATA_BYTES_MAX: usize = 16 * 1024;

impl SubscriptionSpec {
    /// Makes a subscription of the document.
    ///
    /// # Errors
    /// Every fault of the document, things that are not built yet among them.
    pub fn check(&self) -> Result<Subscription, Vec<Fault>> {
        let mut faults = Faults::default();
        let id = check_name("id", self.id.as_deref(), &mut faults);
        let tenant = check_name("tenant", self.tenant.as_deref(), &mut faults);
        self.check_notes(&mut faults);
        if !matches!(self.answer.as_deref(), None | Some("ignore" | "publish")) {
            faults.unknown("answer", "`ignore` and `publish`");
        }
        let events = check_events("events", &self.events, &mut faults);
        let interactive = check_events("interactive", &self.interactive, &mut faults);
        if self.events.is_empty() && self.interactive.is_empty() {
            let fault = Fault::new("events", format!("must hold 1 to {PATTERNS_MAX} patterns"));
            faults.0.push(fault.hint("for example `document.*`, or `#` for every event"));
        }
        check_scope(&self.scope, &mut faults);
        let filter = self.filter.as_ref().and_then(|filter| faults.keep("filter", Filter::read(filter)));
        let request = check_request(&self.request, &mut faults);
        let (request, userinfo) = request.unzip();
        let auth = check_auth(self.auth.as_ref(), userinfo.flatten(), &mut faults);
        let signatures = check_signatures(self.signatures.as_deref(), &mut faults);
        self.check_headers_differ(auth.as_ref(), &signatures, &mut faults);
        let success = check_success(self.success.as_deref(), &mut faults);
        let retry = check_retry(self.retry.as_ref(), &mut faults);
        self.check_masks(&mut faults);

        let parts = (id, tenant, request, auth, success, retry);
        let (Some(id), Some(tenant), Some(request), Some(auth), Some(success), Some(retry)) = parts else {
            return Err(faults.0);
        };
        if !faults.0.is_empty() {
            return Err(faults.0);
        }
        let enabled = self.enabled.unwrap_or(true);
        let constant_headers = ConstantHeaders::new(&request.content_type, request.own_headers(&auth));
        Ok(Subscription {
            id,
            tenant,
            name: self.name.clone(),
            enabled,
            disabled_by: (!enabled).then_some(self.disabled_by.unwrap_or(DisabledBy::Person)),
            events,
            interactive,
            scope: self.scope.clone().into_iter().collect(),
            filter,
            request,
            veil: Veil::new(&self.secrets(), &auth),
            auth,
            constant_headers,
            signatures: signatures.into_iter().map(|(_, scheme)| scheme).collect(),
            success,
            retry,
            publishes_answer: self.answer.as_deref() == Some("publish"),
        })
    }

    /// What is only for people, and so only bounded.
    fn check_notes(&self, faults: &mut Faults) {
        if self
            .name
            .as_ref()
            .is_some_and(|name| name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control))
        {
            faults.add("name", format!("must be at most {NAME_BYTES_MAX} bytes without control characters"));
        }
        let metadata_bytes = serde_json::to_vec(&self.metadata).map_or(0, |json| json.len());
        if metadata_bytes > METADATA_BYTES_MAX {
            faults
                .add("metadata", format!("is {metadata_bytes} bytes; at most {METADATA_BYTES_MAX} are kept"));
        }
    }

    /// No header may be sent twice: own ones, credentials and signatures have to differ.
    fn check_headers_differ(
        &self,
        auth: Option<&Auth>,
        signatures: &[(String, Scheme)],
        faults: &mut Faults,
    ) {
        let own = self.request.headers.keys().map(|name| ("request.headers", name.as_str()));
        let auth = auth.and_then(Auth::header_name).map(|name| ("auth", name));
        let signed = signatures.iter().flat_map(|(field, scheme)| {
            scheme.header_names().into_iter().map(move |name| (field.as_str(), name))
        });
        let sent: Vec<(&str, &str)> = own.chain(auth).chain(signed).collect();
        for (index, (field, name)) in sent.iter().enumerate() {
            let first = sent[..index].iter().find(|(_, earlier)| earlier.eq_ignore_ascii_case(name));
            // Doubles among its own headers are told with the other faults of that list.
            if let Some((first, _)) = first.filter(|_| *field != "request.headers") {
                faults.add(field, format!("sends header `{name}`, which `{first}` sends already"));
            }
        }
    }

    /// `***` stands for a secret that we have and the writer does not; a new subscription has none yet.
    fn check_masks(&self, faults: &mut Faults) {
        for (field, secret) in self.clone().secrets_mut() {
            if secret.is_mask() {
                faults.0.retain(|fault| fault.field != field);
                let fault =
                    Fault::new(field, format!("is `{MASK}`, the stand-in for a secret that is not shown"));
                faults.0.push(fault.hint("write the secret itself"));
            }
        }
    }
}

/// The fault of a choice that has its place in the document and nothing behind it yet.
pub(super) fn not_yet(field: &str, choice: &str) -> Fault {
    Fault::new(field, format!("`{choice}` is not supported yet"))
}

fn check_name<T: FromStr<Err = NameFault>>(
    field: &str,
    text: Option<&str>,
    faults: &mut Faults,
) -> Option<T> {
    let Some(text) = text else {
        faults.add(field, "is missing");
        return None;
    };
    faults.keep(field, text.parse().map_err(plain))
}

fn check_events(field: &str, events: &[String], faults: &mut Faults) -> Vec<Pattern> {
    if events.len() > PATTERNS_MAX {
        faults.add(field, format!("holds more than {PATTERNS_MAX} patterns"));
    }
    let patterns = events.iter().enumerate();
    patterns
        .filter_map(|(index, text)| {
            faults.keep(&format!("{field}[{index}]"), Pattern::parse(text).map_err(plain))
        })
        .collect()
}

fn check_scope(scope: &BTreeMap<String, Vec<String>>, faults: &mut Faults) {
    let is_text = |text: &str| (1..=SCOPE_TEXT_BYTES_MAX).contains(&text.len());
    if scope.len() > SCOPE_KEYS_MAX {
        faults.add("scope", format!("holds more than {SCOPE_KEYS_MAX} keys"));
    }
    for (key, values) in scope {
        let field = format!("scope.{key}");
        if !is_text(key) || !values.iter().all(|value| is_text(value)) {
            faults.add(&field, format!("must be texts of 1 to {SCOPE_TEXT_BYTES_MAX} bytes, key and values"));
        }
        if values.is_empty() || values.len() > SCOPE_VALUES_MAX {
            let fault = Fault::new(field, format!("must hold 1 to {SCOPE_VALUES_MAX} values"));
            faults.0.push(fault.hint("leave the key out to match every value"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::{BodyForm, Method};
    use crate::domain::retry::{Retry, RetryPolicy};
    use crate::domain::statuses::{Class, Seen};
    use serde_json::{Value, json};
    use std::time::Duration;

    const K1: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    /// A good document of which `changes` replace top-level members.
    fn check(changes: Value) -> Result<Subscription, Vec<Fault>> {
        let mut document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"], "signatures": [],
            "request": {"url": "https://h.example/x"},
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        SubscriptionSpec::read(document).unwrap().check()
    }

    fn faults(changes: Value) -> Vec<String> {
        check(changes).unwrap_err().iter().map(Fault::to_string).collect()
    }

    fn fields(changes: Value) -> Vec<String> {
        check(changes).unwrap_err().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let subscription = check(json!({})).unwrap();
        assert_eq!(subscription.retry, Retry::default());
        assert!(
            subscription.success.matches(&Seen::Status(204))
                && !subscription.success.matches(&Seen::Status(302))
        );
        assert!(subscription.enabled && subscription.disabled_by.is_none() && subscription.scope.is_empty());
        let plan = subscription.request;
        assert_eq!(
            (plan.method, plan.body, plan.timeout),
            (Method::Post, BodyForm::Envelope, Duration::from_secs(30))
        );
        assert_eq!(plan.content_type, "application/json");
        assert_eq!(subscription.auth, Auth::None);
    }

    /// A document that names nearly every field there is.
    #[test]
    fn the_example_of_the_contract_is_good() {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "name": "ERP", "enabled": true,
            "events": ["document.*", "batch.completed"], "interactive": [], "scope": {"inbox": ["i7", "i9"]},
            "filter": null,
            "request": {
                "method": "POST", "url": "https://erp.example.com/ocr/:id", "headers": {"X-Env": "live"},
                "body": "envelope", "content_type": "application/json", "timeout_s": 30,
            },
            "auth": {"kind": "none"},
            "signatures": [{"scheme": "standard", "secrets": [K1]}],
            "success": ["2xx"],
            "retry": {"kind": "exponential", "base": 2, "max_attempts": 10},
            "answer": "ignore", "preset": null, "metadata": {}, "created_at": "…", "updated_at": "…",
        });
        let subscription = SubscriptionSpec::read(document).unwrap().check().unwrap();
        assert_eq!((subscription.events.len(), subscription.signatures.len()), (2, 1));
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let document = json!({
            "tenant": "a b",
            "name": "x".repeat(201),
            "events": ["a..b"],
            "scope": {"inbox": [], "queue": [""]},
            "request": {
                "method": "post", "url": "ftp://h.example", "headers": {"Host": "a", "X": "é"}, "body": "xml",
                "content_type": "", "timeout_s": 121,
            },
            "auth": {"kind": "digest"},
            "signatures": [{"scheme": "standard"}, {"scheme": "hmac-sha265"}, {"scheme": "hmac"}],
            "success": ["ok", "2xx", "fine"],
            "retry": {"kind": "never", "on": ["sometimes"], "on_gone": "x", "when_down": "y"},
            "answer": "maybe",
        });
        let spec = SubscriptionSpec::read(document).unwrap();
        let found: Vec<String> = spec.check().unwrap_err().into_iter().map(|fault| fault.field).collect();
        let expected = [
            "id",
            "tenant",
            "name",
            "answer",
            "events[0]",
            "scope.inbox",
            "scope.queue",
            "request.method",
            "request.body",
            "request.url",
            "request.headers.Host",
            "request.headers.X",
            "request.content_type",
            "request.timeout_s",
            "auth.kind",
            "signatures[0].secrets",
            "signatures[1].scheme",
            "signatures[2].header",
            "signatures[2].secrets",
            "success[0]",
            "success[2]",
            "retry.on_gone",
            "retry.when_down",
            "retry.on[0]",
            "retry.kind",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_empty_document_misses_what_it_needs() {
        let faults = SubscriptionSpec::default().check().unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["id", "tenant", "events", "request.url", "signatures"]);
    }

    #[test]
    fn the_faults_of_a_filter_are_those_of_the_document() {
        let filter = json!({"all": [{"pointer": "/data/a", "equals": 1}, {"pointer": "/data/b", "like": 1}]});
        assert_eq!(fields(json!({"filter": filter})), ["filter.all[1].like"]);
        assert!(check(json!({"filter": {"pointer": "/data/a", "equals": 1}})).unwrap().filter.is_some());
    }

    #[test]
    fn what_comes_later_says_so() {
        let changes = json!({
            "retry": {"when_down": "park"},
        });
        let faults = faults(changes);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].ends_with("is not supported yet"), "{faults:?}");
    }

    #[test]
    fn a_login_belongs_to_token_request_and_has_its_faults_named() {
        let login = json!({"kind": "token_request", "url": "http://h.example/login", "body": {"user": "u"}, "cache_s": 60});
        let auth = check(json!({"auth": login})).unwrap().auth;
        assert!(matches!(auth, Auth::Token(_)) && auth.as_header().is_none());
        let twice = json!({"request": {"url": "https://h.example/x", "headers": {"authorization": "x"}}, "auth": login});
        assert_eq!(fields(twice), ["auth"]);
        let wrong =
            json!({"kind": "token_request", "url": "h.example", "token": "t", "encoding": "xml", "body": 1});
        assert_eq!(fields(json!({"auth": wrong})), ["auth.token", "auth.url", "auth.encoding"]);
        assert_eq!(fields(json!({"auth": {"kind": "bearer", "token": "t", "cache_s": 1}})), ["auth.cache_s"]);
    }

    #[test]
    fn interactive_events_are_patterns_too_and_may_be_the_only_ones() {
        let subscription = check(json!({"events": [], "interactive": ["annotation_content.*"]})).unwrap();
        assert_eq!((subscription.events.len(), subscription.interactive.len()), (0, 1));
        assert_eq!(fields(json!({"events": [], "interactive": []})), ["events"]);
        assert_eq!(fields(json!({"interactive": ["a..b"]})), ["interactive[0]"]);
    }

    #[test]
    fn a_body_is_a_form_or_a_template() {
        let body =
            |body: &str| json!({"request": {"url": "https://h.example/x", "body": body, "names": {"a": 1}}});
        assert!(matches!(check(body(r#"{"e":"{name}"}"#)).unwrap().request.body, BodyForm::Template(_)));
        for wrong in ["xml", r#"{"e":"{nam}"}"#, "{"] {
            assert_eq!(fields(body(wrong)), ["request.body"], "{wrong}");
        }
    }

    #[test]
    fn a_mask_in_a_new_document_is_a_fault_of_its_field() {
        let changes = json!({
            "request": {"url": "https://h.example/x", "headers": {"X-Key": "***"}},
            "auth": {"kind": "bearer", "token": "***"},
            "signatures": [{"scheme": "standard", "secrets": [K1, "***"]}],
        });
        assert_eq!(fields(changes), ["request.headers.X-Key", "auth.token", "signatures[0].secrets[1]"]);
    }

    #[test]
    fn fields_of_another_kind_are_refused_and_missing_ones_named() {
        assert_eq!(
            fields(json!({"auth": {"kind": "bearer", "username": "u"}})),
            ["auth.username", "auth.token"]
        );
        assert_eq!(fields(json!({"auth": {"kind": "none", "token": "t"}})), ["auth.token"]);
        assert_eq!(
            fields(json!({"auth": {"kind": "header", "name": "Host", "value": "\n"}})),
            ["auth.name", "auth.value"]
        );
        assert_eq!(fields(json!({"retry": {"kind": "fixed", "base": 2}})), ["retry.base", "retry.delay_s"]);
        assert_eq!(fields(json!({"retry": {"kind": "none", "max_attempts": 1}})), ["retry.max_attempts"]);
        let signature = json!({"scheme": "standard", "secrets": [K1], "header": "X"});
        assert_eq!(fields(json!({"signatures": [signature]})), ["signatures[0].header"]);
    }

    #[test]
    fn every_retry_policy_is_read() {
        let policy = |retry: Value| check(json!({"retry": retry})).unwrap().retry.policy;
        assert_eq!(
            policy(json!({"max_attempts": 3})),
            RetryPolicy::Exponential { base: 2, unit_s: 1, max_attempts: 3 }
        );
        let exponential = json!({
            "kind": "exponential", "base": 3, "unit_s": 2, "max_attempts": 4, "on": ["5xx", "timeout"],
            "retry_after": false, "jitter": 0.5, "on_gone": "dead", "when_down": "burn",
        });
        let retry = check(json!({"retry": exponential})).unwrap().retry;
        assert_eq!(retry.policy, RetryPolicy::Exponential { base: 3, unit_s: 2, max_attempts: 4 });
        assert!(!retry.retry_after && retry.jitter == 0.5);
        let on = retry.on.unwrap();
        assert!(on.matches(&Seen::Failure(Class::Timeout)) && !on.matches(&Seen::Status(404)));
        assert_eq!(
            policy(json!({"kind": "fixed", "delay_s": 5})),
            RetryPolicy::Fixed { delay_s: 5, max_attempts: 10 }
        );
        assert_eq!(
            policy(json!({"kind": "list", "delays_s": [1, 2]})),
            RetryPolicy::List { delays_s: vec![1, 2] }
        );
        assert_eq!(policy(json!({"kind": "none"})), RetryPolicy::None);
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_refused() {
        assert_eq!(fields(json!({"retry": {"base": 10}})), ["retry.base"]);
        assert_eq!(fields(json!({"retry": {"max_attempts": 101}})), ["retry.max_attempts"]);
        assert_eq!(fields(json!({"retry": {"kind": "list", "delays_s": [200_000]}})), ["retry.delays_s"]);
        assert_eq!(fields(json!({"retry": {"jitter": 2}})), ["retry.jitter"]);
    }

    #[test]
    fn no_header_is_sent_twice() {
        let bearer = json!({
            "request": {"url": "https://h.example/x", "headers": {"Authorization": "x"}},
            "auth": {"kind": "bearer", "token": "t"},
        });
        assert_eq!(
            faults(bearer),
            ["`auth` sends header `authorization`, which `request.headers` sends already"]
        );
        let standard = json!({"scheme": "standard", "secrets": [K1]});
        assert_eq!(fields(json!({"signatures": [standard, standard]})), ["signatures[1]", "signatures[1]"]);
        let hmac =
            json!({"scheme": "hmac", "secrets": ["s"], "header": "Webhook-Signature", "id_header": "X-Id"});
        assert!(check(json!({"signatures": [hmac]})).is_ok());
        assert_eq!(fields(json!({"signatures": [standard, hmac]})), ["signatures[1]"]);
        let within = json!({"scheme": "hmac", "secrets": ["s"], "header": "X-A", "id_header": "x-a"});
        assert_eq!(fields(json!({"signatures": [within]})), ["signatures[0]"]);
    }

    #[test]
    fn a_signed_time_must_reach_the_receiver() {
        let hmac =
            json!({"scheme": "hmac", "secrets": ["s"], "header": "X-A", "content": "{timestamp}.{body}"});
        assert_eq!(fields(json!({"signatures": [hmac]})), ["signatures[0].timestamp_header"]);
        let standard = json!({"scheme": "standard", "secrets": [K1]});
        assert!(check(json!({"signatures": [hmac, standard]})).is_ok());
    }

    #[test]
    fn credentials_in_the_url_are_basic_auth_unless_auth_says_otherwise() {
        let request = json!({"url": "https://Aladdin:open%20sesame@h.example/x"});
        let subscription = check(json!({"request": request})).unwrap();
        assert_eq!(subscription.auth.as_header().unwrap().1.expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(subscription.request.url.to_string(), "https://h.example/x");
        let both = json!({"request": request, "auth": {"kind": "bearer", "token": "t"}});
        assert_eq!(fields(both), ["request.url"]);
    }

    #[test]
    fn a_disabled_subscription_knows_by_whom() {
        let by = |changes| check(changes).unwrap().disabled_by;
        assert_eq!(by(json!({"enabled": false})), Some(DisabledBy::Person));
        assert_eq!(by(json!({"enabled": false, "disabled_by": "paperboy"})), Some(DisabledBy::Paperboy));
        assert_eq!(by(json!({"enabled": true, "disabled_by": "paperboy"})), None);
    }

    #[test]
    fn an_empty_success_is_refused() {
        assert_eq!(fields(json!({"success": []})), ["success"]);
    }

    #[test]
    fn no_fault_repeats_a_secret() {
        let changes = json!({
            "request": {"url": "https://u:canary@h..example/x", "headers": {"X-Key": "canary\n"}},
            "auth": {"kind": "bearer", "token": "canary canary"},
            "signatures": [{"scheme": "standard", "secrets": ["canary!"]}],
        });
        let shown = format!("{:?}", check(changes).unwrap_err());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
