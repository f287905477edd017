//! Platforms' own configuration objects, taken over as they stand.

use serde_json::{Value, json};

use super::subscriptions::New;
use super::{Caller, Desk, Refused, note};
use crate::domain::fault::Fault;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::preset::{self, Imported, NotTaken, Placement, Preset, Second};
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{KeptAnswer, ListFilter, Save, SaveError, Versioned};

/// What becomes of one object.
pub struct Planned {
    object: Value,
    /// Its fields that have no effect here, and why.
    pub not_taken: Vec<NotTaken>,
    plan: Plan,
}

enum Plan {
    Create(Box<New>),
    Update(Box<Versioned>),
}

/// What is wrong with objects, each named by its place from 1.
pub type Faulty = Vec<(usize, Vec<Fault>)>;

const PAGE: u32 = 1000;
/// How often an object is set up again over what others set up meanwhile.
const TRIES: usize = 32;

impl Planned {
    /// The subscription, secrets in clear.
    pub fn spec(&self) -> &SubscriptionSpec {
        match &self.plan {
            Plan::Create(new) => &new.spec,
            Plan::Update(update) => &update.spec,
        }
    }

    /// Whether it is one more, and not another form of one that is there.
    pub fn is_new(&self) -> bool {
        matches!(self.plan, Plan::Create(_))
    }

    /// The secret that was made for it.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.plan {
            Plan::Create(new) => new.secret.as_ref(),
            Plan::Update(_) => None,
        }
    }

    /// What is answered: the object with what the platform adds to it, without credentials. Our own document, secrets
    /// masked, where the platform documents no such answer.
    pub fn answer(&self, preset: &Preset) -> Value {
        if preset.import.record.is_empty() {
            return serde_json::to_value(self.spec().masked()).unwrap_or_default();
        }
        preset::answer(preset, &self.object, self.spec())
    }
}

impl Desk {
    /// What would become of a platform's objects beside each other and what is there. Nothing is written.
    ///
    /// # Errors
    /// [`Refused::Second`], or the store fails; within, every fault of every object, by the platform's names.
    pub async fn plan_objects(
        &self,
        preset: &'static Preset,
        tenant: &Tenant,
        objects: Vec<Value>,
    ) -> Result<Result<Vec<Planned>, Faulty>, Refused> {
        let now = jiff::Timestamp::now().to_string();
        let mut there = self.all_of(tenant).await?;
        let mut faulty = Faulty::new();
        let mut planned: Vec<Planned> = Vec::with_capacity(objects.len());
        for (at, object) in (1..).zip(objects) {
            let (spec, not_taken) = match preset::import(preset, tenant, &object) {
                Ok(Imported { spec, not_taken }) => (spec, not_taken),
                Err(faults) => {
                    faulty.push((at, faults));
                    continue;
                }
            };
            let placement = preset::place(&there, &spec, preset);
            match self.plan(spec, placement, preset, &now).await? {
                Ok(plan) => {
                    let one = Planned { object, not_taken, plan };
                    there.retain(|other| other.id != one.spec().id);
                    there.push(one.spec().clone());
                    planned.push(one);
                }
                Err(faults) => {
                    let theirs =
                        faults.into_iter().map(|fault| preset::in_their_words(preset, &object, fault));
                    faulty.push((at, theirs.collect()));
                }
            }
        }
        Ok(if faulty.is_empty() { Ok(planned) } else { Err(faulty) })
    }

    /// Writes what was planned, all or none. The counter is for [`Desk::spread`].
    ///
    /// # Errors
    /// As [`Desk::add`]; something was set up or changed meanwhile.
    pub async fn save_objects(
        &self,
        caller: &Caller,
        preset: &Preset,
        planned: &[Planned],
        answer: Option<KeptAnswer>,
    ) -> Result<u64, SaveError> {
        let per_tenant_max = Some(self.rules.subscriptions_max);
        let mut save = Save { per_tenant_max, answer, ..Save::default() };
        for one in planned {
            match &one.plan {
                Plan::Create(new) => {
                    save.notes.push(new.note(caller));
                    save.added.push(new.spec.clone());
                }
                Plan::Update(update) => {
                    let (tenant, id) = (update.spec.tenant.as_deref(), update.spec.id.as_deref());
                    let (id, detail) = (id.unwrap_or_default(), json!({ "preset": preset.name }));
                    save.notes.push(note(caller, "subscription.update", tenant, id, detail));
                    save.changed.push((**update).clone());
                }
            }
        }
        self.store.save(save).await
    }

    /// Plans one object and writes it; `keep` makes what is kept of the answer. Of several that set up the same at one
    /// moment the last is what is there. `None`: this request was answered before.
    ///
    /// # Errors
    /// Every fault of the object, [`Refused::Second`], or the store fails.
    pub async fn set_up(
        &self,
        caller: &Caller,
        preset: &'static Preset,
        tenant: &Tenant,
        object: &Value,
        keep: impl Fn(&Planned) -> Option<KeptAnswer>,
    ) -> Result<Option<(Planned, u64)>, Refused> {
        let is_updated = preset.rules.second == Some(Second::Update);
        for tried in 1.. {
            let planned = match self.plan_objects(preset, tenant, vec![object.clone()]).await {
                // The one that was to be updated is gone meanwhile.
                Err(Refused::Second { .. }) if is_updated && tried < TRIES => continue,
                planned => planned?,
            };
            let mut planned = planned.map_err(|faulty| {
                Refused::Faults(faulty.into_iter().flat_map(|(_, faults)| faults).collect())
            })?;
            let answer = planned.first().and_then(&keep);
            match self.save_objects(caller, preset, &planned, answer).await {
                Ok(counter) => return Ok(planned.pop().map(|planned| (planned, counter))),
                Err(SaveError::Repeated) => return Ok(None),
                Err(SaveError::Second { .. } | SaveError::Changed { .. }) if is_updated && tried < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the last try returns")
    }

    async fn plan(
        &self,
        spec: SubscriptionSpec,
        placement: Placement,
        preset: &'static Preset,
        now: &str,
    ) -> Result<Result<Plan, Vec<Fault>>, Refused> {
        match placement {
            Placement::Create => {
                let document = serde_json::to_value(&spec).map_err(anyhow::Error::from)?;
                Ok(New::complete(document, now)?.map(|new| Plan::Create(Box::new(new))))
            }
            Placement::Update { id } => {
                let parsed = SubscriptionId::parse(&id).map_err(anyhow::Error::from)?;
                let before = self.store.versioned_subscription(&parsed).await?;
                // Of the same call, or removed since the look.
                let before = before.ok_or(Refused::Second { preset, id })?;
                Ok(updated(before, spec, now)?.map(|update| Plan::Update(Box::new(update))))
            }
            Placement::Conflict { id, .. } => Err(Refused::Second { preset, id }),
        }
    }

    /// Every subscription of a tenant, secrets masked.
    async fn all_of(&self, tenant: &Tenant) -> Result<Vec<SubscriptionSpec>, Refused> {
        let mut filter = ListFilter { tenant: Some(tenant.clone()), limit: PAGE, ..ListFilter::default() };
        let mut all = Vec::new();
        loop {
            let page = self.store.list_subscriptions(&filter).await?;
            let is_last = page.len() < PAGE as usize;
            let last = page.last().and_then(|spec| spec.id.as_deref());
            filter.after = last.and_then(|id| SubscriptionId::parse(id).ok());
            all.extend(page);
            if is_last || filter.after.is_none() {
                return Ok(all);
            }
        }
    }
}

/// The imported document in place of the one that is there, which keeps its secret.
fn updated(
    before: Versioned,
    mut spec: SubscriptionSpec,
    now: &str,
) -> anyhow::Result<Result<Versioned, Vec<Fault>>> {
    if spec.signatures.as_ref().is_some_and(Vec::is_empty) {
        spec.signatures = None;
    }
    spec.enabled.get_or_insert(true);
    let document = serde_json::to_value(&spec)?;
    Ok(before.spec.replaced(document).map(|mut spec| {
        spec.updated_at = Some(now.to_owned());
        Versioned { spec, version: before.version }
    }))
}
