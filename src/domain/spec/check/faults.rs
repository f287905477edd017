//! The faults of one check, collected on the way.

use crate::domain::fault::Fault;

/// Faults that were found so far.
#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(Fault::new(field, message));
    }

    pub(super) fn unknown(&mut self, field: &str, known: &str) {
        self.0.push(Fault::new(field, "is unknown").hint(format!("known are {known}")));
    }

    /// Keeps the faults of a part, under its field, and gives back what is good.
    pub(super) fn keep<T>(&mut self, parent: &str, result: Result<T, impl IntoFaults>) -> Option<T> {
        result
            .map_err(|faults| {
                self.0.extend(faults.into_faults().into_iter().map(|fault| fault.under(parent)))
            })
            .ok()
    }

    /// Names the fields that were given and do not belong to the chosen kind.
    pub(super) fn only(&mut self, parent: &str, kind: &str, given: &[(&str, bool)], allowed: &[&str]) {
        for (name, _) in given.iter().filter(|(name, is_given)| *is_given && !allowed.contains(name)) {
            self.add(&format!("{parent}.{name}"), format!("does not belong to `{kind}`"));
        }
    }
}

/// One fault or several.
pub(super) trait IntoFaults {
    fn into_faults(self) -> Vec<Fault>;
}

impl IntoFaults for Fault {
    fn into_faults(self) -> Vec<Fault> {
        vec![self]
    }
}

impl IntoFaults for Vec<Fault> {
    fn into_faults(self) -> Vec<Fault> {
        self
    }
}

/// What another module says of a text, without a field yet.
pub(super) fn plain(fault: impl std::fmt::Display) -> Fault {
    Fault::new("", fault.to_string())
}
