//! What is told of a batch: its completion as an event, a late document as a notice.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::name::{BatchId, DocumentId, completion_id, late_id};
use super::signal::{TYPE_COMPLETED, TYPE_LATE};
use super::{Batch, Member};
use crate::domain::name::Tenant;
use crate::domain::time::rfc3339;

/// A completed batch with what its event tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    pub tenant: &'a Tenant,
    pub id: &'a BatchId,
    pub batch: &'a Batch,
    /// How often each outcome came.
    pub outcomes: &'a BTreeMap<String, u64>,
    /// Documents in time, in the order they joined; those that find no room are left out and counted.
    pub listed: &'a [Listed],
}

/// A document with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub document: DocumentId,
    pub member: Member,
}

/// The event `batch.completed`, in at most about `bytes_max`.
pub fn completed_body(completion: &Completion<'_>, bytes_max: usize) -> Vec<u8> {
    let Completion { tenant, id, batch, outcomes, listed } = completion;
    let moment = |unix_ms: Option<i64>| unix_ms.map(rfc3339);
    let completed_ms = batch.completed_ms.unwrap_or(batch.opened_ms);
    let mut data = json!({
        "batch_id": id.as_str(),
        "counts": { "documents": batch.documents, "late": batch.late, "outcomes": outcomes },
        "opened_at": rfc3339(batch.opened_ms),
        "closed_at": moment(batch.closed_ms),
        "completed_at": rfc3339(completed_ms),
        "closed_by": if batch.close_asked { "asked" } else { "idle" },
        "duration_ms": completed_ms.saturating_sub(batch.opened_ms).max(0),
    });
    let mut room = bytes_max.saturating_sub(HEAD_BYTES + data.to_string().len());
    let mut documents = Vec::new();
    for Listed { document, member } in *listed {
        let one = json!({
            "document_id": document.as_str(),
            "outcome": member.outcome.as_ref().map(|outcome| outcome.kind.as_str()),
            "at": moment(member.outcome.as_ref().map(|outcome| outcome.at_ms)),
        });
        let bytes = one.to_string().len() + 1;
        if bytes > room {
            break;
        }
        room -= bytes;
        documents.push(one);
    }
    let left_out = batch.documents.saturating_sub(documents.len() as u64);
    data["documents"] = Value::Array(documents);
    data["documents_left_out"] = json!(left_out);
    let mut event = Map::new();
    event.insert("id".into(), json!(completion_id(tenant, id)));
    event.insert("type".into(), json!(TYPE_COMPLETED));
    event.insert("tenant".into(), json!(tenant.as_str()));
    if let Some(scope) = batch.scope.as_ref().filter(|scope| !scope.is_empty()) {
        event.insert("scope".into(), json!(scope));
    }
    event.insert("time".into(), json!(rfc3339(completed_ms)));
    event.insert("batch_id".into(), json!(id.as_str()));
    event.insert("data".into(), data);
    Value::Object(event).to_string().into_bytes()
}

/// Room for what stands around `data`.
const HEAD_BYTES: usize = 4096;

/// The notice that a document came too late for its batch.
pub fn late_body(
    tenant: &Tenant,
    id: &BatchId,
    document: &DocumentId,
    batch: &Batch,
    now_ms: i64,
) -> Vec<u8> {
    let notice = json!({
        "id": late_id(tenant, id, document),
        "type": TYPE_LATE,
        "tenant": tenant.as_str(),
        "time": rfc3339(now_ms),
        "batch_id": id.as_str(),
        "document_id": document.as_str(),
        "data": { "state": batch.state.as_str(), "closed_at": batch.closed_ms.map(rfc3339) },
    });
    notice.to_string().into_bytes()
}
