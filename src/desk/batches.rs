//! Batches: make, look, say that no document follows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Caller, Desk, Refused, note};
use crate::domain::batch::{BatchId, SCOPE_BYTES_MAX, State, completion_id, scope_bytes};
use crate::domain::name::Tenant;
use crate::domain::time::rfc3339;
use crate::store::batches::{BatchFilter, BatchRow, MemberRow};

/// Documents that are shown with a batch.
pub const SHOWN_MAX: u32 = 1000;

/// A batch in a list, as JSON.
pub fn row_json(row: &BatchRow) -> Value {
    let BatchRow { tenant, id, batch, .. } = row;
    let moment = |unix_ms: Option<i64>| unix_ms.map(rfc3339);
    let closes_ms = batch.due_ms().filter(|_| !batch.close_asked);
    json!({
        "tenant": tenant.as_str(),
        "id": id.as_str(),
        "state": batch.state.as_str(),
        "documents": batch.documents,
        "finished": batch.finished,
        "late": batch.late,
        "opened_at": rfc3339(batch.opened_ms),
        "last_document_at": moment(batch.last_document_ms),
        "close_asked": batch.close_asked,
        "closes_at": moment(closes_ms),
        "closed_at": moment(batch.closed_ms),
        "completed_at": moment(batch.completed_ms),
        "event": (batch.state == State::Completed).then(|| completion_id(tenant, id)),
        "scope": batch.scope.clone().unwrap_or_default(),
    })
}

/// A batch with its documents, as JSON.
pub fn shown_json(row: &BatchRow, members: &[MemberRow]) -> Value {
    let mut value = row_json(row);
    let members = members.iter().map(|MemberRow { document, member }| {
        let outcome = member.outcome.as_ref();
        json!({
            "document_id": document.as_str(),
            "joined_at": rfc3339(member.joined_ms),
            "outcome": outcome.map(|outcome| outcome.kind.as_str()),
            "at": outcome.map(|outcome| rfc3339(outcome.at_ms)),
            "late": member.late,
        })
    });
    value["members"] = members.collect();
    value
}

impl Desk {
    /// A page of batches, newest first, held to the caller's tenant.
    ///
    /// # Errors
    /// Another tenant's were asked for, or the store fails.
    pub async fn batches(&self, caller: &Caller, mut filter: BatchFilter) -> Result<Vec<BatchRow>, Refused> {
        filter.tenant = caller.tenant_of_list(filter.tenant)?;
        Ok(self.store.batches(&filter).await?)
    }

    /// One batch with its first documents. Ids are a tenant's own: an operator may have to say whose it is.
    ///
    /// # Errors
    /// There is none that the caller may see, several tenants have one, or the store fails.
    pub async fn batch(
        &self,
        caller: &Caller,
        tenant: Option<Tenant>,
        id: &str,
    ) -> Result<(BatchRow, Vec<MemberRow>), Refused> {
        let row = self.find_batch(caller, tenant, id).await?;
        let members = self.store.batch_documents(row.number, SHOWN_MAX).await?;
        Ok((row, members))
    }

    async fn find_batch(
        &self,
        caller: &Caller,
        tenant: Option<Tenant>,
        id: &str,
    ) -> Result<BatchRow, Refused> {
        let missing = || Refused::Missing { what: "batch", id: id.to_owned() };
        let parsed = BatchId::parse(id).ok_or_else(missing)?;
        let tenant = caller.tenant_of_list(tenant)?;
        let filter = BatchFilter { tenant, id: Some(parsed), limit: 2, ..BatchFilter::default() };
        let mut rows = self.store.batches(&filter).await?;
        if rows.len() > 1 {
            return Err(Refused::Conflict {
                message: format!("several tenants have a batch `{id}`"),
                hint: "say whose it is with `tenant`",
            });
        }
        rows.pop().ok_or_else(missing)
    }

    /// Makes a batch that documents may join; one that is there stays as it is. The second value: it is new.
    ///
    /// # Errors
    /// A fault of a field, another tenant's, or the store fails.
    pub async fn open_batch(
        &self,
        caller: &Caller,
        tenant: Option<&str>,
        id: Option<&str>,
        scope: BTreeMap<String, String>,
    ) -> Result<(BatchRow, bool), Refused> {
        let tenant = match (tenant, &caller.tenant) {
            (Some(text), _) => Tenant::parse(text)
                .map_err(|fault| Refused::fault("tenant", fault.to_string(), "write whose batch it is"))?,
            (None, Some(own)) => own.clone(),
            (None, None) => return Err(Refused::fault("tenant", "is missing", "write whose batch it is")),
        };
        if !caller.owns(Some(tenant.as_str())) {
            return Err(caller.foreign());
        }
        let made = || format!("b_{}", uuid::Uuid::now_v7().simple());
        let text = id.map_or_else(made, str::to_owned);
        let id = BatchId::parse(&text).ok_or_else(|| {
            Refused::fault("id", format!("must be {}", BatchId::RULE), "leave it out to have one made")
        })?;
        if scope_bytes(&scope) > SCOPE_BYTES_MAX {
            let message = format!("is longer than {SCOPE_BYTES_MAX} bytes");
            return Err(Refused::fault("scope", message, "name only what subscriptions select by"));
        }
        let note = note(caller, "batch.open", Some(tenant.as_str()), id.as_str(), json!({}));
        let idle_ms = self.rules.batches.idle_ms(&tenant);
        match self.store.make_batch(&tenant, &id, idle_ms, scope, note).await? {
            Some(row) => Ok((row, true)),
            None => Ok((self.find_batch(caller, Some(tenant), id.as_str()).await?, false)),
        }
    }

    /// Says that no document of a batch follows: it is closed as soon as what was published before has been taken.
    ///
    /// # Errors
    /// As [`Desk::batch`].
    pub async fn close_batch(
        &self,
        caller: &Caller,
        tenant: Option<Tenant>,
        id: &str,
    ) -> Result<BatchRow, Refused> {
        let row = self.find_batch(caller, tenant, id).await?;
        let detail = json!({ "documents": row.batch.documents, "finished": row.batch.finished });
        let note = note(caller, "batch.close", Some(row.tenant.as_str()), row.id.as_str(), detail);
        let asked = self.store.ask_to_close(row.number, note).await?;
        asked.ok_or_else(|| Refused::Missing { what: "batch", id: id.to_owned() })
    }
}
