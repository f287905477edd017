//! Which event types a subscription wants: AMQP topic words.
//!
//! The language is that of RabbitMQ's topic exchange: words are divided by dots, `*` stands for exactly one word,
//! `#` for any number of words, also none. Tenant and scope are compared elsewhere.

use std::fmt;
use std::str::FromStr;

/// The longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;

/// A pattern over event types, such as `document.*`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    words: Vec<Word>,
    /// No `*` and no `#`.
    is_plain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Exactly(Box<str>),
    One,
    AnyNumber,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    #[error("is empty; write `#` for every event type")]
    Empty,
    #[error("is {bytes} bytes long, more than {PATTERN_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("may hold only letters, digits, `_`, `:`, `-`, `.`, `*` and `#`")]
    Character,
    #[error("has an empty word: dots stand between words")]
    EmptyWord,
    #[error("`*` and `#` stand for whole words: write `document.*`, not `document*`")]
    PartOfWord,
}

impl Pattern {
    /// Reads a pattern of at most [`PATTERN_BYTES_MAX`] bytes.
    ///
    /// RabbitMQ takes `document*` and `document.` literally, where they match next to nothing; we refuse them.
    pub fn parse(text: &str) -> Result<Pattern, PatternFault> {
        if text.is_empty() {
            return Err(PatternFault::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternFault::TooLong { bytes: text.len() });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-.*#".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(PatternFault::Character);
        }
        let words = text.split('.').map(parse_word).collect::<Result<Vec<_>, _>>()?;
        let is_plain = words.iter().all(|word| matches!(word, Word::Exactly(_)));
        Ok(Pattern { text: text.into(), words, is_plain })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Says whether the pattern covers `event_type`, in at most (words of one) × (words of the other) steps.
    ///
    /// Only the latest `#` is ever reconsidered: whatever an earlier one could swallow, the latest can as well.
    /// That is why `#.#.#.#.x` costs no more than `#.x`.
    pub fn matches(&self, event_type: &str) -> bool {
        // Most patterns: one comparison instead of word by word.
        if self.is_plain {
            return *self.text == *event_type;
        }
        let mut words = self.words.as_slice();
        let mut input = split_words(event_type);
        // What stands behind the latest `#`, and the input from which it is tried next.
        let mut resume = None;
        loop {
            let ahead = input.clone();
            let fits = match (words.split_first(), input.next()) {
                (Some((Word::AnyNumber, rest)), _) => {
                    words = rest;
                    input = ahead;
                    resume = Some((rest, input.clone()));
                    continue;
                }
                (None, None) => return true,
                // Skipping input never makes it longer.
                (Some(_), None) => return false,
                (None, Some(_)) => false,
                (Some((Word::One, rest)), Some(_)) => {
                    words = rest;
                    true
                }
                (Some((Word::Exactly(word), rest)), Some(found)) => {
                    words = rest;
                    **word == *found
                }
            };
            if !fits {
                let Some((behind, skipped)) = &mut resume else { return false };
                // `#` takes one word more.
                skipped.next();
                words = behind;
                input = skipped.clone();
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl FromStr for Pattern {
    type Err = PatternFault;

    fn from_str(text: &str) -> Result<Self, PatternFault> {
        Pattern::parse(text)
    }
}

fn parse_word(word: &str) -> Result<Word, PatternFault> {
    match word {
        "" => Err(PatternFault::EmptyWord),
        "*" => Ok(Word::One),
        "#" => Ok(Word::AnyNumber),
        _ if word.contains(['*', '#']) => Err(PatternFault::PartOfWord),
        _ => Ok(Word::Exactly(word.into())),
    }
}

fn split_words(event_type: &str) -> std::str::Split<'_, char> {
    event_type.split('.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(event_type)
    }

    #[test]
    fn a_plain_pattern_matches_only_itself() {
        assert!(matches("document.processed", "document.processed"));
        for other in [
            "document",
            "document.processed.ok",
            "document.processe",
            "Document.processed",
            "documentxprocessed",
        ] {
            assert!(!matches("document.processed", other), "{other}");
        }
    }

    #[test]
    fn a_star_is_exactly_one_word() {
        assert!(matches("document.*", "document.processed"));
        assert!(matches("*.processed", "document.processed"));
        assert!(!matches("document.*", "document"));
        assert!(!matches("document.*", "document.page.processed"));
        assert!(matches("a.*.c", "a..c"), "an empty word is a word, as in RabbitMQ");
    }

    #[test]
    fn a_hash_is_any_number_of_words() {
        for event_type in ["document", "document.a", "document.a.b.c"] {
            assert!(matches("document.#", event_type), "{event_type}");
            assert!(matches("#", event_type), "{event_type}");
        }
        assert!(!matches("document.#", "documents"));
        assert!(matches("#.done", "done"));
        assert!(matches("a.#.b.#.c", "a.b.b.x.c"));
        assert!(!matches("a.#.b.#.c", "a.x.c"));
        assert!(matches("#.*", "a") && matches("*.#", "a"));
        assert!(!matches("*.#.*", "a"));
    }

    #[test]
    fn many_hashes_stay_cheap() {
        let pattern = Pattern::parse(&format!("{}x", "#.*.".repeat(60))).unwrap();
        let event_type = format!("{}y", "a.".repeat(63));
        for _ in 0..1000 {
            assert!(!pattern.matches(&event_type));
        }
    }

    #[test]
    fn what_could_never_match_is_refused_with_a_reason() {
        let fault = |text: &str| Pattern::parse(text).unwrap_err();
        assert_eq!(fault(""), PatternFault::Empty);
        assert_eq!(fault(&"a".repeat(257)), PatternFault::TooLong { bytes: 257 });
        assert_eq!(fault("(a+)+$"), PatternFault::Character);
        assert_eq!(fault("a b"), PatternFault::Character);
        assert_eq!(fault("é"), PatternFault::Character);
        for text in [".", "a.", ".a", "a..b"] {
            assert_eq!(fault(text), PatternFault::EmptyWord, "{text}");
        }
        for text in ["document*", "a.#b", "**", "##"] {
            assert_eq!(fault(text), PatternFault::PartOfWord, "{text}");
        }
    }

    #[test]
    fn a_pattern_displays_as_it_was_written() {
        assert_eq!(Pattern::parse("document.*").unwrap().to_string(), "document.*");
    }

    /// What the words mean, written as plainly and as slowly as can be.
    fn matches_naively(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern.split_first(), words.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => (0..=words.len()).any(|count| matches_naively(rest, &words[count..])),
            (Some((&"*", rest)), Some((_, words))) => matches_naively(rest, words),
            (Some((word, rest)), Some((found, words))) => word == found && matches_naively(rest, words),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn matching_agrees_with_the_naive_reading(
            pattern in proptest::collection::vec(prop_oneof!["a", "b", "\\*", "#"], 1..7),
            words in proptest::collection::vec(prop_oneof!["a", "b", ""], 1..8),
        ) {
            let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(
                matches(&pattern.join("."), &words.join(".")),
                matches_naively(&pattern, &words)
            );
        }

        #[test]
        fn no_pattern_makes_it_panic(pattern in "[ab.*#é]{0,12}", event_type in "[ab.]{0,12}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.matches(&event_type);
            }
        }
    }
}
