//! From a platform's own configuration object to a subscription's document, field by field.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Preset;
use super::words::their_field;
use crate::domain::fault::Fault;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::spec::SubscriptionSpec;

/// Which of the object's fields go where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportMap {
    pub fields: Vec<Field>,
    /// What the platform adds to its answer: its name, and the field of our document.
    pub record: Vec<Record>,
}

/// One field of the object.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Field {
    /// Its name; dots lead into objects.
    pub name: String,
    /// Where it goes in our document; `body.NAME` is a member of every body, `signature.NAME` of the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub take: Take,
    /// What else is set by it, unless it is false.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub sets: Map<String, Value>,
    #[serde(skip_serializing_if = "super::is_false")]
    pub required: bool,
    /// Taken only with this other field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// Not taken beside this other field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// Why it is not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<String>,
    /// Values that ask for nothing, so that nothing is said of them; the only one there may be for `must`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usual: Vec<Value>,
    /// Never in an answer.
    #[serde(skip_serializing_if = "super::is_false")]
    pub write_only: bool,
}

/// How a value is understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// As it is.
    #[default]
    Copy,
    /// One of `usual`.
    Must,
    /// A URL, or a host or address alone, which means http.
    Url,
    /// Names or codes of the platform's events, in a list, alone or with commas between them.
    Events,
    /// An object of texts, numbers and booleans.
    Headers,
    /// A text in capitals.
    Upper,
    /// A secret to sign with.
    Secret,
    /// `SHA-256`, `sha256` …
    Algorithm,
    /// A number of retries: attempts are one more.
    Retries,
    /// The name of a member, which a JSON Pointer then leads to.
    Member,
    /// URLs that end in an id, or ids.
    Ids,
    /// Anything, sent along as it is.
    Literal,
}

/// What an answer adds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub from: String,
}

/// A configuration object as one of our documents, not yet complete.
#[derive(Clone, Debug)]
pub struct Imported {
    pub spec: SubscriptionSpec,
    pub not_taken: Vec<NotTaken>,
}

/// A field of the object that has no effect here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub field: String,
    pub reason: String,
}

/// Reads a platform's own configuration object for a tenant.
///
/// Field by field: what is known goes where the preset says, everything else is named in `not_taken`.
///
/// # Errors
/// Every field, by the platform's name, that is missing or has a value nobody can use.
pub fn import(preset: &Preset, tenant: &Tenant, object: &Value) -> Result<Imported, Vec<Fault>> {
    let Value::Object(fields) = object else {
        return Err(vec![Fault::new("", format!("the configuration of {} must be an object", preset.title))]);
    };
    let mut import = Import::new(preset, object);
    if preset.import.fields.is_empty() {
        return Err(vec![Fault::new("", format!("preset `{}` has no import", preset.name))]);
    }
    for field in &preset.import.fields {
        import.field(field);
    }
    import.unknown("", fields);
    import.finish(tenant)
}

/// The value at a dotted path; `null` is as good as absent.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let found = path.split('.').try_fold(object, |value, name| value.get(name));
    found.filter(|value| !value.is_null())
}

struct Import<'a> {
    preset: &'a Preset,
    object: &'a Value,
    document: Value,
    signature: Map<String, Value>,
    /// Members of every body.
    literals: Map<String, Value>,
    faults: Vec<Fault>,
    not_taken: Vec<NotTaken>,
}

impl<'a> Import<'a> {
    fn new(preset: &'a Preset, object: &'a Value) -> Import<'a> {
        Import {
            preset,
            object,
            document: json!({}),
            signature: Map::new(),
            literals: Map::new(),
            faults: Vec::new(),
            not_taken: Vec::new(),
        }
    }

    fn field(&mut self, field: &Field) {
        let Some(value) = at(self.object, &field.name) else {
            if field.required {
                self.faults.push(Fault::new(&field.name, "is missing"));
            }
            return;
        };
        let has = |other: &Option<String>| other.as_ref().is_some_and(|name| at(self.object, name).is_some());
        let is_usual = field.usual.contains(value);
        if let Some(reason) = &field.not_taken {
            if !is_usual {
                self.leave(&field.name, reason.clone());
            }
            return;
        }
        if has(&field.unless) {
            let other = field.unless.clone().unwrap_or_default();
            return self.leave(&field.name, format!("`{other}` is given, and takes its place"));
        }
        if field.needs.is_some() && !has(&field.needs) {
            let other = field.needs.clone().unwrap_or_default();
            return self.leave(&field.name, format!("has no meaning without `{other}`"));
        }
        match self.taken(field, value) {
            Ok(None) => {}
            Ok(Some(taken)) => {
                if taken != Value::Bool(false) {
                    for (path, value) in &field.sets {
                        self.set(path, value.clone());
                    }
                }
                if let Some(to) = &field.to {
                    self.set(to, taken);
                }
            }
            Err(message) => self.faults.push(Fault::new(&field.name, message)),
        }
    }

    /// The value for our document; `None` where everything is done.
    fn taken(&mut self, field: &Field, value: &Value) -> Result<Option<Value>, String> {
        let text = || value.as_str().ok_or_else(|| "must be a text".to_owned());
        Ok(Some(match field.take {
            Take::Copy => value.clone(),
            Take::Literal => literal(value),
            Take::Must => {
                let known: Vec<String> = field.usual.iter().map(Value::to_string).collect();
                if !field.usual.contains(value) {
                    return Err(format!("must be {}", known.join(" or ")));
                }
                return Ok(None);
            }
            Take::Url => json!(with_scheme(text()?)),
            Take::Upper => json!(text()?.to_ascii_uppercase()),
            Take::Algorithm => {
                json!(text()?.to_ascii_lowercase().replace(['-', '_'], "").trim_start_matches("hmac"))
            }
            Take::Secret => json!([text()?]),
            Take::Member => json!(format!("/{}", text()?.replace('~', "~0").replace('/', "~1"))),
            Take::Retries => {
                let retries = value.as_u64().ok_or("must be a whole number, not negative")?;
                json!(retries.saturating_add(1))
            }
            Take::Headers => {
                let Value::Object(headers) = value else { return Err("must be an object".to_owned()) };
                let texts = headers.iter().map(|(name, value)| Some((name.clone(), json!(scalar(value)?))));
                let texts: Option<Map<String, Value>> = texts.collect();
                // Both spellings of the field may be given.
                let to = field.to.as_deref().unwrap_or_default();
                let mut all = at(&self.document, to).and_then(Value::as_object).cloned().unwrap_or_default();
                all.extend(texts.ok_or("must hold texts only")?);
                Value::Object(all)
            }
            Take::Ids => {
                let Value::Array(items) = value else { return Err("must be a list".to_owned()) };
                if items.is_empty() {
                    self.set("enabled", json!(false));
                    self.leave(
                        &field.name,
                        "is empty, so nothing is sent there: imported disabled".to_owned(),
                    );
                    return Ok(None);
                }
                let ids: Option<Vec<String>> = items.iter().map(last_segment).collect();
                json!(ids.ok_or("must hold URLs or ids")?)
            }
            Take::Events => return self.events(field, value).map(|()| None),
        }))
    }

    fn events(&mut self, field: &Field, value: &Value) -> Result<(), String> {
        let wanted: Vec<Value> = match value {
            Value::Array(items) => items.clone(),
            Value::String(text) => {
                text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Value::from).collect()
            }
            other => vec![other.clone()],
        };
        if wanted.is_empty() {
            if field.required {
                return Err("must name at least one event".to_owned());
            }
            self.set("enabled", json!(false));
            self.leave(&field.name, "is empty, which ends all notices there: imported disabled".to_owned());
            return Ok(());
        }
        let (mut ordinary, mut interactive) = (Vec::new(), Vec::new());
        for (place, name) in wanted.iter().enumerate() {
            // A name alone stands for all actions of it.
            let is_meant = |vendor: &Value| {
                vendor == name
                    || matches!((vendor.as_str(), name.as_str()), (Some(vendor), Some(name))
                        if vendor.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
            };
            let meant: Vec<_> = self.preset.events.iter().filter(|event| is_meant(&event.vendor)).collect();
            if meant.is_empty() {
                let reason = format!("{name} is no event of {}", self.preset.title);
                self.leave(&format!("{}[{place}]", field.name), reason);
            }
            for event in meant {
                let list = if event.interactive { &mut interactive } else { &mut ordinary };
                list.extend(event.all_types().map(str::to_owned));
            }
        }
        if ordinary.is_empty() && interactive.is_empty() {
            let known: Vec<String> =
                self.preset.events.iter().map(|event| event.vendor.to_string()).collect();
            return Err(format!("names no event of {}; known are {}", self.preset.title, known.join(", ")));
        }
        for (list, to) in [(ordinary, "events"), (interactive, "interactive")] {
            let mut seen = BTreeSet::new();
            let list: Vec<String> = list.into_iter().filter(|kind| seen.insert(kind.clone())).collect();
            self.set(to, json!(list));
        }
        Ok(())
    }

    fn set(&mut self, path: &str, value: Value) {
        if let Some(name) = path.strip_prefix("signature.") {
            self.signature.insert(name.to_owned(), value);
            return;
        }
        if let Some(name) = path.strip_prefix("body.") {
            self.literals.insert(name.to_owned(), value);
            return;
        }
        let mut target = &mut self.document;
        for name in path.split('.') {
            target = &mut target[name];
        }
        *target = value;
    }

    fn leave(&mut self, field: &str, reason: String) {
        self.not_taken.push(NotTaken { field: field.to_owned(), reason });
    }

    /// Names everything of the object that no field of the preset is for.
    fn unknown(&mut self, path: &str, fields: &Map<String, Value>) {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let known = &self.preset.import;
            if known.fields.iter().any(|field| field.name == path) {
                continue;
            }
            if known.record.iter().any(|record| record.name == path) {
                self.leave(&path, "is set by us".to_owned());
                continue;
            }
            let below = format!("{path}.");
            match value {
                Value::Object(inner) if known.fields.iter().any(|field| field.name.starts_with(&below)) => {
                    self.unknown(&path, inner);
                }
                _ => self.leave(&path, format!("is no field that preset `{}` knows", self.preset.name)),
            }
        }
    }

    fn finish(mut self, tenant: &Tenant) -> Result<Imported, Vec<Fault>> {
        self.document["tenant"] = json!(tenant.as_str());
        self.document["preset"] = json!(self.preset.name);
        // Without a secret the platform does not sign either.
        if self.signature.contains_key("secrets") {
            self.document["signatures"] = json!([self.signature]);
        } else {
            self.document["signatures"] = json!([]);
            if !self.signature.is_empty() {
                self.leave("secret", "is missing, so that nothing is signed".to_owned());
            }
        }
        if let (false, Some(body)) = (self.literals.is_empty(), &self.preset.subscription.request.body) {
            let members = Value::Object(std::mem::take(&mut self.literals)).to_string();
            let (start, rest) = (members.strip_suffix('}'), body.trim_start().strip_prefix('{'));
            let joined = format!("{},{}", start.unwrap_or_default(), rest.unwrap_or_default());
            self.document["request"]["body"] = json!(joined);
        }
        if !self.faults.is_empty() {
            return Err(self.all_faults());
        }
        let spec = SubscriptionSpec::read(self.document)?;
        Ok(Imported { spec, not_taken: self.not_taken })
    }
}

impl Import<'_> {
    /// The faults that were found, and what else would be found once they are repaired: of fields that are given and
    /// have none yet.
    fn all_faults(self) -> Vec<Fault> {
        let mut faults = self.faults;
        let id = SubscriptionId::parse("sub_").map(|id| (id, "1970-01-01T00:00:00Z"));
        let Ok((id, now)) = id else { return faults };
        let made = SubscriptionSpec::make(self.document, id, now, [0; 32]);
        for fault in made.err().unwrap_or_default() {
            let Some(field) = their_field(self.preset, self.object, &fault.field) else { continue };
            let is_within = |known: &Fault| {
                let rest = field.strip_prefix(known.field.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            if at(self.object, &field).is_some() && !faults.iter().any(is_within) {
                faults.push(Fault { field, ..fault });
            }
        }
        faults
    }
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The id at the end of a URL, or the id.
fn last_segment(value: &Value) -> Option<String> {
    let text = scalar(value)?;
    text.trim_end_matches('/').rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// The same value inside a template, where a text that looks like a place is none.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with('{') => json!(format!("{{{text}")),
        Value::Array(items) => Value::Array(items.iter().map(literal).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), literal(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            (shown["id"].as_str(), &shown["headers"]),
            (Some("sub_1"), &json!({"Authorization": "***"}))
        );
    }

    #[test]
    fn a_host_or_address_alone_is_called_over_http() {
        for (target, url) in [
            ("10.0.0.7", "http://10.0.0.7"),
            ("localhost:3000/x", "http://localhost:3000/x"),
            ("https://h.example/x", "https://h.example/x"),
        ] {
            let object = json!({"type": "webhook", "events": ["document_text"], "target": target, "header": {"X-A": 1}});
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
            imported("ocrolus-account", json!({"webhook_endpoint": "https://h.example/", "events": []}))
                .unwrap();
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
}
