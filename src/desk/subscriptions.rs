//! Subscriptions: add, look, change, remove.

use serde_json::{Map, Value, json};

use super::{Caller, Desk, Refused, note, random};
use crate::domain::fault::Fault;
use crate::domain::matching::Pattern;
use crate::domain::name::{EventType, SubscriptionId, Tenant};
use crate::domain::secret::Secret;
use crate::domain::spec::{Overlap, RotateFault, Rotated};
use crate::domain::subscription::{DisabledBy, SubscriptionSpec};
use crate::store::{KeptAnswer, ListFilter, Note, Removal, Save, SaveError, Versioned};

/// A subscription to be added, checked, and the secret that was made for it.
pub struct New {
    pub spec: SubscriptionSpec,
    pub secret: Option<Secret>,
    /// The document named no id.
    pub id_is_made: bool,
}

impl New {
    /// Completes and checks a document at `now` (RFC 3339).
    ///
    /// # Errors
    /// The system gave no random bytes; within, every fault of the document.
    pub fn complete(document: Value, now: &str) -> anyhow::Result<Result<New, Vec<Fault>>> {
        let id_is_made = document.get("id").is_none_or(Value::is_null);
        let made = SubscriptionSpec::make(document, SubscriptionId::from_random(random()?), now, random()?);
        Ok(made.map(|(spec, secret)| New { spec, secret, id_is_made }))
    }

    /// The line of the audit for it.
    pub fn note(&self, caller: &Caller) -> Note {
        let (tenant, id) = (self.spec.tenant.as_deref(), self.spec.id.as_deref().unwrap_or_default());
        note(caller, "subscription.create", tenant, id, json!({}))
    }
}

/// Which subscriptions to list.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub tenant: Option<Tenant>,
    pub enabled: Option<bool>,
    /// Part of the name.
    pub name: Option<String>,
    /// Only those whose patterns cover this type.
    pub event_type: Option<EventType>,
    pub preset: Option<String>,
    /// Only ids after this one.
    pub after: Option<SubscriptionId>,
    pub limit: u32,
}

/// A part of a list, and where the next one begins.
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to ask for next; `None` at the end.
    pub next: Option<String>,
}

/// A subscription after a change.
pub struct Changed {
    /// Secrets in clear.
    pub spec: SubscriptionSpec,
    pub version: u64,
    /// What people should know; see [`Desk::spread`].
    pub warning: Option<String>,
    /// Whether anything was written.
    pub is_changed: bool,
}

/// Rows read for one page where a filter is not the store's; the page then ends early.
const LOOKED_AT_MAX: u32 = 2_000;
/// Changes tried over another's that came between.
const TRIES: usize = 5;

impl Desk {
    /// A page of subscriptions in the order of their ids, secrets masked.
    ///
    /// # Errors
    /// The tenant is another's, or the store fails.
    pub async fn list_subscriptions(
        &self,
        caller: &Caller,
        wanted: &Wanted,
    ) -> Result<Page<SubscriptionSpec>, Refused> {
        let is_sifted = wanted.event_type.is_some() || wanted.preset.is_some();
        let mut filter = ListFilter {
            tenant: caller.tenant_of_list(wanted.tenant.clone())?,
            enabled: wanted.enabled,
            name: wanted.name.clone(),
            after: wanted.after.clone(),
            // One more tells whether there is a next page.
            limit: if is_sifted { 200 } else { wanted.limit + 1 },
        };
        let mut items = Vec::new();
        let mut looked_at = 0;
        loop {
            let specs = self.store.list_subscriptions(&filter).await?;
            let is_last = specs.len() < filter.limit as usize;
            for spec in specs {
                let id = spec.id.clone().unwrap_or_default();
                if items.len() >= wanted.limit as usize {
                    let next = filter.after.map(|id| id.to_string());
                    return Ok(Page { items, next });
                }
                looked_at += 1;
                filter.after = SubscriptionId::parse(&id).ok();
                if is_wanted(wanted, &spec) {
                    items.push(spec);
                }
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok(Page { items, next: filter.after.map(|id| id.to_string()) });
            }
        }
    }

    /// One subscription, secrets masked.
    ///
    /// # Errors
    /// There is none of that id that the caller may see, or the store fails.
    pub async fn show_subscription(&self, caller: &Caller, id: &str) -> Result<Versioned, Refused> {
        let parsed = SubscriptionId::parse(id).map_err(|_| Refused::subscription(id))?;
        let found = self.store.shown_subscription(&parsed).await?;
        let found = found.filter(|found| caller.owns(found.spec.tenant.as_deref()));
        found.ok_or_else(|| Refused::subscription(id))
    }

    /// One subscription with its secrets in clear.
    ///
    /// # Errors
    /// As [`Desk::show_subscription`].
    pub async fn subscription(&self, caller: &Caller, id: &str) -> Result<Versioned, Refused> {
        let parsed = SubscriptionId::parse(id).map_err(|_| Refused::subscription(id))?;
        let found = self.store.versioned_subscription(&parsed).await?;
        let found = found.filter(|found| caller.owns(found.spec.tenant.as_deref()));
        found.ok_or_else(|| Refused::subscription(id))
    }

    /// Checks who may write a document, and completes it.
    ///
    /// # Errors
    /// It is another tenant's, or has faults.
    pub fn prepare(&self, caller: &Caller, mut document: Value, now: &str) -> Result<New, Refused> {
        if let (Some(own), Value::Object(fields)) = (&caller.tenant, &mut document) {
            match fields.get("tenant") {
                None | Some(Value::Null) => drop(fields.insert("tenant".into(), json!(own.as_str()))),
                Some(Value::String(named)) if named == own.as_str() => {}
                // What is no text is a fault like others.
                Some(Value::String(_)) => return Err(caller.foreign()),
                Some(_) => {}
            }
            if fields.get("id").is_some_and(|id| !id.is_null()) {
                // Whether an id is taken would tell of other tenants.
                return Err(Refused::Forbidden("a tenant's key does not choose ids: leave `id` out".into()));
            }
        }
        Ok(New::complete(document, now)??)
    }

    /// Writes new subscriptions, all or none. The counter is for [`Desk::spread`].
    ///
    /// # Errors
    /// An id is taken, a tenant would have too many, the answer is kept already, or the store fails.
    pub async fn add(
        &self,
        caller: &Caller,
        new: &[New],
        answer: Option<KeptAnswer>,
    ) -> Result<u64, SaveError> {
        let save = Save {
            added: new.iter().map(|new| new.spec.clone()).collect(),
            notes: new.iter().map(|new| new.note(caller)).collect(),
            answer,
            per_tenant_max: Some(self.rules.subscriptions_max),
            ..Save::default()
        };
        self.store.save(save).await
    }

    /// Changes one subscription by `edit`, over the version `over` if one is named.
    ///
    /// # Errors
    /// It is not there or not the caller's, has another version, or the change has faults.
    pub async fn change(
        &self,
        caller: &Caller,
        id: &str,
        over: Option<u64>,
        action: &'static str,
        wait: bool,
        edit: impl Fn(&SubscriptionSpec) -> Result<SubscriptionSpec, Refused>,
    ) -> Result<Changed, Refused> {
        for tried in 1.. {
            let Versioned { spec: before, version } = self.subscription(caller, id).await?;
            if over.is_some_and(|over| over != version) {
                return Err(Refused::Stale { what: "subscription", id: id.to_owned() });
            }
            let mut spec = edit(&before)?;
            if spec == before {
                return Ok(Changed { spec, version, warning: None, is_changed: false });
            }
            spec.updated_at = Some(jiff::Timestamp::now().to_string());
            let detail = json!({ "fields": changed_fields(&before, &spec) });
            let save = Save {
                changed: vec![Versioned { spec: spec.clone(), version }],
                notes: vec![note(caller, action, spec.tenant.as_deref(), id, detail)],
                ..Save::default()
            };
            match self.store.save(save).await {
                Ok(counter) => {
                    let warning = self.spread(counter, wait).await;
                    return Ok(Changed { spec, version: counter, warning, is_changed: true });
                }
                // Nobody named a version: it is made again over the one that is there now.
                Err(SaveError::Changed { .. }) if over.is_none() && tried < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the last try returns")
    }

    /// Enables or disables.
    ///
    /// # Errors
    /// As [`Desk::change`].
    pub async fn switch(
        &self,
        caller: &Caller,
        id: &str,
        enabled: bool,
        wait: bool,
    ) -> Result<Changed, Refused> {
        let action = if enabled { "subscription.enable" } else { "subscription.disable" };
        let edit = |before: &SubscriptionSpec| {
            let disabled_by = (!enabled).then_some(DisabledBy::Person);
            Ok(SubscriptionSpec { enabled: Some(enabled), disabled_by, ..before.clone() })
        };
        self.change(caller, id, None, action, wait, edit).await
    }

    /// Signs with a new secret from now on; see [`SubscriptionSpec::rotate`].
    ///
    /// # Errors
    /// As [`Desk::change`]; a [`RotateFault`] is a fault of a field.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: &str,
        over: Option<u64>,
        given: Option<Secret>,
        overlap: Overlap,
        wait: bool,
    ) -> Result<(Rotated, Changed), Refused> {
        let random = random()?;
        let now_s = jiff::Timestamp::now().as_second();
        let rotated = std::sync::Mutex::new(None);
        let edit = |before: &SubscriptionSpec| {
            let mut spec = before.clone();
            let done = spec.rotate(given.clone(), random, now_s, overlap).map_err(rotate_fault)?;
            spec.check()?;
            if let Ok(mut slot) = rotated.lock() {
                *slot = Some(done);
            }
            Ok(spec)
        };
        let changed = self.change(caller, id, over, "subscription.rotate_secret", wait, edit).await?;
        let done = rotated.into_inner().ok().flatten();
        Ok((done.ok_or_else(|| anyhow::anyhow!("nothing was rotated"))?, changed))
    }

    /// Removes one.
    ///
    /// # Errors
    /// It is not there or not the caller's, or has another version than `over`.
    pub async fn remove_subscription(
        &self,
        caller: &Caller,
        id: &str,
        over: Option<u64>,
        wait: bool,
    ) -> Result<Option<String>, Refused> {
        // A record that cannot be opened any more can be removed all the same.
        let found = self.show_subscription(caller, id).await?;
        let parsed = SubscriptionId::parse(id).map_err(|_| Refused::subscription(id))?;
        let tenant = found.spec.tenant.as_deref();
        let save = Save {
            removed: vec![Removal { id: parsed, over }],
            notes: vec![note(caller, "subscription.remove", tenant, id, json!({}))],
            ..Save::default()
        };
        let counter = self.store.save(save).await?;
        Ok(self.spread(counter, wait).await)
    }
}

fn is_wanted(wanted: &Wanted, spec: &SubscriptionSpec) -> bool {
    let covers = |kind: &EventType| {
        let patterns = spec.events.iter().chain(&spec.interactive);
        patterns.filter_map(|text| Pattern::parse(text).ok()).any(|pattern| pattern.matches(kind.as_str()))
    };
    wanted.event_type.as_ref().is_none_or(covers)
        && wanted.preset.as_ref().is_none_or(|preset| spec.preset.as_ref() == Some(preset))
}

/// The top members in which two documents differ.
fn changed_fields(before: &SubscriptionSpec, after: &SubscriptionSpec) -> Vec<String> {
    let fields = |spec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let mut names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| name != "updated_at" && before.get(name) != after.get(name));
    names
}

fn rotate_fault(fault: RotateFault) -> Refused {
    let field = match fault {
        RotateFault::Unsigned | RotateFault::Several => "signatures",
        RotateFault::NoOverlap | RotateFault::TooMany { .. } => "overlap_s",
        RotateFault::Known => "secret",
    };
    Refused::fault(field, fault.to_string(), fault.hint())
}
