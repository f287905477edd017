//! `paperboy subscription import`: files that may be imported again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::documents::{self, Faults};
use super::{addresses, platform, save};
use crate::cli::remote::Remote;
use crate::cli::{Common, Failure, output, services};
use crate::desk::subscriptions::New;
use crate::desk::{Desk, note};
use crate::domain::fault::Fault;
use crate::domain::name::SubscriptionId;
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{Save, Store, Versioned};

/// Add or change subscriptions.
#[derive(Args, Debug)]
#[command(
    after_help = "A document whose `id` is known replaces that subscription: what it does not name gets its
default, but `enabled` and `signatures` stay. `***` stands for a secret that is there already.
All documents are written or none.

With `--preset` the file holds configuration objects of that platform, as they stand there; what could
not be taken is said field by field.

Examples:
  paperboy subscription import subscriptions.toml --dry-run
  paperboy subscription list --json | paperboy subscription import -
  paperboy subscription import --preset rossum --tenant acme hook.json"
)]
pub(in crate::cli) struct Import {
    /// JSON or TOML: one subscription or a list; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The platform whose own configuration objects the file holds; `paperboy preset list` names them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// With `--preset`: whose subscriptions they become
    #[arg(long, requires = "preset")]
    tenant: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

/// What becomes of one document.
enum Plan {
    Create(Box<New>),
    Update(Box<Versioned>),
    Leave(Box<SubscriptionSpec>),
}

impl Import {
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let Some(preset) = &self.preset else { return Err(remote.only_here("subscription import")) };
        let objects = documents::read(&self.file)?;
        let (tenant, wait) = (self.tenant.as_deref(), !self.no_wait);
        let request = platform::Request { preset, tenant, objects, dry_run: self.dry_run, wait };
        platform::run_remote(common, remote, request).await
    }

    pub(super) async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let documents = documents::read(&self.file)?;
        if let Some(preset) = &self.preset {
            let (tenant, wait) = (self.tenant.as_deref(), !self.no_wait);
            let request =
                platform::Request { preset, tenant, objects: documents, dry_run: self.dry_run, wait };
            return platform::run(common, desk, request).await;
        }
        let named: Vec<bool> = documents.iter().map(|document| document["id"].is_string()).collect();
        let now = jiff::Timestamp::now().to_string();
        let mut faults = Faults::of(documents.len());
        let mut first_places: BTreeMap<String, usize> = BTreeMap::new();
        let mut plans = Vec::with_capacity(documents.len());
        for (place, document) in (1..).zip(documents) {
            if let Some(id) = document["id"].as_str() {
                let first = *first_places.entry(id.to_owned()).or_insert(place);
                if first != place {
                    let twice = Fault::new("id", format!("is that of subscription {first} already"));
                    faults.keep::<()>(place, Err(vec![twice]));
                }
            }
            plans.extend(faults.keep(place, plan(&desk.store, document, &now).await?));
        }
        faults.into_failure()?;
        let save = save_of(desk, &plans);
        desk.store.refuse_second(&save.added, &save.changed, &[]).await.map_err(save::failure)?;
        let written = plans.iter().filter_map(|plan| match plan {
            Plan::Create(new) => Some(&new.spec),
            Plan::Update(update) => Some(&update.spec),
            Plan::Leave(_) => None,
        });
        addresses::warn(desk, written);
        if !self.dry_run {
            write(desk, save, !self.no_wait).await?;
        }
        for ((line, plan), is_named) in (1..).zip(&plans).zip(named) {
            self.tell(common, line, plan, is_named);
        }
        Ok(())
    }

    /// One line, and the secret if one was made. A new id is none yet in a dry run.
    fn tell(&self, common: &Common, line: usize, plan: &Plan, is_named: bool) {
        let spec = plan.spec();
        let id = spec.id.as_deref().filter(|_| is_named || !self.dry_run);
        let secret = plan.secret().filter(|_| !self.dry_run);
        if common.json {
            output::json_line(&json!({
                "line": line,
                "id": id,
                "tenant": spec.tenant,
                "status": plan.status(),
                "secret": secret.map(Secret::expose),
                "dry_run": self.dry_run,
            }));
            return;
        }
        let what = match (plan, self.dry_run) {
            (Plan::Create(_), true) => "would create",
            (Plan::Update(_), true) => "would update",
            _ => plan.status(),
        };
        println!("{what} {}", id.unwrap_or("a subscription"));
        secret.into_iter().for_each(save::print_secret);
    }
}

impl Plan {
    fn spec(&self) -> &SubscriptionSpec {
        match self {
            Plan::Create(new) => &new.spec,
            Plan::Update(update) => &update.spec,
            Plan::Leave(spec) => spec,
        }
    }

    fn secret(&self) -> Option<&Secret> {
        match self {
            Plan::Create(new) => new.secret.as_ref(),
            Plan::Update(_) | Plan::Leave(_) => None,
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Plan::Create(_) => "created",
            Plan::Update(_) => "updated",
            Plan::Leave(_) => "unchanged",
        }
    }
}

async fn plan(store: &Store, document: Value, now: &str) -> Result<Result<Plan, Vec<Fault>>, Failure> {
    // An id that is none is a fault of the new subscription.
    let there = match document["id"].as_str().map(SubscriptionId::parse) {
        Some(Ok(id)) => store.versioned_subscription(&id).await?,
        _ => None,
    };
    let Some(Versioned { spec: before, version }) = there else {
        return Ok(New::complete(document, now)?.map(|new| Plan::Create(Box::new(new))));
    };
    Ok(before.replaced(document).map(|mut spec| {
        if spec == before {
            return Plan::Leave(Box::new(spec));
        }
        spec.updated_at = Some(now.to_owned());
        Plan::Update(Box::new(Versioned { spec, version }))
    }))
}

fn save_of(desk: &Desk, plans: &[Plan]) -> Save {
    let caller = services::caller();
    let mut save = Save { per_tenant_max: Some(desk.rules.subscriptions_max), ..Save::default() };
    for plan in plans {
        match plan {
            Plan::Create(new) => {
                save.notes.push(new.note(&caller));
                save.added.push(new.spec.clone());
            }
            Plan::Update(update) => {
                let (tenant, id) = (update.spec.tenant.as_deref(), update.spec.id.as_deref());
                let line = note(&caller, "subscription.replace", tenant, id.unwrap_or_default(), json!({}));
                save.notes.push(line);
                save.changed.push((**update).clone());
            }
            Plan::Leave(_) => {}
        }
    }
    save
}

async fn write(desk: &Desk, save: Save, wait: bool) -> Result<(), Failure> {
    if save.added.is_empty() && save.changed.is_empty() {
        return Ok(());
    }
    let counter = desk.store.save(save).await.map_err(save::failure)?;
    services::spread(desk, counter, wait).await;
    Ok(())
}
