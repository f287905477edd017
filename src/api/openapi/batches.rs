//! The schemas of batches.

use serde_json::{Value, json};

use crate::domain::name::Tenant;

pub(super) fn add(schemas: &mut Value) {
    let moment = || json!({ "type": ["string", "null"], "format": "date-time" });
    let scope = || json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let tenant = json!({ "type": "string", "pattern": super::schemas::pattern(Tenant::RULE) });
    let row = json!({
        "tenant": { "type": "string" },
        "id": { "type": "string" },
        "state": { "enum": ["open", "closed", "completed"] },
        "documents": { "type": "integer", "description": "that came in time" },
        "finished": { "type": "integer" },
        "late": { "type": "integer", "description": "documents that came when it was closed; they do not count" },
        "opened_at": { "type": "string", "format": "date-time" },
        "last_document_at": moment(),
        "close_asked": { "type": "boolean" },
        "closes_at": moment(),
        "closed_at": moment(),
        "completed_at": moment(),
        "event": { "type": ["string", "null"], "description": "the id of its `batch.completed`" },
        "scope": scope(),
    });
    let mut full = row.clone();
    full["members"] = json!({ "type": "array", "items": { "type": "object", "properties": {
        "document_id": { "type": "string" },
        "joined_at": { "type": "string", "format": "date-time" },
        "outcome": { "type": ["string", "null"], "description": "the type of the event that finished it" },
        "at": moment(),
        "late": { "type": "boolean" },
    } } });
    let required = ["tenant", "id", "state", "documents", "finished", "late"];
    schemas["Batch"] = json!({ "type": "object", "required": required, "properties": row });
    schemas["BatchFull"] = json!({ "type": "object", "required": required, "properties": full });
    schemas["NewBatch"] = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "tenant": tenant,
            "id": {
                "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
                "description": "what documents name as `batch_id`; absent: one is made",
            },
            "scope": scope(),
        },
    });
}
