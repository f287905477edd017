//! Words of the command line that are promised and not there yet, and words that are none.

use std::ffi::OsString;

use super::Failure;

const LATER: [&str; 1] = ["doctor"];

/// What to say to a first word that is no command.
pub(super) fn refuse(words: &[OsString]) -> Failure {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    if LATER.contains(&word.as_ref()) {
        return Failure::usage(format!("`paperboy {word}` is not supported yet"))
            .hint("`paperboy help` lists what is");
    }
    Failure::usage(format!("`{word}` is not a command of paperboy")).hint("`paperboy help` lists them")
}
