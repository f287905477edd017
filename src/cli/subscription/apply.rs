//! `paperboy subscription apply`: the store as files say.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::difference::Change;
use super::plan::{self, Action, Document, Step};
use super::{addresses, documents, save};
use crate::cli::{Common, Failure, Problem, output};
use crate::config::Config;
use crate::domain::secret::Secret;
use crate::store::{Store, Versioned};

/// Make subscriptions what files say.
#[derive(Args, Debug)]
#[command(
    after_help = "A document is that of the subscription with its `id`, else of the one of its tenant with its `name`. What it
does not name gets its default, but `enabled` and `signatures` stay; `***` stands for a secret that is there. All is
checked before anything is written, and all is written or nothing.

Examples:
  paperboy subscription apply subscriptions/ --dry-run
  paperboy subscription apply subscriptions/ --yes
  paperboy subscription export | paperboy subscription apply - --dry-run"
)]
pub(in crate::cli) struct Apply {
    /// JSON or TOML files, folders of them (`*.json`, `*.toml`), `-` for standard input
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Remove what the tenants named in the files have beside it
    #[arg(long)]
    prune: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Apply {
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let documents = read_all(&self.paths)?;
        let now = jiff::Timestamp::now().to_string();
        let steps = plan::make(store, documents, self.prune, &now).await?;
        let tally = Tally::of(&steps);
        if tally.is_nothing() {
            self.tell(common, &steps);
            eprintln!("nothing to do: {} as the files say", output::count(tally.unchanged, "subscription"));
            return Ok(());
        }
        if !common.json {
            self.tell(common, &steps);
            println!("{tally}");
        }
        let written =
            steps.iter().filter(|step| matches!(step.action, Action::Add(_) | Action::Change { .. }));
        addresses::warn(config, written.map(|step| step.action.spec()));
        if self.dry_run {
            if common.json {
                self.tell(common, &steps);
            }
            return Ok(());
        }
        if common.json && !self.yes {
            return Err(Failure::usage("with `--json` nobody is asked")
                .hint("add `--yes`, or `--dry-run` to look first"));
        }
        output::confirm("apply this?", self.yes)?;
        write(config, store, &steps, !self.no_wait).await?;
        if common.json {
            self.tell(common, &steps);
            return Ok(());
        }
        for (step, secret) in steps.iter().filter_map(|step| Some((step, made(step)?))) {
            println!("{} {}", label(step), step.action.spec().id.as_deref().unwrap_or_default());
            save::print_secret(secret);
        }
        eprintln!("applied");
        Ok(())
    }

    /// One line a subscription, and one for each field that changes.
    fn tell(&self, common: &Common, steps: &[Step]) {
        for step in steps {
            if common.json {
                output::json_line(&self.json(step));
                continue;
            }
            let sign = match &step.action {
                Action::Add(_) => '+',
                Action::Change { .. } => '~',
                Action::Remove(_) => '-',
                Action::Leave(_) => continue,
            };
            let url = output::printable(step.action.spec().masked().request.url.as_deref().unwrap_or("-"));
            let origin = step.origin.as_ref().map(|origin| format!("  ({origin})")).unwrap_or_default();
            let id = self.id(step).map(|id| format!(" {id}")).unwrap_or_default();
            println!("{sign} {}{id}  {url}{origin}", label(step));
            for change in changes(&step.action) {
                println!("    {}", output::printable(&change.to_string()));
            }
        }
    }

    /// None for a new one that a dry run does not make.
    fn id<'a>(&self, step: &'a Step) -> Option<&'a str> {
        let is_none_yet = self.dry_run && matches!(&step.action, Action::Add(new) if new.id_is_made);
        step.action.spec().id.as_deref().filter(|_| !is_none_yet)
    }

    fn json(&self, step: &Step) -> Value {
        let spec = step.action.spec();
        let action = match &step.action {
            Action::Add(_) => "add",
            Action::Change { .. } => "change",
            Action::Leave(_) => "none",
            Action::Remove(_) => "remove",
        };
        json!({
            "action": action,
            "id": self.id(step),
            "tenant": spec.tenant,
            "name": spec.name,
            "origin": step.origin,
            "changes": changes(&step.action).iter().map(Change::json).collect::<Vec<_>>(),
            "secret": made(step).filter(|_| !self.dry_run).map(Secret::expose),
            "dry_run": self.dry_run,
        })
    }
}

fn changes(action: &Action) -> Vec<Change> {
    match action {
        Action::Change { before, after } => Change::between(before, &after.spec),
        Action::Add(_) | Action::Leave(_) | Action::Remove(_) => Vec::new(),
    }
}

/// The secret that was made for a new subscription.
fn made(step: &Step) -> Option<&Secret> {
    match &step.action {
        Action::Add(new) => new.secret.as_ref(),
        _ => None,
    }
}

/// Tenant and name.
fn label(step: &Step) -> String {
    let spec = step.action.spec();
    let name = spec.name.as_deref().map(|name| format!("/{}", output::printable(name))).unwrap_or_default();
    format!("{}{name}", spec.tenant.as_deref().unwrap_or_default())
}

/// Every document of every path, or what is wrong with all of them.
fn read_all(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        match files_of(path) {
            Ok(files) => {
                for file in files {
                    match documents::read_or_say(&file) {
                        Ok(values) => documents.extend(named(&file, values)),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(Failure::refused(problems)) }
}

fn named(file: &Path, values: Vec<Value>) -> Vec<Document> {
    let file = if file == Path::new("-") { "standard input".into() } else { file.to_string_lossy() };
    // A file of comments alone says nothing.
    let values: Vec<Value> = values.into_iter().filter(|value| *value != json!({})).collect();
    let several = values.len() > 1;
    let origin =
        |place: usize| if several { format!("{file}, subscription {place}") } else { file.to_string() };
    (1..).zip(values).map(|(place, value)| Document { origin: origin(place), value }).collect()
}

/// A file itself; of a folder the JSON and TOML files in it, by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let cannot = |error: std::io::Error| Problem {
        message: format!("cannot read `{}`: {error}", path.display()),
        hint: None,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.is_file() && file.extension().is_some_and(|end| end == "json" || end == "toml") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = format!("there is no `*.json` or `*.toml` in `{}`", path.display());
        return Err(Problem { message, hint: Some("give the folder that holds the files itself".into()) });
    }
    Ok(files)
}

async fn write(config: &Config, store: &Store, steps: &[Step], wait: bool) -> Result<(), Failure> {
    let (mut added, mut changed, mut removed): (_, Vec<Versioned>, Vec<Versioned>) =
        (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match &step.action {
            Action::Add(new) => added.push(new.spec.clone()),
            Action::Change { after, .. } => changed.push((**after).clone()),
            Action::Remove(gone) => removed.push((**gone).clone()),
            Action::Leave(_) => {}
        }
    }
    save::everything(config, store, added, changed, removed, wait).await
}

/// How much is to be done.
#[derive(Default)]
struct Tally {
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
}

impl Tally {
    fn of(steps: &[Step]) -> Tally {
        let mut tally = Tally::default();
        for step in steps {
            *match &step.action {
                Action::Add(_) => &mut tally.added,
                Action::Change { .. } => &mut tally.changed,
                Action::Remove(_) => &mut tally.removed,
                Action::Leave(_) => &mut tally.unchanged,
            } += 1;
        }
        tally
    }

    fn is_nothing(&self) -> bool {
        self.added + self.changed + self.removed == 0
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { added, changed, removed, unchanged } = self;
        write!(f, "{added} to add, {changed} to change, {removed} to remove, {unchanged} unchanged")
    }
}
