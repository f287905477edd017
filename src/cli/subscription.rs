//! `paperboy subscription add|list|show|remove|enable|disable`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Problem;
use super::{Common, Failure, output, services};
use crate::config::Config;
use crate::domain::fault::Fault;
use crate::domain::name::{SubscriptionId, Tenant};
use crate::domain::subscription::{DisabledBy, SubscriptionSpec};
use crate::http::guard::Guard;
use crate::store::{AddError, ListFilter, Store};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Add subscriptions from flags or a file; prints ids, and a secret once where it made one
    Add(Box<Add>),
    /// List subscriptions
    List(List),
    /// Show one subscription, secrets hidden
    Show {
        /// Its id
        id: String,
    },
    /// Remove a subscription; its retries under way become dead letters `gone`
    Remove(Remove),
    /// Send to it again
    Enable(Switch),
    /// Stop sending to it; its retries under way become dead letters `disabled`
    Disable(Switch),
    /// Commands that come later, and words that are none.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Add subscriptions.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy subscription add --tenant acme --url https://erp.example.com/ocr/:id --events 'document.*'
  paperboy subscription add --file subscriptions.toml
  paperboy subscription add --file - < one.json")]
pub(super) struct Add {
    /// JSON or TOML: one subscription or a list; `-` for JSON or TOML on standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tenant", "url", "events", "secret", "name", "scope"])]
    file: Option<PathBuf>,
    /// Whose events
    #[arg(long)]
    tenant: Option<String>,
    /// Where to; `:id` is the document's id
    #[arg(long)]
    url: Option<String>,
    /// Which events, in AMQP topic words; several with commas or by repeating the flag
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    events: Vec<String>,
    /// The secret to sign with (`whsec_…`); else one is made and shown once
    #[arg(long)]
    secret: Option<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Only events of this scope, such as `inbox=i7`; repeat for more
    #[arg(long, value_name = "KEY=VALUE")]
    scope: Vec<String>,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

/// List subscriptions.
#[derive(Args, Debug)]
pub(super) struct List {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Start after this id (the last of the page before)
    #[arg(long)]
    after: Option<String>,
}

/// Remove a subscription.
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Its id
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

/// Enable or disable a subscription.
#[derive(Args, Debug)]
pub(super) struct Switch {
    /// Its id
    id: String,
    /// Return at once instead of when every process uses the change
    #[arg(long)]
    no_wait: bool,
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Command::Other(words) = &self {
            return Err(refuse(words));
        }
        let config = common.load()?;
        let (store, _) = services::open_store(&config).await?;
        let done = match self {
            Command::Add(add) => add.run(common, &config, &store).await,
            Command::List(list) => list.run(common, &store).await,
            Command::Show { id } => show(common, &store, &id).await,
            Command::Remove(remove) => remove.run(&config, &store).await,
            Command::Enable(switch) => switch.run(&config, &store, true).await,
            Command::Disable(switch) => switch.run(&config, &store, false).await,
            Command::Other(words) => Err(refuse(&words)),
        };
        store.close().await;
        done
    }
}

fn refuse(words: &[OsString]) -> Failure {
    const LATER: [&str; 6] = ["update", "test", "import", "apply", "export", "rotate-secret"];
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    if LATER.contains(&word.as_ref()) {
        return Failure::usage(format!("`paperboy subscription {word}` is not supported yet"))
            .hint("`paperboy subscription remove` and `add` make a change for now");
    }
    Failure::usage(format!("`{word}` is not a command of `paperboy subscription`"))
        .hint("`paperboy subscription --help` lists them")
}

impl Add {
    async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let specs = match &self.file {
            Some(path) => read_specs(path)?,
            None => vec![self.spec_from_flags()?],
        };
        let several = specs.len() > 1;
        let now = jiff::Timestamp::now().to_string();
        let mut complete = Vec::with_capacity(specs.len());
        let mut secrets = Vec::with_capacity(specs.len());
        let mut problems = Vec::new();
        for (place, mut spec) in specs.into_iter().enumerate() {
            secrets.push(spec.complete(SubscriptionId::from_random(random()?), &now, random()?));
            if let Err(faults) = spec.clone().check() {
                problems.extend(faults.into_iter().map(|fault| problem(fault, several.then_some(place + 1))));
            }
            complete.push(spec);
        }
        if !problems.is_empty() {
            return Err(Failure::refused(problems));
        }
        warn_about_addresses(config, &complete);
        let told: Vec<_> = complete.iter().map(|spec| (spec.id.clone(), spec.tenant.clone())).collect();
        let counter = store.add_subscriptions(complete).await.map_err(|error| match error {
            AddError::IdTaken { .. } => {
                Failure::world(error.to_string()).hint("leave `id` out, or remove the other one first")
            }
            AddError::Other(error) => Failure::from(error),
        })?;
        services::spread(config, store, counter, !self.no_wait).await?;
        for ((id, tenant), secret) in told.into_iter().zip(secrets) {
            let id = id.unwrap_or_default();
            let secret = secret.as_ref().map(|secret| secret.expose());
            if common.json {
                output::json_line(&json!({ "id": id, "tenant": tenant, "secret": secret }));
            } else {
                println!("{id}");
                if let Some(secret) = secret {
                    println!("secret: {secret}");
                    eprintln!("the secret is shown this once; give it to the receiver");
                }
            }
        }
        Ok(())
    }

    fn spec_from_flags(&self) -> Result<SubscriptionSpec, Failure> {
        let mut missing = Vec::new();
        for (flag, is_missing) in [
            ("--tenant", self.tenant.is_none()),
            ("--url", self.url.is_none()),
            ("--events", self.events.is_empty()),
        ] {
            if is_missing {
                missing.push(Problem { message: format!("`{flag}` is missing"), hint: None });
            }
        }
        if let Some(last) = missing.last_mut() {
            last.hint = Some("give `--tenant`, `--url` and `--events`, or `--file FILE`".into());
            return Err(Failure::refused(missing));
        }
        let mut scope: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in &self.scope {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(
                    Failure::usage(format!("`--scope {pair}` has no `=`")).hint("write `--scope inbox=i7`")
                );
            };
            scope.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        let mut document = json!({
            "tenant": self.tenant,
            "events": self.events,
            "request": { "url": self.url },
        });
        if let Some(name) = &self.name {
            document["name"] = json!(name);
        }
        if !scope.is_empty() {
            document["scope"] = json!(scope);
        }
        if let Some(secret) = &self.secret {
            document["signatures"] = json!([{ "scheme": "standard", "secrets": [secret] }]);
        }
        let fault = |faults: Vec<Fault>| faults.into_iter().map(|fault| problem(fault, None)).collect();
        SubscriptionSpec::read(document).map_err(|faults| Failure::refused(fault(faults)))
    }
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Failure::world(format!("no randomness: {error}")))?;
    Ok(bytes)
}

fn problem(fault: Fault, place: Option<usize>) -> Problem {
    let message = match place {
        Some(place) => format!("subscription {place}: `{}`: {}", fault.field, fault.message),
        None => format!("`{}`: {}", fault.field, fault.message),
    };
    Problem { message, hint: fault.hint }
}

/// Addresses that the guard refuses as of now: said at creation, decided at every send.
fn warn_about_addresses(config: &Config, specs: &[SubscriptionSpec]) {
    let Ok(guard) = Guard::new(&config.egress.allow) else { return };
    for spec in specs {
        let Some(Ok(url)) = spec.request.url.as_deref().map(url::Url::parse) else { continue };
        if let Some(address) = Guard::literal(&url)
            && !guard.permits(address)
        {
            eprintln!(
                "warning: `{}` is not a public address: deliveries to it fail as `blocked` unless `egress.allow` names it",
                address.ip()
            );
        }
    }
}

/// JSON (one object, a list, objects in a row) or TOML (one subscription, or `[[subscriptions]]`).
fn read_specs(path: &Path) -> Result<Vec<SubscriptionSpec>, Failure> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    }
    let begins_as_json =
        text.trim_start().starts_with(['{', '[']) && path.extension().is_none_or(|end| end != "toml");
    let documents = if begins_as_json { json_documents(&text) } else { toml_documents(&text) };
    let documents = documents.map_err(|error| {
        Failure::usage(format!("`{}` cannot be read: {error}", path.display()))
            .hint("write one subscription or a list of them, as JSON or TOML")
    })?;
    let mut specs = Vec::new();
    let mut problems = Vec::new();
    let several = documents.len() > 1;
    for (place, document) in documents.into_iter().enumerate() {
        match SubscriptionSpec::read(document) {
            Ok(spec) => specs.push(spec),
            Err(faults) => {
                problems.extend(faults.into_iter().map(|fault| problem(fault, several.then_some(place + 1))))
            }
        }
    }
    if problems.is_empty() { Ok(specs) } else { Err(Failure::refused(problems)) }
}

fn json_documents(text: &str) -> Result<Vec<serde_json::Value>, String> {
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
        match value.map_err(|error| error.to_string())? {
            serde_json::Value::Array(list) => documents.extend(list),
            other => documents.push(other),
        }
    }
    Ok(documents)
}

fn toml_documents(text: &str) -> Result<Vec<serde_json::Value>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let value = serde_json::to_value(table).map_err(|error| error.to_string())?;
    Ok(match value.get("subscriptions") {
        Some(serde_json::Value::Array(list)) => list.clone(),
        _ => vec![value],
    })
}

impl List {
    async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let filter = ListFilter {
            tenant: self.tenant.as_deref().map(tenant).transpose()?,
            after: self.after.as_deref().map(id).transpose()?,
            limit: self.limit,
        };
        let specs = store.list_subscriptions(&filter).await?;
        if common.json {
            for spec in &specs {
                output::json_line(&serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?);
            }
            return Ok(());
        }
        let rows = specs.iter().map(|spec| {
            vec![
                spec.id.clone().unwrap_or_default(),
                spec.tenant.clone().unwrap_or_default(),
                output::printable(spec.name.as_deref().unwrap_or("-")),
                if spec.enabled != Some(false) { "yes" } else { "no" }.to_owned(),
                spec.events.join(" "),
                output::printable(spec.request.url.as_deref().unwrap_or("-")),
            ]
        });
        output::table(
            &["id", "tenant", "name", "enabled", "events", "url"],
            rows.collect(),
            "no subscriptions",
        );
        Ok(())
    }
}

async fn show(common: &Common, store: &Store, text: &str) -> Result<(), Failure> {
    let spec = store.subscription(&id(text)?).await?.ok_or_else(|| missing(text))?;
    let value = serde_json::to_value(spec.masked()).map_err(anyhow::Error::from)?;
    if common.json {
        output::json_line(&value);
    } else {
        println!("{}", serde_json::to_string_pretty(&value).map_err(anyhow::Error::from)?);
    }
    Ok(())
}

impl Remove {
    async fn run(self, config: &Config, store: &Store) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let spec = store.subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        let url = output::printable(spec.request.url.as_deref().unwrap_or("-"));
        let what = format!("subscription `{id}` of tenant `{}` to {url}", spec.tenant.unwrap_or_default());
        if self.dry_run {
            eprintln!("would remove {what}");
            return Ok(());
        }
        output::confirm(&format!("remove {what}?"), self.yes)?;
        let counter = store.remove_subscription(&id).await?.ok_or_else(|| missing(&self.id))?;
        services::spread(config, store, counter, !self.no_wait).await?;
        eprintln!("removed {what}");
        Ok(())
    }
}

impl Switch {
    async fn run(self, config: &Config, store: &Store, enabled: bool) -> Result<(), Failure> {
        let id = id(&self.id)?;
        let now = jiff::Timestamp::now().to_string();
        let changed = store.set_enabled(&id, enabled, DisabledBy::Person, &now).await?;
        let counter = changed.ok_or_else(|| missing(&self.id))?;
        services::spread(config, store, counter, !self.no_wait).await?;
        eprintln!("subscription `{id}` is {}", if enabled { "enabled" } else { "disabled" });
        Ok(())
    }
}

fn id(text: &str) -> Result<SubscriptionId, Failure> {
    SubscriptionId::parse(text)
        .map_err(|fault| Failure::usage(format!("`{text}` is not a subscription's id: {fault}")))
}

fn tenant(text: &str) -> Result<Tenant, Failure> {
    Tenant::parse(text).map_err(|fault| Failure::usage(format!("`{text}` is not a tenant: {fault}")))
}

fn missing(id: &str) -> Failure {
    Failure::world(format!("there is no subscription `{id}`")).hint("`paperboy subscription list` shows them")
}
