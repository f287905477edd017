//! Operational events for the platform around Paperboy: what a person or a program there should hear of.
//!
//! A notice names things and counts; it never holds a payload, a secret or a whole URL.

use serde_json::{Map, Value, json};

use crate::domain::time;

/// What a notice is about; its name is the routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// Nothing but failures for half of the time after which a subscription is disabled.
    SubscriptionFailing,
    /// Paperboy disabled a subscription.
    SubscriptionDisabled,
    /// One that was told as failing takes events again.
    SubscriptionRecovered,
}

impl NoticeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeKind::SubscriptionFailing => "subscription.failing",
            NoticeKind::SubscriptionDisabled => "subscription.disabled",
            NoticeKind::SubscriptionRecovered => "subscription.recovered",
        }
    }
}

/// A notice on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Stays the same when it is published again.
    pub id: String,
    /// The name of its [`NoticeKind`].
    pub kind: String,
    pub at_ms: i64,
    /// A JSON object.
    pub body: String,
}

impl Notice {
    /// A notice of a tenant's; `id` is unlike that of any other, `detail` goes beside what every notice says.
    pub fn new(id: &str, kind: NoticeKind, tenant: &str, at_ms: i64, detail: Map<String, Value>) -> Notice {
        let mut body = Map::from_iter([
            ("id".to_owned(), json!(id)),
            ("type".to_owned(), json!(kind.as_str())),
            ("time".to_owned(), json!(time::rfc3339(at_ms))),
            ("tenant".to_owned(), json!(tenant)),
        ]);
        body.extend(detail);
        let (id, kind, body) = (id.to_owned(), kind.as_str().to_owned(), Value::Object(body).to_string());
        Notice { id, kind, at_ms, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_what_it_is_of_whom_and_when() {
        let detail = Map::from_iter([("subscription".to_owned(), json!("sub_1"))]);
        let kind = NoticeKind::SubscriptionFailing;
        let notice = Notice::new("ntc_1", kind, "acme", 1_795_338_007_120, detail);
        let body: Value = serde_json::from_str(&notice.body).unwrap();
        assert_eq!(
            body,
            json!({
                "id": "ntc_1", "type": "subscription.failing", "time": "2026-11-22T09:00:07.120Z",
                "tenant": "acme", "subscription": "sub_1",
            })
        );
        assert_eq!(notice.kind, kind.as_str());
    }
}
