//! `paperboy subscription import --preset`: a platform's own configuration objects, as they stand.

use serde_json::{Value, json};

use super::documents::Faults;
use super::{addresses, save, tenant};
use crate::cli::remote::{Remote, SetUp};
use crate::cli::{Common, Failure, output, services};
use crate::desk::Desk;
use crate::desk::platform::Planned;
use crate::domain::preset::Preset;

/// What was asked for.
pub(super) struct Request<'a> {
    pub(super) preset: &'a str,
    pub(super) tenant: Option<&'a str>,
    pub(super) objects: Vec<Value>,
    pub(super) dry_run: bool,
    pub(super) wait: bool,
}

/// What became of one object, for people and for scripts.
struct Told {
    line: usize,
    /// None yet in a dry run.
    id: Option<String>,
    tenant: Value,
    is_new: bool,
    not_taken: Value,
    answer: Value,
    secret: Option<String>,
    dry_run: bool,
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
    let mut faults = Faults::of(request.objects.len());
    let planned = match desk.plan_objects(preset, &tenant(of)?, request.objects).await? {
        Ok(planned) => planned,
        Err(faulty) => {
            for (place, of) in faulty {
                faults.keep::<()>(place, Err(of));
            }
            return faults.into_failure();
        }
    };
    addresses::warn(desk, planned.iter().map(Planned::spec));
    if !request.dry_run {
        let saved = desk.save_objects(&services::caller(), preset, &planned, None).await;
        services::spread(desk, saved.map_err(save::failure)?, request.wait).await;
    }
    for (line, planned) in (1..).zip(&planned) {
        Told::of(line, planned, preset, request.dry_run).tell(common);
    }
    Ok(())
}

/// The same over the API, one request for each: one that is refused leaves those before it set up; these are told.
pub(super) async fn run_remote(
    common: &Common,
    remote: &Remote,
    request: Request<'_>,
) -> Result<(), Failure> {
    if request.dry_run {
        return Err(Failure::usage("a dry run does not go over the API")
            .hint("run it where the store is, without `--api` and PAPERBOY_API"));
    }
    for (line, object) in (1..).zip(&request.objects) {
        let SetUp { id, is_new, mut answer } =
            remote.set_up(request.preset, request.tenant, object, request.wait).await?;
        let mut part = |name: &str| answer.as_object_mut().and_then(|answer| answer.remove(name));
        let (not_taken, secret) = (part("not_taken").unwrap_or_else(|| json!([])), part("secret"));
        let secret = secret.and_then(|secret| secret.as_str().map(str::to_owned));
        // With a key of a tenant nobody says whose it is.
        let tenant = request.tenant.map_or_else(|| answer["tenant"].clone(), |tenant| json!(tenant));
        Told { line, id: Some(id), tenant, is_new, not_taken, answer, secret, dry_run: false }.tell(common);
    }
    Ok(())
}

impl Told {
    fn of(line: usize, planned: &Planned, preset: &Preset, dry_run: bool) -> Told {
        let (spec, is_new) = (planned.spec(), planned.is_new());
        let id = spec.id.clone().filter(|_| !(dry_run && is_new));
        let mut answer = planned.answer(preset);
        let made = preset.import.record.iter().find(|record| record.from == "id");
        let made = made.map_or("id", |record| record.name.as_str());
        if id.is_none() && answer.get(made).is_some() {
            answer[made] = Value::Null;
        }
        Told {
            line,
            id,
            tenant: json!(spec.tenant),
            is_new,
            not_taken: json!(planned.not_taken),
            answer,
            secret: planned.secret().filter(|_| !dry_run).map(|secret| secret.expose().to_owned()),
            dry_run,
        }
    }

    /// One line, and what was not taken behind it.
    fn tell(&self, common: &Common) {
        let status = if self.is_new { "created" } else { "updated" };
        if common.json {
            output::json_line(&json!({
                "line": self.line,
                "id": self.id,
                "tenant": self.tenant,
                "status": status,
                "not_taken": self.not_taken,
                "answer": self.answer,
                "secret": self.secret,
                "dry_run": self.dry_run,
            }));
            return;
        }
        let what = match (self.dry_run, self.is_new) {
            (true, true) => "would create",
            (true, false) => "would update",
            (false, _) => status,
        };
        println!("{what} {}", self.id.as_deref().unwrap_or("a subscription"));
        self.secret.iter().for_each(|secret| save::print_secret(&secret.as_str().into()));
        for left in self.not_taken.as_array().into_iter().flatten() {
            let text = |name: &str| output::printable(left[name].as_str().unwrap_or_default());
            eprintln!("not taken: `{}`: {}", text("field"), text("reason"));
        }
    }
}
