//! What the attempts of a delivery came to, in one short text that travels with the message.
//!
//! The text is a header, and a broker closes the connection over headers that grow too large, so it is bounded
//! by construction: the first 2 and the last 30 attempts, the rest only counted (`…+7`).

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;

/// How many of the first attempts are kept.
pub const FIRST_KEPT: usize = 2;
/// How many of the last attempts are kept.
pub const LAST_KEPT: usize = 30;
/// The longest history in bytes.
pub const HISTORY_BYTES_MAX: usize = 4096;
/// The longest entry in bytes.
pub const ENTRY_BYTES_MAX: usize = 64;

const SEPARATOR: &str = "; ";
const CUT_MARK: &str = "…+";
const WHAT_BYTES_MAX: usize = 20;

/// The attempts of one delivery, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    first: Vec<Entry>,
    cut: u32,
    last: VecDeque<Entry>,
}

/// One attempt, written as `2026-11-22T09:00:07.120Z 503 41ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the attempt ended, in Unix milliseconds.
    at_ms: i64,
    what: Box<str>,
    elapsed_ms: u32,
}

impl Entry {
    /// Makes an entry from a status or class (the display of a `Seen`).
    ///
    /// Whatever would not fit the line is made to: times are clamped to what can be written, `what` is cut to 20
    /// bytes and anything but letters, digits and `_` in it becomes `_`.
    pub fn new(at_ms: i64, what: &str, elapsed_ms: u64) -> Entry {
        // Whole seconds: jiff takes no milliseconds within its very last one.
        let at_ms = at_ms.clamp(Timestamp::MIN.as_second() * 1000, Timestamp::MAX.as_second() * 1000);
        let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '_' };
        let what: String = what.chars().take(WHAT_BYTES_MAX).map(plain).collect();
        let what = if what.is_empty() { "_".into() } else { what.into_boxed_str() };
        Entry { at_ms, what, elapsed_ms: u32::try_from(elapsed_ms).unwrap_or(u32::MAX) }
    }

    /// When the attempt ended, in Unix milliseconds.
    pub fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// What it came back with: `503`, `timeout`.
    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn elapsed_ms(&self) -> u32 {
        self.elapsed_ms
    }

    fn parse(text: &str) -> Option<Entry> {
        let mut parts = text.split(' ');
        let (at, what, elapsed) = (parts.next()?, parts.next()?, parts.next()?);
        let at: Timestamp = at.parse().ok()?;
        let elapsed_ms = elapsed.strip_suffix("ms")?.parse().ok()?;
        parts.next().is_none().then(|| Entry::new(at.as_millisecond(), what, elapsed_ms))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Entry::new` clamped the time, so the fallback is never written.
        let at = Timestamp::from_millisecond(self.at_ms).unwrap_or_default();
        write!(f, "{at:.3} {} {}ms", self.what, self.elapsed_ms)
    }
}

impl History {
    /// Reads what [`History`] displays; what cannot be read is left out, for a header never stops a delivery.
    pub fn parse(text: &str) -> History {
        let mut history = History::default();
        for piece in text.split(';').map(str::trim) {
            if let Some(cut) = piece.strip_prefix(CUT_MARK).and_then(|count| count.parse().ok()) {
                history.cut = history.cut.saturating_add(cut);
            } else if let Some(entry) = Entry::parse(piece) {
                history.push(entry);
            }
        }
        history
    }

    /// Adds the newest attempt, cutting the oldest of the later ones when there are too many.
    pub fn push(&mut self, entry: Entry) {
        if self.first.len() < FIRST_KEPT {
            return self.first.push(entry);
        }
        if self.last.len() == LAST_KEPT {
            self.last.pop_front();
            self.cut = self.cut.saturating_add(1);
        }
        self.last.push_back(entry);
    }

    /// The entries still known, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(&self.last)
    }

    /// How many entries between the first and the last were cut.
    pub fn cut(&self) -> u32 {
        self.cut
    }

    /// How many attempts there were, those that were cut included.
    pub fn len(&self) -> usize {
        self.first.len() + self.cut as usize + self.last.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for entry in &self.first {
            write!(f, "{separator}{entry}")?;
            separator = SEPARATOR;
        }
        if self.cut > 0 {
            write!(f, "{separator}{CUT_MARK}{}", self.cut)?;
            separator = SEPARATOR;
        }
        for entry in &self.last {
            write!(f, "{separator}{entry}")?;
            separator = SEPARATOR;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // 2026-11-22T09:00:07.120Z
    const NINE: i64 = 1_795_338_007_120;

    /// A history of `count` attempts; the n-th came back with status 100 + n.
    fn history_of(count: u16) -> History {
        let mut history = History::default();
        for n in 1..=count {
            history.push(Entry::new(NINE + i64::from(n), &(100 + n).to_string(), u64::from(n)));
        }
        history
    }

    #[test]
    fn an_attempt_is_its_time_its_end_and_its_length() {
        let mut history = History::default();
        history.push(Entry::new(NINE, "503", 41));
        history.push(Entry::new(NINE + 2880, "timeout", 30_000));
        assert_eq!(
            history.to_string(),
            "2026-11-22T09:00:07.120Z 503 41ms; 2026-11-22T09:00:10.000Z timeout 30000ms"
        );
    }

    #[test]
    fn the_first_two_and_the_last_thirty_are_kept_and_the_rest_counted() {
        let history = history_of(39);
        assert_eq!((history.len(), history.cut()), (39, 7));
        let kept: Vec<&str> = history.entries().map(Entry::what).collect();
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[..3], ["101", "102", "110"]);
        assert_eq!(kept[31], "139");
        assert!(history.to_string().contains(" 102 2ms; …+7; 2026-"));
    }

    #[test]
    fn a_history_that_has_travelled_goes_on_where_it_was() {
        let mut history = History::default();
        for n in 1..=100_u32 {
            history = History::parse(&history.to_string());
            history.push(Entry::new(NINE, "500", 1));
            assert_eq!(history.len(), n as usize);
        }
        assert_eq!(history.cut(), 68);
    }

    #[test]
    fn nothing_is_an_empty_history() {
        assert!(History::parse("").is_empty());
        assert_eq!(History::default().to_string(), "");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let text = "hello; 2026-11-22T09:00:07.120Z 503 41ms;;…+x; 2026-11-22T09:00:07Z 503; never 200 1ms";
        assert_eq!(History::parse(text).to_string(), "2026-11-22T09:00:07.120Z 503 41ms");
    }

    #[test]
    fn an_entry_cannot_break_the_line_it_stands_in() {
        let entry = Entry::new(NINE, "a; b\r\n…+9", 1);
        assert_eq!(entry.what(), "a__b____9");
        assert_eq!(Entry::new(NINE, "", 1).what(), "_");
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        (any::<i64>(), "\\PC{0,30}", any::<u64>()).prop_map(|(at, what, ms)| Entry::new(at, &what, ms))
    }

    proptest! {
        #[test]
        fn every_history_keeps_its_bounds(
            entries in proptest::collection::vec(any_entry(), 0..80), cut: u32,
        ) {
            let mut history = History::parse(&format!("…+{cut}"));
            for entry in entries {
                prop_assert!(entry.to_string().len() <= ENTRY_BYTES_MAX, "{}", entry);
                history.push(entry);
            }
            prop_assert!(history.entries().count() <= FIRST_KEPT + LAST_KEPT);
            prop_assert!(history.to_string().len() <= HISTORY_BYTES_MAX);
        }

        #[test]
        fn every_history_reads_as_it_was_written(
            entries in proptest::collection::vec(any_entry(), 0..80),
        ) {
            let mut history = History::default();
            entries.into_iter().for_each(|entry| history.push(entry));
            prop_assert_eq!(History::parse(&history.to_string()), history);
        }

        #[test]
        fn no_header_makes_it_panic_or_outgrow_its_bounds(text in "([0-9TZ:. ;ms…+-]|\\PC){0,200}") {
            prop_assert!(History::parse(&text).to_string().len() <= HISTORY_BYTES_MAX);
        }
    }
}
