//! What a platform holds its customers' configurations to.

use serde::{Deserialize, Serialize};

use super::{EventName, Preset};
use crate::domain::fault::Fault;
use crate::domain::matching::Pattern;
use crate::domain::spec::SubscriptionSpec;

/// Rules on a document, and on how many there may be. Absent ones rule nothing.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// What the URL must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_holds: Option<String>,
    /// The host must have a top-level domain.
    #[serde(skip_serializing_if = "super::is_false")]
    pub url_has_domain: bool,
    #[serde(skip_serializing_if = "super::is_false")]
    pub name_required: bool,
    /// Shortest and longest name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_chars: Option<[usize; 2]>,
    /// Empty: every method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// Shortest and longest secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_bytes: Option<[usize; 2]>,
    /// User and password come together.
    #[serde(skip_serializing_if = "super::is_false")]
    pub whole_credentials: bool,
    /// Of what there may be one only, for one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_per: Option<OnePer>,
    /// What an import of a second one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<Second>,
}

/// Of what a tenant may have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnePer {
    /// One for each event type, in each scope.
    Type,
    Tenant,
    Url,
}

/// What an import does where there is one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Second {
    Refuse,
    /// The platform's "set up or update".
    Update,
}

/// What becomes of a document beside those that its tenant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Create,
    /// It takes the place of this one.
    Update {
        id: String,
    },
    /// This one has to be removed first. Over HTTP, 409.
    Conflict {
        id: String,
        message: String,
    },
}

impl Rules {
    /// Every rule that a document breaks.
    pub fn check(&self, spec: &SubscriptionSpec, preset: &Preset) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |field: &str, message: String| {
            let hint = format!("preset `{}` holds to what {} documents", preset.name, preset.title);
            faults.push(Fault::new(field, message).hint(hint));
        };
        // That it is missing, or no URL, is told whatever the preset.
        let url = spec.request.url.as_deref();
        if let (Some(text), Some(url)) = (self.url_holds.as_deref(), url)
            && !url.contains(text)
        {
            add("request.url", format!("must hold `{text}`"));
        }
        if self.url_has_domain && url.and_then(|url| url::Url::parse(url).ok()).is_some_and(has_no_domain) {
            add("request.url", "must have a host with a top-level domain".to_owned());
        }
        let name_chars = spec.name.as_deref().map(|name| name.chars().count());
        if self.name_required && name_chars.unwrap_or(0) == 0 {
            add("name", "is missing".to_owned());
        }
        if let (Some([min, max]), Some(chars)) = (self.name_chars, name_chars)
            && !(min..=max).contains(&chars)
        {
            add("name", format!("must have {min} to {max} characters"));
        }
        let method = spec.request.method.as_deref().unwrap_or("POST");
        if !self.methods.is_empty() && !self.methods.iter().any(|allowed| allowed == method) {
            add("request.method", format!("must be one of {}", self.methods.join(", ")));
        }
        if let (Some(max), Some(given)) = (self.timeout_s_max, spec.request.timeout_s)
            && given > max
        {
            add("request.timeout_s", format!("must be at most {max}"));
        }
        let attempts = spec.retry.as_ref().and_then(|retry| retry.max_attempts);
        if let (Some(max), Some(given)) = (self.attempts_max, attempts)
            && given > max
        {
            add("retry.max_attempts", format!("must be at most {max}"));
        }
        for (index, signature) in spec.signatures.iter().flatten().enumerate() {
            let Some([min, max]) = self.secret_bytes else { break };
            for (place, secret) in signature.secrets.iter().enumerate() {
                if !secret.is_mask() && !(min..=max).contains(&secret.expose().len()) {
                    add(
                        &format!("signatures[{index}].secrets[{place}]"),
                        format!("must have {min} to {max} characters"),
                    );
                }
            }
        }
        let basic = spec.auth.as_ref().filter(|auth| auth.kind == "basic");
        let has_both = basic.is_none_or(|auth| {
            let password = auth.password.as_ref().map_or("", |password| password.expose());
            auth.username.as_deref().is_some_and(|name| !name.is_empty()) && !password.is_empty()
        });
        if self.whole_credentials && !has_both {
            add("auth", "must have both user and password".to_owned());
        }
        faults
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as the caller has it")]
fn has_no_domain(url: url::Url) -> bool {
    !url.domain().is_some_and(|host| host.trim_end_matches('.').contains('.'))
}

/// Decides what becomes of `incoming` beside `existing`, which are of the same tenant.
pub fn place(existing: &[SubscriptionSpec], incoming: &SubscriptionSpec, preset: &Preset) -> Placement {
    let Some(there) = second(existing, incoming, preset) else { return Placement::Create };
    let id = there.id.clone().unwrap_or_default();
    match preset.rules.second {
        Some(Second::Update) => Placement::Update { id },
        Some(Second::Refuse) | None => Placement::Conflict { message: too_many(preset, &id), id },
    }
}

/// The first of `existing` beside which the platform would not let `incoming` be.
pub fn second<'a>(
    existing: impl IntoIterator<Item = &'a SubscriptionSpec>,
    incoming: &SubscriptionSpec,
    preset: &Preset,
) -> Option<&'a SubscriptionSpec> {
    let one_per = preset.rules.one_per?;
    let is_second = |there: &&SubscriptionSpec| {
        there.preset == incoming.preset
            && there.tenant == incoming.tenant
            && there.id != incoming.id
            && match one_per {
                OnePer::Tenant => true,
                // Credentials do not make it another one.
                OnePer::Url => there.masked().request.url == incoming.masked().request.url,
                OnePer::Type => there.scope == incoming.scope && share_a_type(there, incoming, preset),
            }
    };
    existing.into_iter().find(is_second)
}

/// Why `id` stands in the way of another one.
pub fn too_many(preset: &Preset, id: &str) -> String {
    let of = match preset.rules.one_per {
        Some(OnePer::Type) => "of this type",
        Some(OnePer::Url) => "with this URL",
        Some(OnePer::Tenant) | None => "in this account",
    };
    format!("{} takes one webhook {of}, and `{id}` is there already", preset.title)
}

/// Whether both want the same of the platform's events, by whichever of its names and with whatever pattern.
fn share_a_type(one: &SubscriptionSpec, other: &SubscriptionSpec, preset: &Preset) -> bool {
    let patterns = |spec: &SubscriptionSpec| -> Vec<Pattern> {
        let all = spec.events.iter().chain(&spec.interactive);
        all.filter_map(|text| Pattern::parse(text).ok()).collect()
    };
    let (mine, theirs) = (patterns(one), patterns(other));
    let wants = |patterns: &[Pattern], event: &EventName| {
        event.all_types().any(|kind| patterns.iter().any(|pattern| pattern.matches(kind)))
    };
    preset.events.iter().any(|event| wants(&mine, event) && wants(&theirs, event))
        || one.events.iter().any(|kind| other.events.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn broken(preset: &str, document: Value) -> Vec<String> {
        let preset = Preset::find(preset).unwrap();
        let spec = SubscriptionSpec::read(document).unwrap();
        preset.rules.check(&spec, preset).into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn each_platform_refuses_what_it_documents() {
        let url = |url: &str| json!({"name": "ERP", "request": {"url": url}});
        assert_eq!(broken("idexa", url("http://h.example/x")), ["request.url"]);
        assert_eq!(broken("idexa", json!({"request": {"url": "http://h.example/:id"}})), ["name"]);
        assert_eq!(
            broken("idexa", json!({"name": "a", "request": {"url": "http://h/:id", "method": "PATCH"}})),
            ["request.method"]
        );
        assert_eq!(
            broken("invofox", json!({"request": {"url": "https://h.example/", "method": "GET"}})),
            ["request.method"]
        );
        assert_eq!(
            broken(
                "rossum",
                json!({"name": "a", "request": {"url": "https://h/", "timeout_s": 61}, "retry": {"max_attempts": 6}})
            ),
            ["request.timeout_s", "retry.max_attempts"]
        );
        assert_eq!(broken("ocrolus", url("http://localhost:5000/x")), ["request.url"]);
        assert_eq!(broken("ocrolus", url("http://10.0.0.1/x")), ["request.url"]);
        assert_eq!(
            broken(
                "ocrolus",
                json!({"name": "ab", "request": {"url": "https://h.example/"}, "auth": {"kind": "basic", "username": "u", "password": ""}, "signatures": [{"scheme": "hmac", "secrets": ["short", "***", "long enough to be one"]}]})
            ),
            ["name", "signatures[0].secrets[0]", "auth"]
        );
        assert_eq!(broken("contractfit", url("http://127.0.0.1:3000/x")), Vec::<String>::new());
    }

    fn spec(preset: &str, id: &str, changes: Value) -> SubscriptionSpec {
        let mut document = json!({"id": id, "tenant": "acme", "preset": preset, "events": ["document.processed"], "request": {"url": "https://h.example/:id"}});
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        SubscriptionSpec::read(document).unwrap()
    }

    fn placed(there: &SubscriptionSpec, incoming: &SubscriptionSpec) -> Placement {
        let preset = Preset::find(incoming.preset.as_deref().unwrap()).unwrap();
        place(std::slice::from_ref(there), incoming, preset)
    }

    #[test]
    fn a_second_one_is_refused_updated_or_welcome() {
        let there = spec("idexa", "sub_1", json!({}));
        match placed(&there, &spec("idexa", "sub_2", json!({}))) {
            Placement::Conflict { id, message } => {
                assert!(id == "sub_1" && message.contains("`sub_1`"), "{message}")
            }
            other => panic!("{other:?}"),
        }
        for second in [json!({"events": ["document.finished"]}), json!({"events": ["document.*", "x"]})] {
            let second = spec("idexa", "sub_2", second);
            assert!(matches!(placed(&there, &second), Placement::Conflict { .. }), "{second:?}");
        }
        for free in [
            json!({"events": ["x"]}),
            json!({"scope": {"environment": ["test"]}}),
            json!({"tenant": "other"}),
        ] {
            assert_eq!(placed(&there, &spec("idexa", "sub_2", free)), Placement::Create);
        }
        let account = spec("ocrolus-account", "sub_1", json!({}));
        let other_url = json!({"request": {"url": "https://other.example/"}});
        assert_eq!(
            placed(&account, &spec("ocrolus-account", "sub_2", other_url.clone())),
            Placement::Update { id: "sub_1".into() }
        );
        let organization = spec("ocrolus", "sub_1", json!({}));
        assert!(matches!(
            placed(&organization, &spec("ocrolus", "sub_2", json!({}))),
            Placement::Conflict { .. }
        ));
        assert_eq!(placed(&organization, &spec("ocrolus", "sub_2", other_url)), Placement::Create);
        assert_eq!(
            placed(&spec("rossum", "sub_1", json!({})), &spec("rossum", "sub_2", json!({}))),
            Placement::Create
        );
    }
}
