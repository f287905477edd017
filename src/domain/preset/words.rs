//! Faults of our document as faults of the platform's own object, which is what somebody wrote.

use serde_json::Value;

use super::Preset;
use super::fields::{Field, Take};
use super::import::at;
use crate::domain::fault::Fault;

/// The fault by the platform's name of the field; as it is where the object has none for it.
pub fn in_their_words(preset: &Preset, object: &Value, fault: Fault) -> Fault {
    let own = their_field(preset, object, &fault.field);
    Fault { field: own.unwrap_or_else(|| fault.field.clone()), ..fault }
}

/// Where in the object a field of our document comes from.
pub(super) fn their_field(preset: &Preset, object: &Value, ours: &str) -> Option<String> {
    let named = |field: &Field| {
        let rest = targets(field).iter().find_map(|target| rest_of(ours, target))?;
        // Of lists the places are not the same there.
        let rest = if field.take == Take::Headers { rest } else { "" };
        Some((at(object, &field.name).is_some(), format!("{}{rest}", field.name)))
    };
    let mut all: Vec<(bool, String)> = preset.import.fields.iter().filter_map(named).collect();
    // What is given, if any of them is.
    all.sort_by_key(|(is_given, _)| !is_given);
    all.into_iter().next().map(|(_, name)| name)
}

fn targets(field: &Field) -> Vec<String> {
    match (field.take, field.to.as_deref()) {
        (Take::Events, _) => vec!["events".to_owned(), "interactive".to_owned()],
        (_, Some(to)) => match to.strip_prefix("signature.") {
            Some(name) => vec![format!("signatures[0].{name}")],
            None => vec![to.to_owned()],
        },
        (_, None) => Vec::new(),
    }
}

fn rest_of<'a>(field: &'a str, target: &str) -> Option<&'a str> {
    field.strip_prefix(target).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fault_names_the_field_that_was_written() {
        let told = |preset: &str, object: Value, field: &str| {
            in_their_words(Preset::find(preset).unwrap(), &object, Fault::new(field, "x")).field
        };
        assert_eq!(told("idexa", json!({"url": "x"}), "request.url"), "url");
        assert_eq!(told("idexa", json!({}), "events[1]"), "type");
        assert_eq!(told("idexa", json!({}), "auth.url"), "authorizationUrl");
        assert_eq!(told("rossum", json!({}), "request.url"), "config.url");
        assert_eq!(
            told("invofox-2", json!({"customHeaders": {}}), "request.headers.Host"),
            "customHeaders.Host"
        );
        assert_eq!(told("invofox-2", json!({"secret": ""}), "signatures[0].secrets[0]"), "secret");
        assert_eq!(told("idexa", json!({}), "scope.inbox"), "scope.inbox", "none of theirs");
    }
}
