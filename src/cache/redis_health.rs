//! How Redis is: every fault counted by its class, told when it begins and when it ends.

use std::sync::{Mutex, PoisonError};

use redis::RedisError;
use tracing::{info, warn};

/// What a server answers instead of doing what it was asked, as Redis names it.
const REFUSALS: [(&str, &str); 12] = [
    ("BUSY", "busy"),
    ("CLUSTERDOWN", "clusterdown"),
    ("LOADING", "loading"),
    ("MASTERDOWN", "masterdown"),
    ("MISCONF", "misconf"),
    ("MOVED", "moved"),
    ("NOAUTH", "noauth"),
    ("NOPERM", "noperm"),
    ("OOM", "oom"),
    ("READONLY", "readonly"),
    ("TRYAGAIN", "tryagain"),
    ("WRONGPASS", "wrongpass"),
];

const OTHER: &str = "other";

/// One way of using Redis, reading or writing: a full or read-only server still answers readers.
#[derive(Debug)]
pub(super) struct RedisHealth {
    /// For the log.
    what: &'static str,
    fault: Mutex<Option<&'static str>>,
}

impl RedisHealth {
    pub(super) fn new(what: &'static str) -> RedisHealth {
        RedisHealth { what, fault: Mutex::new(None) }
    }

    /// Whether the last answer was a good one.
    pub(super) fn is_well(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Takes notice of an answer.
    pub(super) fn note<T>(&self, answer: &Result<T, RedisError>) {
        let class = answer.as_ref().err().map(class);
        if let Some(class) = class {
            metrics::counter!("paperboy_redis_faults_total", "class" => class).increment(1);
        }
        if class == Some(OTHER) {
            // A key that was mangled, say: Redis itself is well.
            return;
        }
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == class {
            return;
        }
        match answer {
            Ok(_) => info!("{} Redis works again", self.what),
            Err(error) => warn!("{} Redis does not work; the store is asked instead: {error}", self.what),
        }
        *known = class;
    }
}

/// A word for a fault, one of few: it becomes a label.
fn class(error: &RedisError) -> &'static str {
    let refusal = error.code().and_then(|code| REFUSALS.iter().find(|(known, _)| *known == code));
    match refusal {
        Some((_, class)) => class,
        None if error.is_timeout() => "timeout",
        None if error.is_io_error() || error.is_connection_dropped() => "unreachable",
        None => OTHER,
    }
}
