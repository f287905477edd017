//! A subscription that is ready to use: what it wants, where it goes, how it is signed and retried.
//!
//! It is made from its document by [`SubscriptionSpec::check`] and cannot be wrong in itself; everything that
//! is the same for every event is prepared here once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::auth::Auth;
use crate::domain::event::Event;
use crate::domain::filter::Filter;
use crate::domain::matching::Pattern;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::request::{BodyForm, ConstantHeaders, Method};
use crate::domain::retry::Retry;
use crate::domain::secret::Secret;
use crate::domain::signature::Scheme;
pub use crate::domain::spec::SubscriptionSpec;
use crate::domain::statuses::StatusSet;
use crate::domain::template::UrlTemplate;
use crate::domain::veil::Veil;

/// One subscription of one tenant.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub tenant: Tenant,
    /// For people.
    pub name: Option<String>,
    pub enabled: bool,
    /// Who disabled it; `None` while it is enabled.
    pub disabled_by: Option<DisabledBy>,
    /// The event types it wants.
    pub events: Vec<Pattern>,
    /// The event types that are called once and answered.
    pub interactive: Vec<Pattern>,
    /// Keys of an event's scope and the values that are wanted of each; empty is the whole tenant.
    pub scope: Vec<(String, Vec<String>)>,
    /// A condition on the payload of what is wanted otherwise.
    pub filter: Option<Filter>,
    pub request: RequestPlan,
    pub auth: Auth,
    /// The subscription's own headers and its credentials, with the defaults, ready to be sent.
    pub constant_headers: ConstantHeaders,
    /// Empty: unsigned on purpose.
    pub signatures: Vec<Scheme>,
    /// What counts as delivered.
    pub success: StatusSet,
    pub retry: Retry,
    /// Whether receivers' answers are published for the platform.
    pub publishes_answer: bool,
    /// Hides its secrets in what its receiver answers.
    pub veil: Veil,
}

/// Who disabled a subscription: it decides what becomes of its fresh events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledBy {
    /// Fresh events are not matched.
    Person,
    /// Fresh events become dead letters.
    Paperboy,
}

/// The parts of a request that are the same for every event.
#[derive(Clone, Debug)]
pub struct RequestPlan {
    pub method: Method,
    pub url: UrlTemplate,
    /// The subscription's own headers, checked.
    pub headers: Vec<(String, Secret)>,
    pub body: BodyForm,
    /// Sent only with a body.
    pub content_type: String,
    pub timeout: Duration,
}

impl RequestPlan {
    /// The subscription's own headers, then its credentials.
    pub fn own_headers<'a>(&'a self, auth: &'a Auth) -> impl Iterator<Item = (&'a str, &'a str)> {
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.expose()));
        own.chain(auth.as_header().map(|(name, value)| (name, value.expose())))
    }
}

impl Subscription {
    /// Whether it wants events of this tenant, type and scope; whether it is enabled, and what its filter says of
    /// the payload, are other questions.
    pub fn matches(&self, event: &Event<'_>) -> bool {
        self.tenant == event.tenant
            && (self.events.iter().any(|pattern| pattern.matches(event.kind.as_str()))
                || self.is_interactive(event))
            && self.scope.iter().all(|(key, wanted)| {
                event.scope_value(key).is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
            })
    }

    /// Whether this event is sent once and never again, whatever comes back.
    pub fn is_interactive(&self, event: &Event<'_>) -> bool {
        self.interactive.iter().any(|pattern| pattern.matches(event.kind.as_str()))
    }

    /// Whether its filter, if it has one, lets this event through.
    pub fn accepts(&self, event: &Event<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.accepts(event.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Hints;
    use serde_json::{Value, json};

    fn subscription(events: &[&str], scope: Value) -> Subscription {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "events": events, "scope": scope, "signatures": [],
            "request": {"url": "https://h.example/x"},
        });
        SubscriptionSpec::read(document).unwrap().check().unwrap()
    }

    fn wants(subscription: &Subscription, tenant: &str, kind: &str, scope: Value) -> bool {
        let time = "2026-11-22T09:00:07Z";
        let json =
            json!({"id": "e", "type": kind, "tenant": tenant, "time": time, "scope": scope}).to_string();
        subscription.matches(&Event::parse(json.as_bytes(), &Hints::default()).unwrap())
    }

    #[test]
    fn wants_the_event_types_of_its_patterns() {
        let subscription = subscription(&["document.*", "batch.completed"], json!({}));
        assert!(wants(&subscription, "acme", "document.processed", json!({})));
        assert!(wants(&subscription, "acme", "batch.completed", json!({"inbox": "i7"})));
        assert!(!wants(&subscription, "acme", "batch.started", json!({})));
    }

    #[test]
    fn never_wants_an_event_of_another_tenant() {
        assert!(!wants(&subscription(&["#"], json!({})), "other", "a", json!({})));
    }

    #[test]
    fn every_named_scope_key_must_match_one_of_its_values() {
        let subscription = subscription(&["#"], json!({"inbox": ["i7", "i9"], "environment": ["live"]}));
        assert!(wants(
            &subscription,
            "acme",
            "a",
            json!({"inbox": "i9", "environment": "live", "queue": "1"})
        ));
        for scope in [json!({}), json!({"inbox": "i7"}), json!({"inbox": "i8", "environment": "live"})] {
            assert!(!wants(&subscription, "acme", "a", scope.clone()), "{scope}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "events": ["#"],
            "signatures": [{"scheme": "hmac", "header": "X-S", "secrets": ["canary"]}],
            "request": {"url": "https://u:canary@h.example/canary", "headers": {"X-Key": "canary"}},
        });
        let subscription = SubscriptionSpec::read(document).unwrap().check().unwrap();
        let shown = format!("{subscription:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
