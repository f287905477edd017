//! `paperboy batch show`.

use clap::Args;
use serde_json::Value;

use super::{path, tenant};
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::desk::batches::shown_json;

/// Show one batch with its first 1,000 documents.
#[derive(Args, Debug)]
pub(in crate::cli) struct Show {
    /// Its id, as documents name it
    id: String,
    /// Whose it is, where several tenants have one of that id
    #[arg(long)]
    tenant: Option<String>,
}

impl Show {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref().map(tenant).transpose()?;
        let (row, members) = desk.batch(&services::caller(), tenant, &self.id).await?;
        print(common, &shown_json(&row, &members));
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref().map(tenant).transpose()?;
        print(common, &remote.get(&path(&self.id, "", tenant.as_ref())).await?);
        Ok(())
    }
}

fn print(common: &Common, batch: &Value) {
    if common.json {
        output::json_line(batch);
        return;
    }
    let text = |value: &Value| output::printable(value.as_str().unwrap_or("-"));
    println!("batch      {} of tenant {}", text(&batch["id"]), text(&batch["tenant"]));
    let is_asked = batch["close_asked"] == true && batch["state"] == "open";
    println!(
        "state      {}{}",
        text(&batch["state"]),
        if is_asked { ", to be closed in a moment" } else { "" }
    );
    println!("documents  {}, {} finished, {} late", batch["documents"], batch["finished"], batch["late"]);
    for (name, member) in [
        ("opened", "opened_at"),
        ("last", "last_document_at"),
        ("closes", "closes_at"),
        ("closed", "closed_at"),
        ("completed", "completed_at"),
        ("event", "event"),
    ] {
        if batch[member].is_string() {
            println!("{name:<10} {}", text(&batch[member]));
        }
    }
    let members = batch["members"].as_array().into_iter().flatten().map(|member| {
        vec![
            text(&member["document_id"]),
            text(&member["joined_at"]),
            text(&member["outcome"]),
            text(&member["at"]),
            if member["late"] == true { "late" } else { "" }.to_owned(),
        ]
    });
    output::table(&["document", "joined", "outcome", "at", ""], members.collect(), "no documents");
}
