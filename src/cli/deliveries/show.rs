//! `paperboy deliveries show`.

use clap::Args;

use super::life::{self, Receivers};
use super::{Common, Failure, output};
use crate::config::Config;
use crate::domain::name::SubscriptionId;
use crate::domain::template::UrlTemplate;
use crate::store::deliveries::DeliveryFilter;
use crate::store::{DeadFilter, Store};

/// Dead letters of one event or document that are looked at.
const LETTERS_MAX: u32 = 500;

/// Show the life of an event or a document.
#[derive(Args, Debug)]
#[command(
    after_help = "Times are UTC. The log goes back `delivery_log_days` days; dead letters are known for longer.

Examples:
  paperboy deliveries show evt_0192d7f0
  paperboy deliveries show --document a7046a49"
)]
pub(in crate::cli) struct Show {
    /// The event's id
    #[arg(value_name = "EVENT", required_unless_present = "document")]
    event: Option<String>,
    /// Every event of this document instead
    #[arg(long, value_name = "ID", conflicts_with = "event")]
    document: Option<String>,
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
}

impl Show {
    pub(super) async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let log = DeliveryFilter {
            tenant: self.tenant.clone(),
            event: self.event.clone(),
            document: self.document.clone(),
            ..DeliveryFilter::default()
        };
        let dead = DeadFilter {
            tenant: self.tenant,
            event_id: self.event.clone(),
            document_id: self.document.clone(),
            state: None,
            limit: LETTERS_MAX,
            ..DeadFilter::default()
        };
        let rows = store.delivery_life(&log).await?;
        let letters = store.dead_list(&dead).await?;
        let lives = life::lives(&rows, &letters);
        if lives.is_empty() {
            return Err(nothing(self.event.as_deref(), self.document.as_deref(), config));
        }
        let receivers = receivers(store, &lives).await?;
        if common.json {
            lives.iter().for_each(|life| output::json_line(&life.json(&receivers)));
            return Ok(());
        }
        let texts: Vec<String> =
            lives.iter().map(|life| life.text(&receivers, config.broker.delay_unit_ms)).collect();
        print!("{}", texts.join("\n"));
        Ok(())
    }
}

fn nothing(event: Option<&str>, document: Option<&str>, config: &Config) -> Failure {
    let what = match (event, document) {
        (Some(event), _) => format!("event `{}`", output::printable(event)),
        (None, document) => format!("document `{}`", output::printable(document.unwrap_or_default())),
    };
    let hint = match config.delivery_log.keep {
        crate::config::LogKeep::All => format!(
            "the delivery log goes back {} days and is written once a second; `paperboy status` shows what still waits",
            config.delivery_log.days
        ),
        crate::config::LogKeep::Failures => {
            "`delivery_log = \"failures\"` leaves out what was delivered at the first attempt".to_owned()
        }
        crate::config::LogKeep::Off => "`delivery_log` is `off`".to_owned(),
    };
    Failure::world(format!("nothing is known of {what}")).hint(hint)
}

/// The host of every subscription that occurs; those that are gone have none.
async fn receivers(store: &Store, lives: &[life::Life<'_>]) -> Result<Receivers, Failure> {
    let mut receivers = Receivers::default();
    for id in lives.iter().flat_map(life::Life::subscriptions) {
        let Ok(parsed) = SubscriptionId::parse(id) else { continue };
        if receivers.contains_key(id) {
            continue;
        }
        let Some(spec) = store.subscription(&parsed).await? else { continue };
        let template = spec.request.url.as_deref().and_then(|url| UrlTemplate::parse(url).ok());
        if let Some((template, _)) = template {
            receivers.insert(id.to_owned(), template.host().to_owned());
        }
    }
    Ok(receivers)
}
