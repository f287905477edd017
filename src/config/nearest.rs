//! The known name a mistyped one probably meant.

/// Finds the known name closest to `given`, if one is close enough to be worth naming.
///
/// A key in the wrong section (`broker.refresh_s`) is close to the same key in the right one.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let word = last_word(&given);
    known
        .into_iter()
        .map(|name| {
            let whole = distance(&given, name);
            let same_word = word.len() > 3 && distance(word, last_word(name)) <= 1;
            (if same_word { whole.min(1) } else { whole }, whole, name)
        })
        .filter(|(score, _, name)| *score <= (name.len() / 4).max(2))
        .min_by_key(|(score, whole, _)| (*score, *whole))
        .map(|(_, _, name)| name)
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Counts the insertions, deletions and replacements that make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["broker.prefetch", "broker.prefix", "cache.refresh_s", "store.url"];

    #[test]
    fn finds_a_mistyped_key() {
        assert_eq!(nearest("broker.prefech", KNOWN), Some("broker.prefetch"));
        assert_eq!(nearest("Broker.Prefix", KNOWN), Some("broker.prefix"));
        assert_eq!(nearest("brokr.prefetch", KNOWN), Some("broker.prefetch"));
    }

    #[test]
    fn finds_a_key_that_stands_in_the_wrong_section() {
        assert_eq!(nearest("broker.refresh_s", KNOWN), Some("cache.refresh_s"));
    }

    #[test]
    fn says_nothing_when_nothing_is_near() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
    }
}
