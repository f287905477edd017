//! Moments as people write them, and as they are shown.

/// Reads a moment: RFC 3339, or how long ago (`90s`, `15m`, `24h`, `7d`); Unix milliseconds.
///
/// # Errors
/// What may be written instead.
pub fn unix_ms(text: &str) -> Result<i64, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    let unit_ms = match text.chars().next_back() {
        Some('s') => 1000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<i64>().ok());
    match number.filter(|number| *number >= 0 && unit_ms > 0).and_then(|number| number.checked_mul(unit_ms)) {
        Some(ago_ms) => Ok(super::now_ms().saturating_sub(ago_ms)),
        None => {
            Err("write a moment such as `2026-11-22T09:00:00Z`, or an age such as `15m`, `24h`, `7d`".into())
        }
    }
}

/// In UTC to the millisecond: attempts of one delivery may be closer than a second.
pub fn precise(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.3}")
}

/// In UTC to the second.
pub fn plain(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_or_ages() {
        assert_eq!(unix_ms("2026-11-22T09:00:07.120Z"), Ok(1_795_338_007_120));
        let now_ms = crate::desk::now_ms();
        assert!(unix_ms("2h").unwrap().abs_diff(now_ms - 7_200_000) < 60_000);
        for wrong in ["", "h", "-1h", "5", "yesterday", "99999999999999999999d", "ü"] {
            assert!(unix_ms(wrong).is_err(), "{wrong}");
        }
    }
}
