//! Writing to the store and telling every process.

use crate::cli::{Failure, services};
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{SaveError, Store, Versioned};

/// Writes all or none, and waits until every process uses it unless told otherwise.
pub(super) async fn all(
    config: &Config,
    store: &Store,
    added: Vec<SubscriptionSpec>,
    changed: Vec<Versioned>,
    wait: bool,
) -> Result<(), Failure> {
    let counter = store.save_subscriptions(added, changed).await.map_err(|error| match error {
        SaveError::IdTaken { .. } => Failure::world(error.to_string())
            .hint("leave `id` out, or change the one that is there with `paperboy subscription import`"),
        SaveError::Changed { .. } => Failure::world(error.to_string())
            .hint("nothing was written; look at it again and repeat your change"),
        SaveError::Other(error) => Failure::from(error),
    })?;
    services::spread(config, store, counter, wait).await
}

/// Writes one change over the version it was made from.
pub(super) async fn one(
    config: &Config,
    store: &Store,
    changed: Versioned,
    wait: bool,
) -> Result<(), Failure> {
    all(config, store, Vec::new(), vec![changed], wait).await
}

/// A secret that was made, for people.
pub(super) fn print_secret(secret: &Secret) {
    println!("secret: {}", secret.expose());
    eprintln!("the secret is shown this once; give it to the receiver");
}
