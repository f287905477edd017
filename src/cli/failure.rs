//! Why a command failed, for people: what is wrong, what to do, and the exit code.

use std::process::ExitCode;

use crate::config;
use crate::desk::Refused;
use crate::domain::fault::Fault;
use crate::domain::preset::Second;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    problems: Vec<Problem>,
}

const WORLD: u8 = 1;
const USAGE: u8 = 2;
const CONFIG: u8 = 64;

impl Failure {
    fn new(code: u8, message: String) -> Failure {
        Failure { code, problems: vec![Problem { message, hint: None }] }
    }

    /// The world disagrees, or the command failed: exit 1.
    pub fn world(message: impl Into<String>) -> Failure {
        Failure::new(WORLD, message.into())
    }

    /// The command was called wrong: exit 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(USAGE, message.into())
    }

    /// Several things are wrong with what was given: exit 2, all listed.
    pub fn refused(problems: Vec<Problem>) -> Failure {
        Failure { code: USAGE, problems }
    }

    /// Several things of the world are not as they must be: exit 1, all listed.
    pub fn world_disagrees(problems: Vec<Problem>) -> Failure {
        Failure { code: WORLD, problems }
    }

    /// The configuration is wrong by itself: exit 64, all faults listed.
    pub fn config(faults: Vec<config::Fault>) -> Failure {
        let problem = |fault: config::Fault| Problem { message: fault.message, hint: fault.hint };
        Failure { code: CONFIG, problems: faults.into_iter().map(problem).collect() }
    }

    /// Adds what to do about the last problem.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        if let Some(problem) = self.problems.last_mut() {
            problem.hint = Some(hint.into());
        }
        self
    }

    /// Adds a hint where there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<impl Into<String>>) -> Failure {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Whether what was given is at fault.
    pub(crate) fn is_usage(&self) -> bool {
        self.code == USAGE
    }

    /// All of it in one line, without hints.
    pub(crate) fn text(&self) -> String {
        self.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Prints everything to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        for problem in &self.problems {
            eprintln!("error: {}", problem.message);
            if let Some(hint) = &problem.hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::world(format!("{error:#}"))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        let text = refused.to_string();
        match refused {
            Refused::Faults(faults) => Failure::refused(faults.into_iter().map(Problem::from).collect()),
            Refused::Missing { what, .. } => {
                let words = match what {
                    "dead letter" => "dead list",
                    "replay" => "dead jobs",
                    "key" => "key list",
                    "batch" => "batch list",
                    _ => "subscription list",
                };
                Failure::world(text).hint(format!("`paperboy {words}` shows them"))
            }
            Refused::Forbidden(_) => Failure::world(text),
            Refused::Stale { .. } => {
                Failure::world(text).hint("nothing was written; look at it again and repeat the change")
            }
            Refused::Busy(_) => Failure::world(text),
            Refused::Conflict { hint, .. } => Failure::world(text).hint(hint),
            Refused::Second { preset, id } => Failure::world(text).hint(match preset.rules.second {
                Some(Second::Update) => format!("change it: `paperboy subscription update {id}`"),
                Some(Second::Refuse) | None => {
                    format!("remove it first: `paperboy subscription remove {id}`")
                }
            }),
            Refused::Failed(error) => Failure::from(error),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        let message = match fault.field.as_str() {
            "" => fault.message,
            field => format!("`{field}`: {}", fault.message),
        };
        Problem { message, hint: fault.hint }
    }
}

impl From<crate::broker::rabbitmq::StartError> for Failure {
    fn from(error: crate::broker::rabbitmq::StartError) -> Failure {
        let hint = error.hint();
        Failure::world(error.to_string()).maybe_hint(hint)
    }
}

impl From<crate::store::OpenError> for Failure {
    fn from(error: crate::store::OpenError) -> Failure {
        let hint = error.hint();
        Failure::world(error.to_string()).maybe_hint(hint)
    }
}
