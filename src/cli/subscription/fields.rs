//! The fields of a subscription that have flags of their own.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Failure;

/// What a subscription is for, in the simple case.
#[derive(Args, Debug)]
pub(super) struct Fields {
    /// Where to; `:id` is the document's id
    #[arg(long)]
    pub(super) url: Option<String>,
    /// Which events, in AMQP topic words; several with commas or by repeating the flag
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    pub(super) events: Vec<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Only events of this scope, such as `inbox=i7`; repeat for more
    #[arg(long, value_name = "KEY=VALUE")]
    scope: Vec<String>,
}

impl Fields {
    /// A document with what was given and nothing else.
    pub(super) fn document(&self) -> Result<Value, Failure> {
        let mut scope: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for pair in &self.scope {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(
                    Failure::usage(format!("`--scope {pair}` has no `=`")).hint("write `--scope inbox=i7`")
                );
            };
            scope.entry(key).or_default().push(value);
        }
        let mut document = json!({});
        if let Some(url) = &self.url {
            document["request"] = json!({ "url": url });
        }
        if !self.events.is_empty() {
            document["events"] = json!(self.events);
        }
        if let Some(name) = &self.name {
            document["name"] = json!(name);
        }
        if !scope.is_empty() {
            document["scope"] = json!(scope);
        }
        Ok(document)
    }
}
