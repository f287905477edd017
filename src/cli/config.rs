//! `paperboy config show|check`.

use clap::Subcommand;

use super::{Common, Failure};
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
                print!("{text}");
            }
            Command::Check => {
                let checked = config::load(&sources).map_err(Failure::config)?;
                for warning in checked.warnings() {
                    eprintln!("warning: {warning}");
                }
                for fault in config::check_role(&checked, Role::Worker) {
                    eprintln!("warning: for `--role worker`: {}", fault.message);
                }
                eprintln!("the configuration is fine");
            }
        }
        Ok(())
    }
}
