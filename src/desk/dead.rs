//! Dead letters: look, send again, give up for good.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::moment::plain as moment;
use super::{Caller, Desk, Refused, note, now_ms};
use crate::domain::cause::Cause;
use crate::domain::history::History;
use crate::domain::name::SubscriptionId;
use crate::store::replays::ReplayJob;
use crate::store::{DeadFilter, DeadGroup, DeadLetterFull, DeadRow, DeadState};

/// Which dead letters an operation is about.
#[derive(Clone, Debug)]
pub enum Chosen {
    Ids(Vec<i64>),
    /// Every open one that the filter leaves, up to its limit, newest first.
    Every(Box<DeadFilter>),
}

/// What an operation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many it was about.
    pub matched: usize,
    /// Those it changed.
    pub ids: Vec<i64>,
}

/// The id of a dead letter as people write it.
pub fn number(id: &str) -> Option<i64> {
    let digits = id.strip_prefix("dl_").unwrap_or(id);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// A letter in a list, as JSON.
pub fn row_json(row: &DeadRow) -> Value {
    json!({
        "id": format!("dl_{}", row.id),
        "kind": row.kind.as_str(),
        "reason": row.reason,
        "tenant": row.tenant,
        "event": row.event_id,
        "type": row.event_type,
        "subscription": row.subscription,
        "document_id": row.document_id,
        "batch_id": row.batch_id,
        "cycle": row.cycle,
        "attempts": row.attempts,
        "history": history_json(&row.history),
        "body_bytes": row.body_bytes,
        "first_seen": moment(row.first_seen_ms),
        "dead_at": moment(row.dead_at_ms),
        "state": row.state.as_str(),
        "note": row.note,
        "host": row.host,
        "class": row.class,
        "status": row.status,
        "replays": row.replays,
        "cause": cause(row).map(|cause| cause.line(host(row))),
        "hint": cause(row).map(Cause::hint),
    })
}

/// Why a letter died, as far as an attempt was to blame.
pub fn cause(row: &DeadRow) -> Option<Cause> {
    let class = row.class.as_deref().and_then(Cause::parse);
    class.filter(|_| row.attempts > 0 || row.class.as_deref() == Some("template"))
}

/// The receiver's host, for sentences.
pub fn host(row: &DeadRow) -> &str {
    row.host.as_deref().unwrap_or("the receiver")
}

/// A letter with its contents, as JSON.
pub fn letter_json(letter: &DeadLetterFull) -> Value {
    let mut value = row_json(&letter.row);
    value["body"] = json!(String::from_utf8_lossy(&letter.body));
    if std::str::from_utf8(&letter.body).is_err() {
        value["body_base64"] = json!(BASE64.encode(&letter.body));
    }
    value["answer"] = json!(String::from_utf8_lossy(&letter.answer));
    value["headers"] = serde_json::from_slice(&letter.headers).unwrap_or(Value::Null);
    value
}

/// What was seen at each attempt, as JSON.
pub fn history_json(history: &str) -> Value {
    let entries = History::parse(history);
    let json = entries
        .entries()
        .map(|entry| json!({ "at": moment(entry.at_ms()), "seen": entry.what(), "ms": entry.elapsed_ms() }));
    json.collect()
}

/// Letters that died of the same, as JSON.
pub fn group_json(group: &DeadGroup) -> Value {
    let cause = group.class.as_deref().and_then(Cause::parse);
    json!({
        "letters": group.letters,
        "again": group.again,
        "tenants": group.tenants,
        "kind": group.kind.as_str(),
        "host": group.host,
        "class": group.class,
        "status": group.status,
        "cause": cause.map(|cause| cause.line(group.host.as_deref().unwrap_or("the receiver"))),
        "hint": cause.map(Cause::hint),
        "first": moment(group.first_ms),
        "last": moment(group.last_ms),
        "example": format!("dl_{}", group.example),
    })
}

/// Why a letter is not sent to a subscription.
pub(super) fn of_another_tenant(letter: i64, subscription: &str) -> Refused {
    Refused::Conflict {
        message: format!(
            "dead letter `dl_{letter}` belongs to another tenant than subscription `{subscription}`"
        ),
        hint: "a tenant's events go to that tenant's subscriptions only",
    }
}

impl Desk {
    /// One letter with its contents.
    ///
    /// # Errors
    /// There is none of that id that the caller may see, or the store fails.
    pub async fn dead_letter(&self, caller: &Caller, id: &str) -> Result<DeadLetterFull, Refused> {
        let missing = || Refused::Missing { what: "dead letter", id: id.to_owned() };
        let letter = self.store.dead_show(number(id).ok_or_else(missing)?).await?;
        letter.filter(|letter| caller.owns(letter.row.tenant.as_deref())).ok_or_else(missing)
    }

    /// The rows that are meant; a filter is held to the caller's tenant.
    ///
    /// # Errors
    /// One that is named is not there or not the caller's, or the store fails.
    pub async fn chosen(&self, caller: &Caller, chosen: &Chosen) -> Result<Vec<DeadRow>, Refused> {
        match chosen {
            Chosen::Ids(ids) => {
                let mut rows: Vec<DeadRow> = Vec::new();
                for id in ids {
                    let row = self.dead_letter(caller, &format!("dl_{id}")).await?.row;
                    // Named twice is meant once.
                    if rows.iter().all(|known| known.id != row.id) {
                        rows.push(row);
                    }
                }
                Ok(rows)
            }
            Chosen::Every(filter) => {
                let mut filter = (**filter).clone();
                if let Some(own) = &caller.tenant {
                    filter.tenant = Some(own.to_string());
                }
                Ok(self.store.dead_list(&filter).await?)
            }
        }
    }

    /// How many are meant, its page left aside.
    ///
    /// # Errors
    /// As [`Desk::chosen`].
    pub async fn count_chosen(&self, caller: &Caller, chosen: &Chosen) -> Result<u64, Refused> {
        match chosen {
            Chosen::Ids(_) => Ok(self.chosen(caller, chosen).await?.len() as u64),
            Chosen::Every(filter) => {
                let mut filter = (**filter).clone();
                if let Some(own) = &caller.tenant {
                    filter.tenant = Some(own.to_string());
                }
                Ok(self.store.dead_count(&filter).await?)
            }
        }
    }

    /// Checks that these may be sent to `subscription`, if it is named.
    ///
    /// # Errors
    /// It is not there, or one of them is another tenant's or was replayed already.
    pub async fn check_replay(
        &self,
        caller: &Caller,
        rows: &[DeadRow],
        subscription: Option<&str>,
    ) -> Result<(), Refused> {
        if let Some(id) = subscription {
            let parsed = SubscriptionId::parse(id).map_err(|fault| {
                Refused::fault("subscription", fault.to_string(), "write the id of a subscription")
            })?;
            let target = self.show_subscription(caller, parsed.as_str()).await?;
            let other = rows.iter().find(|row| row.tenant != target.spec.tenant);
            if let Some(row) = other {
                return Err(of_another_tenant(row.id, id));
            }
        }
        match rows.iter().find(|row| row.state == DeadState::Replayed) {
            Some(row) => Err(Refused::Conflict {
                message: format!("dead letter `dl_{}` was replayed already", row.id),
                hint: "if it died again it is listed under a new id",
            }),
            None => Ok(()),
        }
    }

    /// Notes what a person did with a replay that is a job: `begin`, `pause`, `resume` or `cancel`; `tenant` is whose
    /// letters it sends, if all are one's.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_job(
        &self,
        caller: &Caller,
        action: &'static str,
        job: &ReplayJob,
        tenant: Option<&str>,
    ) -> Result<(), Refused> {
        let detail = json!({
            "letters": job.total(), "asked": job.what.asked, "subscription": job.what.subscription,
            "rate": job.what.rate, "canary": job.what.canary,
        });
        let object = format!("replay {}", job.id);
        Ok(self.store.note(&[note(caller, action, tenant, &object, detail)]).await?)
    }

    /// Gives letters up for good; they stay listed as discarded.
    ///
    /// # Errors
    /// The store fails.
    pub async fn discard(
        &self,
        caller: &Caller,
        rows: &[DeadRow],
        why: Option<&str>,
    ) -> Result<u64, Refused> {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let mut discarded = 0;
        // In pages, so that nobody waits long for the store.
        for ids in ids.chunks(DISCARDED_AT_ONCE) {
            discarded += self.store.dead_mark(ids, DeadState::Discarded, why, now_ms()).await?;
        }
        let done = Done { matched: rows.len(), ids };
        self.note_dead(caller, "dead_letter.discard", rows, &done).await?;
        Ok(discarded)
    }

    /// One line for each tenant that is concerned.
    async fn note_dead(
        &self,
        caller: &Caller,
        action: &'static str,
        rows: &[DeadRow],
        done: &Done,
    ) -> Result<(), Refused> {
        let mut tenants: Vec<Option<&str>> = rows.iter().map(|row| row.tenant.as_deref()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let mut notes = Vec::new();
        for tenant in tenants {
            let is_done = |row: &&DeadRow| row.tenant.as_deref() == tenant && done.ids.contains(&row.id);
            let ids: Vec<String> = rows.iter().filter(is_done).map(|row| format!("dl_{}", row.id)).collect();
            let [first, ..] = ids.as_slice() else { continue };
            let shown = &ids[..ids.len().min(NOTED_IDS_MAX)];
            let detail = json!({ "count": ids.len(), "ids": shown });
            notes.push(note(caller, action, tenant, first, detail));
        }
        if notes.is_empty() { Ok(()) } else { Ok(self.store.note(&notes).await?) }
    }
}

const DISCARDED_AT_ONCE: usize = 500;
/// Ids that a line of the audit names; the rest is counted.
const NOTED_IDS_MAX: usize = 20;
