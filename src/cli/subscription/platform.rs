//! `paperboy subscription import --preset`: a platform's own configuration objects, as they stand.

use serde_json::{Value, json};

use super::documents::Faults;
use super::{addresses, place, save, tenant};
use crate::cli::{Common, Failure, output, services};
use crate::desk::subscriptions::New;
use crate::desk::{Desk, note};
use crate::domain::name::SubscriptionId;
use crate::domain::preset::{self, Imported, NotTaken, Placement, Preset};
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionSpec;
use crate::store::{Save, Versioned};

/// What was asked for.
pub(super) struct Request<'a> {
    pub(super) preset: &'a str,
    pub(super) tenant: Option<&'a str>,
    pub(super) objects: Vec<Value>,
    pub(super) dry_run: bool,
    pub(super) wait: bool,
}

/// What becomes of one object.
struct Planned {
    object: Value,
    not_taken: Vec<NotTaken>,
    plan: Plan,
}

enum Plan {
    Create(New),
    Update(Versioned),
}

impl Plan {
    fn spec(&self) -> &SubscriptionSpec {
        match self {
            Plan::Create(new) => &new.spec,
            Plan::Update(update) => &update.spec,
        }
    }

    fn secret(&self) -> Option<&Secret> {
        match self {
            Plan::Create(new) => new.secret.as_ref(),
            Plan::Update(_) => None,
        }
    }
}

pub(super) async fn run(common: &Common, desk: &Desk, request: Request<'_>) -> Result<(), Failure> {
    let Some(preset) = Preset::find(request.preset) else {
        let message = format!("there is no preset `{}`", request.preset);
        return Err(Failure::usage(message).hint(format!("known are {}", Preset::known())));
    };
    let Some(of) = request.tenant else {
        return Err(Failure::usage(format!("a configuration of {} does not say whose it is", preset.title))
            .hint("add `--tenant TENANT`"));
    };
    let of = tenant(of)?;
    let now = jiff::Timestamp::now().to_string();
    let mut there = place::existing(&desk.store, of.as_str()).await?;
    let mut faults = Faults::of(request.objects.len());
    let mut planned: Vec<Planned> = Vec::with_capacity(request.objects.len());
    for (at, object) in (1..).zip(request.objects) {
        let imported = preset::import(preset, &of, &object);
        let Some(Imported { spec, not_taken }) = faults.keep(at, imported) else { continue };
        let plan = match preset::place(&there, &spec, preset) {
            Placement::Create => {
                let document = serde_json::to_value(&spec).map_err(anyhow::Error::from)?;
                faults.keep(at, New::complete(document, &now)?).map(Plan::Create)
            }
            Placement::Update { id } => {
                let id = SubscriptionId::parse(&id).map_err(anyhow::Error::from)?;
                let before = desk.store.versioned_subscription(&id).await?;
                let Some(before) = before else {
                    return Err(Failure::world(format!(
                        "two objects are for one webhook of {}",
                        preset.title
                    ))
                    .hint("import one of them"));
                };
                faults.keep(at, updated(before, spec, &now)?).map(Plan::Update)
            }
            Placement::Conflict { id, message } => return Err(place::conflict(&id, message)),
        };
        if let Some(plan) = plan {
            there.retain(|other| other.id != plan.spec().id);
            there.push(plan.spec().clone());
            planned.push(Planned { object, not_taken, plan });
        }
    }
    faults.into_failure()?;
    addresses::warn(desk, planned.iter().map(|planned| planned.plan.spec()));
    if !request.dry_run {
        let caller = services::caller();
        let mut save = Save { per_tenant_max: Some(desk.rules.subscriptions_max), ..Save::default() };
        for planned in &planned {
            match &planned.plan {
                Plan::Create(new) => {
                    save.notes.push(new.note(&caller));
                    save.added.push(new.spec.clone());
                }
                Plan::Update(update) => {
                    let (tenant, id) = (update.spec.tenant.as_deref(), update.spec.id.as_deref());
                    let detail = json!({ "preset": preset.name });
                    save.notes.push(note(
                        &caller,
                        "subscription.update",
                        tenant,
                        id.unwrap_or_default(),
                        detail,
                    ));
                    save.changed.push(update.clone());
                }
            }
        }
        let counter = desk.store.save(save).await.map_err(save::failure)?;
        services::spread(desk, counter, request.wait).await;
    }
    for (line, planned) in (1..).zip(&planned) {
        tell(common, preset, line, planned, request.dry_run);
    }
    Ok(())
}

/// The imported document in place of the one that is there, which keeps its secret.
fn updated(
    before: Versioned,
    mut spec: SubscriptionSpec,
    now: &str,
) -> Result<Result<Versioned, Vec<crate::domain::fault::Fault>>, Failure> {
    if spec.signatures.as_ref().is_some_and(Vec::is_empty) {
        spec.signatures = None;
    }
    spec.enabled.get_or_insert(true);
    let document = serde_json::to_value(&spec).map_err(anyhow::Error::from)?;
    Ok(before.spec.replaced(document).map(|mut spec| {
        spec.updated_at = Some(now.to_owned());
        Versioned { spec, version: before.version }
    }))
}

/// One line for each, what was not taken behind it. A new id is none yet in a dry run.
fn tell(common: &Common, preset: &Preset, line: usize, planned: &Planned, dry_run: bool) {
    let (spec, is_new) = (planned.plan.spec(), matches!(planned.plan, Plan::Create(_)));
    let id = spec.id.as_deref().filter(|_| !(dry_run && is_new));
    let secret = planned.plan.secret().filter(|_| !dry_run);
    let status = if is_new { "created" } else { "updated" };
    if common.json {
        let mut answer = preset::answer(preset, &planned.object, spec);
        if id.is_none() && answer.get("id").is_some() {
            answer["id"] = Value::Null;
        }
        output::json_line(&json!({
            "line": line,
            "id": id,
            "tenant": spec.tenant,
            "status": status,
            "not_taken": planned.not_taken,
            "answer": answer,
            "secret": secret.map(Secret::expose),
            "dry_run": dry_run,
        }));
        return;
    }
    let what = match (dry_run, is_new) {
        (true, true) => "would create",
        (true, false) => "would update",
        (false, _) => status,
    };
    println!("{what} {}", id.unwrap_or("a subscription"));
    secret.into_iter().for_each(save::print_secret);
    for NotTaken { field, reason } in &planned.not_taken {
        eprintln!("not taken: `{field}`: {}", output::printable(reason));
    }
}
