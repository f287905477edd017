//! Batches: documents that belong together, and the moment when all of them are finished.
//!
//! A batch is open, then closed (no document joins it any more), then completed (every document is finished as
//! well). What an event means for its batch is a [`Signal`]; [`Batch::take`] is what becomes of the batch. Signals
//! come in any order and more than once: the same ones leave the same batch behind, whatever their order was, as long
//! as it was open meanwhile. When a batch may be closed also depends on what still waits in queues, which is not known
//! here.

mod completion;
mod name;
pub mod round;
mod signal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use completion::{Completion, Listed, completed_body, late_body};
pub use name::{BatchId, DocumentId, completion_id, late_id};
pub use signal::{
    Rules, SCOPE_BYTES_MAX, Signal, TYPE_COMPLETED, TYPE_LATE, TYPE_OPENED, Told, Unkept, scope_bytes,
};

use crate::domain::name::EventType;

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Documents join.
    Open,
    /// No document joins any more; some are not finished.
    Closed,
    /// Every document is finished, and `batch.completed` was written down.
    Completed,
}

impl State {
    pub const ALL: [State; 3] = [State::Open, State::Closed, State::Completed];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Closed => "closed",
            State::Completed => "completed",
        }
    }

    pub fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A batch. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub state: State,
    /// The earliest moment that an event of it tells.
    pub opened_ms: i64,
    /// The time of the last event that brought a document.
    pub last_document_ms: Option<i64>,
    /// How long after its last document it closes by itself.
    pub idle_ms: i64,
    /// Somebody said that no document follows.
    pub close_asked: bool,
    /// Documents that joined in time, and those of them that are finished.
    pub documents: u64,
    pub finished: u64,
    /// Documents that came when it was not open any more.
    pub late: u64,
    /// What all its events that tell a scope agree on, as soon as one has: subscriptions with a scope get its
    /// completion too.
    pub scope: Option<BTreeMap<String, String>>,
    pub closed_ms: Option<i64>,
    pub completed_ms: Option<i64>,
}

/// A document of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The earliest moment that an event of it tells.
    pub joined_ms: i64,
    /// How it ended, as soon as it has.
    pub outcome: Option<Outcome>,
    /// It came when the batch was not open any more, and does not count.
    pub late: bool,
}

/// How a document ended: the type of the event that said so, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    pub at_ms: i64,
    pub kind: EventType,
}

/// What became of a batch's document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Joined {
    /// It is a member now.
    InTime,
    /// It is a member now, which does not count.
    Late,
    /// It was one before, or the signal is about no document.
    Before,
}

impl Batch {
    /// A batch of which nothing is known yet.
    pub fn new(at_ms: i64, idle_ms: i64, scope: Option<BTreeMap<String, String>>) -> Batch {
        Batch {
            state: State::Open,
            opened_ms: at_ms,
            last_document_ms: None,
            idle_ms,
            close_asked: false,
            documents: 0,
            finished: 0,
            late: 0,
            scope,
            closed_ms: None,
            completed_ms: None,
        }
    }

    /// Takes a signal in; `member` is the document it is about, as far as it is known.
    pub fn take(&mut self, signal: &Signal, member: &mut Option<Member>) -> Joined {
        let is_open = self.state == State::Open;
        if is_open {
            self.opened_ms = self.opened_ms.min(signal.at_ms);
            self.close_asked |= signal.closes;
            if let Some(told) = &signal.scope {
                let known = self.scope.get_or_insert_with(|| told.clone());
                known.retain(|key, value| told.get(key) == Some(value));
            }
        }
        let Some(document) = &signal.document else { return Joined::Before };
        let joined = match (&mut *member, is_open) {
            (Some(_), _) => Joined::Before,
            (None, true) => Joined::InTime,
            (None, false) => Joined::Late,
        };
        let known = member.get_or_insert(Member {
            joined_ms: signal.at_ms,
            outcome: None,
            late: joined == Joined::Late,
        });
        match joined {
            Joined::InTime => self.documents += 1,
            Joined::Late => self.late += 1,
            Joined::Before => {}
        }
        if joined == Joined::InTime {
            self.last_document_ms = self.last_document_ms.max(Some(signal.at_ms));
        }
        // What was told of a completed batch stays as it was told.
        if self.state != State::Completed || known.late {
            known.joined_ms = known.joined_ms.min(signal.at_ms);
            if document.is_finished {
                let outcome = Outcome { at_ms: signal.at_ms, kind: signal.kind.clone() };
                if known.outcome.is_none() && !known.late {
                    self.finished += 1;
                }
                // The later word holds, whichever comes first.
                known.outcome = known.outcome.take().max(Some(outcome));
            }
        }
        joined
    }

    /// When it may be closed: never without a document, unless somebody asked for it.
    pub fn due_ms(&self) -> Option<i64> {
        match (self.state, self.close_asked, self.last_document_ms) {
            (State::Closed | State::Completed, _, _) => None,
            (State::Open, true, _) => Some(i64::MIN),
            (State::Open, false, Some(last_ms)) => Some(last_ms.saturating_add(self.idle_ms)),
            (State::Open, false, None) => None,
        }
    }

    /// Closes it if it was due at `due_by_ms`; true if it is closed now and was open before.
    pub fn close(&mut self, due_by_ms: i64, now_ms: i64) -> bool {
        if self.due_ms().is_none_or(|due_ms| due_ms > due_by_ms) {
            return false;
        }
        self.state = State::Closed;
        self.closed_ms = Some(now_ms);
        true
    }

    /// Says whether it is closed and every document of it is finished.
    pub fn is_done(&self) -> bool {
        self.state == State::Closed && self.finished == self.documents
    }

    /// Completes it; true if that was to be done.
    pub fn complete(&mut self, now_ms: i64) -> bool {
        let is_done = self.is_done();
        if is_done {
            self.state = State::Completed;
            self.completed_ms = Some(now_ms);
        }
        is_done
    }
}
