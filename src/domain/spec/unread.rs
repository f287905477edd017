//! What could not be read of a document, and which other faults only follow from that.

use crate::domain::fault::Fault;

/// The fields that cannot be used, each with its fault. What is found wrong on their account is not told: it would
/// vanish with them.
#[derive(Debug)]
pub(super) struct Unread(Vec<Fault>);

/// The fields of `retry` that `kind` chooses among.
const SCHEDULE: [&str; 5] =
    ["retry.base", "retry.unit_s", "retry.max_attempts", "retry.delay_s", "retry.delays_s"];

impl Unread {
    pub(super) fn of(faults: Vec<Fault>) -> Unread {
        Unread(faults)
    }

    /// One more field that cannot be used.
    pub(super) fn add(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            if !self.0.iter().any(|known| known.field == fault.field) {
                self.0.push(fault);
            }
        }
    }

    /// All that is wrong: what cannot be used, and what was found beside it.
    ///
    /// # Errors
    /// There is anything.
    pub(super) fn with(self, found: Vec<Fault>) -> Result<(), Vec<Fault>> {
        // Of what is no object nothing else can be said.
        let is_told = |fault: &Fault| self.0.iter().all(|bad| !follows(fault, &bad.field));
        let found: Vec<Fault> = found.into_iter().filter(is_told).collect();
        let mut all = self.0;
        for fault in found {
            if !all.contains(&fault) {
                all.push(fault);
            }
        }
        if all.is_empty() { Ok(()) } else { Err(all) }
    }
}

/// Whether `fault` says nothing once `bad` is known to be unusable.
fn follows(fault: &Fault, bad: &str) -> bool {
    let field = fault.field.as_str();
    if bad.is_empty() || is_within(field, bad) {
        return true;
    }
    match bad {
        // Either of them is enough.
        "interactive" => field == "events",
        // It would have said what to want, when to try again and how to sign.
        "preset" => field == "events" || SCHEDULE.contains(&field) || is_within(field, "signatures"),
        "retry.kind" => SCHEDULE.contains(&field),
        _ if is_within(bad, "request.names") => field == "request.body",
        // A rule on all of it together.
        _ if is_within(bad, "auth") => field == "auth",
        _ if is_within(bad, "signatures") => {
            bad.strip_suffix(".scheme").is_some_and(|signature| is_within(field, signature))
        }
        _ => false,
    }
}

/// Whether a field is another or a part of it.
fn is_within(field: &str, other: &str) -> bool {
    field.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bad: &[&str], found: &[&str]) -> Vec<String> {
        let faults = |fields: &[&str]| fields.iter().map(|field| Fault::new(*field, "x")).collect();
        let all = Unread::of(faults(bad)).with(faults(found)).err().unwrap_or_default();
        all.into_iter().skip(bad.len()).map(|fault| fault.field).collect()
    }

    #[test]
    fn what_only_follows_is_not_told() {
        for (bad, found) in [
            ("", "tenant"),
            ("request", "request.url"),
            ("request.url", "request.url"),
            ("events[1]", "events[1]"),
            ("interactive", "events"),
            ("preset", "retry.delay_s"),
            ("preset", "signatures[0].scheme"),
            ("retry.kind", "retry.base"),
            ("request.names", "request.body"),
            ("auth.password", "auth"),
            ("signatures[1].scheme", "signatures[1].header"),
        ] {
            assert_eq!(told(&[bad], &[found]), Vec::<String>::new(), "{found} after {bad}");
        }
    }

    #[test]
    fn what_is_wrong_by_itself_is_told() {
        for (bad, found) in [
            ("events[1]", "events[10]"),
            ("events[1]", "events"),
            ("request.url", "request.urls"),
            ("request.timeout_s", "request.url"),
            ("retry.kind", "retry.jitter"),
            ("preset", "request.url"),
            ("auth.password", "auth.username"),
            ("auth.scheme", "auth.url"),
            ("signatures[1].scheme", "signatures[10].header"),
            ("signatures[1].scheme", "signatures[0].header"),
        ] {
            assert_eq!(told(&[bad], &[found]), [found], "{found} beside {bad}");
        }
        assert_eq!(told(&[], &["a", "a", "b"]), ["a", "b"], "once");
    }
}
