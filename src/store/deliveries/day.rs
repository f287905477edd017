//! A day of the delivery log: a date in UTC, which names its table and, with SQLite, its file.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// What the name of every table begins with; eight digits follow.
pub(super) const TABLE: &str = "deliveries_";

/// A date in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// The day of a moment in Unix milliseconds.
    pub fn of(unix_ms: i64) -> Day {
        let moment = Timestamp::from_millisecond(unix_ms).unwrap_or_default();
        Day(moment.to_zoned(TimeZone::UTC).date())
    }

    /// Reads the eight digits of a table's name.
    pub fn parse(digits: &str) -> Option<Day> {
        if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i8>().ok();
        let date = Date::new(digits.get(..4)?.parse().ok()?, number(4..6)?, number(6..8)?);
        date.ok().map(Day)
    }

    /// Reads the name of a table.
    pub(super) fn of_table(name: &str) -> Option<Day> {
        Day::parse(name.strip_prefix(TABLE)?)
    }

    /// The day so many days before.
    pub fn before(self, days: u32) -> Day {
        Day(self.0.checked_sub(i64::from(days).days()).unwrap_or(Date::MIN))
    }
}

impl fmt::Display for Day {
    /// Eight digits, whatever the date: this becomes part of SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}{:02}{:02}", self.0.year().clamp(0, 9999), self.0.month(), self.0.day())
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_eight_digits_and_back() {
        let day = Day::of(1_795_338_007_120);
        assert_eq!(day.to_string(), "20261122");
        assert_eq!(Day::parse("20261122"), Some(day));
        assert_eq!(day.before(22).to_string(), "20261031");
        for wrong in ["2026112", "20261322", "2026-1-1", "20261122x", "+2026112"] {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Day::of(i64::MIN).to_string().len(), 8);
    }
}
