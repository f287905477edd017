//! `paperboy deliveries …` over the API of a running `serve`.

use serde_json::Value;

use super::{Common, Failure, list, output, show};
use crate::cli::remote::{Remote, segment};
use crate::desk::moment::precise;

/// A unit where nobody says otherwise.
const UNIT_MS: u32 = 1000;
/// Rows of a document that are looked at for its events.
const ROWS_MAX: u32 = 2000;

impl list::List {
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let is_bounded = self.is_bounded();
        let query = [
            ("tenant", self.tenant),
            ("subscription", self.subscription),
            ("event", self.event),
            ("document", self.document),
            ("batch", self.batch),
            ("type", self.kind),
            ("class", self.class),
            ("status", self.status),
            ("what", self.what),
            ("failures", self.failures.then(|| "true".to_owned())),
            ("since", self.since.map(|moment| precise(moment.unix_ms))),
            ("until", self.until.map(|moment| precise(moment.unix_ms))),
            ("cursor", self.after),
        ];
        let rows = remote.list("/v1/deliveries", &query, self.limit).await?;
        list::print(common, &rows);
        if rows.len() == self.limit as usize
            && let Some(place) = rows.last().and_then(|row| row["place"].as_str())
        {
            eprintln!("there may be more: `--after {}`", output::printable(place));
        } else if is_bounded && !common.json {
            eprintln!("{}", list::BOUNDED);
        }
        Ok(())
    }
}

impl show::Show {
    pub(super) async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let events = match (self.event.clone(), &self.document) {
            (Some(event), _) => vec![event],
            (None, document) => self.events_of(remote, document.clone().unwrap_or_default()).await?,
        };
        let mut lives: Vec<Value> = Vec::new();
        for event in events {
            let path = format!("/v1/deliveries/{}", segment(&event));
            let mut found = remote.get(&path).await?;
            if let Value::Array(data) = found["data"].take() {
                let is_wanted =
                    |life: &Value| self.tenant.as_deref().is_none_or(|tenant| life["tenant"] == tenant);
                lives.extend(data.into_iter().filter(is_wanted));
            }
        }
        lives.sort_by(|one, other| one["received_at"].as_str().cmp(&other["received_at"].as_str()));
        if lives.is_empty() {
            return Err(Failure::world("nothing is known of it"));
        }
        // Where this command runs, nobody may have said how long a unit is.
        let unit_ms = common.load().map_or(UNIT_MS, |config| config.broker.delay_unit_ms);
        show::print(common, &lives, unit_ms);
        Ok(())
    }

    /// The events of a document, in the log and among the dead letters.
    async fn events_of(&self, remote: &Remote, document: String) -> Result<Vec<String>, Failure> {
        let of_it = || [("document", Some(document.clone())), ("tenant", self.tenant.clone())];
        let mut rows = remote.list("/v1/deliveries", &of_it(), ROWS_MAX).await?;
        let [document, tenant] = of_it();
        let letters = [document, tenant, ("state", Some("all".to_owned()))];
        rows.extend(remote.list("/v1/dead-letters", &letters, ROWS_MAX).await?);
        let mut events: Vec<String> =
            rows.iter().filter_map(|row| row["event"].as_str().map(str::to_owned)).collect();
        events.sort();
        events.dedup();
        Ok(events)
    }
}
