//! The settings in force, as TOML that people may see.

use std::fmt::Write;

use toml::Value;
use url::Url;

use super::{
    DEFAULTS, Fault, Sources, StoreUrl,
    broker_url::redacted,
    load::{Merged, merge},
    settings::{Setting, Settings},
};
use crate::domain::secret::MASK;

/// Prints every setting in force with its origin as a comment, in the order of `default.toml`; secrets are
/// `***`.
///
/// Values need not be right for this, only names and types.
///
/// # Errors
/// Unknown keys and wrong types, all of them.
pub fn show(sources: &Sources) -> Result<String, Vec<Fault>> {
    let Merged { settings, sources, faults } = merge(sources);
    if faults.is_empty() { Ok(print(&settings) + &sources.show()) } else { Err(faults) }
}

fn print(settings: &Settings) -> String {
    let mut text = String::new();
    let mut last_section = "";
    for (section, key) in manual_order() {
        if section != last_section {
            let gap = if last_section.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            last_section = section;
        }
        let name = format!("{section}.{key}");
        let setting = settings.get(&name);
        let _ = writeln!(text, "{key} = {}  # {}", harmless(&name, setting), setting.origin);
    }
    text
}

/// Lists section and key of every setting as they stand in `default.toml`, whose lines we know.
fn manual_order() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    DEFAULTS.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return None;
        }
        line.split_once(" = ").map(|(key, _)| (section, key))
    })
}

/// Gives the value with what is secret in it replaced. What cannot be read is replaced as a whole.
fn harmless(name: &str, setting: &Setting) -> Value {
    let Value::String(text) = &setting.value else {
        return match (name, &setting.value) {
            ("api.keys", Value::Array(keys)) => Value::Array(keys.iter().map(|_| MASK.into()).collect()),
            ("secrets.old_keys", Value::Array(keys)) => {
                let shown = |key: &Value| key.as_str().map_or(MASK, |text| key_text(text)).into();
                Value::Array(keys.iter().map(shown).collect())
            }
            (_, value) => value.clone(),
        };
    };
    let shown = match name {
        _ if text.is_empty() => String::new(),
        "secrets.key" => key_text(text).to_owned(),
        "store.url" => StoreUrl::parse(text).map_or(MASK.into(), |url| url.to_string()),
        _ if name.ends_with(".url") => {
            Url::parse(text).ok().filter(Url::has_host).map_or(MASK.into(), |url| redacted(&url))
        }
        _ => text.clone(),
    };
    Value::String(shown)
}

/// The path of a key file is no secret, the key is.
fn key_text(text: &str) -> &str {
    if text.starts_with("file:") { text } else { MASK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown_once_and_explained_in_the_manual() {
        let keys: Vec<String> = manual_order().map(|(section, key)| format!("{section}.{key}")).collect();
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        for name in &keys {
            Settings::defaults().get(name);
            let key = name.split('.').next_back().unwrap();
            let line = lines.iter().position(|line| line.starts_with(&format!("{key} = "))).unwrap();
            assert!(lines[line - 1].starts_with("# "), "`{name}` has no comment");
        }
        let shown: toml::Table = show(&Sources::default()).unwrap().parse().unwrap();
        assert_eq!(
            shown.values().map(|section| section.as_table().unwrap().len()).sum::<usize>(),
            keys.len()
        );
    }

    #[test]
    fn the_origin_stands_beside_each_value() {
        let sources = Sources::from_text(
            Some("[broker]\nprefix = \"p\""),
            &[("PAPERBOY__BROKER__PREFETCH", "9"), ("PAPERBOY__EGRESS__ALLOW", "10.0.0.0/8,::1")],
        )
        .flag("log.format", "json");
        let shown = show(&sources).unwrap();
        for line in [
            "prefix = \"p\"  # file paperboy.toml",
            "prefetch = 9  # environment PAPERBOY__BROKER__PREFETCH",
            "allow = [\"10.0.0.0/8\", \"::1\"]  # environment PAPERBOY__EGRESS__ALLOW",
            "format = \"json\"  # flag",
            "declare = true  # default",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }

    #[test]
    fn no_secret_is_shown_not_even_in_a_url_that_is_wrong() {
        for (broker, redis, store) in [
            ("amqp://u:canary@h/v?password=canary", "redis://:canary@h", "sqlite://data/p.db"),
            ("amqp:u:canary@h", "canary", "postgres://u:canary@h:bad/d"),
            ("amqp://u:canary@h:99999/v", "//u:canary@h", "u:canary@h"),
        ] {
            let shown = show(&Sources::from_text(
                None,
                &[
                    ("PAPERBOY__BROKER__URL", broker),
                    ("PAPERBOY__REDIS__URL", redis),
                    ("PAPERBOY__STORE__URL", store),
                    ("PAPERBOY__API__KEYS", "canary,canary"),
                    ("PAPERBOY__SECRETS__KEY", "canary"),
                    ("PAPERBOY__SECRETS__OLD_KEYS", "canary,file:/run/old"),
                ],
            ))
            .unwrap();
            assert!(shown.contains("old_keys = [\"***\", \"file:/run/old\"]"), "{shown}");
            assert!(!shown.contains("canary"), "{shown}");
            assert!(shown.contains("keys = [\"***\", \"***\"]"), "{shown}");
        }
    }

    #[test]
    fn the_path_of_a_key_file_is_no_secret() {
        let shown = show(&Sources::from_text(Some("[secrets]\nkey = \"file:/run/key\""), &[])).unwrap();
        assert!(shown.contains("key = \"file:/run/key\"  # file"), "{shown}");
    }

    #[test]
    fn unknown_keys_are_faults_here_too() {
        assert_eq!(show(&Sources::from_text(Some("[a]\nb = 1\nc = 2"), &[])).unwrap_err().len(), 2);
    }
}
