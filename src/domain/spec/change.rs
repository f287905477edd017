//! Changing a document that is there: some of its members, or all of it.
//!
//! A change may be made from a document that was [shown](SubscriptionSpec::masked). Wherever it says `***` it
//! means the secret that is there: headers and credentials by their name, signatures by their scheme and
//! header, the secrets of one signature by their place.

use serde_json::{Map, Value};

use super::SubscriptionSpec;
use crate::domain::fault::Fault;
use crate::domain::secret::MASK;
use crate::domain::subscription::DisabledBy;

/// What a change must leave as it is.
const FIXED: [&str; 3] = ["id", "tenant", "preset"];
/// What another whole document keeps where it says nothing: none of it has a default that would not surprise
/// the receiver or whoever disabled the subscription.
const KEPT: [&str; 5] = ["id", "tenant", "preset", "enabled", "signatures"];

impl SubscriptionSpec {
    /// The document with the members changed that `patch` names: a JSON merge patch (RFC 7396), where `null`
    /// removes. Times are ours and not taken from it.
    ///
    /// # Errors
    /// Every fault of the patch, and of the document it would make.
    pub fn patched(&self, patch: Value) -> Result<SubscriptionSpec, Vec<Fault>> {
        let Value::Object(fields) = patch else { return Err(vec![not_an_object("a change")]) };
        let mut faults = self.check_fixed(&fields);
        let before = self.as_fields()?;
        faults.extend(
            FIXED
                .iter()
                .filter(|name| fields.get(**name) == Some(&Value::Null) && before.contains_key(**name))
                .map(|name| Fault::new(*name, "cannot be removed").hint("leave it out")),
        );
        let mut after = Value::Object(before.clone());
        merge(&mut after, Value::Object(fields));
        self.finish(&Value::Object(before), after, faults, false)
    }

    /// `document` in place of this one. What it does not name has its default (the preset's, where there is one), but
    /// for `enabled` and `signatures`, which stay. Times are ours and not taken from it.
    ///
    /// # Errors
    /// Every fault of the document.
    pub fn replaced(&self, document: Value) -> Result<SubscriptionSpec, Vec<Fault>> {
        let Value::Object(mut fields) = document else { return Err(vec![not_an_object("a subscription")]) };
        let faults = self.check_fixed(&fields);
        let before = self.as_fields()?;
        for name in KEPT {
            if let Some(kept) = before.get(name)
                && fields.get(name).is_none_or(Value::is_null)
            {
                fields.insert(name.to_owned(), kept.clone());
            }
        }
        self.finish(&Value::Object(before), Value::Object(fields), faults, true)
    }

    fn finish(
        &self,
        before: &Value,
        mut after: Value,
        mut faults: Vec<Fault>,
        is_whole: bool,
    ) -> Result<SubscriptionSpec, Vec<Fault>> {
        keep_secrets(before, &mut after);
        for name in FIXED {
            // A fault of it is told already.
            after[name] = before.get(name).cloned().unwrap_or(Value::Null);
        }
        let (mut spec, mut unread) = SubscriptionSpec::read_what_is_good(after);
        spec.created_at.clone_from(&self.created_at);
        spec.updated_at.clone_from(&self.updated_at);
        let enabled = *spec.enabled.get_or_insert(true);
        let by = spec.disabled_by.or(self.disabled_by).unwrap_or(DisabledBy::Person);
        spec.disabled_by = (!enabled).then_some(by);
        spec.move_userinfo_to_auth();
        // Signatures stay, so none is made.
        let filled = if is_whole { spec.fill_from_preset([0; 32]).map(drop) } else { spec.resolve_names() };
        filled.unwrap_or_else(|faults| unread.add(faults));
        faults.extend(unread.with(spec.faults()).err().unwrap_or_default());
        if faults.is_empty() { Ok(spec) } else { Err(faults) }
    }

    fn check_fixed(&self, fields: &Map<String, Value>) -> Vec<Fault> {
        let now = [&self.id, &self.tenant, &self.preset];
        let differs = FIXED.into_iter().zip(now).filter_map(|(name, now)| {
            let given = fields.get(name).filter(|given| !given.is_null())?;
            let now = now.as_deref().unwrap_or_default();
            (given.as_str() != Some(now)).then(|| {
                let is = if now.is_empty() { "it has none".to_owned() } else { format!("it is `{now}`") };
                Fault::new(name, format!("cannot change: {is}")).hint("add another subscription instead")
            })
        });
        differs.collect()
    }

    fn as_fields(&self) -> Result<Map<String, Value>, Vec<Fault>> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => Ok(fields),
            _ => Err(vec![Fault::new("", "the document that is there cannot be written as JSON")]),
        }
    }
}

fn not_an_object(what: &str) -> Fault {
    Fault::new("", format!("{what} must be an object"))
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Puts the secrets that are there where the new document says `***`. What has no counterpart keeps the
/// stand-in, which the check refuses by its field.
fn keep_secrets(before: &Value, after: &mut Value) {
    for name in ["value", "token", "password", "body"] {
        if let Some(Value::Object(auth)) = after.get_mut("auth")
            && let Some(value) = auth.get_mut(name)
        {
            keep(value, before.get("auth").and_then(|auth| auth.get(name)));
        }
    }
    for section in ["request", "auth"] {
        let headers =
            before.get(section).and_then(|section| section.get("headers")).and_then(Value::as_object);
        if let Some(Value::Object(new)) =
            after.get_mut(section).and_then(|section| section.get_mut("headers"))
        {
            for (name, value) in new {
                let old = headers.into_iter().flatten().find(|(old, _)| old.eq_ignore_ascii_case(name));
                keep(value, old.map(|(_, value)| value));
            }
        }
    }
    let old = list(before, "signatures");
    if let Some(Value::Array(signatures)) = after.get_mut("signatures") {
        for (place, signature) in signatures.iter_mut().enumerate() {
            if let Some(old) = counterpart(old, signature, place) {
                keep_in_signature(old, signature);
            }
        }
    }
}

fn keep_in_signature(old: &Value, signature: &mut Value) {
    let Value::Object(new) = signature else { return };
    if let Some(Value::Array(secrets)) = new.get_mut("secrets") {
        let all_are_kept = !secrets.is_empty() && secrets.iter().all(is_mask);
        for (place, secret) in secrets.iter_mut().enumerate() {
            keep(secret, list(old, "secrets").get(place));
        }
        // Written down before a rotation, it must not end the old secret early.
        if let Some(retiring) = old.get("retiring").filter(|_| all_are_kept) {
            new.entry("retiring").or_insert_with(|| retiring.clone());
        }
    }
    if let Some(Value::Array(retiring)) = new.get_mut("retiring") {
        let old = list(old, "retiring");
        for (place, entry) in retiring.iter_mut().enumerate() {
            let is_same = |old: &&Value| old.get("until") == entry.get("until");
            let here = old.get(place);
            let same = here.filter(is_same).or_else(|| old.iter().find(is_same)).or(here);
            let same = same.and_then(|old| old.get("secret")).cloned();
            if let Some(secret) = entry.get_mut("secret") {
                keep(secret, same.as_ref());
            }
        }
    }
}

/// The signature that was there for this one: of the same scheme and header, else of the same scheme and place.
fn counterpart<'a>(old: &'a [Value], new: &Value, place: usize) -> Option<&'a Value> {
    let is_same = |old: &Value, name: &str| old.get(name) == new.get(name);
    let by_name = old.iter().find(|old| is_same(old, "scheme") && is_same(old, "header"));
    by_name.or_else(|| old.get(place).filter(|old| is_same(old, "scheme")))
}

fn keep(new: &mut Value, old: Option<&Value>) {
    if is_mask(new)
        && let Some(old) = old
    {
        *new = old.clone();
    }
}

fn is_mask(value: &Value) -> bool {
    value.as_str() == Some(MASK)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const K1: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const K2: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    const UNTIL: &str = "2026-11-23T09:00:07Z";

    fn spec() -> SubscriptionSpec {
        let document = json!({
            "id": "sub_1", "tenant": "acme", "name": "ERP", "enabled": true, "events": ["document.*"],
            "scope": {"inbox": ["i7"]},
            "request": {"url": "https://h.example/x", "headers": {"X-Key": "key", "X-Env": "live"}, "timeout_s": 9},
            "auth": {"kind": "basic", "username": "u", "password": "p"},
            "signatures": [
                {"scheme": "standard", "secrets": [K2], "retiring": [{"secret": K1, "until": UNTIL}]},
                {"scheme": "hmac", "header": "X-A", "secrets": ["a"]},
                {"scheme": "hmac", "header": "X-B", "secrets": ["b"]},
            ],
            "created_at": "2026-11-22T09:00:07Z", "updated_at": "2026-11-22T09:00:07Z",
        });
        SubscriptionSpec::read(document).unwrap()
    }

    fn shown() -> Value {
        serde_json::to_value(spec().masked()).unwrap()
    }

    fn patched(patch: Value) -> Value {
        serde_json::to_value(spec().patched(patch).unwrap()).unwrap()
    }

    fn faults(result: Result<SubscriptionSpec, Vec<Fault>>) -> Vec<String> {
        result.unwrap_err().into_iter().map(|fault| fault.field).collect()
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn merges_as_the_standard_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} with {patch}");
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let after = patched(
            json!({"request": {"url": "https://h.example/y", "timeout_s": null}, "scope": {"inbox": null}}),
        );
        let mut expected = serde_json::to_value(spec()).unwrap();
        expected["request"]["url"] = json!("https://h.example/y");
        expected["request"].as_object_mut().unwrap().remove("timeout_s");
        expected.as_object_mut().unwrap().remove("scope");
        assert_eq!(after, expected);
        assert_eq!(spec().patched(json!({})).unwrap(), spec());
    }

    #[test]
    fn a_document_as_it_was_shown_changes_nothing() {
        assert_eq!(spec().patched(shown()).unwrap(), spec());
        assert_eq!(spec().replaced(shown()).unwrap(), spec());
    }

    #[test]
    fn a_stand_in_means_the_secret_of_the_same_name_and_place() {
        let after = patched(json!({
            "request": {"headers": {"X-Key": "***", "X-Env": "test"}},
            "signatures": [
                {"scheme": "hmac", "header": "X-B", "secrets": ["***"]},
                {"scheme": "standard", "secrets": ["***"], "retiring": [{"secret": "***", "until": UNTIL}]},
                {"scheme": "hmac", "header": "X-New", "secrets": ["***"]},
            ],
        }));
        assert_eq!(after["request"]["headers"], json!({"X-Key": "key", "X-Env": "test"}));
        assert_eq!(after["auth"]["password"], "p");
        let secrets = |place: usize| after["signatures"][place]["secrets"][0].as_str().unwrap();
        assert_eq!([secrets(0), secrets(1), secrets(2)], ["b", K2, "b"], "by header, by scheme, by place");
        assert_eq!(after["signatures"][1]["retiring"], json!([{"secret": K1, "until": UNTIL}]));
    }

    #[test]
    fn a_stand_in_without_a_secret_behind_it_is_refused_by_its_field() {
        let patch = json!({
            "request": {"headers": {"X-Other": "***"}},
            "auth": {"kind": "bearer", "token": "***", "username": null, "password": null},
            "signatures": [{"scheme": "standard", "secrets": ["***", "***"]}],
        });
        assert_eq!(
            faults(spec().patched(patch)),
            ["request.headers.X-Other", "auth.token", "signatures[0].secrets[1]"]
        );
    }

    #[test]
    fn what_was_written_down_before_a_rotation_does_not_end_the_old_secret() {
        let kept = |retiring: Value| {
            let mut signature = json!({"scheme": "standard", "secrets": ["***"]});
            merge(&mut signature, retiring);
            let after = patched(json!({"signatures": [signature]}));
            list(&after["signatures"][0], "retiring").len()
        };
        assert_eq!(kept(json!({})), 1);
        assert_eq!(kept(json!({"retiring": []})), 0, "ended on purpose");
        assert_eq!(kept(json!({"secrets": [K2]})), 0, "another list of secrets");
    }

    #[test]
    fn id_and_tenant_stay_and_every_fault_is_told() {
        let patch = json!({
            "id": "sub_2", "tenant": null, "evnts": ["#"], "request": {"url": 7},
        });
        assert_eq!(faults(spec().patched(patch)), ["id", "tenant", "evnts", "request.url"]);
        let patch = json!({"id": "sub_1", "tenant": "other", "events": [], "request": {"url": "ftp://h"}});
        assert_eq!(faults(spec().patched(patch)), ["tenant", "events", "request.url"]);
        assert_eq!(faults(spec().replaced(json!({"tenant": 7, "events": ["#"]}))), ["tenant", "request.url"]);
        assert_eq!(faults(spec().patched(json!([]))), [""]);
        assert_eq!(faults(spec().patched(json!({"signatures": null}))), ["signatures"]);
    }

    #[test]
    fn a_whole_document_keeps_what_only_this_side_knows() {
        let mut disabled = spec();
        (disabled.enabled, disabled.disabled_by) = (Some(false), Some(DisabledBy::Paperboy));
        let after = disabled
            .replaced(json!({"tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/z"}}))
            .unwrap();
        assert_eq!((after.enabled, after.disabled_by), (Some(false), Some(DisabledBy::Paperboy)));
        assert_eq!((&after.signatures, &after.created_at), (&spec().signatures, &spec().created_at));
        assert_eq!((after.name, after.auth, after.request.headers.len()), (None, None, 0));
        let enabled = disabled.patched(json!({"enabled": true})).unwrap();
        assert_eq!((enabled.enabled, enabled.disabled_by), (Some(true), None));
        let again = spec().patched(json!({"enabled": false})).unwrap();
        assert_eq!(again.disabled_by, Some(DisabledBy::Person));
    }

    #[test]
    fn credentials_in_a_new_url_become_auth() {
        let url = json!({"request": {"url": "https://a:b@h.example/"}});
        assert_eq!(faults(spec().patched(url.clone())), ["request.url"], "there is another `auth`");
        let mut open = spec();
        open.auth = None;
        let after = open.patched(url).unwrap();
        assert_eq!(after.request.url.as_deref(), Some("https://h.example/"));
        assert_eq!(after.auth.unwrap().username.as_deref(), Some("a"));
    }

    proptest! {
        #[test]
        fn no_change_panics_or_moves_a_subscription(
            name in "id|tenant|events|request|auth|signatures|scope|enabled|metadata",
            value in prop_oneof![
                Just(json!(null)), Just(json!("***")), Just(json!([])), Just(json!({})), Just(json!(["***"])),
                Just(json!([{"secrets": ["***"], "retiring": ["***"]}])), Just(json!({"headers": ["***"]})),
                Just(json!({"headers": {"X-Key": {"a": "***"}}})), Just(json!([{"retiring": [{"secret": "***"}]}])),
                "\\PC{0,9}".prop_map(Value::String), any::<i64>().prop_map(Value::from),
            ],
        ) {
            let change = json!({name: value});
            for mut after in [spec().patched(change.clone()), spec().replaced(change)].into_iter().flatten() {
                prop_assert!(after.secrets().iter().all(|secret| !secret.is_mask()));
                prop_assert_eq!((after.id.take(), after.tenant.take()), (spec().id, spec().tenant));
            }
        }
    }
}
