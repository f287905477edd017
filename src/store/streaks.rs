//! Rows of failures, put together of what every process has seen, and disabling a subscription for one.
//!
//! What is decided is pure (`domain::streak`); here it is written together with what follows from it. One row of
//! `counters` is locked by whoever changes a streak, so of several processes exactly one tells and one disables.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::pool::Session;
use super::statement::Row;
use super::{Note, Store, Write, audit, changes, column, count, notices, subscriptions};
use crate::domain::cause::Cause;
use crate::domain::name::SubscriptionId;
use crate::domain::notice::{Notice, NoticeKind};
use crate::domain::spec::SubscriptionSpec;
use crate::domain::streak::{Deed, Rules, Seen, Streak};
use crate::domain::subscription::DisabledBy;
use crate::domain::template::UrlTemplate;
use crate::domain::time;

/// Why Paperboy disables a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing but failures for too long.
    Failing,
    /// The receiver said 410 to an attempt that began then, and the subscription wants that.
    Gone { begun_ms: i64 },
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Failing => "failing",
            Why::Gone { .. } => "gone",
        }
    }
}

/// A subscription that gets nothing but failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub subscription: String,
    pub tenant: String,
    pub name: Option<String>,
    pub since_ms: i64,
    pub failures: u64,
    /// The word of the last cause.
    pub class: String,
    /// It was told of.
    pub is_told: bool,
}

/// How long a worker may go on with what a subscription was before it was changed, while all is well.
const STALE_MS: i64 = 10_000;

const FAILED: &str = "could not note failing subscriptions in the store";

impl Store {
    /// Takes in what this process saw, tells of what crossed a line, and returns those for whom it is enough.
    pub async fn note_seen(
        &self,
        seen: &BTreeMap<SubscriptionId, Seen>,
        rules: &Rules,
        now_ms: i64,
    ) -> anyhow::Result<Vec<SubscriptionId>> {
        let mut enough = Vec::new();
        let mut write = self.begin_write().await.context(FAILED)?;
        lock(&mut write).await.context(FAILED)?;
        for (id, seen) in seen {
            if take_in(&mut write, id, seen, rules, now_ms).await.context(FAILED)? == Deed::Disable {
                enough.push(id.clone());
            }
        }
        write.commit().await.context(FAILED)?;
        Ok(enough)
    }

    /// Disables a subscription unless somebody else did or its reason is no more; the change counter if it did.
    /// Subscription, audit and notice are written together.
    pub async fn disable_by_paperboy(
        &self,
        id: &SubscriptionId,
        why: Why,
        rules: Option<&Rules>,
        now_ms: i64,
    ) -> anyhow::Result<Option<u64>> {
        let failed = || format!("could not disable subscription `{id}` in the store");
        let mut write = self.begin_change().await.with_context(failed)?;
        lock(&mut write).await.with_context(failed)?;
        let row = subscriptions::sealed_row(&mut write, id.as_str()).await.with_context(failed)?;
        let Some((row, version)) = row else { return Ok(None) };
        let mut spec = self.unseal(row)?;
        let streak = read(&mut write, id.as_str()).await.with_context(failed)?;
        let wants_it =
            || spec.retry.as_ref().is_some_and(|retry| retry.on_gone.as_deref() == Some("disable"));
        let still = match (why, &streak, rules) {
            (Why::Gone { begun_ms }, _, _) => wants_it() && is_of(begun_ms, &spec),
            (Why::Failing, Some((streak, _)), Some(rules)) => streak.deed(rules) == Deed::Disable,
            (Why::Failing, _, _) => false,
        };
        if spec.enabled == Some(false) || !still {
            return Ok(None);
        }
        // 410 counts as a failure of its own where no row was kept.
        let (streak, cause) = streak.filter(|_| why == Why::Failing).unwrap_or((
            Streak { since_ms: now_ms, last_ms: now_ms, failures: 1, is_told: false },
            Some(Cause::Gone),
        ));
        spec.enabled = Some(false);
        spec.disabled_by = Some(DisabledBy::Paperboy);
        spec.updated_at = Some(time::rfc3339(now_ms));
        let row = self.row(&spec)?;
        let tenant = row.tenant.clone();
        let mut detail = facts(&streak, cause);
        detail.insert("why".to_owned(), json!(why.as_str()));
        let audited = Note {
            at_ms: now_ms,
            actor: audit::PAPERBOY.to_owned(),
            action: "subscription.disable",
            tenant: Some(tenant.clone()),
            object: id.to_string(),
            detail: Value::Object(detail.clone()),
        };
        let counter =
            changes::rise(&mut write, &BTreeSet::from([tenant.as_str()])).await.with_context(failed)?;
        subscriptions::update(&mut write, &row, version, counter).await.with_context(failed)?;
        audit::insert_all(&mut write, &[audited]).await.with_context(failed)?;
        tell(&mut write, NoticeKind::SubscriptionDisabled, id.as_str(), detail, cause, now_ms)
            .await
            .with_context(failed)?;
        write.commit().await.with_context(failed)?;
        Ok(Some(counter))
    }

    /// Forgets all rows: where nobody counts successes, an old row would go on as if there had been none.
    pub async fn forget_streaks(&self) -> anyhow::Result<()> {
        if self.known_failing().await?.is_empty() {
            return Ok(());
        }
        let mut write = self.begin_write().await.context(FAILED)?;
        lock(&mut write).await.context(FAILED)?;
        write.query("DELETE FROM streaks").execute().await.context(FAILED)?;
        write.commit().await.context(FAILED)
    }

    /// Every subscription that gets nothing but failures, by its id.
    pub async fn known_failing(&self) -> anyhow::Result<Vec<String>> {
        let rows = async {
            let mut connection = self.inner.pool.acquire().await?;
            connection.query("SELECT subscription FROM streaks").fetch_all().await
        };
        let rows = rows.await.context("could not read failing subscriptions from the store")?;
        rows.iter().map(|row| Ok(row.get("subscription")?)).collect()
    }

    /// The row of failures a subscription is in.
    pub async fn failing(&self, id: &SubscriptionId) -> anyhow::Result<Option<Failing>> {
        let found = async {
            let mut connection = self.inner.pool.acquire().await?;
            let mut query = connection.query(SELECT_FAILING);
            query.push_bind(" AND streaks.subscription = ", id.as_str());
            query.fetch_optional().await
        };
        let row = found.await.context("could not read a failing subscription from the store")?;
        Ok(row.map(|row| failing_of(&row)).transpose()?)
    }
}

const SELECT_FAILING: &str = "SELECT streaks.subscription AS subscription, subscriptions.tenant AS tenant,
    subscriptions.name AS name, since_ms, failures, class, told
    FROM streaks JOIN subscriptions ON subscriptions.id = streaks.subscription WHERE 1 = 1";

/// Those that fail longest and were told of, and how many there are of them.
pub(super) async fn told(on: &mut impl Session, limit: u32) -> Result<(Vec<Failing>, u64), sqlx::Error> {
    let mut query = on.query(SELECT_FAILING);
    query.push_bind(" AND told = 1 ORDER BY since_ms, streaks.subscription LIMIT ", i64::from(limit));
    let rows = query.fetch_all().await?;
    let counted = on.query(
        "SELECT count(*) FROM streaks JOIN subscriptions ON subscriptions.id = streaks.subscription WHERE told = 1",
    );
    let all: i64 = counted.fetch_value().await?;
    Ok((rows.iter().map(failing_of).collect::<Result<_, _>>()?, count(all)))
}

fn failing_of(row: &Row) -> Result<Failing, sqlx::Error> {
    Ok(Failing {
        subscription: row.get("subscription")?,
        tenant: row.get("tenant")?,
        name: row.get("name")?,
        since_ms: row.get("since_ms")?,
        failures: count(row.get("failures")?),
        class: row.get("class")?,
        is_told: row.get::<i64>("told")? != 0,
    })
}

/// Forgets the row of a subscription that is no more.
pub(super) async fn forget(write: &mut Write<'_>, id: &str) -> Result<(), sqlx::Error> {
    write.query("DELETE FROM streaks WHERE subscription = $1").bind(id).execute().await.map(drop)
}

/// Forgets the row of a subscription that is about to be enabled or disabled.
pub(super) async fn forget_if_switched(
    write: &mut Write<'_>,
    id: &str,
    enabled: bool,
) -> Result<(), sqlx::Error> {
    let query = write.query(
        "DELETE FROM streaks WHERE subscription = $1
         AND EXISTS (SELECT 1 FROM subscriptions WHERE id = $2 AND enabled <> $3)",
    );
    query.bind(id).bind(id).bind(enabled).execute().await.map(drop)
}

/// Of whoever changes rows of failures one goes on at a time.
async fn lock(write: &mut Write<'_>) -> Result<(), sqlx::Error> {
    write.query("UPDATE counters SET value = value WHERE name = 'streaks'").execute().await.map(drop)
}

async fn take_in(
    write: &mut Write<'_>,
    id: &SubscriptionId,
    seen: &Seen,
    rules: &Rules,
    now_ms: i64,
) -> Result<Deed, sqlx::Error> {
    let id = id.as_str();
    let known = read(write, id).await?;
    let before = known.as_ref().map(|(streak, _)| *streak);
    if let Some((ended, cause)) = known.filter(|_| seen.delivered_ms.is_some()) {
        forget(write, id).await?;
        if ended.is_told {
            let detail = facts(&ended, cause);
            tell(write, NoticeKind::SubscriptionRecovered, id, detail, cause, now_ms).await?;
        }
    }
    let (Some(mut streak), Some(failures)) = (Streak::after(before, seen, rules), &seen.failures) else {
        return Ok(Deed::Nothing);
    };
    // What was under way when it was disabled, or removed, is nobody's beginning.
    let is_enabled: Option<bool> = write
        .query("SELECT enabled FROM subscriptions WHERE id = $1")
        .bind(id)
        .fetch_optional_value()
        .await?;
    if is_enabled != Some(true) {
        return Ok(Deed::Nothing);
    }
    let deed = streak.deed(rules);
    if deed == Deed::Tell {
        streak.is_told = true;
        let mut detail = facts(&streak, Some(failures.cause));
        detail.insert("disables_at".to_owned(), json!(time::rfc3339(streak.since_ms + rules.after_ms)));
        tell(write, NoticeKind::SubscriptionFailing, id, detail, Some(failures.cause), now_ms).await?;
    }
    let query = write.query(
        "INSERT INTO streaks (subscription, since_ms, last_ms, failures, class, status, told)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (subscription) DO UPDATE SET since_ms = excluded.since_ms, last_ms = excluded.last_ms,
             failures = excluded.failures, class = excluded.class, status = excluded.status, told = excluded.told",
    );
    query
        .bind(id)
        .bind(streak.since_ms)
        .bind(streak.last_ms)
        .bind(column(streak.failures))
        .bind(failures.cause.as_str())
        .bind(failures.status.map(i64::from))
        .bind(i64::from(streak.is_told))
        .execute()
        .await?;
    Ok(deed)
}

/// The row of failures, and the cause of its last one.
async fn read(on: &mut impl Session, id: &str) -> Result<Option<(Streak, Option<Cause>)>, sqlx::Error> {
    let query =
        on.query("SELECT since_ms, last_ms, failures, class, told FROM streaks WHERE subscription = $1");
    let Some(row) = query.bind(id).fetch_optional().await? else { return Ok(None) };
    let streak = Streak {
        since_ms: row.get("since_ms")?,
        last_ms: row.get("last_ms")?,
        failures: count(row.get("failures")?),
        is_told: row.get::<i64>("told")? != 0,
    };
    Ok(Some((streak, Cause::parse(&row.get::<String>("class")?))))
}

/// Whether an attempt was made with what the subscription says now: not by whoever did not know of a change.
fn is_of(begun_ms: i64, spec: &SubscriptionSpec) -> bool {
    let Some(changed) = spec.updated_at.as_deref() else { return true };
    let Ok(changed_at) = changed.parse::<jiff::Timestamp>() else { return true };
    // One that was never changed was never anything else.
    let stale_ms = if spec.created_at.as_deref() == Some(changed) { 0 } else { STALE_MS };
    begun_ms >= changed_at.as_millisecond().saturating_add(stale_ms)
}

/// What notices and the audit say of a row.
fn facts(streak: &Streak, cause: Option<Cause>) -> Map<String, Value> {
    Map::from_iter([
        ("since".to_owned(), json!(time::rfc3339(streak.since_ms))),
        ("failures".to_owned(), json!(streak.failures)),
        ("class".to_owned(), json!(cause.map(Cause::as_str))),
    ])
}

/// Writes a notice of a subscription; one that is no more has none.
async fn tell(
    write: &mut Write<'_>,
    kind: NoticeKind,
    id: &str,
    mut detail: Map<String, Value>,
    cause: Option<Cause>,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let query = write.query("SELECT tenant, name, document FROM subscriptions WHERE id = $1").bind(id);
    let Some(row) = query.fetch_optional().await? else { return Ok(()) };
    let (tenant, name): (String, Option<String>) = (row.get("tenant")?, row.get("name")?);
    // The document that may be shown: its secrets are masked, its host is not.
    let document: Value = serde_json::from_str(&row.get::<String>("document")?).unwrap_or_default();
    let url = document["request"]["url"].as_str().and_then(|url| UrlTemplate::parse(url).ok());
    let host = url.map(|(template, _)| template.host().to_owned()).filter(|host| !host.is_empty());
    let line = cause.map(|cause| cause.line(host.as_deref().unwrap_or("the receiver")));
    let more = [
        ("subscription", json!(id)),
        ("name", json!(name)),
        ("host", json!(host)),
        ("cause", json!(line)),
        ("hint", json!(cause.map(Cause::hint))),
    ];
    detail.extend(more.map(|(name, value)| (name.to_owned(), value)));
    let notice_id = format!("ntc_{}", uuid::Uuid::new_v4().simple());
    notices::insert(write, &Notice::new(&notice_id, kind, &tenant, now_ms, detail)).await
}
