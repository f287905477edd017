//! The filters that lists of dead letters and of deliveries take in their query.

use serde_json::{Value, json};

use super::operation::{in_query, shared};
use super::problem::Problem;
use super::request::Query;
use crate::desk::Refused;
use crate::desk::wanted::Wanted;

/// The parameters of a list: those that both lists have, its own, and its page.
pub(super) fn parameters<const N: usize>(own: [Value; N], since: &str) -> Vec<Value> {
    let mut parameters = shared_filters(since);
    parameters.extend(own);
    parameters.extend([shared("limit"), shared("cursor")]);
    parameters
}

/// Those that both lists have; `since` says what `since` is about.
pub(super) fn shared_filters(since: &str) -> Vec<Value> {
    let text = || json!({ "type": "string", "maxLength": 512 });
    let moment = || json!({ "type": "string", "maxLength": 40, "examples": ["2026-11-22T09:00:00Z", "24h"] });
    vec![
        shared("tenant"),
        in_query("subscription", "only this subscription's", text()),
        in_query("event", "only this event's id", text()),
        in_query("document", "only this document's", text()),
        in_query("batch", "only this batch's", text()),
        in_query("type", "only events of this type", text()),
        in_query("class", "only this cause, such as `timeout`; `tls` finds all of TLS", text()),
        in_query("status", "only this status, such as `503` or `5xx`", text()),
        in_query("since", &format!("not before: a moment or an age such as `24h`, {since}"), moment()),
        in_query("until", "before this moment, or an age", moment()),
    ]
}

/// Reads what a query says under these names.
pub(super) fn read(query: &mut Query, names: impl Iterator<Item = &'static str>) -> Wanted {
    let mut wanted = Wanted::default();
    for name in names {
        if let Some(member) = wanted.member(name) {
            *member = query.text(name);
        }
    }
    wanted
}

/// Faults of a filter as those of the query that it was read from.
pub(super) fn of_query<T>(filter: Result<T, Refused>) -> Result<T, Problem> {
    filter.map_err(|refused| match refused {
        Refused::Faults(faults) => Problem::parameters(faults),
        refused => refused.into(),
    })
}
