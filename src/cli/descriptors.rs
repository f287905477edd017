//! How many files this process may open, and how many places that leaves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections to RabbitMQ, Redis, the store and our own port, files, and answers that are read to their end.
const OTHERS: u64 = 512;
/// A place may hold a connection in use while another is kept for the next request.
const EACH: u64 = 2;

/// Raises the soft limit of open files as far as the system lets it; the limit in force then.
///
/// Nothing is told where that fails: what is left is what counts.
pub(super) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Without a hard limit nothing is known of the system's own; a million is plenty.
    let wanted = limit.maximum.unwrap_or(1 << 20);
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Messages that may be in hand with so many files.
pub(super) fn places_max(files: u64) -> u16 {
    u16::try_from(files.saturating_sub(OTHERS) / EACH).unwrap_or(u16::MAX).max(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_leave_files_for_everything_else() {
        assert_eq!(places_max(1024), 256);
        assert_eq!(places_max(4096), 1792);
        assert_eq!(places_max(1 << 20), u16::MAX);
        assert_eq!((places_max(256), places_max(0)), (8, 8));
    }
}
