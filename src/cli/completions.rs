//! `paperboy completions`: a script that lets a shell complete commands and flags.

use std::io::Write as _;

use clap::{Args, Command, ValueEnum};
use clap_complete::shells;

use super::Failure;

/// A script that lets a shell complete commands and flags.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy completions bash > ~/.local/share/bash-completion/completions/paperboy
  paperboy completions zsh > ~/.zfunc/_paperboy
  paperboy completions fish > ~/.config/fish/completions/paperboy.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Result<(), Failure> {
        let name = command.get_name().to_owned();
        // Into memory first: the generator panics when its reader is gone.
        let mut script = Vec::new();
        match self.shell {
            Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
            Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
            Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
        }
        std::io::stdout().write_all(&script).map_err(anyhow::Error::from)?;
        Ok(())
    }
}
