//! Making a new subscription: reading, completing and checking, with every fault of all three told at once.

use serde_json::Value;

use super::{SignatureSpec, SubscriptionSpec};
use crate::domain::fault::Fault;
use crate::domain::name::SubscriptionId;
use crate::domain::secret::Secret;
use crate::domain::signature::standard::Standard;
use crate::domain::time;

impl SubscriptionSpec {
    /// Fills in what we choose for a new subscription: id, times, what its preset says, a signing secret if none
    /// was named.
    ///
    /// An id that is there (an import) is kept. `now` is RFC 3339 in UTC; `new_secret` is random bytes.
    /// Credentials in the URL become `auth`. Returns the secret if one was made: it is shown this once.
    ///
    /// # Errors
    /// Every fault that the preset's rules find.
    pub fn complete(
        &mut self,
        id: SubscriptionId,
        now: &str,
        new_secret: [u8; 32],
    ) -> Result<Option<Secret>, Vec<Fault>> {
        let made = self.fill(id, now, new_secret)?;
        self.check_preset_rules()?;
        Ok(made)
    }

    /// Reads, completes and checks a document, as [`SubscriptionSpec::read`], [`SubscriptionSpec::complete`] and
    /// [`SubscriptionSpec::check`] do one after the other.
    ///
    /// # Errors
    /// Every fault of the document: one that does not follow from another is told whatever the others are.
    pub fn make(
        document: Value,
        id: SubscriptionId,
        now: &str,
        new_secret: [u8; 32],
    ) -> Result<(SubscriptionSpec, Option<Secret>), Vec<Fault>> {
        let (mut spec, mut unread) = SubscriptionSpec::read_what_is_good(document);
        let made = spec.fill(id, now, new_secret).unwrap_or_else(|faults| {
            unread.add(faults);
            None
        });
        unread.with(spec.faults()).map(|()| (spec, made))
    }

    /// What the document's values mean, and its preset's rules.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = self.check().err().unwrap_or_default();
        // What was exported brings its own.
        if self.created_at.as_deref().is_some_and(|at| !time::is_rfc3339(at)) {
            faults.push(Fault::new("created_at", "is no moment of RFC 3339; leave it out"));
        }
        let rules = self.check_preset_rules().err().unwrap_or_default();
        // The preset's choice is narrower than ours.
        faults.retain(|fault| {
            fault.field != "request.method" || rules.iter().all(|rule| rule.field != fault.field)
        });
        faults.extend(rules);
        faults
    }

    fn fill(
        &mut self,
        id: SubscriptionId,
        now: &str,
        new_secret: [u8; 32],
    ) -> Result<Option<Secret>, Vec<Fault>> {
        self.id.get_or_insert_with(|| id.to_string());
        self.enabled.get_or_insert(true);
        self.created_at.get_or_insert_with(|| now.to_owned());
        self.updated_at = Some(now.to_owned());
        self.move_userinfo_to_auth();
        let filled = self.fill_from_preset(new_secret);
        if matches!(filled, Ok(Some(_))) || self.signatures.is_some() {
            return filled;
        }
        let secret = Standard::secret_from_random(new_secret);
        let scheme = SignatureSpec {
            scheme: "standard".to_owned(),
            secrets: vec![secret.clone()],
            ..Default::default()
        };
        self.signatures = Some(vec![scheme]);
        filled.map(|_| Some(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-11-22T09:00:07Z";

    fn id() -> SubscriptionId {
        SubscriptionId::parse("sub_new").unwrap()
    }

    fn made(document: Value) -> Vec<String> {
        let made = SubscriptionSpec::make(document, id(), NOW, [7; 32]);
        let mut fields: Vec<String> =
            made.err().unwrap_or_default().into_iter().map(|fault| fault.field).collect();
        fields.sort();
        fields
    }

    #[test]
    fn faults_of_shape_of_meaning_and_of_the_preset_are_told_in_one_round() {
        let document = json!({
            "tenant": "ac me", "evnts": ["#"], "events": ["a.**", 7], "enabled": "yes", "preset": "idexa",
            "request": {"url": "https://h.example/x", "method": "PATCH", "timeout_s": 500, "headers": {"Host": "x", "X-A": 1}},
            "auth": {"kind": "basic", "username": 1, "password": "p\n"},
            "signatures": [{"scheme": "standard", "secrets": ["s", 1]}, 1, {"scheme": "hmac", "content": "x"}],
            "success": ["2xx", "3yy"],
            "retry": {"kind": 1, "base": 2, "jitter": 3, "on_gone": "x"},
        });
        let expected = [
            "auth.password",
            "auth.username",
            "enabled",
            "events[0]",
            "events[1]",
            "evnts",
            "name",
            "request.headers.Host",
            "request.headers.X-A",
            "request.method",
            "request.timeout_s",
            "request.url",
            "retry.jitter",
            "retry.kind",
            "retry.on_gone",
            "signatures[0].secrets[0]",
            "signatures[0].secrets[1]",
            "signatures[1]",
            "signatures[2].content",
            "signatures[2].header",
            "signatures[2].secrets",
            "success[1]",
            "tenant",
        ];
        assert_eq!(made(document), expected);
    }

    #[test]
    fn what_only_follows_from_another_fault_is_not_told() {
        let good = json!({"tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/x"}});
        for (changes, fault) in [
            (json!({"events": null, "interactive": 1}), "interactive"),
            (json!({"events": 1}), "events"),
            (json!({"request": []}), "request"),
            (json!({"request": {"url": ["https://h.example/x"]}}), "request.url"),
            (json!({"auth": "bearer"}), "auth"),
            (json!({"auth": {"kind": 1, "token": "t"}}), "auth.kind"),
            (json!({"auth": {"kind": "bearer", "token": 1}}), "auth.token"),
            (json!({"signatures": {}}), "signatures"),
            (json!({"signatures": [{"scheme": 1, "header": "X-S"}]}), "signatures[0].scheme"),
            (
                json!({"signatures": [{"scheme": "hmac", "header": "X-S", "secrets": 1}]}),
                "signatures[0].secrets",
            ),
            (
                json!({"signatures": [{"scheme": "hmac", "header": "X-S", "secrets": ["s"], "content": "{timestamp}{body}", "timestamp_header": 1}]}),
                "signatures[0].timestamp_header",
            ),
            (json!({"retry": 5}), "retry"),
            (json!({"retry": {"kind": 1, "delay_s": 5}}), "retry.kind"),
            (json!({"retry": {"kind": "fixed", "delay_s": "5"}}), "retry.delay_s"),
            (json!({"retry": {"base": "2", "max_attempts": 40}}), "retry.base"),
            (json!({"retry": {"base": 100, "max_attempts": "3"}}), "retry.max_attempts"),
            (json!({"retry": {"kind": "list", "delays_s": 1}}), "retry.delays_s"),
            (json!({"success": 200}), "success"),
            (json!({"scope": {"inbox": 7}}), "scope.inbox"),
            (
                json!({"events": null, "preset": "nobodys", "retry": {"delay_s": 5}, "signatures": [{"scheme": "theirs", "secrets": ["s"]}]}),
                "preset",
            ),
            (json!({"events": null, "preset": 1}), "preset"),
        ] {
            let mut document = good.clone();
            for (name, value) in changes.as_object().unwrap() {
                document[name] = value.clone();
            }
            assert_eq!(made(document), [fault], "{changes}");
        }
        assert_eq!(made(json!([])), [""]);
    }
}
