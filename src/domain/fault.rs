//! One thing wrong with a document somebody wrote: where, what, and what to write instead.
//!
//! Faults are collected and shown together, so that a document is repaired in one go. They are read by
//! people and end up in logs and answers: they name fields and never repeat a secret's value.

use std::fmt;

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field from the document's top, such as `request.url` or `signatures[0].secrets[1]`.
    pub field: String,
    /// What is wrong: lower case, no final full stop.
    pub message: String,
    /// What to write instead, when we know.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of `field`, without a hint yet.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { field: field.into(), message: message.into(), hint: None }
    }

    /// The same fault with a sentence saying what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault seen from one level further out: `secrets[1]` under `signatures[0]` becomes
    /// `signatures[0].secrets[1]`; an empty field becomes `parent` itself.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.to_owned(),
            inner if inner.starts_with('[') => format!("{parent}{inner}"),
            inner => format!("{parent}.{inner}"),
        };
        self
    }
}

/// The field and the message on one line; the hint is left to whoever shows the fault.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "`{}` {}", self.field, self.message)
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_grows_its_path_from_the_inside_out() {
        let fault = Fault::new("[1]", "is not base64").under("secrets").under("signatures[0]");
        assert_eq!(fault.field, "signatures[0].secrets[1]");
        assert_eq!(Fault::new("", "is missing").under("tenant").field, "tenant");
    }

    #[test]
    fn a_fault_reads_as_one_line() {
        let fault = Fault::new("request.url", "is longer than 2048 bytes").hint("shorten it");
        assert_eq!(fault.to_string(), "`request.url` is longer than 2048 bytes");
    }
}
