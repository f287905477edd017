//! `paperboy preset list|show`.

use clap::Subcommand;
use serde_json::Value;

use super::{Common, Failure, output};
use crate::domain::preset::{Preset, Signer, Take};
use crate::domain::spec::RetrySpec;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List the platforms whose webhooks Paperboy can send as they do
    List,
    /// Show one: what it sends, what it holds to, which events it knows, what an import takes
    Show {
        /// Its name
        name: String,
    },
}

impl Command {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Command::List => list(common),
            Command::Show { name } => show(common, &name),
        }
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    if common.json {
        for preset in Preset::all() {
            output::json_line(&serde_json::to_value(preset).map_err(anyhow::Error::from)?);
        }
        return Ok(());
    }
    let rows = Preset::all().iter().map(|preset| {
        let subscription = &preset.subscription;
        vec![
            preset.name.clone(),
            preset.title.clone(),
            subscription.success.clone().unwrap_or_default().join(" "),
            subscription.retry.as_ref().map(schedule).unwrap_or_default(),
            format!("{} s", subscription.request.timeout_s.unwrap_or_default()),
            headers(preset.signers.iter().filter(|signer| signer.default)),
        ]
    });
    output::table(
        &["preset", "platform", "success", "retries", "time-out", "signed"],
        rows.collect(),
        "no presets",
    );
    Ok(())
}

fn show(common: &Common, name: &str) -> Result<(), Failure> {
    let Some(preset) = Preset::find(name) else {
        return Err(Failure::usage(format!("there is no preset `{name}`"))
            .hint(format!("known are {}", Preset::known())));
    };
    if common.json {
        output::json_line(&serde_json::to_value(preset).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    println!("{}: {}\n\n{}\n", preset.name, preset.title, preset.about.trim());
    let subscription = &preset.subscription;
    let retry = subscription.retry.as_ref();
    let signers: Vec<String> = preset
        .signers
        .iter()
        .map(|signer| {
            let settings = &signer.settings;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let when = if signer.default { "" } else { " (where asked for)" };
            let (header, prefix, content) =
                (text(&settings.header), text(&settings.prefix), text(&settings.content));
            format!(
                "`{}`{when}: {header}: {prefix}{} {} over {content}",
                signer.name,
                text(&settings.algorithm),
                text(&settings.encoding)
            )
        })
        .collect();
    let rules = serde_json::to_value(&preset.rules).map_err(anyhow::Error::from)?;
    let rules = rules.as_object().into_iter().flatten();
    let rules: Vec<String> = rules.map(|(rule, value)| format!("{rule} {}", plain(value))).collect();
    let on = retry.and_then(|retry| retry.on.as_ref());
    let rows = [
        ("body", subscription.request.body.clone().unwrap_or_default()),
        ("success", subscription.success.clone().unwrap_or_default().join(" ")),
        ("retries", retry.map(schedule).unwrap_or_default()),
        ("retried", on.map_or_else(|| "whatever is no success".to_owned(), |on| on.join(" "))),
        ("time-out", format!("{} s", subscription.request.timeout_s.unwrap_or_default())),
        ("signatures", if signers.is_empty() { "none".to_owned() } else { signers.join("\n") }),
        ("rules", if rules.is_empty() { "none".to_owned() } else { rules.join("\n") }),
    ];
    let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
    output::table(&["what", "value"], rows.into(), "");
    println!();
    let events = preset.events.iter().map(|event| {
        let rendering = event.rendering();
        vec![
            plain(&event.vendor),
            event.all_types().collect::<Vec<_>>().join(" "),
            plain(rendering),
            if event.interactive { "once" } else { "retried" }.to_owned(),
        ]
    });
    output::table(&["their event", "our types", "sent as", "delivery"], events.collect(), "no events");
    println!();
    let fields = preset.import.fields.iter().map(|field| {
        let to = match (&field.to, &field.not_taken, field.take) {
            (_, Some(reason), _) => format!("not taken: {reason}"),
            (Some(to), None, _) => to.clone(),
            (None, None, Take::Events) => "events, interactive".to_owned(),
            (None, None, _) => field.sets.keys().cloned().collect::<Vec<_>>().join(", "),
        };
        vec![field.name.clone(), to]
    });
    output::table(&["their field", "ours"], fields.collect(), "no import");
    Ok(())
}

fn headers<'a>(signers: impl Iterator<Item = &'a Signer>) -> String {
    let headers: Vec<String> = signers.filter_map(|signer| signer.settings.header.clone()).collect();
    if headers.is_empty() { "-".to_owned() } else { headers.join(" ") }
}

fn schedule(retry: &RetrySpec) -> String {
    let attempts = retry.max_attempts.unwrap_or(1);
    match retry.kind.as_deref() {
        Some("exponential") => format!("{attempts} attempts, {}^n units", retry.base.unwrap_or(2)),
        Some("fixed") => {
            let delay_s = retry.delay_s.unwrap_or(1);
            format!("{attempts} attempts, {delay_s} unit{} apart", if delay_s == 1 { "" } else { "s" })
        }
        Some(kind) => kind.to_owned(),
        None => "-".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
