//! `paperboy subscription rotate-secret`.

use clap::Args;
use serde_json::{Value, json};

use super::{id, save};
use crate::cli::remote::{Remote, segment};
use crate::cli::{Common, Failure, output, services};
use crate::desk::{Desk, Refused};
use crate::domain::secret::Secret;
use crate::domain::spec::Overlap;

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
    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let given = self.secret.as_deref().map(Secret::from);
        let (caller, wait) = (services::caller(), !self.no_wait);
        let done = desk.rotate(&caller, id.as_str(), None, given, self.overlap, wait).await;
        let (rotated, changed) = done.map_err(|refused| match refused {
            // Their fields are those of a body over HTTP.
            Refused::Faults(mut faults)
                if ["overlap_s", "secret", "signatures"].contains(&faults[0].field.as_str()) =>
            {
                let fault = faults.remove(0);
                Failure::usage(fault.message).maybe_hint(fault.hint)
            }
            refused => refused.into(),
        })?;
        save::print_warning(changed.warning.as_ref());
        let tenant = json!(changed.spec.tenant);
        self.print(common, &tenant, Some(rotated.secret.expose()), rotated.until.as_deref());
        Ok(())
    }

    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut body = json!({ "overlap_s": self.overlap.seconds() });
        if let Some(secret) = &self.secret {
            body["secret"] = json!(secret);
        }
        let path = format!("/v1/subscriptions/{}/rotate-secret", segment(&self.id));
        let rotated = remote.post(&path, &body, !self.no_wait).await?;
        self.print(common, &rotated["tenant"], rotated["secret"].as_str(), rotated["old_until"].as_str());
        Ok(())
    }

    fn print(&self, common: &Common, tenant: &Value, secret: Option<&str>, until: Option<&str>) {
        let secret = secret.filter(|_| self.secret.is_none());
        if common.json {
            let told = json!({ "id": self.id, "tenant": tenant, "secret": secret, "old_until": until });
            output::json_line(&told);
            return;
        }
        secret.map(Secret::from).iter().for_each(save::print_secret);
        match until {
            Some(until) => eprintln!("older secrets of `{}` sign along until {until}", self.id),
            None => eprintln!("older secrets of `{}` no longer sign", self.id),
        }
    }
}
