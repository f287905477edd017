//! How a command with a stage ended, and what it says after its clean-up.

use crate::cli::Failure;

/// How the play ended.
pub(in crate::cli) enum Ending<T> {
    Played(Result<T, Failure>),
    Interrupted,
}

impl<T> Ending<T> {
    /// The command's result after the clean-up; an interrupted command exits here, with 130.
    pub(in crate::cli) fn conclude(self, cleaned: Result<(), Failure>) -> Result<T, Failure> {
        match self {
            Ending::Played(Ok(value)) => cleaned.map(|()| value),
            Ending::Played(Err(failure)) => {
                // The reason comes last: it is what people look for.
                if let Err(failure) = cleaned {
                    failure.report();
                }
                Err(failure)
            }
            Ending::Interrupted => {
                if let Err(failure) = cleaned {
                    failure.report();
                }
                std::process::exit(130);
            }
        }
    }
}
