//! What is to be done so that the store is as files say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{save, tenant};
use crate::cli::{Failure, Problem};
use crate::desk::subscriptions::New;
use crate::domain::fault::Fault;
use crate::domain::name::SubscriptionId;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{ListFilter, Store, Versioned};

/// One document of a file.
pub(super) struct Document {
    /// Where it stands, for people: `acme.toml` or `acme.toml, subscription 2`.
    pub(super) origin: String,
    pub(super) value: Value,
}

/// What becomes of one subscription.
pub(super) enum Action {
    Add(Box<New>),
    Change { before: Box<SubscriptionSpec>, after: Box<Versioned> },
    Leave(Box<SubscriptionSpec>),
    Remove(Box<Versioned>),
}

/// What is to be done about one subscription, and which document says so; none of a removal.
pub(super) struct Step {
    pub(super) origin: Option<String>,
    pub(super) action: Action,
}

impl Action {
    pub(super) fn spec(&self) -> &SubscriptionSpec {
        match self {
            Action::Add(new) => &new.spec,
            Action::Change { after, .. } => &after.spec,
            Action::Leave(spec) => spec,
            Action::Remove(gone) => &gone.spec,
        }
    }
}

/// Compares documents with the store. A document is that of the subscription with its `id`, else of the one with its
/// tenant and name. With `prune`, what the tenants of the documents have beside them is removed.
///
/// # Errors
/// Every fault of every document; the store cannot be read.
pub(super) async fn make(
    store: &Store,
    documents: Vec<Document>,
    prune: bool,
    now: &str,
) -> Result<Vec<Step>, Failure> {
    let mut planner =
        Planner { store, now, tenants: BTreeMap::new(), claims: Claims::default(), problems: Vec::new() };
    let mut steps = Vec::with_capacity(documents.len());
    for Document { origin, value } in documents {
        match planner.action(&origin, value).await? {
            Ok(action) => steps.push(Step { origin: Some(origin), action }),
            Err(faults) => planner.problems.extend(faults.into_iter().map(|fault| problem(&origin, fault))),
        }
    }
    if !planner.problems.is_empty() {
        return Err(Failure::refused(planner.problems));
    }
    if prune {
        steps.extend(planner.rest(&steps).await?);
    }
    refuse_second(store, &steps).await?;
    Ok(steps)
}

/// Said before anybody is asked, and in a dry run.
async fn refuse_second(store: &Store, steps: &[Step]) -> Result<(), Failure> {
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match &step.action {
            Action::Add(new) => added.push(new.spec.clone()),
            Action::Change { after, .. } => changed.push((**after).clone()),
            Action::Remove(gone) => removed.extend(gone.spec.id.as_deref()),
            Action::Leave(_) => {}
        }
    }
    store.refuse_second(&added, &changed, &removed).await.map_err(save::failure)
}

pub(super) fn problem(origin: &str, fault: Fault) -> Problem {
    let message = match fault.field.as_str() {
        "" => format!("{origin}: {}", fault.message),
        field => format!("{origin}: `{field}`: {}", fault.message),
    };
    Problem { message, hint: fault.hint }
}

struct Planner<'a> {
    store: &'a Store,
    now: &'a str,
    /// Id and name of everything a tenant has.
    tenants: BTreeMap<String, Vec<(String, Option<String>)>>,
    claims: Claims,
    problems: Vec<Problem>,
}

type Planned = Result<Action, Vec<Fault>>;

impl Planner<'_> {
    async fn action(&mut self, origin: &str, document: Value) -> Result<Planned, Failure> {
        let (there, unclear) = match self.find(&document).await? {
            Ok(there) => (there, None),
            // One of several: which secrets it stands for cannot be told.
            Err(fault) if document["name"].is_string() => return Ok(Err(vec![fault])),
            Err(fault) => (None, Some(fault)),
        };
        let known_id = there.as_ref().and_then(|there| there.spec.id.as_deref()).or(document["id"].as_str());
        let claimed = unclear.or_else(|| self.claims.take(origin, known_id, &document).err());
        let planned = match there {
            None => New::complete(document, self.now)?.map(|new| Action::Add(Box::new(new))),
            Some(Versioned { spec: before, version }) => before.replaced(document).map(|mut spec| {
                if spec == before {
                    return Action::Leave(Box::new(spec));
                }
                spec.updated_at = Some(self.now.to_owned());
                Action::Change { before: Box::new(before), after: Box::new(Versioned { spec, version }) }
            }),
        };
        Ok(match claimed {
            None => planned,
            Some(fault) => Err(std::iter::once(fault).chain(planned.err().unwrap_or_default()).collect()),
        })
    }

    /// The subscription a document is that of; none: a new one.
    async fn find(&mut self, document: &Value) -> Result<Result<Option<Versioned>, Fault>, Failure> {
        if let Some(id) = document["id"].as_str() {
            // An id that is none is a fault of the new subscription.
            return Ok(Ok(match SubscriptionId::parse(id) {
                Ok(id) => self.store.versioned_subscription(&id).await?,
                Err(_) => None,
            }));
        }
        let (Some(of), Some(name)) = (document["tenant"].as_str(), document["name"].as_str()) else {
            // What is no text, or no tenant, is told with the document's other faults.
            let is_told = document["tenant"].as_str().is_none() || !document["name"].is_null();
            return Ok(if is_told { Ok(None) } else { Err(nameless()) });
        };
        if tenant(of).is_err() {
            return Ok(Ok(None));
        }
        let store = self.store;
        let all = self.all_of(of).await?;
        let ids: Vec<&String> =
            all.iter().filter(|(_, other)| other.as_deref() == Some(name)).map(|(id, _)| id).collect();
        match ids.as_slice() {
            [] => Ok(Ok(None)),
            [id] => Ok(Ok(store.versioned_subscription(&super::id(id)?).await?)),
            several => {
                let fault =
                    Fault::new("name", format!("is that of {} subscriptions of `{of}`", several.len()));
                let ids = several.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
                Ok(Err(fault.hint(format!("say which by its `id`: {ids}"))))
            }
        }
    }

    async fn all_of(&mut self, of: &str) -> Result<&[(String, Option<String>)], Failure> {
        if !self.tenants.contains_key(of) {
            let specs = all(self.store, Some(of)).await?;
            let names = specs.into_iter().map(|spec| (spec.id.unwrap_or_default(), spec.name)).collect();
            self.tenants.insert(of.to_owned(), names);
        }
        Ok(self.tenants.get(of).map_or(&[], Vec::as_slice))
    }

    /// What the tenants that are named have, and no document is that of.
    async fn rest(&mut self, steps: &[Step]) -> Result<Vec<Step>, Failure> {
        let field = |of: fn(&SubscriptionSpec) -> &Option<String>| -> BTreeSet<String> {
            steps.iter().filter_map(|step| of(step.action.spec()).clone()).collect()
        };
        let (tenants, kept) = (field(|spec| &spec.tenant), field(|spec| &spec.id));
        let mut rest = Vec::new();
        for tenant in tenants {
            let ids: Vec<String> = self.all_of(&tenant).await?.iter().map(|(id, _)| id.clone()).collect();
            for id in ids.into_iter().filter(|id| !kept.contains(id)) {
                if let Some(gone) = self.store.versioned_subscription(&super::id(&id)?).await? {
                    rest.push(Step { origin: None, action: Action::Remove(Box::new(gone)) });
                }
            }
        }
        Ok(rest)
    }
}

/// Every subscription of a tenant, or of all, secrets masked.
pub(super) async fn all(store: &Store, of: Option<&str>) -> Result<Vec<SubscriptionSpec>, Failure> {
    const PAGE: u32 = 500;
    let mut filter = ListFilter { tenant: of.map(tenant).transpose()?, limit: PAGE, ..ListFilter::default() };
    let mut found = Vec::new();
    loop {
        let page = store.list_subscriptions(&filter).await?;
        let is_last = page.len() < PAGE as usize;
        found.extend(page);
        let last = found.last().and_then(|spec| spec.id.as_deref());
        match last {
            Some(last) if !is_last => filter.after = Some(super::id(last)?),
            _ => return Ok(found),
        }
    }
}

fn nameless() -> Fault {
    Fault::new("name", "is missing, and so is `id`")
        .hint("a subscription is known again by its `id`, else by its tenant and `name`: write one of them")
}

/// Which document is that of which subscription: each has one.
#[derive(Default)]
struct Claims {
    ids: BTreeMap<String, String>,
    /// By tenant and name, and whether the id is known as well.
    names: BTreeMap<(String, String), (String, bool)>,
}

impl Claims {
    fn take(&mut self, origin: &str, id: Option<&str>, document: &Value) -> Result<(), Fault> {
        if let Some(id) = id
            && let Some(first) = self.ids.insert(id.to_owned(), origin.to_owned())
        {
            return Err(Fault::new("id", format!("`{id}` is that of {first} already")));
        }
        if let (Some(tenant), Some(name)) = (document["tenant"].as_str(), document["name"].as_str()) {
            let key = (tenant.to_owned(), name.to_owned());
            match self.names.insert(key, (origin.to_owned(), id.is_some())) {
                // Ids tell two of one name apart.
                Some((first, had_id)) if !had_id || id.is_none() => {
                    return Err(Fault::new(
                        "name",
                        format!("is that of {first} already, of the same tenant"),
                    )
                    .hint("give one of them another name, or both their `id`"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
