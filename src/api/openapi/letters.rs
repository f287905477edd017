//! The shapes of dead letters, replays and deliveries.

use serde_json::{Value, json};

use super::schemas::pattern;
use crate::desk::replays::CANARIES_MAX;
use crate::domain::name::Tenant;

pub(super) fn add(schemas: &mut Value) {
    dead_letters(schemas);
    actions(schemas);
    replays(schemas);
    deliveries(schemas);
}

fn optional() -> Value {
    json!({ "type": ["string", "null"] })
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn status() -> Value {
    json!({ "type": ["integer", "null"], "description": "the last status" })
}

fn dead_letters(schemas: &mut Value) {
    let row = json!({
        "id": { "type": "string" }, "kind": { "enum": ["delivery", "event"] }, "reason": { "type": "string" },
        "tenant": optional(), "event": optional(), "type": optional(), "subscription": optional(),
        "document_id": optional(), "batch_id": optional(), "cycle": { "type": "integer" },
        "attempts": { "type": "integer" },
        "history": { "type": "array", "items": { "type": "object" } },
        "body_bytes": { "type": "integer" },
        "first_seen": moment(), "dead_at": moment(),
        "state": { "enum": ["open", "replayed", "discarded"] }, "note": optional(),
        "host": optional(), "class": optional(), "status": status(),
        "replays": { "type": "integer", "description": "how often it had been replayed before" },
        "cause": optional(), "hint": optional(),
    });
    let mut full = row.clone();
    full["body"] = json!({ "type": "string", "description": "the event as text" });
    full["body_base64"] = json!({ "type": "string", "description": "its bytes, where they are no UTF-8" });
    full["answer"] = json!({ "type": "string", "description": "the beginning of the last answer" });
    full["headers"] = json!({});
    let required = ["id", "kind", "reason", "tenant", "state"];
    schemas["DeadLetter"] = json!({ "type": "object", "required": required, "properties": row });
    schemas["DeadLetterFull"] = json!({ "type": "object", "required": required, "properties": full });
    schemas["DeadLetterGroup"] = json!({
        "type": "object",
        "required": ["letters", "again", "tenants", "kind", "host", "class", "status", "first", "last", "example"],
        "properties": {
            "letters": { "type": "integer" },
            "again": { "type": "integer", "description": "how many of them had been replayed before" },
            "tenants": { "type": "integer" }, "kind": { "enum": ["delivery", "event"] },
            "host": optional(), "class": optional(), "status": status(), "cause": optional(), "hint": optional(),
            "first": moment(), "last": moment(),
            "example": { "type": "string", "description": "the newest of them" },
        },
    });
}

fn actions(schemas: &mut Value) {
    let text = || json!({ "type": "string" });
    schemas["DeadLetterFilter"] = json!({
        "type": "object",
        "description": "All of it must hold; an empty filter is every open letter.",
        "additionalProperties": false,
        "properties": {
            "tenant": { "type": "string", "pattern": pattern(Tenant::RULE) },
            "kind": { "enum": ["delivery", "event"] },
            "reason": text(), "subscription": text(), "event": text(), "document": text(), "batch": text(),
            "type": text(), "host": text(), "class": text(), "status": text(),
            "since": { "type": "string", "description": "died not before: a moment or an age such as `24h`" },
            "until": { "type": "string", "description": "died before: a moment or an age" },
        },
    });
    let filter = || json!({ "$ref": "#/components/schemas/DeadLetterFilter" });
    let ids = || json!({ "type": "array", "maxItems": 500, "items": { "type": "string", "pattern": "^dl_[0-9]+$" } });
    let dry = || json!({ "type": "boolean", "default": false, "description": "only count" });
    schemas["ReplayRequest"] = json!({
        "type": "object",
        "description": "Either `ids` or `filter`.",
        "additionalProperties": false,
        "properties": {
            "ids": ids(), "filter": filter(), "dry_run": dry(),
            "subscription": { "type": "string", "description": "another one of the same tenant" },
            "rate": { "type": "integer", "minimum": 0, "maximum": 100_000, "default": 200,
                      "description": "letters a second; 0 for as many as go" },
            "canary": { "type": "integer", "minimum": 0, "maximum": CANARIES_MAX, "default": 0,
                        "description": "so many first, and the rest only if each of them is delivered" },
        },
    });
    schemas["DiscardRequest"] = json!({
        "type": "object",
        "description": "Either `ids` or `filter`.",
        "additionalProperties": false,
        "properties": {
            "ids": ids(), "filter": filter(), "dry_run": dry(),
            "limit": { "type": "integer", "minimum": 1, "maximum": 500, "default": 500 },
            "note": { "type": "string", "description": "why" },
        },
    });
    schemas["DiscardResult"] = json!({
        "type": "object",
        "required": ["matched", "done", "ids", "more", "dry_run"],
        "properties": {
            "matched": { "type": "integer" }, "done": { "type": "integer" },
            "ids": { "type": "array", "items": { "type": "string" } },
            "more": { "type": "boolean", "description": "there are more: ask again" },
            "dry_run": { "type": "boolean" },
        },
    });
}

fn replays(schemas: &mut Value) {
    schemas["ReplayBegun"] = json!({
        "type": "object",
        "required": ["matched", "dry_run", "replay"],
        "properties": {
            "matched": { "type": "integer", "description": "letters that are to be sent" },
            "dry_run": { "type": "boolean" },
            "replay": { "anyOf": [{ "$ref": "#/components/schemas/Replay" }, { "type": "null" }] },
        },
    });
    let states = ["left_to_serve", "running", "interrupted", "paused", "stopped", "cancelled", "done"];
    schemas["Replay"] = json!({
        "type": "object",
        "required": ["id", "state", "sent", "waiting", "skipped"],
        "properties": {
            "id": { "type": "integer" }, "state": { "enum": states },
            "sent": { "type": "integer" }, "waiting": { "type": "integer" },
            "skipped": { "type": "integer", "description": "decided about otherwise meanwhile" },
            "subscription": optional(), "rate": { "type": "integer" }, "canary": { "type": "integer" },
            "detached": { "type": "boolean" }, "created_at": moment(),
            "why": { "type": ["string", "null"], "description": "why it is where it is" },
        },
    });
}

fn deliveries(schemas: &mut Value) {
    let number = || json!({ "type": ["integer", "null"] });
    let row = json!({
        "place": { "type": "string" }, "at": moment(), "what": { "type": "string" },
        "tenant": { "type": "string" }, "event": { "type": "string" }, "type": { "type": "string" },
        "document_id": optional(), "batch_id": optional(), "subscription": optional(),
        "attempt": { "type": "integer" }, "cycle": { "type": "integer" },
        "status": number(), "class": optional(), "reason": optional(), "ms": number(),
        "next_wait": { "type": ["integer", "null"], "description": "units until the next attempt" },
        "received_at": optional(), "worker": { "type": "string", "description": "for operators" },
    });
    schemas["Delivery"] = json!({
        "type": "object", "required": ["place", "at", "what", "tenant", "event"], "properties": row,
    });
    schemas["DeliveryLives"] = json!({
        "type": "object",
        "required": ["data"],
        "properties": { "data": { "type": "array", "items": { "$ref": "#/components/schemas/DeliveryLife" } } },
    });
    schemas["DeliveryLife"] = json!({
        "type": "object",
        "required": ["event", "type", "tenant", "received_at", "matched", "deliveries"],
        "properties": {
            "event": { "type": "string" }, "type": optional(), "tenant": optional(),
            "document_id": optional(), "batch_id": optional(), "received_at": optional(),
            "matched": { "type": "array", "items": { "type": "string" }, "description": "subscriptions" },
            "deliveries": { "type": "array", "items": {
                "type": "object",
                "required": ["subscription", "host", "entries"],
                "properties": {
                    "subscription": optional(), "host": optional(),
                    "entries": { "type": "array", "description": "oldest first", "items": {
                        "type": "object",
                        "required": ["at", "what"],
                        "properties": {
                            "at": moment(), "what": { "type": "string" }, "attempt": { "type": "integer" },
                            "status": number(), "class": optional(), "ms": number(), "next_wait": number(),
                            "cause": optional(), "hint": optional(), "reason": optional(),
                            "dead_letter": optional(), "note": optional(),
                        },
                    } },
                },
            } },
        },
    });
}
