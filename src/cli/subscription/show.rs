//! `paperboy subscription show`.

use super::{id, missing};
use crate::cli::{Common, Failure, output};
use crate::store::Store;

pub(super) async fn run(common: &Common, store: &Store, text: &str) -> Result<(), Failure> {
    let spec = store.subscription(&id(text)?).await?.ok_or_else(|| missing(text))?;
    let value = serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?;
    if common.json {
        output::json_line(&value);
    } else {
        println!("{}", serde_json::to_string_pretty(&value).map_err(anyhow::Error::from)?);
    }
    Ok(())
}
