//! `paperboy subscription rotate-secret`.

use clap::Args;
use serde_json::json;

use super::{documents, id, missing, random, save};
use crate::cli::{Common, Failure, output};
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::domain::spec::Overlap;
use crate::store::{Store, Versioned};

/// Sign with a new secret.
#[derive(Args, Debug)]
#[command(
    after_help = "Until the overlap ends every request carries a signature of the new secret and of the old ones,
so the receiver can change at any moment in between. `--overlap 0` ends all old secrets at once:
for one that has leaked.

Examples:
  paperboy subscription rotate-secret sub_1
  paperboy subscription rotate-secret sub_1 --overlap 7d"
)]
pub(in crate::cli) struct Rotate {
    /// The subscription's id
    id: String,
    /// How long the old secrets sign along: `0`, or such as `90m`, `24h`, `7d`, which is the most
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = Overlap::parse)]
    overlap: Overlap,
    /// The new secret (`whsec_…`); else one is made and shown once
    #[arg(long)]
    secret: Option<String>,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Rotate {
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let Versioned { mut spec, version } =
            store.versioned_subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        let now = jiff::Timestamp::now();
        let is_given = self.secret.is_some();
        let given = self.secret.map(Secret::new);
        let rotated = spec
            .rotate(given, random()?, now.as_second(), self.overlap)
            .map_err(|fault| Failure::usage(fault.to_string()).hint(fault.hint()))?;
        spec.updated_at = Some(now.to_string());
        spec.check().map_err(documents::refused)?;
        let tenant = spec.tenant.clone();
        save::one(config, store, Versioned { spec, version }, !self.no_wait).await?;
        if common.json {
            let secret = (!is_given).then(|| rotated.secret.expose());
            let told =
                json!({ "id": id.as_str(), "tenant": tenant, "secret": secret, "old_until": rotated.until });
            output::json_line(&told);
            return Ok(());
        }
        if !is_given {
            save::print_secret(&rotated.secret);
        }
        match rotated.until {
            Some(until) => eprintln!("older secrets of `{id}` sign along until {until}"),
            None => eprintln!("older secrets of `{id}` no longer sign"),
        }
        Ok(())
    }
}
