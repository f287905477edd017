//! Telling people what was written, and why it was not.

use crate::cli::Failure;
use crate::desk::Refused;
use crate::domain::secret::Secret;
use crate::store::SaveError;

pub(super) fn failure(error: SaveError) -> Failure {
    Refused::from(error).into()
}

/// A secret that was made, for people.
pub(super) fn print_secret(secret: &Secret) {
    println!("secret: {}", secret.expose());
    eprintln!("the secret is shown this once; give it to the receiver");
}

/// What people should know of a change.
pub(super) fn print_warning(warning: Option<&String>) {
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
}
