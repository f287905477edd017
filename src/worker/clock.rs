//! Where time and chance enter the worker.

/// Now, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A moment as RFC 3339 in UTC with milliseconds.
pub(super) fn rfc3339(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// A number in 0..1; zero where the system has no randomness to give, which only shortens a jitter.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_written_with_milliseconds() {
        assert_eq!(super::rfc3339(1_800_000_000_120), "2027-01-15T08:00:00.120Z");
        assert_eq!(super::rfc3339(1_800_000_000_000), "2027-01-15T08:00:00.000Z");
    }
}
