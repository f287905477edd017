//! Which dead letters are meant.

use super::{DeadState, Kind};
use crate::store::deliveries::StatusRange;
use crate::store::statement::Statement;

/// The page of a list when nobody says otherwise.
pub const LIST_LIMIT: u32 = 50;

/// Which dead letters to list; `Default` is the newest open ones.
#[derive(Debug, Clone)]
pub struct DeadFilter {
    pub kind: Option<Kind>,
    pub tenant: Option<String>,
    pub subscription: Option<String>,
    /// The word before the colon, or the whole reason.
    pub reason: Option<String>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub document_id: Option<String>,
    pub batch_id: Option<String>,
    /// The receiver's host.
    pub host: Option<String>,
    /// A class or cause: `tls` finds `tls_expired` too.
    pub class: Option<String>,
    pub status: Option<StatusRange>,
    /// Died not before this moment, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Died before this moment, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// `None` for all.
    pub state: Option<DeadState>,
    pub limit: u32,
    /// Only letters older than this one: the last id of the page before.
    pub before_id: Option<i64>,
}

impl Default for DeadFilter {
    fn default() -> Self {
        DeadFilter {
            kind: None,
            tenant: None,
            subscription: None,
            reason: None,
            event_id: None,
            event_type: None,
            document_id: None,
            batch_id: None,
            host: None,
            class: None,
            status: None,
            since_ms: None,
            until_ms: None,
            state: Some(DeadState::Open),
            limit: LIST_LIMIT,
            before_id: None,
        }
    }
}

/// Adds to a list what the filter asks for, newest first.
pub(super) fn page<'c>(query: Statement<'c>, filter: &DeadFilter) -> Statement<'c> {
    let mut query = chosen(query, filter);
    if let Some(id) = filter.before_id {
        query.push_bind(" AND id < ", id);
    }
    query.push_bind(" ORDER BY id DESC LIMIT ", i64::from(filter.limit));
    query
}

/// Adds the conditions of the filter, but for its page.
pub(in crate::store) fn chosen<'c>(mut query: Statement<'c>, filter: &DeadFilter) -> Statement<'c> {
    // Written out, as the index over open letters says it.
    query.push(match filter.state {
        None => "",
        Some(DeadState::Open) => " AND state = 'open'",
        Some(DeadState::Replayed) => " AND state = 'replayed'",
        Some(DeadState::Discarded) => " AND state = 'discarded'",
    });
    let equals = [
        (" AND kind = ", filter.kind.map(Kind::as_str)),
        (" AND tenant = ", filter.tenant.as_deref()),
        (" AND subscription = ", filter.subscription.as_deref()),
        (" AND event_id = ", filter.event_id.as_deref()),
        (" AND event_type = ", filter.event_type.as_deref()),
        (" AND document_id = ", filter.document_id.as_deref()),
        (" AND batch_id = ", filter.batch_id.as_deref()),
        (" AND host = ", filter.host.as_deref()),
    ];
    for (column, value) in equals {
        if let Some(value) = value {
            query.push_bind(column, value);
        }
    }
    if let Some(reason) = &filter.reason {
        let word = format!("{reason}:");
        query.push_bind(" AND (reason = ", reason);
        // Postgres has no `substr` for the wider number.
        let characters = i32::try_from(word.chars().count()).unwrap_or(i32::MAX);
        query.push_bind(" OR substr(reason, 1, ", characters);
        query.push_bind(") = ", word);
        query.push(")");
    }
    if let Some(class) = &filter.class {
        // A range, which an index serves, finds the finer causes: "`" is the next letter after "_".
        query.push_bind(" AND (class = ", class);
        query.push_bind(" OR (class >= ", format!("{class}_"));
        query.push_bind(" AND class < ", format!("{class}`"));
        query.push("))");
    }
    if let Some(status) = filter.status {
        query.push_bind(" AND status BETWEEN ", i64::from(status.first));
        query.push_bind(" AND ", i64::from(status.last));
    }
    if let Some(since) = filter.since_ms {
        query.push_bind(" AND dead_at_ms >= ", since);
    }
    if let Some(until) = filter.until_ms {
        query.push_bind(" AND dead_at_ms < ", until);
    }
    query
}
