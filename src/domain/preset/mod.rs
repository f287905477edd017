//! Presets: what a platform's receivers expect, as data.
//!
//! One TOML file each in `config/presets/`, built into the binary. A preset's values are written into a subscription
//! when it is made ([`SubscriptionSpec::complete`]) and stored with it: a later version of the preset changes new
//! subscriptions only. What is looked up at other times are its rules (when a document is written) and its import.
//!
//! A new platform is a new file and its line in `FILES`, as long as it brings no new mechanism.

mod answer;
mod fields;
mod import;
mod rules;
mod words;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::answer::answer;
pub use self::fields::Take;
pub use self::import::{Imported, NotTaken, import};
pub use self::rules::{Placement, Rules, Second, place, second, too_many};
pub use self::words::in_their_words;

use self::fields::ImportMap;
use crate::domain::spec::{SignatureSpec, SubscriptionSpec};

/// Every preset's file.
const FILES: [&str; 8] = [
    include_str!("../../../config/presets/contractfit.toml"),
    include_str!("../../../config/presets/idexa.toml"),
    include_str!("../../../config/presets/invofox.toml"),
    include_str!("../../../config/presets/invofox-2.toml"),
    include_str!("../../../config/presets/ocrolus.toml"),
    include_str!("../../../config/presets/ocrolus-account.toml"),
    include_str!("../../../config/presets/rossum.toml"),
    include_str!("../../../config/presets/rossum-seed.toml"),
];

static ALL: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let read =
        |text: &&str| toml::from_str(text).unwrap_or_else(|error| panic!("a built-in preset: {error}"));
    FILES.iter().map(read).collect()
});

/// One platform's contract.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: String,
    /// The platform, for people.
    pub title: String,
    /// What is worth knowing before it is used: choices where the platform documents nothing.
    pub about: String,
    /// The values for what a subscription leaves out.
    pub subscription: SubscriptionSpec,
    /// How the platform signs.
    #[serde(default)]
    pub signers: Vec<Signer>,
    #[serde(default)]
    pub events: Vec<EventName>,
    #[serde(default)]
    pub rules: Rules,
    /// The platform's own configuration object.
    #[serde(default)]
    pub import: ImportMap,
}

/// A signature of the platform, without secrets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// What `scheme` may say in a subscription of this preset.
    pub name: String,
    /// Whether it signs where a subscription names none.
    #[serde(default)]
    pub default: bool,
    pub settings: SignatureSpec,
}

/// An event of the platform.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventName {
    /// What its configuration object calls it: a text or a code.
    pub vendor: Value,
    /// The types of ours that it stands for; the platform's own name, where it is a text, is taken too.
    #[serde(default)]
    pub types: Vec<String>,
    /// What its requests call it, where that differs from `vendor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Value>,
    /// Whether somebody waits for the answer, so that it is sent once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interactive: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl EventName {
    /// What its requests call it.
    pub fn rendering(&self) -> &Value {
        self.name.as_ref().unwrap_or(&self.vendor)
    }

    /// Every type of ours that it stands for.
    pub fn all_types(&self) -> impl Iterator<Item = &str> {
        let own = self.vendor.as_str().filter(|own| !self.types.iter().any(|kind| kind == own));
        self.types.iter().map(String::as_str).chain(own)
    }
}

impl Preset {
    /// Every preset, by name.
    pub fn all() -> &'static [Preset] {
        &ALL
    }

    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Preset> {
        ALL.iter().find(|preset| preset.name == name)
    }

    /// The names of all presets, for a sentence.
    pub fn known() -> String {
        ALL.iter().map(|preset| format!("`{}`", preset.name)).collect::<Vec<_>>().join(", ")
    }

    /// The types of ours for its ordinary or for its interactive events.
    pub fn types(&self, interactive: bool) -> Vec<String> {
        let events = self.events.iter().filter(|event| event.interactive == interactive);
        events.flat_map(EventName::all_types).map(str::to_owned).collect()
    }

    /// What its requests call the types of ours, where that is not the type itself.
    pub fn names(&self) -> BTreeMap<String, Value> {
        let pairs = self.events.iter().flat_map(|event| {
            event.all_types().map(move |kind| (kind.to_owned(), event.rendering().clone()))
        });
        pairs.filter(|(kind, name)| name.as_str() != Some(kind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_preset_makes_a_good_subscription() {
        for preset in Preset::all() {
            let document = json!({
                "id": "sub_1", "tenant": "acme", "name": "ERP", "preset": preset.name,
                "request": {"url": "https://erp.example.com/ocr/:id"},
            });
            let mut spec = SubscriptionSpec::read(document).unwrap();
            let made = spec.complete(
                crate::domain::name::SubscriptionId::parse("sub_1").unwrap(),
                "2026-11-22T09:00:07Z",
                [7; 32],
            );
            assert_eq!(
                made.unwrap().is_some(),
                preset.signers.iter().any(|signer| signer.default),
                "{}",
                preset.name
            );
            let checked = spec.check().unwrap_or_else(|faults| panic!("{}: {faults:?}", preset.name));
            assert!(!checked.events.is_empty(), "{}", preset.name);
        }
    }

    #[test]
    fn every_name_is_found_and_no_type_stands_for_two_events() {
        let mut names: Vec<&str> = Preset::all().iter().map(|preset| preset.name.as_str()).collect();
        assert!(names.iter().all(|name| Preset::find(name).is_some()));
        names.dedup();
        assert_eq!(names.len(), FILES.len());
        for preset in Preset::all() {
            let mut types: Vec<String> = [preset.types(false), preset.types(true)].concat();
            types.sort();
            let count = types.len();
            types.dedup();
            assert_eq!(types.len(), count, "{}", preset.name);
        }
    }
}
