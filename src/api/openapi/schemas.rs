//! The components of the OpenAPI document: parameters that several operations take, and the shapes of bodies.

use serde_json::{Value, json};

use crate::domain::name::{EventId, EventType, Tenant};

/// A rule of names as JSON Schema wants it: the whole text.
pub(super) fn pattern(rule: &str) -> String {
    format!("^{rule}$")
}

pub(super) fn parameters() -> Value {
    json!({
        "id": {
            "name": "id", "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 200 },
        },
        "tenant": {
            "name": "tenant", "in": "query", "description": "only this tenant's; a tenant's key sees no other",
            "schema": { "type": "string", "pattern": pattern(Tenant::RULE) },
        },
        "limit": {
            "name": "limit", "in": "query", "description": "at most this many",
            "schema": { "type": "integer", "minimum": 1, "maximum": 500, "default": 100 },
        },
        "cursor": {
            "name": "cursor", "in": "query", "description": "`next_cursor` of the page before",
            "schema": { "type": "string", "maxLength": 200 },
        },
        "ifMatch": {
            "name": "If-Match", "in": "header", "description": "the `ETag` of the version that is to be changed",
            "schema": { "type": "string" },
        },
        "prefer": {
            "name": "Prefer", "in": "header",
            "description": "`wait`: answer when every process uses the change; `Preference-Applied` says so",
            "schema": { "type": "string" },
        },
        "idempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "description": "a name of yours for this request, such as a UUID",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
        },
    })
}

pub(super) fn schemas() -> Value {
    let mut schemas = json!({
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "description": "`urn:paperboy:problem:` and a word that stays" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "hint": { "type": "string", "description": "what to do about it" },
                "errors": { "type": "array", "description": "every fault of a body or a query", "items": {
                    "type": "object",
                    "required": ["field", "pointer", "detail"],
                    "properties": {
                        "field": { "type": "string", "description": "such as `signatures[0].secrets[1]`" },
                        "pointer": { "type": "string", "description": "the same as a JSON Pointer" },
                        "detail": { "type": "string" },
                        "hint": { "type": "string", "description": "what to write instead" },
                    },
                } },
            },
        },
        "Event": {
            "type": "object",
            "description": "Other members are kept; `data` is passed on byte for byte.",
            "required": ["id", "type"],
            "properties": {
                "id": { "type": "string", "pattern": pattern(EventId::RULE) },
                "type": { "type": "string", "pattern": pattern(EventType::RULE) },
                "tenant": { "type": "string", "pattern": pattern(Tenant::RULE) },
                "scope": { "type": "object", "additionalProperties": { "type": "string" } },
                "time": { "type": "string", "format": "date-time" },
                "document_id": { "type": "string" },
                "batch_id": { "type": "string" },
                "close_batch": { "type": "boolean", "description": "no document of its batch follows" },
                "data": {},
            },
        },
        "Published": {
            "type": "object",
            "required": ["id", "status"],
            "properties": { "id": { "type": "string" }, "status": { "const": "published" } },
        },
        "PublishedLine": {
            "type": "object",
            "required": ["line", "id", "status"],
            "properties": {
                "line": { "type": "integer", "minimum": 1 },
                "id": { "type": ["string", "null"] },
                "status": { "enum": ["published", "invalid", "failed"] },
                "error": { "type": "string" },
            },
        },
        "Called": {
            "type": "object",
            "required": ["id", "data"],
            "properties": {
                "id": { "type": "string", "description": "the event's id" },
                "data": { "type": "array", "items": { "$ref": "#/components/schemas/Reply" } },
            },
        },
        "Reply": {
            "type": "object",
            "description": "What a subscription answered, or why it did not (`error`).",
            "required": ["subscription"],
            "properties": {
                "subscription": { "type": "string" },
                "error": { "type": "string", "description": "such as `timeout`, `connect`, `template`, `busy` or `too large`" },
                "detail": { "type": "string", "description": "the same for people" },
                "status": { "type": "integer" },
                "headers": {
                    "type": "object", "description": "those that describe the body, or name the request in the receiver's logs",
                    "additionalProperties": { "type": "string" },
                },
                "body_encoding": { "enum": ["json", "text", "base64"] },
                "body": { "description": "JSON as the receiver wrote it, or a text; at most 1 MiB" },
                "ms": { "type": "integer", "minimum": 0 },
            },
        },
        "Trial": {
            "type": "object",
            "required": ["id", "event", "delivered", "wanted", "request", "answer"],
            "properties": {
                "id": { "type": "string" },
                "event": { "type": "string", "description": "the event's id" },
                "delivered": { "type": "boolean", "description": "the answer is one of `success`" },
                "wanted": { "type": "boolean", "description": "the subscription would get such an event" },
                "request": { "type": "object", "required": ["method", "url", "headers", "body"], "properties": {
                    "method": { "type": "string" }, "url": { "type": "string" },
                    "headers": { "type": "object", "additionalProperties": { "type": "string" } },
                    "body": { "type": "string" },
                } },
                "answer": { "type": "object", "required": ["status", "class", "ms", "body"], "properties": {
                    "status": { "type": ["integer", "null"] },
                    "class": { "type": ["string", "null"], "description": "what happened instead, such as `timeout`" },
                    "ms": { "type": "integer" }, "body": { "type": "string" },
                } },
            },
        },
        "TrialRequest": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "data": { "description": "the sample's payload" },
                "type": { "type": "string", "pattern": pattern(EventType::RULE), "description": "the sample's type" },
                "event": { "type": "object", "description": "a whole event instead of a sample" },
            },
        },
        "RotateRequest": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "overlap_s": { "type": "integer", "minimum": 0, "maximum": 604_800, "default": 86_400,
                               "description": "how long the old secrets sign along" },
                "secret": { "type": "string", "description": "the new one; else one is made and answered" },
            },
        },
        "Rotated": {
            "type": "object",
            "required": ["id", "tenant", "secret", "old_until"],
            "properties": {
                "id": { "type": "string" }, "tenant": { "type": "string" },
                "secret": { "type": ["string", "null"], "description": "shown this once" },
                "old_until": { "type": ["string", "null"], "format": "date-time" },
            },
        },
        "AuditLine": {
            "type": "object",
            "required": ["at", "actor", "action", "tenant", "object", "detail"],
            "properties": {
                "at": { "type": "string", "format": "date-time" },
                "actor": { "type": "string" }, "action": { "type": "string" },
                "tenant": { "type": ["string", "null"] }, "object": { "type": "string" },
                "detail": { "type": "object", "description": "names of fields and counts, never a secret" },
            },
        },
    });
    super::batches::add(&mut schemas);
    super::letters::add(&mut schemas);
    subscriptions(&mut schemas);
    schemas
}

fn subscriptions(schemas: &mut Value) {
    let secret = || json!({ "type": "string", "description": "write-only: shown as `***`" });
    let words = || json!({ "type": "array", "items": { "type": "string" } });
    schemas["RequestOptions"] = json!({
        "type": "object", "additionalProperties": false, "properties": {
            "method": { "enum": ["POST", "PUT", "PATCH", "GET", "DELETE"], "default": "POST" },
            "url": { "type": "string", "description": "`:id` is the document's id; `{event.id}`, `{tenant}`, `{data./pointer}` …" },
            "headers": { "type": "object", "additionalProperties": secret() },
            "body": { "type": "string", "description": "`envelope`, `data`, `event`, `none`, or a JSON template with places such as `{data}`", "default": "envelope" },
            "names": { "type": "object", "description": "what the receiver calls the event types, for `{name}` in a template" },
            "content_type": { "type": "string", "default": "application/json" },
            "timeout_s": { "type": "integer", "minimum": 1, "maximum": 120, "default": 30 },
        },
    });
    schemas["Auth"] = json!({
        "type": "object", "additionalProperties": false, "properties": {
            "kind": { "enum": ["none", "header", "bearer", "basic", "token_request"] },
            "name": { "type": "string" }, "value": secret(), "token": secret(),
            "username": { "type": "string" }, "password": secret(),
            "url": { "type": "string", "description": "of `token_request`, as all that follow: where to log in" },
            "method": { "type": "string", "default": "POST" },
            "headers": { "type": "object", "additionalProperties": secret() },
            "body": { "description": "any JSON; write-only: shown as `***`" },
            "encoding": { "enum": ["json", "form"] },
            "token_pointer": { "type": "string", "default": "/access_token" },
            "scheme": { "type": "string", "default": "Bearer" },
            "expires_pointer": { "type": "string", "default": "/expires_in" },
            "cache_s": { "type": "integer" },
        },
    });
    schemas["Signature"] = json!({
        "type": "object", "additionalProperties": false, "properties": {
            "scheme": { "enum": ["standard", "hmac"] },
            "secrets": { "type": "array", "items": secret() },
            "retiring": { "type": "array", "items": { "type": "object", "additionalProperties": false, "properties": {
                "secret": secret(), "until": { "type": "string", "format": "date-time" },
            } } },
            "header": { "type": "string" },
            "algorithm": { "enum": ["sha1", "sha256", "sha384", "sha512"] },
            "encoding": { "enum": ["hex", "base64"] },
            "prefix": { "type": "string" }, "content": { "type": "string" },
            "timestamp_header": { "type": "string" }, "id_header": { "type": "string" },
        },
    });
    schemas["Retry"] = json!({
        "type": "object", "additionalProperties": false, "properties": {
            "kind": { "enum": ["exponential", "fixed", "list", "none"], "default": "exponential" },
            "base": { "type": "integer", "default": 2 }, "unit_s": { "type": "integer", "default": 1 },
            "max_attempts": { "type": "integer", "minimum": 1, "maximum": 100, "default": 10 },
            "delay_s": { "type": "integer" }, "delays_s": { "type": "array", "items": { "type": "integer" } },
            "on": words(), "retry_after": { "type": "boolean", "default": true },
            "jitter": { "type": "number", "minimum": 0, "maximum": 1, "default": 0 },
            "on_gone": { "type": "string", "default": "dead" }, "when_down": { "type": "string", "default": "burn" },
        },
    });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let own = json!({
        "tenant": { "type": "string", "pattern": pattern(Tenant::RULE) },
        "name": { "type": "string", "maxLength": 200 },
        "enabled": { "type": "boolean", "default": true },
        "disabled_by": { "enum": ["person", "paperboy"] },
        "events": { "type": "array", "items": { "type": "string" }, "description": "AMQP topic words: `*` is one word, `#` any number" },
        "interactive": words(),
        "scope": { "type": "object", "additionalProperties": words(), "description": "every named key must match" },
        "filter": { "description": "a condition on the payload" },
        "request": reference("RequestOptions"), "auth": reference("Auth"),
        "signatures": { "type": "array", "items": reference("Signature"), "description": "absent: one `standard` secret is made" },
        "success": words(), "retry": reference("Retry"),
        "answer": { "type": "string", "default": "ignore", "description": "`publish`: to `paperboy.answers`, if it is JSON" },
        "preset": { "type": "string" },
        "metadata": { "type": "object" },
        "id": { "type": "string", "description": "chosen by us; an operator may name one" },
        "created_at": { "type": "string" }, "updated_at": { "type": "string" },
    });
    let with = |required: Value, properties: Value| json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties });
    schemas["Subscription"] = with(json!(["id", "tenant", "events", "request"]), own.clone());
    let mut created = own.clone();
    created["secret"] =
        json!({ "type": "string", "description": "the secret that was made, shown this once" });
    schemas["CreatedSubscription"] = with(json!(["id", "tenant", "events", "request"]), created);
    schemas["NewSubscription"] = with(json!(["events", "request"]), own);
    schemas["PlatformObject"] =
        json!({ "type": "object", "description": "with `preset`: that platform's own configuration object" });
    schemas["PlatformRecord"] = json!({
        "type": "object",
        "description": "with `preset`: the object as the platform answers it, without credentials",
        "properties": {
            "not_taken": { "type": "array", "description": "what has no effect here", "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": { "field": { "type": "string" }, "reason": { "type": "string" } },
            } },
        },
    });
    schemas["SubscriptionPatch"] =
        json!({ "type": "object", "description": "any members of a subscription" });
}
