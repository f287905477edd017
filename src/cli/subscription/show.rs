//! `paperboy subscription show`.

use serde_json::Value;

use super::{id, missing};
use crate::cli::remote::{Remote, segment};
use crate::cli::{Common, Failure, output};
use crate::store::Store;

pub(super) async fn run(common: &Common, store: &Store, text: &str) -> Result<(), Failure> {
    let spec = store.subscription(&id(text)?).await?.ok_or_else(|| missing(text))?;
    print(common, &serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?);
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
}
