//! One thing that is wrong with the configuration.

use std::fmt;

/// One thing that is wrong with the configuration and what to write instead.
///
/// Neither text ever holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key (`broker.prefetch`), the variable (`PAPERBOY__…`) or the file at fault.
    pub key: String,
    /// A whole sentence that names the key.
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { key: key.into(), message: message.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

/// Prints an `error: …` line and, if there is one, a `hint: …` line.
impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_an_error_line_and_a_hint_line() {
        let fault = Fault::new("a.b", "`a.b` is wrong");
        assert_eq!(fault.to_string(), "error: `a.b` is wrong");
        assert_eq!(fault.hint("write `c`").to_string(), "error: `a.b` is wrong\nhint: write `c`");
    }
}
