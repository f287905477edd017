//! What people and programs ask of batches: list, show, make, close.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::super::audit::insert_all;
use super::super::pool::Session;
use super::super::{Note, Store};
use super::{Kept, batch_columns, due_ms, kept, member, scope_text, update_all};
use crate::domain::batch::{Batch, BatchId, DocumentId, Member, State};
use crate::domain::name::Tenant;

/// A batch as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    /// Higher is newer.
    pub number: i64,
    pub tenant: Tenant,
    pub id: BatchId,
    pub batch: Batch,
}

/// A document of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    pub document: DocumentId,
    pub member: Member,
}

/// Which batches to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct BatchFilter {
    pub tenant: Option<Tenant>,
    pub state: Option<State>,
    /// Only those of this id.
    pub id: Option<BatchId>,
    /// Only batches older than this one: the last number of the page before.
    pub before: Option<i64>,
    pub limit: u32,
}

impl From<Kept> for BatchRow {
    fn from(kept: Kept) -> BatchRow {
        BatchRow { number: kept.number, tenant: kept.tenant, id: kept.id, batch: kept.batch }
    }
}

impl Store {
    /// A page of batches, newest first.
    pub async fn batches(&self, filter: &BatchFilter) -> anyhow::Result<Vec<BatchRow>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let mut query =
                connection.query(concat!("SELECT ", batch_columns!(), " FROM batches WHERE 1 = 1"));
            if let Some(tenant) = &filter.tenant {
                query.push_bind(" AND tenant = ", tenant.as_str());
            }
            if let Some(state) = filter.state {
                query.push_bind(" AND state = ", state.as_str());
            }
            if let Some(id) = &filter.id {
                query.push_bind(" AND id = ", id.as_str());
            }
            if let Some(before) = filter.before {
                query.push_bind(" AND number < ", before);
            }
            query.push_bind(" ORDER BY number DESC LIMIT ", i64::from(filter.limit));
            query.fetch_all().await
        };
        let rows = rows.await.context("could not list batches from the store")?;
        rows.iter().map(|row| Ok(kept(row).context("a batch cannot be read")?.into())).collect()
    }

    /// Documents of a batch in the order they joined, at most `limit`.
    pub async fn batch_documents(&self, number: i64, limit: u32) -> anyhow::Result<Vec<MemberRow>> {
        let failed = "could not read the documents of a batch from the store";
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            let query = connection.query(
                "SELECT document, joined_ms, outcome, outcome_ms, late FROM batch_documents
                 WHERE batch = $1 ORDER BY joined_ms, document LIMIT $2",
            );
            query.bind(number).bind(i64::from(limit)).fetch_all().await
        };
        let rows = rows.await.context(failed)?;
        let members = rows.iter().map(|row| {
            let document: String = row.get("document")?;
            let document = DocumentId::parse(&document).context("id of a document")?;
            Ok(MemberRow { document, member: member(row)? })
        });
        members.collect::<anyhow::Result<_>>().context(failed)
    }

    /// Makes a batch with the line of the audit; none where there is one of that id.
    pub async fn make_batch(
        &self,
        tenant: &Tenant,
        id: &BatchId,
        idle_ms: i64,
        scope: BTreeMap<String, String>,
        note: Note,
    ) -> anyhow::Result<Option<BatchRow>> {
        let failed = "could not make a batch in the store";
        let batch = Batch::new(note.at_ms, idle_ms, (!scope.is_empty()).then_some(scope));
        let mut write = self.begin_write().await.context(failed)?;
        let row = write
            .query(concat!(
                "INSERT INTO batches (tenant, id, state, opened_ms, idle_ms, close_asked, documents, finished, late,
                 scope, due_ms, changed_ms) VALUES ($1, $2, 'open', $3, $4, 0, 0, 0, 0, $5, $6, $7)
                 ON CONFLICT (tenant, id) DO NOTHING RETURNING ",
                batch_columns!()
            ))
            .bind(tenant.as_str())
            .bind(id.as_str())
            .bind(batch.opened_ms)
            .bind(batch.idle_ms)
            .bind(scope_text(batch.scope.as_ref()))
            .bind(due_ms(&batch))
            .bind(note.at_ms)
            .fetch_optional()
            .await
            .context(failed)?;
        let Some(row) = row else { return Ok(None) };
        insert_all(&mut write, &[note]).await.context(failed)?;
        write.commit().await.context(failed)?;
        Ok(Some(kept(&row).context(failed)?.into()))
    }

    /// Says that no document of a batch follows, with the line of the audit; the batch as it is then. What is closed
    /// already, or about to be, stays as it is.
    pub async fn ask_to_close(&self, number: i64, note: Note) -> anyhow::Result<Option<BatchRow>> {
        let failed = "could not close a batch in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let row = write
            .query(concat!("UPDATE batches SET state = state WHERE number = $1 RETURNING ", batch_columns!()))
            .bind(number)
            .fetch_optional()
            .await
            .context(failed)?;
        let Some(row) = row else { return Ok(None) };
        let mut kept = kept(&row).context(failed)?;
        if kept.batch.state == State::Open && !kept.batch.close_asked {
            kept.batch.close_asked = true;
            let now_ms = note.at_ms;
            update_all(&mut write, std::iter::once(&kept), now_ms).await.context(failed)?;
            insert_all(&mut write, &[note]).await.context(failed)?;
            write.commit().await.context(failed)?;
        }
        Ok(Some(kept.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::seal::SealKey;
    use crate::store::StoreUrl;
    use crate::store::tests::Folder;

    #[tokio::test]
    async fn a_page_is_read_from_an_index_and_sorts_nothing() {
        let folder = Folder::new();
        let url = format!("sqlite://{}", folder.path().join("paperboy.db").display());
        let key = SealKey::from_bytes([1; 32]);
        let store = Store::migrate(&StoreUrl::parse(&url).unwrap(), &key).await.unwrap();
        for (text, index) in [
            ("EXPLAIN QUERY PLAN SELECT * FROM batches WHERE id = $1 ORDER BY number DESC", "batches_by_id"),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM batches WHERE state = $1 ORDER BY number DESC",
                "batches_by_state",
            ),
        ] {
            let mut connection = store.inner.pool.acquire().await.unwrap();
            let rows = connection.query(text).bind("x").fetch_all().await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail").unwrap()).collect();
            assert!(matches!(&plan[..], [only] if only.contains(index)), "{plan:?}");
        }
    }
}
