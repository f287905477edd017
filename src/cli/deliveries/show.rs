//! `paperboy deliveries show`.

use clap::Args;

use serde_json::Value;

use super::text::text;
use super::{Common, Failure, output, services};
use crate::config::Config;
use crate::desk::Desk;
use crate::desk::deliveries::Of;

/// Show the life of an event or a document.
#[derive(Args, Debug)]
#[command(
    after_help = "Times are UTC. The log goes back `delivery_log_days` days; dead letters are known for longer.

Examples:
  paperboy deliveries show evt_0192d7f0
  paperboy deliveries show --document a7046a49"
)]
pub(in crate::cli) struct Show {
    /// The event's id
    #[arg(value_name = "EVENT", required_unless_present = "document")]
    pub(super) event: Option<String>,
    /// Every event of this document instead
    #[arg(long, value_name = "ID", conflicts_with = "event")]
    pub(super) document: Option<String>,
    /// Only this tenant's
    #[arg(long)]
    pub(super) tenant: Option<String>,
}

impl Show {
    pub(super) async fn run(self, common: &Common, config: &Config, desk: &Desk) -> Result<(), Failure> {
        let of = Of { event: self.event, document: self.document, tenant: self.tenant };
        let lives = desk.lives(&services::caller(), &of).await?;
        if lives.is_empty() {
            return Err(nothing(of.event.as_deref(), of.document.as_deref(), config));
        }
        print(common, &lives, config.broker.delay_unit_ms);
        Ok(())
    }
}

/// Lives as they are told here and over the API; a unit of waiting lasts `unit_ms`.
pub(super) fn print(common: &Common, lives: &[Value], unit_ms: u32) {
    if common.json {
        lives.iter().for_each(output::json_line);
        return;
    }
    let texts: Vec<String> = lives.iter().map(|life| text(life, unit_ms)).collect();
    print!("{}", texts.join("\n"));
}

fn nothing(event: Option<&str>, document: Option<&str>, config: &Config) -> Failure {
    let what = match (event, document) {
        (Some(event), _) => format!("event `{}`", output::printable(event)),
        (None, document) => format!("document `{}`", output::printable(document.unwrap_or_default())),
    };
    let hint = match config.delivery_log.keep {
        crate::config::LogKeep::All => format!(
            "the delivery log goes back {} days and is written once a second; `paperboy status` shows what still waits",
            config.delivery_log.days
        ),
        crate::config::LogKeep::Failures => {
            "`delivery_log = \"failures\"` leaves out what was delivered at the first attempt".to_owned()
        }
        crate::config::LogKeep::Off => "`delivery_log` is `off`".to_owned(),
    };
    Failure::world(format!("nothing is known of {what}")).hint(hint)
}
