//! `paperboy dead …` over the API of a running `serve`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::which::{Chosen, PAGE, Which};
use super::{Command, Common, Failure, discard, export, groups, jobs, list, output, refuse, replay, show};
use crate::cli::remote::{Remote, segment};
use crate::desk::moment::precise;
use crate::desk::replays::Turn;
use crate::store::dead;

/// How often a replay is asked about.
const LOOK: Duration = Duration::from_millis(500);

impl Command {
    /// Runs the command over the API.
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        match self {
            Command::List(list) => list.run_remote(common, remote).await,
            Command::Groups(groups) => groups.run_remote(common, remote).await,
            Command::Show(show) => show.run_remote(common, remote).await,
            Command::Export(export) => export.run_remote(remote).await,
            Command::Replay(replay) => replay.run_remote(common, remote).await,
            Command::Jobs(jobs) => jobs.run_remote(common, remote).await,
            Command::Discard(discard) => discard.run_remote(common, remote).await,
            Command::Other(words) => Err(refuse(&words)),
        }
    }
}

impl Which {
    /// The filters as the API takes them; an age means the moment it is asked at, on every page.
    fn pairs(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("tenant", self.tenant.clone()),
            ("reason", self.reason.clone()),
            ("event", self.event.clone()),
            ("document", self.document.clone()),
            ("batch", self.batch.clone()),
            ("type", self.event_type.clone()),
            ("kind", self.kind.clone()),
            ("host", self.host.clone()),
            ("class", self.class.clone()),
            ("status", self.status.clone()),
            ("since", self.since.as_ref().map(|moment| precise(moment.unix_ms))),
            ("until", self.until.as_ref().map(|moment| precise(moment.unix_ms))),
        ]
    }
}

impl Chosen {
    fn body(&self) -> Result<Value, Failure> {
        self.check()?;
        if !self.ids.is_empty() {
            return Ok(json!({ "ids": self.ids }));
        }
        let mut pairs = self.which.pairs();
        pairs.push(("subscription", self.from.clone()));
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        Ok(json!({ "filter": Value::Object(given.collect()) }))
    }
}

impl list::List {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(dead::LIST_LIMIT);
        let mut query = self.which.pairs();
        query.push(("subscription", self.subscription));
        query.push(("state", Some(self.state)));
        query.push(("cursor", self.before));
        let rows = remote.list("/v1/dead-letters", &query, limit).await?;
        list::print(common, &rows);
        output::bounded(rows.len(), limit);
        Ok(())
    }
}

impl groups::Groups {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut query = self.which.pairs();
        query.push(("subscription", self.subscription));
        let rows = remote.list("/v1/dead-letters/groups", &query, self.limit).await?;
        groups::print(common, &rows);
        output::bounded(rows.len(), self.limit);
        Ok(())
    }
}

impl show::Show {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let letter = remote.get(&format!("/v1/dead-letters/{}", segment(&self.id))).await?;
        if self.raw {
            std::io::stdout().write_all(&body_of(&letter)).map_err(anyhow::Error::from)?;
        } else if common.json {
            output::json_line(&letter);
        } else {
            println!("{}", output::printable(&format!("{letter:#}")));
        }
        Ok(())
    }
}

/// The event's bytes.
fn body_of(letter: &Value) -> Vec<u8> {
    let bytes =
        letter["body_base64"].as_str().and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok());
    bytes.unwrap_or_else(|| letter["body"].as_str().unwrap_or_default().as_bytes().to_vec())
}

impl export::Export {
    async fn run_remote(self, remote: &Remote) -> Result<(), Failure> {
        let mut query = self.which.pairs();
        query.push(("subscription", self.subscription));
        query.push(("state", Some(self.state)));
        let mut exported = 0;
        let mut cursor = None;
        loop {
            let (page, next) = remote.page("/v1/dead-letters", &query, cursor, PAGE).await?;
            for row in &page {
                let id = row["id"].as_str().unwrap_or_default();
                // Forgotten since the page was read.
                let Some(mut letter) = remote.find(&format!("/v1/dead-letters/{}", segment(id))).await?
                else {
                    continue;
                };
                export::without_lossy_body(&mut letter);
                writeln!(std::io::stdout(), "{letter}").map_err(anyhow::Error::from)?;
                exported += 1;
            }
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        eprintln!("exported {}", output::count(exported, "dead letter"));
        Ok(())
    }
}

impl replay::Replay {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut body = self.chosen.body()?;
        body["dry_run"] = json!(self.dry_run);
        body["rate"] = json!(self.rate);
        body["canary"] = json!(self.canary);
        if let Some(id) = &self.subscription {
            body["subscription"] = json!(id);
        }
        let begun = remote.post("/v1/dead-letters/replay", &body, false).await?;
        let matched = begun["matched"].as_u64().unwrap_or_default();
        if self.dry_run {
            super::decided::would(common, "replay", matched);
            return Ok(());
        }
        let letters = output::count(usize::try_from(matched).unwrap_or(usize::MAX), "dead letter");
        let job = &begun["replay"];
        let Some(id) = job["id"].as_i64() else {
            super::decided::tell(common, crate::store::DeadState::Replayed, 0);
            return Ok(());
        };
        if self.detach {
            if common.json {
                output::json_line(&json!({ "job": id, "letters": job["waiting"] }));
            } else {
                eprintln!(
                    "replay {id} of {letters} is left to `paperboy serve`; `paperboy dead jobs` shows it"
                );
            }
            return Ok(());
        }
        watch(common, remote, job).await
    }
}

/// Waits until `serve` is through with a replay, and tells how it went.
async fn watch(common: &Common, remote: &Remote, begun: &Value) -> Result<(), Failure> {
    let number = |job: &Value, name: &str| job[name].as_u64().unwrap_or_default();
    let path = format!("/v1/replays/{}", begun["id"]);
    let before = number(begun, "sent");
    let waiting = usize::try_from(number(begun, "waiting")).unwrap_or(usize::MAX);
    let bar = output::progress_of(waiting, "letters");
    loop {
        let job = remote.get(&path).await?;
        let sent = number(&job, "sent").saturating_sub(before);
        bar.set_position(sent);
        let state = job["state"].as_str().unwrap_or_default();
        if matches!(state, "running" | "left_to_serve" | "interrupted") {
            sleep(LOOK).await;
            continue;
        }
        bar.finish_and_clear();
        if state == "done" {
            super::decided::tell(common, crate::store::DeadState::Replayed, sent);
            return Ok(());
        }
        let why = job["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        return Err(Failure::world(format!("replay {} is {state}{why}", job["id"])).hint(format!(
            "{sent} were sent and are marked; `paperboy dead jobs resume` goes on with the rest"
        )));
    }
}

impl jobs::Jobs {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let Some(action) = &self.action else {
            jobs::print(common, &remote.list("/v1/replays", &[], self.limit).await?);
            return Ok(());
        };
        let (id, turn) = action.turn();
        let word = match turn {
            Turn::Pause => "pause",
            Turn::Resume => "resume",
            Turn::Cancel => "cancel",
        };
        jobs::tell(common, &remote.post(&format!("/v1/replays/{id}/{word}"), &json!({}), false).await?);
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
        let dry = remote.post("/v1/dead-letters/discard", &dry, false).await?;
        let matched = dry["matched"].as_u64().unwrap_or_default();
        if self.dry_run {
            super::decided::would(common, "discard", matched);
            return Ok(());
        }
        let matched = usize::try_from(matched).unwrap_or(usize::MAX);
        output::confirm(&format!("discard {}?", output::count(matched, "dead letter")), self.yes)?;
        let discarded = remote.discard_dead_letters(&body).await?;
        super::decided::tell(common, crate::store::DeadState::Discarded, discarded);
        Ok(())
    }
}
