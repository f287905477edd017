//! Moments as text: RFC 3339.

use jiff::civil::Date;

/// A moment as RFC 3339 in UTC with milliseconds; what lies beyond the years 0 to 9999 is the epoch.
pub fn rfc3339(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Checks the grammar of RFC 3339 §5.6 and that the day exists; a leap second is let through.
pub fn is_rfc3339(text: &str) -> bool {
    // The grammar has no longest fraction; a header that carries the time needs one.
    if text.len() > 64 || !text.is_ascii() {
        return false;
    }
    let Some((moment, zone)) = text.split_at_checked(19) else { return false };
    let [b0, b1, b2, b3, b'-', m0, m1, b'-', d0, d1, b'T' | b't', h0, h1, b':', n0, n1, b':', s0, s1] =
        moment.as_bytes()
    else {
        return false;
    };
    let (Some(century), Some(year), Some(month), Some(day)) =
        (two_digits(b0, b1), two_digits(b2, b3), two_digits(m0, m1), two_digits(d0, d1))
    else {
        return false;
    };
    let at_most = |high, low, max| two_digits(high, low).is_some_and(|number| number <= max);
    let year = i16::from(century) * 100 + i16::from(year);
    Date::new(year, month, day).is_ok()
        && at_most(h0, h1, 23)
        && at_most(n0, n1, 59)
        && at_most(s0, s1, 60)
        && is_zone(zone)
}

/// Checks an optional fraction and the offset behind the seconds.
fn is_zone(text: &str) -> bool {
    let offset = match text.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|char: char| char.is_ascii_digit());
            if offset.len() == fraction.len() {
                return false;
            }
            offset
        }
        None => text,
    };
    let at_most = |high, low, max| two_digits(high, low).is_some_and(|number| number <= max);
    match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h0, h1, b':', m0, m1] => at_most(h0, h1, 23) && at_most(m0, m1, 59),
        _ => false,
    }
}

fn two_digits(high: &u8, low: &u8) -> Option<i8> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| (byte - b'0') as i8);
    Some(digit(high)? * 10 + digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_with_milliseconds() {
        assert_eq!(rfc3339(1_800_000_000_120), "2027-01-15T08:00:00.120Z");
        assert_eq!(rfc3339(1_800_000_000_000), "2027-01-15T08:00:00.000Z");
        assert!(is_rfc3339(&rfc3339(0)));
    }

    #[test]
    fn only_rfc3339_is_a_time() {
        let long = format!("2026-11-22T09:00:07.{}Z", "1".repeat(43));
        for good in [
            "2026-11-22T09:00:07Z",
            "2026-11-22t09:00:07.1z",
            "2024-02-29T00:00:00+00:00",
            "1990-12-31T23:59:60Z",
            "2026-11-22T09:00:07.123456789012-23:59",
            "0000-01-01T00:00:00-00:00",
            &long,
        ] {
            assert!(is_rfc3339(good), "`{good}`");
        }
        let longer = format!("2026-11-22T09:00:07.{}Z", "1".repeat(44));
        for bad in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T09:00:07",
            "2026-11-22 09:00:07Z",
            "2026-11-22T09:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T09:60:00Z",
            "2026-11-22T09:00:61Z",
            "2026-11-22T09:00:07.Z",
            "2026-11-22T09:00:07+0100",
            "2026-11-22T09:00:07+24:00",
            "2026-11-22T09:00:07Z[UTC]",
            "+2026-11-22T09:00:07Z",
            "2026-11-22T09:00:0é",
            &longer,
        ] {
            assert!(!is_rfc3339(bad), "`{bad}`");
        }
    }
}
