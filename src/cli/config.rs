//! `paperboy config show|check`.

use clap::Subcommand;
use serde_json::json;

use super::{Common, Failure, output};
use crate::config::{self, Role};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Print every setting in force, where it came from, and no secret
    Show,
    /// List everything that is wrong with the settings at once
    Check,
}

impl Command {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        let sources = common.sources()?;
        match self {
            Command::Show => {
                let text = config::show(&sources).map_err(Failure::config)?;
                if common.json {
                    let table: toml::Table = text.parse().map_err(anyhow::Error::from)?;
                    output::json_line(&serde_json::to_value(table).map_err(anyhow::Error::from)?);
                } else {
                    print!("{text}");
                }
            }
            Command::Check => {
                let checked = config::load(&sources).map_err(Failure::config)?;
                let mut warnings = checked.warnings();
                let as_worker = config::check_role(&checked, Role::Worker);
                warnings
                    .extend(as_worker.iter().map(|fault| format!("for `--role worker`: {}", fault.message)));
                if common.json {
                    output::json_line(&json!({ "fine": true, "warnings": warnings }));
                    return Ok(());
                }
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
                eprintln!("the configuration is fine");
            }
        }
        Ok(())
    }
}
