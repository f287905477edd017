//! One connection to RabbitMQ that is dialled again when it is gone.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A peer that says nothing for twice this is gone (AMQP 0-9-1 §4.2.7); the default of 60 s would take two minutes.
const HEARTBEAT_S: u16 = 10;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// However short the wait, a broker gets this long to answer.
const DIAL_TIMEOUT_MIN: Duration = Duration::from_secs(2);

/// Where to connect to, and what for.
pub(super) struct Link {
    uri: AMQPUri,
    purpose: &'static str,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// `broker.url` cannot be read.
    #[error("`broker.url` is not an AMQP address: {0}")]
    Address(String),
    /// The broker refuses this user or virtual host.
    #[error("RabbitMQ at `{place}` refused the login of `{user}`: {detail}")]
    Login {
        /// Host and port.
        place: String,
        /// The user name of `broker.url`.
        user: String,
        /// The broker's words.
        detail: String,
    },
    /// Nobody answers.
    #[error("RabbitMQ at `{place}` cannot be reached: {detail}")]
    Unreachable {
        /// Host and port.
        place: String,
        /// What the system says.
        detail: String,
    },
}

impl DialError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            DialError::Address(_) => "write `amqp://user:password@host:5672/vhost`, `/` as `%2f`".into(),
            DialError::Login { .. } => {
                "check user, password and virtual host in `broker.url` (PAPERBOY__BROKER__URL)".into()
            }
            DialError::Unreachable { .. } => {
                "start RabbitMQ (`./deploy/local up` starts a private one) or set `broker.url` (PAPERBOY__BROKER__URL)"
                    .into()
            }
        }
    }
}

impl Link {
    /// A link to this address; `purpose` is shown in the broker's list of connections.
    pub(super) fn new(url: &str, purpose: &'static str) -> Result<Link, DialError> {
        let mut uri: AMQPUri = url.parse().map_err(DialError::Address)?;
        uri.query.heartbeat = Some(HEARTBEAT_S);
        Ok(Link { uri, purpose })
    }

    /// Asks for frames of at most so many bytes (AMQP 0-9-1 §4.2.3): the client keeps room for 32 of them in each
    /// direction. Headers travel in one frame and must fit.
    pub(super) fn with_frames(mut self, bytes_max: u32) -> Link {
        self.uri.query.frame_max.get_or_insert(bytes_max);
        self
    }

    fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Dials once; somebody who listens there and says nothing is waited for at most `limit`.
    async fn dial(&self, limit: Duration) -> Result<Connection, DialError> {
        let name = format!("paperboy {} {}", std::process::id(), self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let unreachable = |detail: String| DialError::Unreachable { place: self.place(), detail };
        let dialled = timeout(limit, Connection::connect_uri(self.uri.clone(), properties)).await;
        match dialled {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match super::reply_code(&error) {
                // 403 ACCESS_REFUSED, 530 NOT_ALLOWED (a virtual host this user may not enter or that is not there).
                Some((403 | 530, detail)) => DialError::Login {
                    place: self.place(),
                    user: self.uri.authority.userinfo.username.clone(),
                    detail,
                },
                _ => unreachable(error.to_string()),
            }),
            Err(_) => Err(unreachable(format!("no answer within {} s", limit.as_secs_f32().ceil()))),
        }
    }

    /// Dials until it works, for a start: gives up after `wait`, at once when the login is refused.
    pub(super) async fn dial_within(&self, wait: Duration) -> Result<Connection, DialError> {
        let deadline = Instant::now() + wait;
        let mut pauses = Pauses::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(DIAL_TIMEOUT_MIN);
            let error = match self.dial(left.min(DIAL_TIMEOUT)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let pause = pauses.next();
            let passing = matches!(error, DialError::Unreachable { .. });
            if !passing || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// Dials until it works or `stop`; a running process never gives up.
    pub(super) async fn redial(&self, stop: &CancellationToken) -> Option<Connection> {
        let mut pauses = Pauses::new();
        loop {
            let dialled = tokio::select! {
                dialled = self.dial(DIAL_TIMEOUT) => dialled,
                () = stop.cancelled() => return None,
            };
            match dialled {
                Ok(connection) => {
                    info!(purpose = self.purpose, "connected to RabbitMQ at `{}`", self.place());
                    return Some(connection);
                }
                Err(error) => warn!(purpose = self.purpose, "no connection to RabbitMQ: {error}"),
            }
            pauses.wait(Duration::ZERO, stop).await;
            if stop.is_cancelled() {
                return None;
            }
        }
    }
}

/// What lasted this long was well: the next fault starts with a short pause again.
const WELL_AFTER: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pauses between tries: 0.2 s doubling to 5 s, with jitter so that replicas do not come back all at once;
/// they never end.
pub(super) struct Pauses(ExponentialBackoff);

impl Pauses {
    pub(super) fn new() -> Pauses {
        let growing = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(PAUSE_MAX)
            .with_jitter()
            .without_max_times();
        Pauses(growing.build())
    }

    fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(PAUSE_MAX)
    }

    /// Waits the next pause, or until `stop`; `lasted` is how long things were well before.
    pub(super) async fn wait(&mut self, lasted: Duration, stop: &CancellationToken) {
        if lasted > WELL_AFTER {
            *self = Pauses::new();
        }
        tokio::select! {
            () = sleep(self.next()) => {}
            () = stop.cancelled() => {}
        }
    }
}
