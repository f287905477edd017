//! From a source's document to a source, with every fault listed at once.

use serde_json::{Map, Value};

use super::mapping::Spot;
use super::{Mapping, Source};
use crate::domain::fault::Fault;
use crate::domain::pointer::{Pointer, PointerSet};

/// AMQP's short strings (0-9-1 §4.2.5.3).
const QUEUE_BYTES_MAX: usize = 255;
const PREFETCH: std::ops::RangeInclusive<u16> = 1..=1000;
const PREFETCH_DEFAULT: u16 = 32;
const SPOT_BYTES_MAX: usize = 1024;
const SCOPE_KEYS_MAX: usize = 32;

/// Everything a source's document may hold.
pub(super) const FIELDS: [&str; 11] =
    ["name", "queue", "prefetch", "tenant", "type", "id", "time", "document_id", "batch_id", "scope", "data"];

impl Source {
    /// Reads a source, such as `{"name": "legacy", "queue": "webhooks", "tenant": "/organization", "type": "/event"}`.
    ///
    /// # Errors
    /// Every fault; their fields begin below the source itself.
    pub fn read(document: Value) -> Result<Source, Vec<Fault>> {
        let Value::Object(fields) = document else {
            return Err(vec![Fault::new("", "must be a table")]);
        };
        let mut reader = Reader { fields, pointers: PointerSet::default(), faults: Vec::new() };
        reader.unknown();
        let name = reader.name();
        let queue = reader.queue();
        let prefetch = reader.prefetch();
        let tenant = reader.spot("tenant");
        if tenant.is_none() && !reader.fields.contains_key("tenant") {
            let fault = Fault::new("tenant", "is missing");
            reader
                .faults
                .push(fault.hint("write where it stands, `/organization`, or the tenant itself, `acme`"));
        }
        let [kind, id, time, document_id, batch_id] =
            ["type", "id", "time", "document_id", "batch_id"].map(|field| reader.spot(field));
        let scope = reader.scope();
        let data = reader.data();
        let (Some(name), Some(queue), Some(tenant), Some(data)) = (name, queue, tenant, data) else {
            return Err(reader.faults);
        };
        if !reader.faults.is_empty() {
            return Err(reader.faults);
        }
        let mapping = Mapping {
            source: name.clone(),
            pointers: reader.pointers,
            tenant,
            kind,
            id,
            time,
            document_id,
            batch_id,
            scope,
            data,
        };
        Ok(Source { name, queue, prefetch, mapping })
    }
}

struct Reader {
    fields: Map<String, Value>,
    pointers: PointerSet,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault<T>(&mut self, field: &str, message: impl Into<String>, hint: &str) -> Option<T> {
        self.faults.push(Fault::new(field, message).hint(hint));
        None
    }

    fn unknown(&mut self) {
        let unknown = self.fields.keys().filter(|name| !FIELDS.contains(&name.as_str()));
        let known = FIELDS.map(|name| format!("`{name}`")).join(", ");
        let faults: Vec<Fault> =
            unknown.map(|name| Fault::new(name, "is unknown").hint(format!("known are {known}"))).collect();
        self.faults.extend(faults);
    }

    /// A field that must be a text; the outer `None` after a fault.
    fn text(&mut self, field: &str) -> Option<Option<String>> {
        match self.fields.get(field) {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text.clone())),
            Some(_) => self.fault(field, "must be a text", "write it in quotes"),
        }
    }

    fn name(&mut self) -> Option<String> {
        const RULE: &str = "[a-z0-9][a-z0-9._-]{0,63}";
        let name = self.text("name")?.unwrap_or_default();
        let is_good = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
            && name.starts_with(|char: char| char.is_ascii_alphanumeric());
        if is_good {
            return Some(name);
        }
        let hint = "name it after what it brings, `legacy`: metrics and the ids it makes carry the name";
        self.fault("name", format!("must match {RULE}"), hint)
    }

    fn queue(&mut self) -> Option<String> {
        let queue = self.text("queue")?.unwrap_or_default();
        if (1..=QUEUE_BYTES_MAX).contains(&queue.len()) {
            return Some(queue);
        }
        let message = format!("must be the name of a queue, 1 to {QUEUE_BYTES_MAX} bytes");
        self.fault("queue", message, "it is never declared: write the name it has")
    }

    fn prefetch(&mut self) -> u16 {
        let Some(value) = self.fields.get("prefetch") else { return PREFETCH_DEFAULT };
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        number.filter(|number| PREFETCH.contains(number)).unwrap_or_else(|| {
            let message = format!("must be a whole number from {} to {}", PREFETCH.start(), PREFETCH.end());
            self.faults.push(Fault::new("prefetch", message));
            PREFETCH_DEFAULT
        })
    }

    fn spot(&mut self, field: &str) -> Option<Spot> {
        let text = self.text(field)??;
        self.spot_of(field, &text)
    }

    fn spot_of(&mut self, field: &str, text: &str) -> Option<Spot> {
        if text.is_empty() || text.len() > SPOT_BYTES_MAX {
            let hint = "a pointer such as `/data/id`, or a text that does not begin with `/` and is meant as it stands";
            return self.fault(field, format!("must have 1 to {SPOT_BYTES_MAX} bytes"), hint);
        }
        if text.starts_with('/') { self.pointer(field, text) } else { Some(Spot::Constant(text.to_owned())) }
    }

    fn pointer(&mut self, field: &str, text: &str) -> Option<Spot> {
        match Pointer::parse(text) {
            Ok(pointer) => Some(Spot::At(self.pointers.add(pointer), text.to_owned())),
            Err(fault) => self.fault(field, format!("is no pointer: {fault}"), "write `/data/id`"),
        }
    }

    fn scope(&mut self) -> Vec<(String, Spot)> {
        let entries = match self.fields.get("scope") {
            None => return Vec::new(),
            Some(Value::Object(entries)) if entries.len() <= SCOPE_KEYS_MAX => entries.clone(),
            Some(_) => {
                let message = format!("must be a table of at most {SCOPE_KEYS_MAX} texts");
                self.fault::<()>("scope", message, "write `scope = { inbox = \"/data/inbox\" }`");
                return Vec::new();
            }
        };
        let mut scope = Vec::new();
        for (key, value) in entries {
            let field = format!("scope.{key}");
            match value.as_str() {
                Some(text) => scope.extend(self.spot_of(&field, text).map(|spot| (key, spot))),
                None => drop(self.fault::<()>(&field, "must be a text", "write it in quotes")),
            }
        }
        scope
    }

    /// The whole message unless something else is said.
    fn data(&mut self) -> Option<Spot> {
        let text = self.text("data")?.unwrap_or_default();
        self.pointer("data", &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(document: Value) -> Vec<String> {
        Source::read(document).unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn little_is_needed() {
        let source =
            Source::read(json!({ "name": "legacy", "queue": "webhooks", "tenant": "acme" })).unwrap();
        assert_eq!(
            (source.name.as_str(), source.queue.as_str(), source.prefetch),
            ("legacy", "webhooks", 32)
        );
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        assert_eq!(
            faults(json!({
                "name": "Über", "queue": "", "prefetch": 0, "tennant": "/a", "type": "", "id": 7, "time": "/~",
                "scope": { "inbox": 1, "x": "/~2" }, "data": "data",
            })),
            [
                "`tennant` is unknown",
                "`name` must match [a-z0-9][a-z0-9._-]{0,63}",
                "`queue` must be the name of a queue, 1 to 255 bytes",
                "`prefetch` must be a whole number from 1 to 1000",
                "`tenant` is missing",
                "`type` must have 1 to 1024 bytes",
                "`id` must be a text",
                "`time` is no pointer: in a JSON Pointer `~` stands only in `~0` (for `~`) and `~1` (for `/`)",
                "`scope.inbox` must be a text",
                "`scope.x` is no pointer: in a JSON Pointer `~` stands only in `~0` (for `~`) and `~1` (for `/`)",
                "`data` is no pointer: a JSON Pointer starts with `/`",
            ]
        );
        assert_eq!(faults(json!([])), ["must be a table"]);
    }
}
