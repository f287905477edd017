//! Batches: who belongs to them, how far they are, and what is to be published of them.
//!
//! What a signal does to a batch is decided by [`crate::domain::batch`]; here the rows it concerns are read, held and
//! written, many signals in one transaction, so that documents do not cost a commit each.

mod completing;
mod outbox;
mod reading;
mod recording;
mod rounds;

use std::collections::BTreeMap;

use anyhow::Context as _;

pub use self::outbox::OutboxRow;
pub use self::reading::{BatchFilter, BatchRow, MemberRow};
pub use self::recording::MembershipStore;
pub use self::rounds::{Phase, RoundStore};
use super::pool::Session;
use super::statement::Row;
use super::{Write, column, count};
use crate::domain::batch::{Batch, BatchId, Member, Outcome, State};
use crate::domain::name::{EventType, Tenant};

/// The columns of a batch, a macro so that they can be part of static text.
macro_rules! batch_columns {
    () => {
        "number, tenant, id, state, opened_ms, last_document_ms, idle_ms, close_asked, documents, finished, late, \
         scope, closed_ms, completed_ms"
    };
}
use batch_columns;

/// A batch with its names and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    number: i64,
    tenant: Tenant,
    id: BatchId,
    batch: Batch,
}

fn kept(row: &Row) -> anyhow::Result<Kept> {
    let state: String = row.get("state")?;
    let scope: String = row.get("scope")?;
    let scope: Option<BTreeMap<String, String>> = serde_json::from_str(&scope).context("scope of a batch")?;
    Ok(Kept {
        number: row.get("number")?,
        tenant: Tenant::parse(&row.get::<String>("tenant")?)?,
        id: BatchId::parse(&row.get::<String>("id")?).context("id of a batch")?,
        batch: Batch {
            state: State::parse(&state).context("state of a batch")?,
            opened_ms: row.get("opened_ms")?,
            last_document_ms: row.get("last_document_ms")?,
            idle_ms: row.get("idle_ms")?,
            close_asked: row.get::<i64>("close_asked")? != 0,
            documents: count(row.get("documents")?),
            finished: count(row.get("finished")?),
            late: count(row.get("late")?),
            scope,
            closed_ms: row.get("closed_ms")?,
            completed_ms: row.get("completed_ms")?,
        },
    })
}

fn member(row: &Row) -> anyhow::Result<Member> {
    let kind: Option<String> = row.get("outcome")?;
    let at_ms: Option<i64> = row.get("outcome_ms")?;
    let outcome = match (kind, at_ms) {
        (Some(kind), Some(at_ms)) => Some(Outcome { at_ms, kind: EventType::parse(&kind)? }),
        _ => None,
    };
    Ok(Member { joined_ms: row.get("joined_ms")?, outcome, late: row.get::<i64>("late")? != 0 })
}

/// When somebody has to look at it, as the column `due_ms` holds it.
fn due_ms(batch: &Batch) -> Option<i64> {
    match batch.state {
        State::Open => batch.due_ms().map(|due_ms| due_ms.max(0)),
        State::Closed => batch.is_done().then_some(0),
        State::Completed => None,
    }
}

/// Writes batches that are there.
async fn update_all<'k>(
    write: &mut Write<'_>,
    changed: impl Iterator<Item = &'k Kept>,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    for Kept { number, batch, .. } in changed {
        write
            .query(
                "UPDATE batches SET state = $1, opened_ms = $2, last_document_ms = $3, close_asked = $4,
                 documents = $5, finished = $6, late = $7, scope = $8, closed_ms = $9, completed_ms = $10,
                 due_ms = $11, changed_ms = $12 WHERE number = $13",
            )
            .bind(batch.state.as_str())
            .bind(batch.opened_ms)
            .bind(batch.last_document_ms)
            .bind(i64::from(batch.close_asked))
            .bind(column(batch.documents))
            .bind(column(batch.finished))
            .bind(column(batch.late))
            .bind(scope_text(batch.scope.as_ref()))
            .bind(batch.closed_ms)
            .bind(batch.completed_ms)
            .bind(due_ms(batch))
            .bind(now_ms)
            .bind(*number)
            .execute()
            .await?;
    }
    Ok(())
}

/// `null` as long as no event has told one.
fn scope_text(scope: Option<&BTreeMap<String, String>>) -> String {
    serde_json::to_string(&scope).unwrap_or_else(|_| "{}".into())
}
