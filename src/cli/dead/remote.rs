//! `paperboy dead list|show|replay|discard` over the API of a running `serve`.

use serde_json::{Value, json};

use super::which::{Chosen, Which};
use super::{Command, Common, Failure, discard, list, output, refuse, replay, show};
use crate::cli::remote::{Remote, segment};
use crate::store::dead;

impl Command {
    /// Runs the command over the API; those it has nothing for say so.
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        match self {
            Command::List(list) => list.run_remote(common, remote).await,
            Command::Show(show) => show.run_remote(common, remote).await,
            Command::Replay(replay) => replay.run_remote(common, remote).await,
            Command::Discard(discard) => discard.run_remote(common, remote).await,
            Command::Groups(_) => Err(remote.only_here("paperboy dead groups")),
            Command::Export(_) => Err(remote.only_here("paperboy dead export")),
            Command::Jobs(_) => Err(remote.only_here("paperboy dead jobs")),
            Command::Other(words) => Err(refuse(&words)),
        }
    }
}

impl Which {
    /// The filters as the API takes them.
    fn pairs(&self) -> Result<Vec<(&'static str, Option<String>)>, Failure> {
        let is_ours = self.batch.is_some()
            || self.event_type.is_some()
            || self.host.is_some()
            || self.class.is_some()
            || self.status.is_some()
            || self.since.is_some()
            || self.until.is_some();
        if is_ours {
            return Err(Failure::usage(
                "`--batch`, `--type`, `--host`, `--class`, `--status`, `--since` and `--until` do not go over the API",
            )
            .hint("run it where the store is, without `--api` and PAPERBOY_API"));
        }
        Ok(vec![
            ("tenant", self.tenant.clone()),
            ("reason", self.reason.clone()),
            ("event", self.event.clone()),
            ("document", self.document.clone()),
            ("kind", self.kind.clone()),
        ])
    }
}

impl Chosen {
    fn body(&self) -> Result<Value, Failure> {
        if !self.ids.is_empty() {
            return Ok(json!({ "ids": self.ids }));
        }
        if !self.all {
            return Err(Chosen::nothing_named());
        }
        let mut pairs = self.which.pairs()?;
        pairs.push(("subscription", self.from.clone()));
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        Ok(json!({ "filter": Value::Object(given.collect()) }))
    }
}

impl list::List {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(dead::LIST_LIMIT);
        let mut query = self.which.pairs()?;
        query.push(("subscription", self.subscription));
        query.push(("state", Some(self.state)));
        query.push(("cursor", self.before));
        list::print(common, &remote.list("/v1/dead-letters", &query, limit).await?);
        Ok(())
    }
}

impl show::Show {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let letter = remote.get(&format!("/v1/dead-letters/{}", segment(&self.id))).await?;
        if self.raw {
            print!("{}", letter["body"].as_str().unwrap_or_default());
        } else if common.json {
            output::json_line(&letter);
        } else {
            println!("{}", output::printable(&format!("{letter:#}")));
        }
        Ok(())
    }
}

impl replay::Replay {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        if self.canary > 0 || self.detach {
            return Err(remote.only_here("paperboy dead replay --canary` and `--detach"));
        }
        let mut body = self.chosen.body()?;
        body["dry_run"] = json!(self.dry_run);
        if let Some(id) = &self.subscription {
            body["subscription"] = json!(id);
        }
        let told = |id: &str| {
            if common.json {
                output::json_line(&json!({ "id": id, "status": "replayed" }));
            }
        };
        let result = remote.dead_letters("replay", body, told).await?;
        let (verb, count) =
            if self.dry_run { ("would replay", result.matched) } else { ("replayed", result.done) };
        eprintln!("{verb} {}", output::count(count, "dead letter"));
        Ok(())
    }
}

impl discard::Discard {
    async fn run_remote(mut self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        self.take_note()?;
        let mut body = self.chosen.body()?;
        if let Some(note) = &self.note {
            body["note"] = json!(note);
        }
        let mut dry = body.clone();
        dry["dry_run"] = json!(true);
        let matched = remote.dead_letters("discard", dry, |_| ()).await?.matched;
        if self.dry_run {
            eprintln!("would discard {}", output::count(matched, "dead letter"));
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(matched, "dead letter")), self.yes)?;
        let discarded = remote.dead_letters("discard", body, |_| ()).await?.done;
        super::decided::tell(common, crate::store::DeadState::Discarded, discarded as u64);
        Ok(())
    }
}
