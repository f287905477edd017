//! Names on the broker that are one command's own, and their removal.

use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::timeout;

use crate::cli::{Failure, services};
use crate::config::Config;

/// Nothing of the clean-up on broker and Redis may take longer.
pub(in crate::cli) const REMOVE_WITHIN: Duration = Duration::from_secs(30);

/// The caller's services under a prefix nobody else has: `word` and random letters.
pub(in crate::cli) fn own(mut config: Config, word: &str) -> Result<Config, Failure> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
    config.broker.prefix = format!("{word}-{}", HEXLOWER.encode(&random));
    config.broker.declare = true;
    Ok(config)
}

/// Deletes everything of the prefix from RabbitMQ; how many queues that were.
pub(in crate::cli) async fn remove_queues(config: &Config) -> Result<usize, Failure> {
    match timeout(REMOVE_WITHIN, services::remove_topology(config)).await {
        Ok(Ok(queues)) => Ok(queues),
        Ok(Err(failure)) => {
            eprintln!("`{}.*` stays on the broker", config.broker.prefix);
            Err(failure)
        }
        Err(_) => Err(left_behind(config, "queues on RabbitMQ", "no answer")),
    }
}

/// What stays of the prefix, and why.
pub(in crate::cli) fn left_behind(config: &Config, what: &str, why: &str) -> Failure {
    Failure::world(format!("the {what} could not be deleted: {why}"))
        .hint(format!("delete what begins with `{}`", config.broker.prefix))
}
