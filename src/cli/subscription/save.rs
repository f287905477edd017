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
    let counter = store.save_subscriptions(added, changed).await.map_err(failure)?;
    services::spread(config, store, counter, wait).await
}

/// As [`all`], and removes others of which nobody changed anything meanwhile.
pub(super) async fn everything(
    config: &Config,
    store: &Store,
    added: Vec<SubscriptionSpec>,
    changed: Vec<Versioned>,
    removed: Vec<Versioned>,
    wait: bool,
) -> Result<(), Failure> {
    let counter = store.apply_subscriptions(added, changed, removed).await.map_err(failure)?;
    services::spread(config, store, counter, wait).await
}

/// Writes one change over the version it was made from, and waits as [`all`] does.
pub(super) async fn one(
    config: &Config,
    store: &Store,
    changed: Versioned,
    wait: bool,
) -> Result<(), Failure> {
    let counter = store.update_subscription(changed).await.map_err(failure)?;
    services::spread(config, store, counter, wait).await
}

fn failure(error: SaveError) -> Failure {
    let hint = match error {
        SaveError::IdTaken { .. } => {
            "leave `id` out, or change the one that is there with `paperboy subscription import`"
        }
        SaveError::Changed { .. } => "nothing was written; look at it again and repeat the change",
        SaveError::Other(error) => return Failure::from(error),
    };
    Failure::world(error.to_string()).hint(hint)
}

/// A secret that was made, for people.
pub(super) fn print_secret(secret: &Secret) {
    println!("secret: {}", secret.expose());
    eprintln!("the secret is shown this once; give it to the receiver");
}
