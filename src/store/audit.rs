//! Who changed what: one line for each change, written in the transaction of the change where there is one.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::pool::Session;
use super::{Store, Write};
use crate::domain::name::Tenant;
use crate::domain::time;

/// Who stands there where nobody asked.
pub const PAPERBOY: &str = "paperboy";

/// A change as it is written down. It holds no secret: names of fields, counts and filters only.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// `key:<id>` of a tenant, `operator:<id>`, `config:<place>`, `loopback`, `cli:<user>` or `paperboy`.
    pub actor: String,
    /// Such as `subscription.create`.
    pub action: &'static str,
    /// Whose object it is; `None` for what is nobody's in particular.
    pub tenant: Option<String>,
    /// The object's id.
    pub object: String,
    /// A JSON object.
    pub detail: Value,
}

/// A line as it is read back.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditLine {
    /// Higher is newer.
    pub id: i64,
    pub at_ms: i64,
    pub actor: String,
    pub action: String,
    pub tenant: Option<String>,
    pub object: String,
    pub detail: Value,
}

/// Which lines to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub tenant: Option<Tenant>,
    pub object: Option<String>,
    /// Unix milliseconds; only lines from then on.
    pub since_ms: Option<i64>,
    /// Only lines older than this one: the last id of the page before.
    pub before_id: Option<i64>,
    pub limit: u32,
}

impl Store {
    /// Writes lines about what has no transaction of its own here, such as a replay.
    pub async fn note(&self, notes: &[Note]) -> anyhow::Result<()> {
        let failed = "could not write the audit to the store";
        let mut write = self.begin_write().await.context(failed)?;
        insert_all(&mut write, notes).await.context(failed)?;
        write.commit().await.context(failed)
    }

    /// Writes that so many dead letters, which died before `before_ms`, were forgotten for their age.
    pub async fn note_forgotten(&self, letters: u64, before_ms: i64, now_ms: i64) -> anyhow::Result<()> {
        let line = Note {
            at_ms: now_ms,
            actor: PAPERBOY.to_owned(),
            action: "dead_letter.forget",
            tenant: None,
            object: "dead letters".to_owned(),
            detail: json!({ "count": letters, "died_before": time::rfc3339(before_ms) }),
        };
        self.note(&[line]).await
    }

    /// A page of lines, newest first.
    pub async fn audit(&self, filter: &AuditFilter) -> anyhow::Result<Vec<AuditLine>> {
        self.audit_lines(filter).await.context("could not list the audit from the store")
    }

    /// Forgets lines written before `before_ms`, at most `limit` at a time; returns how many.
    pub async fn forget_audit(&self, before_ms: i64, limit: u32) -> anyhow::Result<u64> {
        let failed = "could not forget old lines of the audit in the store";
        let mut write = self.begin_write().await.context(failed)?;
        let gone = write
            .query("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)")
            .bind(before_ms)
            .bind(i64::from(limit))
            .execute()
            .await
            .context(failed)?;
        write.commit().await.context(failed)?;
        Ok(gone)
    }

    async fn audit_lines(&self, filter: &AuditFilter) -> Result<Vec<AuditLine>, sqlx::Error> {
        let mut connection = self.inner.pool.acquire().await?;
        let mut query = connection
            .query("SELECT id, at_ms, actor, action, tenant, object, detail FROM audit WHERE 1 = 1");
        if let Some(tenant) = &filter.tenant {
            query.push_bind(" AND tenant = ", tenant.as_str());
        }
        if let Some(object) = &filter.object {
            query.push_bind(" AND object = ", object.as_str());
        }
        if let Some(since_ms) = filter.since_ms {
            query.push_bind(" AND at_ms >= ", since_ms);
        }
        if let Some(before) = filter.before_id {
            query.push_bind(" AND id < ", before);
        }
        query.push_bind(" ORDER BY id DESC LIMIT ", i64::from(filter.limit));
        let rows = query.fetch_all().await?;
        let lines = rows.iter().map(|row| {
            Ok(AuditLine {
                id: row.get("id")?,
                at_ms: row.get("at_ms")?,
                actor: row.get("actor")?,
                action: row.get("action")?,
                tenant: row.get("tenant")?,
                object: row.get("object")?,
                detail: serde_json::from_str(&row.get::<String>("detail")?).unwrap_or(Value::Null),
            })
        });
        lines.collect()
    }
}

/// Writes lines within the transaction of the change they tell of.
pub(super) async fn insert_all(write: &mut Write<'_>, notes: &[Note]) -> Result<(), sqlx::Error> {
    for note in notes {
        write
            .query(
                "INSERT INTO audit (at_ms, actor, action, tenant, object, detail) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(note.at_ms)
            .bind(&note.actor)
            .bind(note.action)
            .bind(&note.tenant)
            .bind(&note.object)
            .bind(note.detail.to_string())
            .execute()
            .await?;
    }
    Ok(())
}
