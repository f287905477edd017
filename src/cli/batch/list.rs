//! `paperboy batch list`.

use clap::Args;
use serde_json::Value;

use super::tenant;
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::desk::batches::row_json;
use crate::domain::batch::State;
use crate::store::batches::{BatchFilter, BatchRow};

/// Batches read at a time.
const PAGE: u32 = 500;

/// List batches, newest first.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy batch list --tenant acme --state closed
  paperboy batch list --json --limit 1000")]
pub(in crate::cli) struct List {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// Only those that are `open`, `closed` (some documents are not finished) or `completed`
    #[arg(long)]
    state: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl List {
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let mut filter = BatchFilter {
            tenant: self.tenant.as_deref().map(tenant).transpose()?,
            state: self.state()?,
            ..BatchFilter::default()
        };
        let caller = services::caller();
        let mut rows: Vec<BatchRow> = Vec::new();
        while rows.len() < self.limit as usize {
            filter.limit = PAGE.min(self.limit - u32::try_from(rows.len()).unwrap_or(self.limit));
            let page = desk.batches(&caller, filter.clone()).await?;
            let is_last = page.len() < filter.limit as usize;
            filter.before = page.last().map(|row| row.number);
            rows.extend(page);
            if is_last {
                break;
            }
        }
        print(common, &rows.iter().map(row_json).collect::<Vec<_>>());
        output::bounded(rows.len(), self.limit);
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        self.state()?;
        let query = [("tenant", self.tenant), ("state", self.state), ("cursor", None)];
        let rows = remote.list("/v1/batches", &query, self.limit).await?;
        print(common, &rows);
        output::bounded(rows.len(), self.limit);
        Ok(())
    }

    fn state(&self) -> Result<Option<State>, Failure> {
        let parse = |text: &str| {
            State::parse(text).ok_or_else(|| {
                Failure::usage(format!("`--state {text}` is no state of a batch"))
                    .hint("write `open`, `closed` or `completed`")
            })
        };
        self.state.as_deref().map(parse).transpose()
    }
}

fn print(common: &Common, batches: &[Value]) {
    if common.json {
        batches.iter().for_each(output::json_line);
        return;
    }
    let text = |value: &Value| output::printable(value.as_str().unwrap_or("-"));
    let rows = batches.iter().map(|batch| {
        vec![
            text(&batch["id"]),
            text(&batch["tenant"]),
            text(&batch["state"]),
            format!("{}/{}", batch["finished"], batch["documents"]),
            batch["late"].to_string(),
            text(&batch["opened_at"]),
            text(&batch["closed_at"]),
            text(&batch["completed_at"]),
        ]
    });
    let head = ["id", "tenant", "state", "finished", "late", "opened", "closed", "completed"];
    output::table(&head, rows.collect(), "no batches");
}
