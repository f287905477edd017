//! What keeps a process from taking: its connection, or some of its queues; told in one sentence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The faults of one connection that takes, and who is told of them.
pub(super) struct Faults {
    known: Mutex<Known>,
    told: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Known {
    connection: Option<String>,
    /// By what people call the queue.
    queues: BTreeMap<String, String>,
}

impl Faults {
    /// Begins with no connection.
    pub(super) fn new() -> (Arc<Faults>, watch::Receiver<Option<String>>) {
        let connection = Some("not connected yet".to_owned());
        let (told, seen) = watch::channel(connection.clone());
        let known = Mutex::new(Known { connection, queues: BTreeMap::new() });
        (Arc::new(Faults { known, told }), seen)
    }

    /// The connection is there, or why it is not; nothing is known of its queues then.
    pub(super) fn connection(&self, reason: Option<String>) {
        let mut known = self.known();
        *known = Known { connection: reason, queues: BTreeMap::new() };
        self.tell(&known);
    }

    /// What is wrong with a queue, or that nothing is; true if that is news.
    pub(super) fn queue(&self, label: &str, reason: Option<String>) -> bool {
        let mut known = self.known();
        if known.queues.get(label) == reason.as_ref() {
            return false;
        }
        match reason {
            Some(reason) => known.queues.insert(label.to_owned(), reason),
            None => known.queues.remove(label),
        };
        self.tell(&known);
        true
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, known: &Known) {
        let queues = known.queues.iter().map(|(label, reason)| format!("`{label}`: {reason}"));
        let queues = queues.collect::<Vec<_>>().join("; ");
        let sentence = known.connection.clone().or((!queues.is_empty()).then_some(queues));
        self.told.send_replace(sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_that_is_well_again_hides_no_other() {
        let (faults, seen) = Faults::new();
        let told = || seen.borrow().clone().unwrap_or_default();
        assert_eq!(told(), "not connected yet");
        faults.connection(None);
        assert_eq!(told(), "");
        let missing = || Some("it is missing".to_owned());
        assert!(faults.queue("events", missing()) && faults.queue("retries", missing()));
        assert!(!faults.queue("events", missing()) && !faults.queue("retries", missing()), "no news");
        assert_eq!(told(), "`events`: it is missing; `retries`: it is missing");
        assert!(faults.queue("retries", None));
        assert_eq!(told(), "`events`: it is missing");
        faults.connection(Some("gone".into()));
        assert_eq!(told(), "gone");
        faults.connection(None);
        assert_eq!(told(), "");
    }
}
