//! `paperboy subscription show`.

use serde_json::Value;

use super::{id, missing};
use crate::cli::remote::{Remote, segment};
use crate::cli::{Common, Failure, output};
use crate::store::Store;

pub(super) async fn run(common: &Common, store: &Store, text: &str) -> Result<(), Failure> {
    let id = id(text)?;
    let spec = store.subscription(&id).await?.ok_or_else(|| missing(text))?;
    print(common, &serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?);
    if let Some(failing) = store.failing(&id).await?.filter(|failing| failing.is_told) {
        let since = output::moment(failing.since_ms);
        eprintln!(
            "nothing but failures since {since}: {}, the last one `{}`",
            failing.failures, failing.class
        );
    }
    Ok(())
}

pub(super) async fn run_remote(common: &Common, remote: &Remote, text: &str) -> Result<(), Failure> {
    print(common, &remote.get(&format!("/v1/subscriptions/{}", segment(text))).await?);
    Ok(())
}

fn print(common: &Common, document: &Value) {
    if common.json {
        output::json_line(document);
    } else {
        println!("{document:#}");
    }
    if document["enabled"] == false && document["disabled_by"] == "paperboy" {
        let id = output::printable(document["id"].as_str().unwrap_or_default());
        eprintln!(
            "disabled by paperboy: its events become dead letters until `paperboy subscription enable {id}`"
        );
    }
}
