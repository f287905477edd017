//! `paperboy audit list`: who changed what.

use clap::{Args, Subcommand};

use super::{Common, Failure, output, services};
use crate::desk::audit::line_json;
use crate::domain::name::Tenant;
use crate::store::{AuditFilter, AuditLine, Store};

/// Lines read at a time.
const PAGE: u32 = 500;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List who changed subscriptions, keys and dead letters, newest first
    List(List),
}

/// List who changed what.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy audit list --tenant acme --since 24h
  paperboy audit list --object sub_1 --json")]
pub(super) struct List {
    /// Only what is this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// Only this subscription, key or dead letter
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Only from then on: `90m`, `24h`, `7d`, or a time such as `2026-11-22T09:00:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let Command::List(list) = self;
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = list.run(common, &store).await;
        store.close().await;
        done
    }
}

impl List {
    async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let tenant = self.tenant.as_deref().map(|text| {
            Tenant::parse(text).map_err(|fault| Failure::usage(format!("`{text}` is not a tenant: {fault}")))
        });
        let mut filter = AuditFilter {
            tenant: tenant.transpose()?,
            object: self.object.clone(),
            since_ms: self.since.as_deref().map(since).transpose()?,
            ..AuditFilter::default()
        };
        let mut lines: Vec<AuditLine> = Vec::new();
        while lines.len() < self.limit as usize {
            filter.limit = PAGE.min(self.limit - u32::try_from(lines.len()).unwrap_or(self.limit));
            let page = store.audit(&filter).await?;
            let is_last = page.len() < filter.limit as usize;
            filter.before_id = page.last().map(|line| line.id);
            lines.extend(page);
            if is_last {
                break;
            }
        }
        output::bounded(lines.len(), self.limit);
        if common.json {
            lines.iter().for_each(|line| output::json_line(&line_json(line, false)));
            return Ok(());
        }
        let cells = lines.iter().map(|line| {
            vec![
                output::moment(line.at_ms),
                output::printable(&line.actor),
                line.action.clone(),
                line.tenant.clone().unwrap_or_else(|| "-".into()),
                output::printable(&line.object),
                output::printable(&line.detail.to_string()),
            ]
        });
        output::table(
            &["at", "who", "what", "tenant", "object", "detail"],
            cells.collect(),
            "nothing was changed",
        );
        Ok(())
    }
}

/// So long ago, or a time; Unix milliseconds.
fn since(text: &str) -> Result<i64, Failure> {
    let unit_s = |unit: &str| match unit {
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let ago = text
        .split_at_checked(text.len().saturating_sub(1))
        .and_then(|(number, unit)| number.parse::<u32>().ok().map(i64::from)?.checked_mul(unit_s(unit)?));
    let time = match ago {
        Some(ago_s) => Some(jiff::Timestamp::now().as_millisecond() - ago_s * 1_000),
        None => text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()),
    };
    time.ok_or_else(|| {
        Failure::usage(format!("`--since {text}` is no time"))
            .hint("write `24h`, `7d` or `2026-11-22T09:00:00Z`")
    })
}
