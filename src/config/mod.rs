//! Typed settings: what can be set, where each value came from, and everything wrong with them at once.
//!
//! The order is default → file → environment → flags. `config/default.toml` is built into the binary; it
//! names every key there is, so it is the reference manual and the schema at the same time. Nothing here
//! reads the process' environment: whoever calls hands it in.

mod batches;
mod broker_url;
mod check;
mod fault;
mod load;
mod nearest;
mod redis_url;
mod settings;
mod show;
mod sources;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use batches::BatchesConfig;
pub use broker_url::BrokerUrl;
pub use check::check_role;
pub use fault::Fault;
pub use load::{ConfigFile, Sources, load};
pub use redis_url::RedisUrl;
pub use show::show;
pub use sources::source_documents;

pub use crate::store::StoreUrl;

use crate::domain::{seal::SealKey, secret::Secret, source::Source, streak::Rules};

/// `config/default.toml` as it was when the binary was built.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Every setting, checked; see `config/default.toml` for what each means.
#[derive(Debug, Clone)]
pub struct Config {
    pub broker: BrokerConfig,
    pub redis: RedisConfig,
    pub store: StoreConfig,
    pub cache: CacheConfig,
    pub api: ApiConfig,
    pub worker: WorkerConfig,
    pub secrets: SecretsConfig,
    pub delivery: DeliveryConfig,
    pub delivery_log: DeliveryLogConfig,
    pub dead: DeadConfig,
    pub auto_disable: AutoDisableConfig,
    pub batches: BatchesConfig,
    pub limits: LimitsConfig,
    pub audit: AuditConfig,
    pub egress: EgressConfig,
    pub log: LogConfig,
    /// Queues that are there already; names and queues differ.
    pub sources: Vec<Source>,
}

#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub url: BrokerUrl,
    /// First word of every exchange, queue and cache key: `[a-z0-9][a-z0-9._-]{0,63}`.
    pub prefix: String,
    /// Milliseconds a unit of waiting lasts, 1 to 60,000.
    pub delay_unit_ms: u32,
    /// Messages in hand in all, 8 to 65,535; [`BrokerConfig::shares`] splits them.
    pub prefetch: u16,
    pub declare: bool,
    /// Seconds a command waits for the broker before it gives up.
    pub start_wait_s: u32,
}

/// How the prefetch is split over the consumed queues; the three always add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    pub events: u16,
    pub deliveries: u16,
    pub retries: u16,
}

impl BrokerConfig {
    /// Splits the prefetch: events 60 %, deliveries 20 %, retries 20 %, each at least one.
    ///
    /// What rounding leaves goes to events: fresh work is what must not wait.
    pub fn shares(&self) -> Shares {
        let fifth = (self.prefetch / 5).max(1);
        Shares { events: self.prefetch.saturating_sub(2 * fifth).max(1), deliveries: fifth, retries: fifth }
    }
}

#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `None`: no shared cache.
    pub url: Option<RedisUrl>,
}

#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// A person's word that every process of this broker runs on this machine.
    pub single_host: bool,
}

#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Seconds until a change of a subscription is used everywhere.
    pub refresh_s: f64,
    /// Seconds a known subscription is still used while neither cache nor store answers.
    pub max_stale_s: u32,
}

impl CacheConfig {
    pub fn refresh(&self) -> Duration {
        // In range since `check`; the fallback keeps a hand-made `Config` from panicking.
        Duration::try_from_secs_f64(self.refresh_s).unwrap_or(Duration::from_secs(1))
    }
}

#[derive(Debug, Clone)]
pub struct ApiConfig {
    pub listen: SocketAddr,
    /// Keys of operators.
    pub keys: Vec<Secret>,
    /// Seconds for a body, and then for its answer, 1 to 300.
    pub timeout_s: u32,
    /// Seconds for a head, 1 to 300.
    pub header_timeout_s: u32,
    pub connections_max: u16,
}

impl ApiConfig {
    /// Says whether `/v1` may be served by what is configured: beyond loopback it needs a key, else one in the
    /// store.
    pub fn serves_v1(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback() || !self.keys.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where `--role worker` answers health, readiness and metrics; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct SecretsConfig {
    pub key: SecretsKey,
    /// Those before it, never [`SecretsKey::None`].
    pub old_keys: Vec<SecretsKey>,
}

/// Where the key that seals secrets at rest comes from.
#[derive(Debug, Clone)]
pub enum SecretsKey {
    /// Not set: with SQLite it lies beside the file as `paperboy.key` and is made there once. With Postgres
    /// that is a fault.
    None,
    Inline(SealKey),
    /// Not read here: the file may be made by a later step.
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Seconds the work in hand has after SIGTERM.
    pub grace_s: u32,
    /// Seconds a delivery may be deferred without an attempt before it is dead as `starved`.
    pub wait_age_max_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLogConfig {
    pub keep: LogKeep,
    /// Whole days it goes back.
    pub days: u32,
}

/// What is kept of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKeep {
    All,
    /// All but what was delivered at the first attempt.
    Failures,
    Off,
}

#[derive(Debug, Clone)]
pub struct DeadConfig {
    pub drain: bool,
    pub retention_days: u32,
}

#[derive(Debug, Clone)]
pub struct LimitsConfig {
    pub event_bytes_max: usize,
    /// Bytes of the bodies in hand at once, about.
    pub in_hand_bytes_max: u64,
    pub body_bytes_max: usize,
    pub bodies_bytes_max: usize,
    /// 0: no limit.
    pub requests_per_s: u32,
    /// Of one tenant.
    pub subscriptions_max: u32,
}

#[derive(Debug, Clone)]
pub struct AutoDisableConfig {
    /// Hours of nothing but failures; 0 is off.
    pub after_h: f64,
    /// Failed attempts there must be.
    pub failures_min: u32,
}

impl AutoDisableConfig {
    /// When a row of failures is enough; none: never.
    #[expect(clippy::cast_possible_truncation, reason = "a year in milliseconds is far below 2^53")]
    pub fn rules(&self) -> Option<Rules> {
        let after_ms = (self.after_h * 3_600_000.0).ceil() as i64;
        (after_ms > 0).then_some(Rules { after_ms, failures_min: self.failures_min.into() })
    }
}

#[derive(Debug, Clone)]
pub struct AuditConfig {
    pub retention_days: u32,
}

#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Rules of `http::guard`, already known to parse.
    pub allow: Vec<String>,
    /// Lower-case hosts whose certificate is not checked.
    pub insecure_tls: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What one process of Paperboy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    All,
    Worker,
    Api,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Worker => "worker",
            Role::Api => "api",
        }
    }
}

impl Config {
    /// Lists what is allowed but probably not meant; each is a sentence for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.api.serves_v1() {
            warnings.push(format!(
                "`/v1` is refused while there is no key: `api.listen` = `{}` is reachable from other machines and \
                 `api.keys` is empty; run `paperboy key create`, set a key or listen on 127.0.0.1",
                self.api.listen
            ));
        }
        let short = self.api.keys.iter().filter(|key| key.expose().len() < API_KEY_BYTES_GOOD).count();
        if short > 0 {
            warnings.push(format!(
                "{short} of `api.keys` can be guessed: use at least {API_KEY_BYTES_GOOD} random characters"
            ));
        }
        for rule in &self.egress.allow {
            warnings.push(format!(
                "deliveries may reach `{rule}`: `egress.allow` takes it out of the address guard"
            ));
        }
        for host in &self.egress.insecure_tls {
            warnings
                .push(format!("the certificate of `{host}` is not checked: `egress.insecure_tls` names it"));
        }
        warnings
    }
}

/// Below this length a key is worth a warning.
const API_KEY_BYTES_GOOD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Config {
        load(&Sources::from_text(None, variables)).unwrap()
    }

    #[test]
    fn shares_add_up_to_the_prefetch_and_none_is_empty() {
        for prefetch in 8..=2_000u16 {
            let shares = config(&[("PAPERBOY__BROKER__PREFETCH", &prefetch.to_string())]).broker.shares();
            assert_eq!(shares.events + shares.deliveries + shares.retries, prefetch);
            assert!(shares.deliveries >= 1 && shares.retries == shares.deliveries);
            assert!(shares.events >= 3 * shares.deliveries, "{prefetch}: {shares:?}");
        }
        assert_eq!(config(&[]).broker.shares(), Shares { events: 308, deliveries: 102, retries: 102 });
    }

    #[test]
    fn warns_when_v1_would_be_open_to_other_machines() {
        assert!(config(&[]).warnings().is_empty());
        let open = config(&[("PAPERBOY__API__LISTEN", "0.0.0.0:8080")]);
        assert!(!open.api.serves_v1());
        assert!(open.warnings()[0].contains("`/v1` is refused"), "{:?}", open.warnings());
        let keyed = config(&[
            ("PAPERBOY__API__LISTEN", "0.0.0.0:8080"),
            ("PAPERBOY__API__KEYS", "a-key-of-sixteen-characters"),
        ]);
        assert!(keyed.api.serves_v1());
        assert!(keyed.warnings().is_empty());
    }

    #[test]
    fn mapped_loopback_counts_as_loopback() {
        assert!(config(&[("PAPERBOY__API__LISTEN", "[::1]:80")]).api.serves_v1());
        assert!(config(&[("PAPERBOY__API__LISTEN", "[::ffff:127.0.0.1]:80")]).api.serves_v1());
    }

    #[test]
    fn warns_about_weak_keys_and_holes_in_the_guard_without_telling_the_key() {
        let warnings = config(&[
            ("PAPERBOY__API__KEYS", "hunter2"),
            ("PAPERBOY__EGRESS__ALLOW", "10.0.0.0/8"),
            ("PAPERBOY__EGRESS__INSECURE_TLS", "test.example"),
        ])
        .warnings();
        assert_eq!(warnings.len(), 3);
        assert!(!warnings.join("\n").contains("hunter2"));
    }

    #[test]
    fn printing_a_config_for_debugging_shows_no_secret() {
        let text = format!(
            "{:?}",
            config(&[
                ("PAPERBOY__API__KEYS", "canary-key"),
                ("PAPERBOY__BROKER__URL", "amqp://u:canary-broker@h/v"),
                ("PAPERBOY__REDIS__URL", "redis://:canary-redis@h"),
                ("PAPERBOY__SECRETS__KEY", "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTEyMzQ="),
                ("PAPERBOY__SECRETS__OLD_KEYS", "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTU2Nzg="),
            ])
        );
        assert!(!text.contains("canary") && !text.contains("Y2Fu"), "{text}");
    }
}
