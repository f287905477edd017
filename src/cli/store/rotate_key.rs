//! `paperboy store rotate-key`: every secret sealed with `secrets.key`, while processes run.

use clap::Args;
use serde_json::json;

use crate::cache::redis::Redis;
use crate::cli::failure::Problem;
use crate::cli::{Common, Failure, heartbeat, output, services};
use crate::config::Config;
use crate::store::{Resealed, Store};

/// Seal every secret with `secrets.key`.
#[derive(Args, Debug)]
#[command(after_help = "First give every process the new key as `secrets.key` and the old one among \
`secrets.old_keys`, and restart them one after the other. Afterwards the old one can go. Stopped half-way it can be \
run again.

Example:
  paperboy store rotate-key --dry-run
  paperboy store rotate-key --yes")]
pub(in crate::cli) struct RotateKey {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask where nobody can tell whether every process holds the new key
    #[arg(long)]
    yes: bool,
}

impl RotateKey {
    pub(super) async fn run(self, common: &Common, config: &Config) -> Result<(), Failure> {
        let store = services::open_store(config).await?;
        let done = self.rotate(common, config, &store).await;
        store.close().await;
        done
    }

    async fn rotate(&self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let newest = store.keys().newest().check_value();
        let old = usize::try_from(store.count_sealed_before().await?).unwrap_or(usize::MAX);
        if self.dry_run {
            if common.json {
                output::json_line(&json!({ "dry_run": true, "key_check": newest, "records": old }));
            } else {
                eprintln!("would seal {} with key {newest}", output::count(old, "record"));
            }
            return Ok(());
        }
        let redis = services::redis(config)?;
        if store.key_check() != newest {
            match &redis {
                Some(redis) if all_hold(redis, &newest).await? => {}
                Some(_) => output::confirm(NONE_HEARD, self.yes)?,
                None => output::confirm(NOBODY_KNOWS, self.yes)?,
            }
        }
        let before = store.change_key().await?;
        if let Some(redis) = &redis {
            tell(redis, store, &before).await;
        }
        let bar = output::progress_of(old, "records");
        let resealed = store.seal_anew(|done| bar.set_position(done)).await?;
        bar.finish_and_clear();
        if let Some(redis) = &redis {
            // By now nobody seals a record for Redis with the old key.
            tokio::time::sleep(config.cache.refresh()).await;
            if let Err(error) = redis.forget_records_without(&store.keys().newest().mark()).await {
                eprintln!("warning: records in Redis keep the old key for a day ({error})");
            }
        }
        report(common, &newest, &resealed)
    }
}

const NOBODY_KNOWS: &str =
    "without `redis.url` nobody can tell whether every process holds the new key; does every one?";

const NONE_HEARD: &str = "Redis knows of no running process; does every one hold the new key?";

/// No process is left behind: one without the new key would take nothing more. False where none is heard of, which
/// may be because none runs, or because they use another Redis.
async fn all_hold(redis: &Redis, newest: &str) -> Result<bool, Failure> {
    let heard = heartbeat::heard(redis).await.map_err(|error| {
        Failure::world(format!("Redis cannot be asked whether every process holds the new key: {error}"))
            .hint("bring Redis back and run this again")
    })?;
    let without = heard.iter().filter(|process| !process.keys.iter().any(|key| key == newest));
    let problems: Vec<Problem> = without
        .map(|process| Problem {
            message: format!("{} does not hold key {newest}", process.place()),
            hint: Some(
                "set `secrets.key` to the new key there, name the old one in `secrets.old_keys`, and restart it"
                    .to_owned(),
            ),
        })
        .collect();
    if problems.is_empty() { Ok(!heard.is_empty()) } else { Err(Failure::world_disagrees(problems)) }
}

/// So that every process hears of it with its next look; without, the store tells them.
async fn tell(redis: &Redis, store: &Store, before: &str) {
    let (old, new) = (format!("{} {before}", store.id()), format!("{} {}", store.id(), store.key_check()));
    if let Err(error) = redis.claim_anew(&old, &new).await {
        eprintln!("warning: Redis was not told ({error}); running processes hear it from the store");
    }
}

fn report(common: &Common, newest: &str, resealed: &Resealed) -> Result<(), Failure> {
    if common.json {
        output::json_line(&json!({
            "key_check": newest, "records": resealed.records, "broken": resealed.broken,
        }));
    } else {
        let records = usize::try_from(resealed.records).unwrap_or(usize::MAX);
        eprintln!("sealed {} anew with key {newest}", output::count(records, "record"));
    }
    if resealed.broken.is_empty() {
        eprintln!("every secret is sealed with this key; the keys before it can go from `secrets.old_keys`");
        return Ok(());
    }
    let told = |broken: &String| Problem {
        message: format!("{broken}; left as it is"),
        hint: Some("add the key it was sealed with to `secrets.old_keys` and run this again".to_owned()),
    };
    Err(Failure::world_disagrees(resealed.broken.iter().map(told).collect()))
}
