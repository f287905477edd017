//! Who changed what, as it is shown.

use serde_json::{Value, json};

use crate::store::AuditLine;

/// A line as JSON. To a tenant, people and programs of the operator are one.
pub fn line_json(line: &AuditLine, is_for_tenant: bool) -> Value {
    let actor = match is_for_tenant && !line.actor.starts_with("key:") {
        true => "operator",
        false => &line.actor,
    };
    let at = jiff::Timestamp::from_millisecond(line.at_ms).unwrap_or_default();
    json!({
        "at": format!("{at:.3}"), "actor": actor, "action": line.action, "tenant": line.tenant,
        "object": line.object, "detail": line.detail,
    })
}
