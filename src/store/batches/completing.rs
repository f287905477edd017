//! Closing what is due, completing what is done, forgetting what is old.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::super::pool::Session;
use super::super::{Store, Write, count};
use super::{Kept, batch_columns, kept, member, outbox, update_all};
use crate::domain::batch::{Completion, DocumentId, Listed, completed_body, completion_id};

/// Documents that an event lists at most; more are counted only.
const LISTED_MAX: i64 = 10_000;

impl Store {
    /// Batches that may be closed as of this moment; if there are more, those due longest.
    pub async fn batches_due(&self, due_by_ms: i64, limit: u32) -> anyhow::Result<Vec<i64>> {
        let text = "SELECT number, tenant, id FROM batches WHERE state = 'open' AND due_ms <= $1
            ORDER BY due_ms LIMIT $2";
        self.numbers(text, due_by_ms, limit).await.context("could not look for batches to close in the store")
    }

    /// Closed batches of which every document is finished.
    pub async fn batches_done(&self, limit: u32) -> anyhow::Result<Vec<i64>> {
        let text = "SELECT number, tenant, id FROM batches WHERE state = 'closed' AND due_ms <= $1
            ORDER BY due_ms LIMIT $2";
        self.numbers(text, 0, limit).await.context("could not look for batches to complete in the store")
    }

    async fn numbers(&self, text: &'static str, by_ms: i64, limit: u32) -> Result<Vec<i64>, sqlx::Error> {
        let mut connection = self.inner.pool.acquire().await?;
        let rows = connection.query(text).bind(by_ms).bind(i64::from(limit)).fetch_all().await?;
        let named = rows.iter().map(|row| Ok((row.get("tenant")?, row.get("id")?, row.get("number")?)));
        let mut named: Vec<(String, String, i64)> = named.collect::<Result<_, sqlx::Error>>()?;
        // The order in which they are held, and in which workers hold them.
        named.sort_unstable();
        Ok(named.into_iter().map(|(_, _, number)| number).collect())
    }

    /// Closes those of these batches that were due at `due_by_ms` and still are; how many. None where the round is
    /// not `owner`'s any more: then nothing was done.
    pub async fn close_batches(
        &self,
        owner: &str,
        round: i64,
        numbers: &[i64],
        due_by_ms: i64,
        now_ms: i64,
    ) -> anyhow::Result<Option<usize>> {
        let failed = "could not close batches in the store";
        let mut write = self.begin_write().await.context(failed)?;
        // Held until the end: nobody else begins a round meanwhile.
        let is_ours = write
            .query("UPDATE batch_sweep SET phase = phase WHERE one = 1 AND owner = $1 AND round = $2 AND phase = 2")
            .bind(owner)
            .bind(round)
            .execute()
            .await
            .context(failed)?;
        if is_ours == 0 {
            return Ok(None);
        }
        let mut batches = hold(&mut write, numbers).await.context(failed)?;
        batches.retain_mut(|kept| kept.batch.close(due_by_ms, now_ms));
        update_all(&mut write, batches.iter(), now_ms).await.context(failed)?;
        write.commit().await.context(failed)?;
        Ok(Some(batches.len()))
    }

    /// Completes those of these batches that are done, each with its event to be published; how many.
    pub async fn complete_batches(
        &self,
        numbers: &[i64],
        bytes_max: usize,
        now_ms: i64,
    ) -> anyhow::Result<usize> {
        let failed = "could not complete batches in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let mut batches = hold(&mut write, numbers).await.context(failed)?;
        batches.retain_mut(|kept| kept.batch.complete(now_ms));
        for Kept { number, tenant, id, batch } in &batches {
            let outcomes = outcomes(&mut write, *number).await.context(failed)?;
            let listed = listed(&mut write, *number).await.context(failed)?;
            let completion = Completion { tenant, id, batch, outcomes: &outcomes, listed: &listed };
            let body = completed_body(&completion, bytes_max);
            let event = completion_id(tenant, id);
            outbox::insert_completed(&mut write, *number, &event, &body).await.context(failed)?;
        }
        update_all(&mut write, batches.iter(), now_ms).await.context(failed)?;
        write.commit().await.context(failed)?;
        Ok(batches.len())
    }

    /// Forgets batches of which nothing was heard since `before_ms`, at most `limit` at a time; how many of them were
    /// completed, and how many were not. What is still to be published stays.
    pub async fn forget_batches(&self, before_ms: i64, limit: u32) -> anyhow::Result<(u64, u64)> {
        let failed = "could not forget old batches in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let rows = write
            .query(
                // Asked again of each row: Postgres finds them, and may have to wait for whoever changes one.
                "DELETE FROM batches WHERE number IN (SELECT number FROM batches WHERE changed_ms < $1
                 AND NOT EXISTS (SELECT 1 FROM batch_outbox WHERE batch = batches.number AND sent_ms IS NULL)
                 ORDER BY changed_ms LIMIT $2) AND changed_ms < $3 RETURNING number, state",
            )
            .bind(before_ms)
            .bind(i64::from(limit))
            .bind(before_ms)
            .fetch_all()
            .await
            .context(failed)?;
        let (mut completed, mut others) = (0, 0);
        for row in &rows {
            let number: i64 = row.get("number").context(failed)?;
            for table in
                ["DELETE FROM batch_documents WHERE batch = $1", "DELETE FROM batch_outbox WHERE batch = $1"]
            {
                write.query(table).bind(number).execute().await.context(failed)?;
            }
            let is_completed = row.get::<String>("state").context(failed)? == "completed";
            *(if is_completed { &mut completed } else { &mut others }) += 1;
        }
        write.commit().await.context(failed)?;
        Ok((completed, others))
    }
}

/// These batches, held until the transaction ends. The caller names them in the order of tenants and ids: whoever
/// holds several waits for others, and never in a circle.
async fn hold(write: &mut Write<'_>, numbers: &[i64]) -> anyhow::Result<Vec<Kept>> {
    let mut held = Vec::with_capacity(numbers.len());
    for number in numbers {
        let query = write.query(concat!(
            "UPDATE batches SET state = state WHERE number = $1 RETURNING ",
            batch_columns!()
        ));
        if let Some(row) = query.bind(*number).fetch_optional().await? {
            held.push(kept(&row)?);
        }
    }
    Ok(held)
}

async fn outcomes(write: &mut Write<'_>, number: i64) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let query = write.query(
        "SELECT outcome, count(*) AS times FROM batch_documents
         WHERE batch = $1 AND late = 0 AND outcome IS NOT NULL GROUP BY outcome",
    );
    let rows = query.bind(number).fetch_all().await?;
    rows.iter().map(|row| Ok((row.get("outcome")?, count(row.get("times")?)))).collect()
}

async fn listed(write: &mut Write<'_>, number: i64) -> anyhow::Result<Vec<Listed>> {
    let query = write.query(
        "SELECT document, joined_ms, outcome, outcome_ms, late FROM batch_documents
         WHERE batch = $1 AND late = 0 ORDER BY joined_ms, document LIMIT $2",
    );
    let rows = query.bind(number).bind(LISTED_MAX).fetch_all().await?;
    let listed = rows.iter().map(|row| {
        let document: String = row.get("document")?;
        let document = DocumentId::parse(&document).context("id of a document")?;
        Ok(Listed { document, member: member(row)? })
    });
    listed.collect()
}
