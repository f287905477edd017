//! What a preset writes into a document, and what it holds a document to.

use data_encoding::HEXLOWER;

use super::{RequestSpec, RetrySpec, SignatureSpec, SubscriptionSpec};
use crate::domain::fault::Fault;
use crate::domain::preset::Preset;
use crate::domain::request::{BodyForm, Method};
use crate::domain::secret::Secret;

impl SubscriptionSpec {
    /// Writes the preset's values into everything that is left out. Returns the secret if one was made.
    ///
    /// # Errors
    /// An unknown preset, and names in the document that this preset does not have.
    pub(super) fn fill_from_preset(&mut self, new_secret: [u8; 32]) -> Result<Option<Secret>, Vec<Fault>> {
        let preset = self.known_preset()?;
        self.resolve_names()?;
        let Some(preset) = preset else { return Ok(None) };
        let defaults = &preset.subscription;
        if self.events.is_empty() && self.interactive.is_empty() {
            self.events = preset.types(false);
            self.interactive = preset.types(true);
        }
        fill_request(&mut self.request, preset);
        fill_retry(&mut self.retry, defaults.retry.as_ref());
        keep_or(&mut self.success, &defaults.success);
        keep_or(&mut self.answer, &defaults.answer);
        if self.signatures.is_some() {
            return Ok(None);
        }
        let secret = Secret::new(HEXLOWER.encode(&new_secret));
        let signers = preset.signers.iter().filter(|signer| signer.default);
        let sign =
            |settings: &SignatureSpec| SignatureSpec { secrets: vec![secret.clone()], ..settings.clone() };
        let signatures: Vec<SignatureSpec> = signers.map(|signer| sign(&signer.settings)).collect();
        let made = (!signatures.is_empty()).then_some(secret.clone());
        self.signatures = Some(signatures);
        Ok(made)
    }

    /// Puts what they stand for in the place of names that only this writer knows: a signer as `scheme`, a preset as
    /// `request.body`.
    ///
    /// # Errors
    /// An unknown preset.
    pub(super) fn resolve_names(&mut self) -> Result<(), Vec<Fault>> {
        let preset = self.known_preset()?;
        for signature in self.signatures.iter_mut().flatten() {
            let signer = preset.and_then(|preset| {
                let mut signers = preset.signers.iter();
                signers.find(|signer| match signature.scheme.as_str() {
                    "" => signer.default,
                    name => signer.name == name,
                })
            });
            if let Some(signer) = signer {
                resolve_signature(signature, &signer.settings);
            }
        }
        let named = self.request.body.as_deref().filter(|body| BodyForm::parse(body).is_none());
        if let Some(form) = named.and_then(Preset::find) {
            self.request.body.clone_from(&form.subscription.request.body);
            if self.request.names.is_empty() {
                self.request.names = form.names();
            }
        }
        Ok(())
    }

    /// The preset's rules on what was written.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub(super) fn check_preset_rules(&self) -> Result<(), Vec<Fault>> {
        let Some(preset) = self.known_preset()? else { return Ok(()) };
        let faults = preset.rules.check(self, preset);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn known_preset(&self) -> Result<Option<&'static Preset>, Vec<Fault>> {
        let Some(name) = &self.preset else { return Ok(None) };
        let unknown = || Fault::new("preset", "is unknown").hint(format!("known are {}", Preset::known()));
        Preset::find(name).map(Some).ok_or_else(|| vec![unknown()])
    }
}

fn keep_or<T: Clone>(given: &mut Option<T>, default: &Option<T>) {
    if given.is_none() {
        given.clone_from(default);
    }
}

fn fill_request(request: &mut RequestSpec, preset: &Preset) {
    let defaults = &preset.subscription.request;
    keep_or(&mut request.method, &defaults.method);
    // The method is looked at again when all is checked.
    let method = request.method.as_deref().and_then(Method::parse).unwrap_or(Method::Post);
    if request.body.is_none() && method.default_body() == BodyForm::Envelope {
        request.body.clone_from(&defaults.body);
        if request.names.is_empty() {
            request.names = preset.names();
        }
    }
    keep_or(&mut request.content_type, &defaults.content_type);
    keep_or(&mut request.timeout_s, &defaults.timeout_s);
    for (name, value) in &defaults.headers {
        if !request.headers.keys().any(|given| given.eq_ignore_ascii_case(name)) {
            request.headers.insert(name.clone(), value.clone());
        }
    }
}

/// A schedule of another kind takes nothing of the preset's schedule.
fn fill_retry(retry: &mut Option<RetrySpec>, defaults: Option<&RetrySpec>) {
    let Some(defaults) = defaults else { return };
    let given = retry.get_or_insert_default();
    if given.kind.is_none() || given.kind == defaults.kind {
        keep_or(&mut given.kind, &defaults.kind);
        keep_or(&mut given.base, &defaults.base);
        keep_or(&mut given.unit_s, &defaults.unit_s);
        keep_or(&mut given.max_attempts, &defaults.max_attempts);
        keep_or(&mut given.delay_s, &defaults.delay_s);
        keep_or(&mut given.delays_s, &defaults.delays_s);
    }
    keep_or(&mut given.on, &defaults.on);
    keep_or(&mut given.retry_after, &defaults.retry_after);
    keep_or(&mut given.jitter, &defaults.jitter);
    keep_or(&mut given.on_gone, &defaults.on_gone);
    keep_or(&mut given.when_down, &defaults.when_down);
}

fn resolve_signature(given: &mut SignatureSpec, signer: &SignatureSpec) {
    given.scheme.clone_from(&signer.scheme);
    keep_or(&mut given.header, &signer.header);
    keep_or(&mut given.algorithm, &signer.algorithm);
    keep_or(&mut given.encoding, &signer.encoding);
    keep_or(&mut given.prefix, &signer.prefix);
    keep_or(&mut given.content, &signer.content);
    keep_or(&mut given.timestamp_header, &signer.timestamp_header);
    keep_or(&mut given.id_header, &signer.id_header);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::SubscriptionId;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-22T09:00:07Z";

    fn completed(preset: &str, changes: Value) -> Result<(SubscriptionSpec, Option<Secret>), Vec<Fault>> {
        let mut document = json!({
            "tenant": "acme", "name": "ERP", "preset": preset, "request": {"url": "https://erp.example.com/ocr/:id"},
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        let mut spec = SubscriptionSpec::read(document)?;
        let made = spec.complete(SubscriptionId::parse("sub_1").unwrap(), NOW, [7; 32])?;
        spec.check()?;
        Ok((spec, made))
    }

    #[test]
    fn what_is_left_out_is_the_presets_and_stands_in_the_document() {
        let (spec, made) =
            completed("contractfit", json!({"request": {"url": "http://localhost:3000/x", "timeout_s": 5}}))
                .unwrap();
        assert_eq!((spec.success.as_deref(), made), (Some(&["200".to_owned()][..]), None));
        assert_eq!((spec.signatures.as_deref(), spec.request.timeout_s), (Some(&[][..]), Some(5)));
        assert!(spec.request.body.unwrap().starts_with(r#"{"event""#));
        assert_eq!(spec.request.names["document.processed"], "document_predict");
        let retry = spec.retry.unwrap();
        assert_eq!((retry.base, retry.max_attempts, retry.retry_after), (Some(2), Some(10), Some(false)));
    }

    #[test]
    fn another_kind_of_schedule_takes_nothing_of_the_presets() {
        let (spec, _) = completed("contractfit", json!({"retry": {"kind": "fixed", "delay_s": 3}})).unwrap();
        let retry = spec.retry.unwrap();
        assert_eq!((retry.base, retry.max_attempts, retry.on_gone.as_deref()), (None, None, Some("retry")));
        let (spec, _) = completed("contractfit", json!({"retry": {"max_attempts": 4}})).unwrap();
        assert_eq!((spec.retry.clone().unwrap().base, spec.retry.unwrap().max_attempts), (Some(2), Some(4)));
    }

    #[test]
    fn a_method_without_a_body_takes_none_of_the_preset() {
        for method in ["GET", "DELETE"] {
            let (spec, _) =
                completed("idexa", json!({"request": {"url": "http://h.example/:id", "method": method}}))
                    .unwrap();
            assert_eq!(spec.request.body, None);
        }
        let (spec, _) = completed("idexa", json!({})).unwrap();
        assert_eq!(spec.request.body.as_deref(), Some("data"));
    }

    #[test]
    fn signers_are_named_and_left_out_ones_are_the_default() {
        let (spec, made) = completed("rossum", json!({})).unwrap();
        let signatures = spec.signatures.unwrap();
        assert_eq!(signatures[0].header.as_deref(), Some("X-Rossum-Signature-SHA256"));
        assert_eq!((signatures.len(), &signatures[0].secrets[0]), (1, &made.unwrap()));
        let both = json!({"signatures": [{"secrets": ["s"]}, {"scheme": "sha1", "secrets": ["s"]}]});
        let (spec, made) = completed("rossum", both).unwrap();
        let headers: Vec<_> =
            spec.signatures.unwrap().into_iter().filter_map(|signature| signature.header).collect();
        assert_eq!(
            (headers, made),
            (vec!["X-Rossum-Signature-SHA256".to_owned(), "X-Elis-Signature".to_owned()], None)
        );
        let (spec, _) =
            completed("invofox", json!({"signatures": [{"algorithm": "sha512", "secrets": ["s"]}]})).unwrap();
        let signature = &spec.signatures.unwrap()[0];
        assert_eq!(
            (signature.header.as_deref(), signature.algorithm.as_deref()),
            (Some("x-invofox-signature"), Some("sha512"))
        );
        assert!(completed("rossum", json!({"signatures": [{"scheme": "sha3", "secrets": ["s"]}]})).is_err());
    }

    #[test]
    fn a_presets_form_may_be_taken_alone() {
        let mut spec = SubscriptionSpec::read(json!({
            "tenant": "acme", "events": ["#"], "request": {"url": "https://h.example/x", "body": "rossum"},
        }))
        .unwrap();
        assert!(spec.complete(SubscriptionId::parse("sub_1").unwrap(), NOW, [7; 32]).unwrap().is_some());
        assert!(
            spec.request.body.as_ref().unwrap().contains("{name.action}") && spec.request.names.len() > 5
        );
        assert_eq!((spec.retry.clone(), spec.preset.clone()), (None, None));
        assert!(spec.check().is_ok());
    }

    #[test]
    fn an_unknown_preset_is_refused_with_the_known_ones() {
        let faults = completed("rosum", json!({})).unwrap_err();
        assert_eq!(faults[0].field, "preset");
        assert!(faults[0].hint.as_ref().unwrap().contains("`rossum-seed`"));
    }

    #[test]
    fn a_change_keeps_what_is_there_and_holds_to_the_rules() {
        let (mut spec, _) = completed("idexa", json!({})).unwrap();
        spec.retry = Some(RetrySpec::default());
        let patched = spec.patched(json!({"name": "Other"})).unwrap();
        assert_eq!(patched.retry, Some(RetrySpec::default()), "nothing of the preset is written again");
        let fields =
            |patch| spec.patched(patch).unwrap_err().into_iter().map(|fault| fault.field).collect::<Vec<_>>();
        assert_eq!(fields(json!({"request": {"url": "http://h.example/x"}})), ["request.url"]);
        assert_eq!(fields(json!({"preset": "rossum"})), ["preset"]);
        assert!(spec.patched(json!({"preset": "idexa"})).is_ok());
        let (plain, _) = completed("contractfit", json!({})).unwrap();
        assert!(
            SubscriptionSpec { preset: None, ..plain }.patched(json!({"preset": null, "name": "x"})).is_ok()
        );
    }
}
