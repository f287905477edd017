//! Writing down what events mean for their batches: all of a group in one transaction, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;

use super::super::pool::Session;
use super::super::{Store, Write};
use super::{Kept, batch_columns, due_ms, kept, member, outbox, scope_text, update_all};
use crate::domain::batch::{Batch, BatchId, DocumentId, Joined, Member, Signal, late_body, late_id};
use crate::domain::name::Tenant;

/// What a worker needs of a store to write memberships down.
pub trait MembershipStore: Send + Sync + 'static {
    /// See [`Store::record_signals`].
    fn record_signals(
        &self,
        signals: &[Signal],
        now_ms: i64,
    ) -> impl Future<Output = anyhow::Result<Vec<Joined>>> + Send;
}

impl MembershipStore for Store {
    async fn record_signals(&self, signals: &[Signal], now_ms: i64) -> anyhow::Result<Vec<Joined>> {
        Store::record_signals(self, signals, now_ms).await
    }
}

type Batches = BTreeMap<(Tenant, BatchId), Kept>;
type Members = BTreeMap<(i64, DocumentId), Option<Member>>;

impl Store {
    /// Takes signals in, in their order: all of them, or none. What a signal says that is known already changes
    /// nothing. A document that is late leaves a notice to be published.
    pub async fn record_signals(&self, signals: &[Signal], now_ms: i64) -> anyhow::Result<Vec<Joined>> {
        let failed = "could not write the documents of batches to the store";
        let mut write = self.begin_write().await.context(failed)?;
        let mut batches = hold(&mut write, signals, now_ms).await.context(failed)?;
        let before = batches.clone();
        let mut members = read_members(&mut write, signals, &batches).await.context(failed)?;
        let known = members.clone();
        let mut joined = Vec::with_capacity(signals.len());
        for signal in signals {
            let key = (signal.tenant.clone(), signal.batch.clone());
            let kept = batches.get_mut(&key).context("a batch that was just held is not there")?;
            let mut none = None;
            let slot = match &signal.document {
                Some(told) => members.entry((kept.number, told.id.clone())).or_default(),
                None => &mut none,
            };
            let now = kept.batch.take(signal, slot);
            if let (Joined::Late, Some(told)) = (now, &signal.document) {
                let id = late_id(&signal.tenant, &signal.batch, &told.id);
                let body = late_body(&signal.tenant, &signal.batch, &told.id, &kept.batch, now_ms);
                outbox::insert_late(&mut write, kept.number, &id, &body).await.context(failed)?;
            }
            joined.push(now);
        }
        let new = members.iter().filter(|(key, member)| known.get(*key) != Some(*member));
        let new: Vec<_> =
            new.filter_map(|(key, member)| member.as_ref().map(|member| (key, member))).collect();
        write_members(&mut write, &new).await.context(failed)?;
        let changed = batches.iter().filter(|(key, kept)| before.get(*key) != Some(*kept));
        update_all(&mut write, changed.map(|(_, kept)| kept), now_ms).await.context(failed)?;
        write.commit().await.context(failed)?;
        Ok(joined)
    }
}

/// The batches of these signals, made where they are new, and held until the transaction ends.
async fn hold(write: &mut Write<'_>, signals: &[Signal], now_ms: i64) -> anyhow::Result<Batches> {
    let mut first: BTreeMap<(&Tenant, &BatchId), &Signal> = BTreeMap::new();
    for signal in signals {
        first.entry((&signal.tenant, &signal.batch)).or_insert(signal);
    }
    let mut query = write.query(
        "INSERT INTO batches (tenant, id, state, opened_ms, idle_ms, close_asked, documents, finished, late,
         scope, due_ms, changed_ms) VALUES ",
    );
    // In the order of their names: processes that hold several wait for each other, and never in a circle.
    for (place, ((tenant, id), signal)) in first.iter().enumerate() {
        let batch = Batch::new(signal.at_ms, signal.idle_ms, signal.scope.clone());
        query.push_bind(if place == 0 { "(" } else { ", (" }, tenant.as_str());
        query.push_bind(", ", id.as_str());
        query.push_bind(", 'open', ", batch.opened_ms);
        query.push_bind(", ", batch.idle_ms);
        query.push_bind(", 0, 0, 0, 0, ", scope_text(batch.scope.as_ref()));
        query.push_bind(", ", due_ms(&batch));
        query.push_bind(", ", now_ms);
        query.push(")");
    }
    query.push(concat!(
        " ON CONFLICT (tenant, id) DO UPDATE SET tenant = excluded.tenant RETURNING ",
        batch_columns!()
    ));
    let rows = query.fetch_all().await?;
    let batches = rows.iter().map(|row| {
        let kept = kept(row)?;
        Ok(((kept.tenant.clone(), kept.id.clone()), kept))
    });
    batches.collect()
}

/// The documents of these signals as far as they are known.
async fn read_members(
    write: &mut Write<'_>,
    signals: &[Signal],
    batches: &Batches,
) -> anyhow::Result<Members> {
    let mut asked = BTreeSet::new();
    for signal in signals {
        let kept = batches.get(&(signal.tenant.clone(), signal.batch.clone()));
        if let (Some(told), Some(kept)) = (&signal.document, kept) {
            asked.insert((kept.number, told.id.as_str()));
        }
    }
    if asked.is_empty() {
        return Ok(Members::new());
    }
    let mut query = write.query("WITH asked (batch, document) AS (VALUES ");
    for (place, (number, document)) in asked.into_iter().enumerate() {
        query.push_bind(if place == 0 { "(" } else { ", (" }, number);
        query.push_bind(", ", document);
        query.push(")");
    }
    query.push(
        ") SELECT known.batch AS batch, known.document AS document, joined_ms, outcome, outcome_ms, late
         FROM asked JOIN batch_documents AS known
         ON known.batch = asked.batch AND known.document = asked.document",
    );
    let rows = query.fetch_all().await?;
    let members = rows.iter().map(|row| {
        let document: String = row.get("document")?;
        let document = DocumentId::parse(&document).context("id of a document")?;
        Ok(((row.get("batch")?, document), Some(member(row)?)))
    });
    members.collect()
}

async fn write_members(
    write: &mut Write<'_>,
    members: &[(&(i64, DocumentId), &Member)],
) -> Result<(), sqlx::Error> {
    if members.is_empty() {
        return Ok(());
    }
    let mut query = write
        .query("INSERT INTO batch_documents (batch, document, joined_ms, outcome, outcome_ms, late) VALUES ");
    for (place, ((number, document), member)) in members.iter().enumerate() {
        let outcome = member.outcome.as_ref();
        query.push_bind(if place == 0 { "(" } else { ", (" }, *number);
        query.push_bind(", ", document.as_str());
        query.push_bind(", ", member.joined_ms);
        query.push_bind(", ", outcome.map(|outcome| outcome.kind.as_str()));
        query.push_bind(", ", outcome.map(|outcome| outcome.at_ms));
        query.push_bind(", ", i64::from(member.late));
        query.push(")");
    }
    query.push(
        " ON CONFLICT (batch, document) DO UPDATE SET joined_ms = excluded.joined_ms,
         outcome = excluded.outcome, outcome_ms = excluded.outcome_ms",
    );
    query.execute().await.map(drop)
}
