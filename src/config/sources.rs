//! `[[sources]]`: a list of tables, which only a file can hold.

use std::path::PathBuf;

use toml::{Table, Value};

use super::load::merge;
use super::{Fault, Sources};
use crate::domain::source::Source;

/// The tables as they stand in a file.
#[derive(Default)]
pub(super) struct SourceTables {
    path: PathBuf,
    tables: Option<Value>,
}

impl SourceTables {
    /// Takes `sources` out of a file's tables.
    pub(super) fn take(path: PathBuf, file: &mut Table) -> SourceTables {
        SourceTables { path, tables: file.remove("sources") }
    }

    /// Reads every source. `prefix` is that of our own queues, which are none.
    pub(super) fn check(&self, prefix: &str, faults: &mut Vec<Fault>) -> Vec<Source> {
        let tables = match &self.tables {
            None => return Vec::new(),
            Some(Value::Array(tables)) => tables.as_slice(),
            Some(_) => {
                let fault = self.fault("sources", "must be a list of tables");
                faults.push(fault.hint("write `[[sources]]` on a line of its own for each"));
                return Vec::new();
            }
        };
        // With their places in the file, which are what a fault names.
        let mut sources: Vec<(usize, Source)> = Vec::new();
        for (place, table) in tables.iter().enumerate() {
            let document = serde_json::to_value(table).unwrap_or_default();
            match Source::read(document) {
                Ok(source) => {
                    self.check_own(place, &source, prefix, &sources, faults);
                    sources.push((place, source));
                }
                Err(found) => faults.extend(found.into_iter().map(|fault| {
                    let fault = fault.under(&format!("sources[{place}]"));
                    Fault { hint: fault.hint, ..self.fault(&fault.field, &fault.message) }
                })),
            }
        }
        sources.into_iter().map(|(_, source)| source).collect()
    }

    /// What a source may not share: a name, a queue, and a queue with paperboy itself.
    fn check_own(
        &self,
        place: usize,
        source: &Source,
        prefix: &str,
        others: &[(usize, Source)],
        faults: &mut Vec<Fault>,
    ) {
        let field = |name: &str| format!("sources[{place}].{name}");
        if let Some((first, _)) = others.iter().find(|(_, other)| other.name == source.name) {
            faults.push(self.fault(&field("name"), &format!("is that of `sources[{first}]` already")));
        }
        if let Some((first, _)) = others.iter().find(|(_, other)| other.queue == source.queue) {
            let rest = format!("is that of `sources[{first}]` already");
            faults.push(
                self.fault(&field("queue"), &rest).hint("each message goes to one of its consumers only"),
            );
        }
        if source.queue.starts_with(&format!("{prefix}.")) {
            let fault = self.fault(&field("queue"), "is a queue of paperboy itself");
            faults.push(fault.hint("a source takes from a queue that somebody else fills"));
        }
    }

    fn fault(&self, key: &str, rest: &str) -> Fault {
        Fault::new(key, format!("`{key}` in `{}` {rest}", self.path.display()))
    }

    /// The tables as TOML, with where they come from; nothing where there are none.
    pub(super) fn show(&self) -> String {
        let Some(tables) = &self.tables else { return String::new() };
        let sources = Table::from_iter([("sources".to_owned(), tables.clone())]);
        format!("\n# file {}\n{sources}", self.path.display())
    }
}

/// The sources of the configuration as they were written, not checked; none where the file cannot be read.
pub fn source_documents(sources: &Sources) -> Vec<serde_json::Value> {
    match merge(sources).sources.tables {
        Some(Value::Array(tables)) => {
            tables.into_iter().map(|table| serde_json::to_value(table).unwrap_or_default()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, load, show};

    fn faults(file: &str) -> Vec<String> {
        let loaded = load(&Sources::from_text(Some(file), &[]));
        loaded.unwrap_err().into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn sources_are_read_from_a_file_and_shown() {
        let file = r#"
            [broker]
            prefetch = 9
            [[sources]]
            name = "legacy"
            queue = "webhooks"
            tenant = "/organization"
            scope = { inbox = "/data/inbox" }
            [[sources]]
            name = "other"
            queue = "more"
            prefetch = 7
            tenant = "acme"
        "#;
        let sources = Sources::from_text(Some(file), &[]);
        let config = load(&sources).unwrap();
        let named: Vec<_> =
            config.sources.iter().map(|source| (source.name.as_str(), source.prefetch)).collect();
        assert_eq!(named, [("legacy", 32), ("other", 7)]);
        let shown = show(&sources).unwrap();
        let again = load(&Sources::from_text(Some(&shown), &[])).unwrap();
        assert_eq!(again.sources.len(), 2);
        assert!(shown.contains("\n# file paperboy.toml\n[[sources]]\n"), "{shown}");
        assert!(load(&Sources::default()).unwrap().sources.is_empty());
    }

    #[test]
    fn every_fault_of_every_source_is_listed() {
        let file = r#"
            [[sources]]
            name = "a"
            queue = "q"
            tenant = "t"
            typ = "/event"
            [[sources]]
            name = "b"
            queue = "paperboy.events"
            tenant = "t"
            [[sources]]
            name = "b"
            queue = "paperboy.events"
            tenant = "/~"
            [[sources]]
            name = "b"
            queue = "paperboy.events"
            tenant = "t"
        "#;
        let place = "in `paperboy.toml`";
        assert_eq!(
            faults(file),
            [
                format!("`sources[0].typ` {place} is unknown"),
                format!("`sources[1].queue` {place} is a queue of paperboy itself"),
                format!(
                    "`sources[2].tenant` {place} is no pointer: in a JSON Pointer `~` stands only in `~0` (for `~`) and `~1` (for `/`)"
                ),
                format!("`sources[3].name` {place} is that of `sources[1]` already"),
                format!("`sources[3].queue` {place} is that of `sources[1]` already"),
                format!("`sources[3].queue` {place} is a queue of paperboy itself"),
            ]
        );
        assert_eq!(
            faults("[sources]\nname = \"a\""),
            [format!("`sources` {place} must be a list of tables")]
        );
    }
}
