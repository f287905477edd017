//! What an event means for its batch.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{BatchId, DocumentId};
use crate::domain::event::Event;
use crate::domain::name::{EventType, Tenant};

/// Opens a batch before its first document.
pub const TYPE_OPENED: &str = "batch.opened";
/// Tells of a completion. It joins nothing, whoever published it.
pub const TYPE_COMPLETED: &str = "batch.completed";
/// The notice of a late document.
pub const TYPE_LATE: &str = "batch.late_document";

/// Longest scope that is kept of a batch, in bytes of its texts.
pub const SCOPE_BYTES_MAX: usize = 2048;

/// What the configuration says of batches.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Types that say that a document is finished.
    pub finished: BTreeSet<EventType>,
    /// How long after its last document a batch closes, in milliseconds; and where a tenant has its own.
    pub idle_ms: i64,
    pub tenants: BTreeMap<Tenant, i64>,
}

/// One event as its batch sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    pub tenant: Tenant,
    pub batch: BatchId,
    pub kind: EventType,
    /// The event's own time in Unix milliseconds, but none that is still to come.
    pub at_ms: i64,
    /// The document it is about.
    pub document: Option<Told>,
    /// No document follows.
    pub closes: bool,
    /// None where it tells none: that is no word about the scope of its batch.
    pub scope: Option<BTreeMap<String, String>>,
    pub idle_ms: i64,
}

/// What is told of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: DocumentId,
    pub is_finished: bool,
}

/// How long a scope is.
pub fn scope_bytes(scope: &BTreeMap<String, String>) -> usize {
    scope.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// A name that cannot be kept; the event passes as one without a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unkept {
    pub field: &'static str,
}

impl Rules {
    /// How long after its last document a batch of this tenant closes, in milliseconds.
    pub fn idle_ms(&self, tenant: &Tenant) -> i64 {
        self.tenants.get(tenant).copied().unwrap_or(self.idle_ms)
    }

    /// Reads what an event means for its batch; `None` where it means nothing.
    ///
    /// # Errors
    /// [`Unkept`]: its batch or document has a name that cannot be kept.
    pub fn read(&self, event: &Event<'_>, now_ms: i64) -> Result<Option<Signal>, Unkept> {
        let Some(batch) = &event.batch_id else { return Ok(None) };
        let kind = event.kind.as_str();
        if kind == TYPE_COMPLETED {
            return Ok(None);
        }
        let is_document = event.document_id.is_some() && kind != TYPE_OPENED;
        // Results of the batch as a whole, image groups, analytics: plain events.
        if !is_document && kind != TYPE_OPENED && !event.close_batch {
            return Ok(None);
        }
        let batch = BatchId::parse(batch).ok_or(Unkept { field: "batch_id" })?;
        let document = match event.document_id.as_deref().filter(|_| is_document) {
            Some(id) => Some(Told {
                id: DocumentId::parse(id).ok_or(Unkept { field: "document_id" })?,
                is_finished: self.finished.contains(&event.kind),
            }),
            None => None,
        };
        // A clock that is ahead would keep the batch open until then.
        let told_ms = event.time.parse::<jiff::Timestamp>().map(|time| time.as_millisecond());
        let at_ms = told_ms.unwrap_or(now_ms).clamp(0, now_ms.max(0));
        let mut scope: BTreeMap<String, String> =
            event.scope.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let is_told = !scope.is_empty();
        // Too long to be kept: then there is nothing that all agree on.
        if scope_bytes(&scope) > SCOPE_BYTES_MAX {
            scope.clear();
        }
        Ok(Some(Signal {
            idle_ms: self.idle_ms(&event.tenant),
            tenant: event.tenant.clone(),
            batch,
            kind: event.kind.clone(),
            at_ms,
            document,
            closes: event.close_batch,
            scope: is_told.then_some(scope),
        }))
    }
}
