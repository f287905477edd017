//! Why a command failed, for people: what is wrong, what to do, and the exit code.

use std::process::ExitCode;

use crate::config::Fault;

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
    pub fn config(faults: Vec<Fault>) -> Failure {
        let problem = |fault: Fault| Problem { message: fault.message, hint: fault.hint };
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
