//! The delivery log: rows by filter, and the life of one event or document.

pub mod life;

use serde_json::{Value, json};

use self::life::{Receivers, lives};
use super::moment::precise;
use super::{Caller, Desk, Refused};
use crate::domain::name::SubscriptionId;
use crate::domain::template::UrlTemplate;
use crate::store::deliveries::{DeliveryFilter, DeliveryRow};
use crate::store::{DeadFilter, Store};

/// Dead letters of one event or document that are looked at.
const LETTERS_MAX: u32 = 500;

/// A row of the log as JSON.
pub fn row_json(row: &DeliveryRow) -> Value {
    json!({
        "place": row.place.to_string(),
        "at": precise(row.at_ms),
        "what": row.what.as_str(),
        "tenant": row.tenant,
        "event": row.event_id,
        "type": row.event_type,
        "document_id": row.document_id,
        "batch_id": row.batch_id,
        "subscription": row.subscription,
        "attempt": row.attempt,
        "cycle": row.cycle,
        "status": row.status,
        "class": row.class,
        "reason": row.reason,
        "ms": row.elapsed_ms,
        "next_wait": row.wait,
        "received_at": row.received_ms.map(precise),
        "worker": row.worker,
    })
}

/// Which lives: of one event, or of every event of a document.
#[derive(Clone, Debug, Default)]
pub struct Of {
    pub event: Option<String>,
    pub document: Option<String>,
    pub tenant: Option<String>,
}

impl Desk {
    /// What is known of an event, or of each event of a document, as JSON and in the order of their arrival: one
    /// of each tenant that has an event of this id and is the caller's. Empty: nothing is known.
    ///
    /// # Errors
    /// The store fails.
    pub async fn lives(&self, caller: &Caller, of: &Of) -> Result<Vec<Value>, Refused> {
        let tenant = caller.tenant.as_ref().map(ToString::to_string).or_else(|| of.tenant.clone());
        let log = DeliveryFilter {
            tenant: tenant.clone(),
            event: of.event.clone(),
            document: of.document.clone(),
            ..DeliveryFilter::default()
        };
        let dead = DeadFilter {
            tenant,
            event_id: of.event.clone(),
            document_id: of.document.clone(),
            state: None,
            limit: LETTERS_MAX,
            ..DeadFilter::default()
        };
        let rows = self.store.delivery_life(&log).await?;
        let letters = self.store.dead_list(&dead).await?;
        let lives = lives(&rows, &letters);
        let receivers = receivers(&self.store, &lives).await?;
        let mut told: Vec<Value> = lives.iter().map(|life| life.json(&receivers)).collect();
        if caller.tenant.is_some() {
            told.iter_mut().for_each(hide_workers);
        }
        Ok(told)
    }
}

/// Which of our machines did what is nothing for tenants.
fn hide_workers(life: &mut Value) {
    for delivery in life["deliveries"].as_array_mut().into_iter().flatten() {
        for entry in delivery["entries"].as_array_mut().into_iter().flatten() {
            hide_worker(entry);
        }
    }
}

/// Takes the name of our machine out of a row.
pub fn hide_worker(row: &mut Value) {
    if let Value::Object(row) = row {
        row.remove("worker");
    }
}

/// The host of every subscription that occurs; those that are gone have none.
async fn receivers(store: &Store, lives: &[life::Life<'_>]) -> anyhow::Result<Receivers> {
    let mut receivers = Receivers::default();
    for id in lives.iter().flat_map(life::Life::subscriptions) {
        let Ok(parsed) = SubscriptionId::parse(id) else { continue };
        if receivers.contains_key(id) {
            continue;
        }
        // The document that may be shown: its secrets are masked, its host is not.
        let Some(found) = store.shown_subscription(&parsed).await? else { continue };
        let template = found.spec.request.url.as_deref().and_then(|url| UrlTemplate::parse(url).ok());
        if let Some((template, _)) = template {
            receivers.insert(id.to_owned(), template.host().to_owned());
        }
    }
    Ok(receivers)
}
