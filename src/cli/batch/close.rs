//! `paperboy batch close`.

use clap::Args;
use serde_json::{Value, json};

use super::{path, tenant};
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::desk::batches::row_json;

/// Say that no document of a batch follows. It is closed as soon as what was published before has been taken.
#[derive(Args, Debug)]
pub(in crate::cli) struct Close {
    /// Its id, as documents name it
    id: String,
    /// Whose it is, where several tenants have one of that id
    #[arg(long)]
    tenant: Option<String>,
}

impl Close {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref().map(tenant).transpose()?;
        let row = desk.close_batch(&services::caller(), tenant, &self.id).await?;
        print(common, &row_json(&row));
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref().map(tenant).transpose()?;
        let path = path(&self.id, "/close", tenant.as_ref());
        print(common, &remote.post(&path, &json!({}), false).await?);
        Ok(())
    }
}

fn print(common: &Common, batch: &Value) {
    if common.json {
        output::json_line(batch);
        return;
    }
    let id = output::printable(batch["id"].as_str().unwrap_or_default());
    match batch["state"].as_str() {
        Some("open") => println!("batch `{id}` is closed in a moment"),
        state => println!("batch `{id}` is {} already", state.unwrap_or("closed")),
    }
}
