//! The merged settings before they are checked: one value and one origin for every known key.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use toml::{Table, Value};

use super::{DEFAULTS, Fault, nearest::nearest};

/// Before this every variable is a setting of ours; `PAPERBOY_CONFIG` and `PAPERBOY_API` are not.
pub(super) const VARIABLE_PREFIX: &str = "PAPERBOY__";

/// Tables of later versions: named, so that nobody looks for a typing mistake.
const NOT_YET: [&str; 1] = ["delivery_log"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => formatter.write_str("default"),
            Origin::File(path) => write!(formatter, "file {}", path.display()),
            Origin::Environment(variable) => write!(formatter, "environment {variable}"),
            Origin::Flag => formatter.write_str("flag"),
        }
    }
}

pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Every key of `default.toml` as `section.key`, each with a value of the default's type.
pub(super) struct Settings(BTreeMap<String, Setting>);

impl Settings {
    pub(super) fn defaults() -> Settings {
        let table: Table = DEFAULTS.parse().expect("default.toml is parsed by a test");
        let mut settings = BTreeMap::new();
        for (section, keys) in table {
            for (key, value) in keys.as_table().cloned().unwrap_or_default() {
                settings.insert(format!("{section}.{key}"), Setting { value, origin: Origin::Default });
            }
        }
        Settings(settings)
    }

    /// Lays the tables of a file over what is there.
    pub(super) fn apply_file(&mut self, path: PathBuf, table: Table, faults: &mut Vec<Fault>) {
        let origin = Origin::File(path);
        for (section, keys) in table {
            if NOT_YET.contains(&section.as_str()) {
                faults.push(Fault::new(&section, format!("`{section}` is not supported yet")));
                continue;
            }
            match keys {
                Value::Table(keys) if keys.is_empty() && !self.has_section(&section) => {
                    faults.push(self.unknown(&section, &origin));
                }
                Value::Table(keys) => {
                    for (key, value) in keys {
                        faults.extend(self.set(&format!("{section}.{key}"), value, origin.clone()).err());
                    }
                }
                _ if self.has_section(&section) => {
                    let message = format!("{} must be a table", named(&section, &origin));
                    faults.push(
                        Fault::new(&section, message)
                            .hint(format!("write `[{section}]` on a line of its own")),
                    );
                }
                _ => faults.push(self.unknown(&section, &origin)),
            }
        }
    }

    /// Takes one `PAPERBOY__…` variable; its text is read as the type of the default.
    pub(super) fn apply_variable(&mut self, variable: &str, text: &str) -> Result<(), Fault> {
        let Some(key) = self.0.keys().find(|key| variable_of(key) == variable).cloned() else {
            let names: Vec<String> = self.0.keys().map(|key| variable_of(key)).collect();
            let fault = Fault::new(variable, format!("unknown variable `{variable}`"));
            let word =
                |name: &str| name.trim_start_matches(VARIABLE_PREFIX).replace("__", ".").to_lowercase();
            let known: Vec<String> = names.iter().map(|name| word(name)).collect();
            return Err(match nearest(&word(variable), known.iter().map(String::as_str)) {
                Some(near) => fault.hint(format!("did you mean `{}`?", variable_of(near))),
                None => fault.hint("`paperboy config show` lists every setting"),
            });
        };
        let origin = Origin::Environment(variable.into());
        match read_text(&self.0[&key].value, text) {
            Some(value) => self.set(&key, value, origin),
            None => Err(self.wrong_type(&key, None, &origin)),
        }
    }

    /// Takes one flag; text for a key that wants no text is read as in a variable.
    pub(super) fn apply_flag(&mut self, key: &str, value: Value) -> Result<(), Fault> {
        let wanted = self.0.get(key).map(|setting| &setting.value);
        let read = match (wanted, &value) {
            (Some(wanted), Value::String(text)) => read_text(wanted, text),
            _ => None,
        };
        self.set(key, read.unwrap_or(value), Origin::Flag)
    }

    /// Sets one key, if it is known and the value has the type of its default.
    pub(super) fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), Fault> {
        let Some(setting) = self.0.get_mut(key) else { return Err(self.unknown(key, &origin)) };
        match fit(&setting.value, &value) {
            Some(value) => {
                *setting = Setting { value, origin };
                Ok(())
            }
            None => Err(self.wrong_type(key, Some(&value), &origin)),
        }
    }

    pub(super) fn get(&self, key: &str) -> &Setting {
        self.0.get(key).expect("every key asked for is in default.toml, and every start asks for all of them")
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.get(key).value.as_str().unwrap_or_default()
    }

    pub(super) fn integer(&self, key: &str) -> i64 {
        self.get(key).value.as_integer().unwrap_or_default()
    }

    pub(super) fn float(&self, key: &str) -> f64 {
        self.get(key).value.as_float().unwrap_or_default()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).value.as_bool().unwrap_or_default()
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let values = self.get(key).value.as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }

    /// The key with where its value came from, as it stands in a fault.
    pub(super) fn named(&self, key: &str) -> String {
        named(key, &self.get(key).origin)
    }

    fn has_section(&self, section: &str) -> bool {
        self.0.keys().any(|key| key.split('.').next() == Some(section))
    }

    fn unknown(&self, key: &str, origin: &Origin) -> Fault {
        let fault = Fault::new(key, format!("unknown key {}", named(key, origin)));
        let sections = self.0.keys().filter_map(|key| key.split('.').next());
        let near = match key.contains('.') {
            true => nearest(key, self.0.keys().map(String::as_str)),
            false => nearest(key, sections),
        };
        match near {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint("`paperboy config show` lists every setting"),
        }
    }

    /// Never repeats the value: it may be a secret.
    fn wrong_type(&self, key: &str, given: Option<&Value>, origin: &Origin) -> Fault {
        let default = &Settings::default_of(key);
        let given = given.map(|value| format!(", not {}", type_words(value))).unwrap_or_default();
        let message = format!("{} must be {}{given}", named(key, origin), type_words(default));
        let example = match origin {
            Origin::Environment(variable) => format!("{variable}={}", as_variable(default)),
            _ => format!("{} = {default}", key.rsplit('.').next().unwrap_or(key)),
        };
        Fault::new(key, message).hint(format!("the default is `{example}`"))
    }

    fn default_of(key: &str) -> Value {
        // What is there now has the default's type, but may be a secret from an earlier layer.
        Settings::defaults().get(key).value.clone()
    }
}

/// `broker.url` → `PAPERBOY__BROKER__URL`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn named(key: &str, origin: &Origin) -> String {
    match origin {
        Origin::Default | Origin::Flag => format!("`{key}`"),
        Origin::File(path) => format!("`{key}` in `{}`", path.display()),
        Origin::Environment(variable) => format!("`{key}` from `{variable}`"),
    }
}

/// Gives the value in the type of the default, if it has it; a whole number is also a number.
fn fit(default: &Value, given: &Value) -> Option<Value> {
    match (default, given) {
        (Value::Float(_), Value::Integer(number)) => Some(Value::Float(*number as f64)),
        (Value::Array(_), Value::Array(items)) if !items.iter().all(Value::is_str) => None,
        (default, given) if default.same_type(given) => Some(given.clone()),
        _ => None,
    }
}

fn read_text(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.into())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.into())).collect()))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn as_variable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn type_words(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "`true` or `false`",
        Value::Datetime(_) => "a date",
        Value::Array(items) if items.iter().all(Value::is_str) => "a list of strings",
        Value::Array(_) => "a list of other things",
        Value::Table(_) => "a table",
    }
}
