//! What people and programs may ask of Paperboy: once, for the command line and for the HTTP API.
//!
//! Each file is one noun with the operations on it. They check what was given, see to it that a caller touches
//! only what is theirs, write to the store with a line of the audit, and tell every process. How a request
//! came and how its answer looks is none of their business.

pub mod audit;
pub mod batches;
pub mod caller;
pub mod calls;
pub mod dead;
pub mod deliveries;
pub mod events;
pub mod keys;
pub mod moment;
pub mod platform;
pub mod replays;
pub mod subscriptions;
pub mod trial;
pub mod wanted;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use self::caller::Caller;
use crate::broker::{Broker, Outgoing, Target, Unconfirmed};
use crate::domain::fault::Fault;
use crate::domain::outcome::Answer;
use crate::domain::preset::{self, Preset};
use crate::domain::request::Request;
use crate::domain::subscription::SubscriptionSpec;
use crate::http::Transport;
use crate::http::guard::Guard;
use crate::store::{Note, SaveError, Store};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tells every process that something changed.
pub trait Board: Send + Sync + 'static {
    /// Posts every change up to this counter; a sentence for people if that was not possible.
    fn post<'a>(&'a self, store: &'a Store, counter: u64) -> Boxed<'a, Option<String>>;
}

/// A [`Broker`] whose kind is not known.
pub trait Publisher: Send + Sync + 'static {
    /// As [`Broker::publish`].
    fn publish(&self, target: Target, message: Outgoing) -> Boxed<'_, Result<(), Unconfirmed>>;
}

impl<B: Broker> Publisher for B {
    fn publish(&self, target: Target, message: Outgoing) -> Boxed<'_, Result<(), Unconfirmed>> {
        Box::pin(Broker::publish(self, target, message))
    }
}

/// A [`Transport`] whose kind is not known.
pub trait Courier: Send + Sync + 'static {
    /// As [`Transport::send`].
    fn send(&self, request: Request) -> Boxed<'_, Answer>;
}

impl<T: Transport> Courier for T {
    fn send(&self, request: Request) -> Boxed<'_, Answer> {
        Box::pin(Transport::send(self, request))
    }
}

/// What the operations work on.
#[derive(Clone)]
pub struct Desk {
    pub store: Store,
    pub board: Arc<dyn Board>,
    pub guard: Arc<Guard>,
    pub rules: Rules,
}

/// What the configuration says of operations.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long it takes until a change that was posted is used by every process.
    pub refresh: Duration,
    pub subscriptions_max: u32,
    pub event_bytes_max: usize,
    /// Deliveries are logged, so that canaries can be heard of.
    pub log_is_kept: bool,
    /// When batches close.
    pub batches: crate::domain::batch::Rules,
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Everything wrong with what was given.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    /// It is not there, or not the caller's to see.
    #[error("there is no {what} `{id}`")]
    Missing { what: &'static str, id: String },
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// It has another version than the caller saw.
    #[error("somebody else changed or removed {what} `{id}` meanwhile")]
    Stale { what: &'static str, id: String },
    /// It does not fit what is there.
    #[error("{message}")]
    Conflict { message: String, hint: &'static str },
    /// Its platform lets a customer have one, and this one is there.
    #[error("{}", preset::too_many(preset, id))]
    Second { preset: &'static Preset, id: String },
    /// There is no room for it now.
    #[error("{0}")]
    Busy(&'static str),
    /// The store or the broker does not do its part.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Refused {
    /// One fault of one field.
    pub fn fault(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Refused {
        Refused::Faults(vec![Fault::new(field, message).hint(hint)])
    }

    fn subscription(id: &str) -> Refused {
        Refused::Missing { what: "subscription", id: id.to_owned() }
    }
}

impl From<Vec<Fault>> for Refused {
    fn from(faults: Vec<Fault>) -> Refused {
        Refused::Faults(faults)
    }
}

impl From<SaveError> for Refused {
    fn from(error: SaveError) -> Refused {
        let message = error.to_string();
        match error {
            SaveError::IdTaken { .. } => Refused::Conflict {
                message,
                hint: "leave `id` out, or change the one that is there with `paperboy subscription import`",
            },
            SaveError::TooMany { .. } => {
                Refused::Conflict { message, hint: "remove some first, or raise `limits.subscriptions_max`" }
            }
            SaveError::TooLarge { .. } => Refused::Conflict {
                message,
                hint: "remove some first, or shorten their `scope` and templates",
            },
            SaveError::Second { preset, id } => Refused::Second { preset, id },
            SaveError::Repeated => Refused::Conflict { message, hint: "look at what is there" },
            SaveError::Changed { id } => Refused::Stale { what: "subscription", id },
            SaveError::Missing { id } => Refused::subscription(&id),
            SaveError::Other(error) => Refused::Failed(error),
        }
    }
}

impl Desk {
    /// Tells every process of a change and waits, if asked to, until all use it. What people should know of it
    /// is returned.
    pub async fn spread(&self, counter: u64, wait: bool) -> Option<String> {
        let warning = self.board.post(&self.store, counter).await;
        if wait {
            tokio::time::sleep(self.rules.refresh).await;
        }
        warning
    }

    /// Addresses that the guard refuses as of now: said when a subscription is written, decided at every send.
    pub fn address_warning(&self, spec: &SubscriptionSpec) -> Option<String> {
        let login = spec.auth.as_ref().and_then(|auth| auth.url.as_deref());
        let urls = [spec.request.url.as_deref(), login].into_iter().flatten();
        urls.filter_map(|url| url::Url::parse(url).ok()).find_map(|url| self.guard.warning(&url))
    }
}

/// A line for the audit.
pub fn note(
    caller: &Caller,
    action: &'static str,
    tenant: Option<&str>,
    object: &str,
    detail: Value,
) -> Note {
    Note {
        at_ms: now_ms(),
        actor: caller.actor.clone(),
        action,
        tenant: tenant.map(str::to_owned),
        object: object.to_owned(),
        detail,
    }
}

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}
