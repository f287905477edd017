//! What values may be, key by key, and what they may be together.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use tracing_subscriber::EnvFilter;

use super::{
    ApiConfig, AuditConfig, AutoDisableConfig, BrokerConfig, BrokerUrl, CacheConfig, Config, DeadConfig,
    DeliveryConfig, DeliveryLogConfig, EgressConfig, Fault, LimitsConfig, LogConfig, LogFormat, LogKeep,
    RedisConfig, RedisUrl, Role, SecretsConfig, SecretsKey, StoreConfig, StoreUrl, WorkerConfig,
    settings::Settings, sources::SourceTables,
};
use crate::{
    domain::{seal::SealKey, secret::Secret},
    http::guard::Guard,
};

/// Turns settings into a [`Config`], adding every fault to `faults`; `None` if a part could not be made.
pub(super) fn check(settings: &Settings, sources: &SourceTables, faults: &mut Vec<Fault>) -> Option<Config> {
    let mut check = Check { settings, faults };
    let broker_url = check.broker_url();
    let redis_url = check.redis_url();
    let store_url = check.store_url();
    let listen = check.listen();
    let key = check.secrets_key();
    let old_keys = check.old_keys();
    check.key_of(store_url.as_ref(), key.as_ref());
    let format = check.log_format();
    let broker = (
        check.prefix(),
        check.number("broker.delay_unit_ms", 1..=60_000),
        check.number("broker.prefetch", 8..=65_535),
        check.number("broker.start_wait_s", 0..=3_600),
    );
    let cache = CacheConfig {
        refresh_s: check.refresh_s(),
        max_stale_s: check.number("cache.max_stale_s", 0..=604_800),
    };
    let api_keys = check.api_keys();
    let worker = WorkerConfig { listen: check.worker_listen() };
    let delivery = DeliveryConfig {
        grace_s: check.number("delivery.grace_s", 1..=3_600),
        wait_age_max_s: check.number("delivery.wait_age_max_s", 1..=2_592_000),
    };
    let log_keep = check.log_keep();
    let log_days = check.number("delivery_log_days", 1..=365);
    let dead = DeadConfig {
        drain: settings.flag("dead.drain"),
        retention_days: check.number("dead.retention_days", 1..=3_650),
    };
    let auto_disable = AutoDisableConfig {
        after_h: check.after_h(),
        failures_min: check.number("auto_disable.failures_min", 1..=1_000_000),
    };
    let limits = LimitsConfig {
        event_bytes_max: check.number("limits.event_bytes_max", 1_024..=134_217_728),
        in_hand_bytes_max: check.number("limits.in_hand_bytes_max", 1_048_576..=1_099_511_627_776),
        body_bytes_max: check.number("limits.body_bytes_max", 1_024..=134_217_728),
        bodies_bytes_max: check.number("limits.bodies_bytes_max", 1_048_576..=17_179_869_184),
        requests_per_s: check.number("limits.requests_per_s", 0..=1_000_000),
        subscriptions_max: check.number("limits.subscriptions_max", 1..=100_000),
    };
    let batches = check.batches();
    let audit = AuditConfig { retention_days: check.number("audit.retention_days", 1..=36_500) };
    let api = (
        check.number("api.timeout_s", 1..=300),
        check.number("api.header_timeout_s", 1..=300),
        check.number("api.connections_max", 1..=65_535),
    );
    let egress = EgressConfig { allow: check.egress_allow(), insecure_tls: check.insecure_tls() };
    let filter = check.log_filter();

    let (prefix, delay_unit_ms, prefetch, start_wait_s) = broker;
    let sources = sources.check(&prefix, faults);
    let declare = settings.flag("broker.declare");
    Some(Config {
        broker: BrokerConfig { url: broker_url?, prefix, delay_unit_ms, prefetch, declare, start_wait_s },
        redis: RedisConfig { url: redis_url? },
        store: StoreConfig { url: store_url?, single_host: settings.flag("store.single_host") },
        cache,
        api: ApiConfig {
            listen: listen?,
            keys: api_keys,
            timeout_s: api.0,
            header_timeout_s: api.1,
            connections_max: api.2,
        },
        worker,
        secrets: SecretsConfig { key: key?, old_keys },
        delivery,
        delivery_log: DeliveryLogConfig { keep: log_keep?, days: log_days },
        dead,
        auto_disable,
        batches,
        limits,
        audit,
        egress,
        log: LogConfig { format: format?, filter },
        sources,
    })
}

/// Lists what makes this configuration wrong for one role, though it is fine for another.
pub fn check_role(config: &Config, role: Role) -> Vec<Fault> {
    let mut faults = Vec::new();
    let local_store = matches!(config.store.url, StoreUrl::Sqlite { .. });
    if role == Role::Worker && local_store && !config.store.single_host && !config.broker.url.is_loopback() {
        let message = format!(
            "a worker cannot use `store.url` = `{}` with the broker on another host (`{}`): \
             the file here is not the one subscriptions are written to",
            config.store.url,
            config.broker.url.host(),
        );
        faults.push(Fault::new("store.url", message).hint(
            "set `store.single_host = true` if every process of this broker runs on this machine \
             and opens this file",
        ));
    }
    faults
}

pub(super) struct Check<'a> {
    pub(super) settings: &'a Settings,
    faults: &'a mut Vec<Fault>,
}

impl Check<'_> {
    /// Notes a fault; `rest` continues the sentence that begins with the key.
    pub(super) fn fault(&mut self, key: &str, rest: &str, hint: &str) {
        let message = format!("{} {rest}", self.settings.named(key));
        self.faults.push(Fault::new(key, message).hint(hint));
    }

    /// Notes a fault made elsewhere, adding where the value came from.
    fn add(&mut self, key: &str, mut fault: Fault) {
        fault.message = fault.message.replacen(&format!("`{key}`"), &self.settings.named(key), 1);
        self.faults.push(fault);
    }

    pub(super) fn number<T: TryFrom<i64> + Default>(&mut self, key: &str, range: RangeInclusive<i64>) -> T {
        let value = self.settings.integer(key);
        match T::try_from(value) {
            Ok(number) if range.contains(&value) => number,
            _ => {
                let (start, end) = (range.start(), range.end());
                let rest = format!("is {value}, which is out of range");
                self.fault(key, &rest, &format!("write a whole number from {start} to {end}"));
                T::default()
            }
        }
    }

    fn broker_url(&mut self) -> Option<BrokerUrl> {
        BrokerUrl::parse(self.settings.text("broker.url")).map_err(|fault| self.add("broker.url", fault)).ok()
    }

    /// The outer `None` is a fault, the inner one "no cache".
    fn redis_url(&mut self) -> Option<Option<RedisUrl>> {
        match self.settings.text("redis.url") {
            "" => Some(None),
            text => RedisUrl::parse(text).map(Some).map_err(|fault| self.add("redis.url", fault)).ok(),
        }
    }

    fn store_url(&mut self) -> Option<StoreUrl> {
        const EXAMPLE: &str = "write `sqlite://data/paperboy.db`, `sqlite:///var/lib/paperboy/paperboy.db` \
                               or `postgres://USER:PASSWORD@HOST/DATABASE`";
        let text = self.settings.text("store.url");
        match StoreUrl::parse(text) {
            Ok(url) => Some(url),
            Err(reason) => {
                self.fault("store.url", &format!("cannot be used: {reason}"), EXAMPLE);
                None
            }
        }
    }

    /// A key is made only where there is a file to put it beside.
    fn key_of(&mut self, store: Option<&StoreUrl>, key: Option<&SecretsKey>) {
        if matches!((store, key), (Some(StoreUrl::Postgres(_)), Some(SecretsKey::None))) {
            let hint = "write 32 bytes in base64 (`openssl rand -base64 32`) or `file:PATH`, the same for every process";
            self.fault(
                "secrets.key",
                "is empty: a store in PostgreSQL needs a key to seal secrets with",
                hint,
            );
        }
    }

    fn prefix(&mut self) -> String {
        let prefix = self.settings.text("broker.prefix");
        let starts_well = prefix.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        if !starts_well || prefix.len() > 64 || !prefix.bytes().all(known) {
            let hint =
                "write 1 to 64 of `a`-`z`, `0`-`9`, `.`, `_` and `-`, beginning with a letter or a digit";
            self.fault("broker.prefix", "cannot begin the name of a queue", hint);
        }
        prefix.into()
    }

    fn after_h(&mut self) -> f64 {
        let hours = self.settings.float("auto_disable.after_h");
        // Also refuses NaN, which is in no range.
        if !(0.0..=8_760.0).contains(&hours) {
            let rest = format!("is {hours}, which is out of range");
            self.fault("auto_disable.after_h", &rest, "write a number from 0 to 8760; 0 is off");
        }
        hours
    }

    fn refresh_s(&mut self) -> f64 {
        let seconds = self.settings.float("cache.refresh_s");
        // Also refuses NaN, which is in no range.
        if !(0.05..=3_600.0).contains(&seconds) {
            let rest = format!("is {seconds}, which is out of range");
            self.fault("cache.refresh_s", &rest, "write a number from 0.05 to 3600");
        }
        seconds
    }

    fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let address = self.settings.text(key).parse().ok();
        if address.is_none() {
            let hint = "write `127.0.0.1:8080`, `0.0.0.0:8080` for all of IPv4, or `[::]:8080` for all";
            self.fault(key, "is not an IP address with a port", hint);
        }
        address
    }

    fn listen(&mut self) -> Option<SocketAddr> {
        self.address("api.listen")
    }

    fn worker_listen(&mut self) -> Option<SocketAddr> {
        if self.settings.text("worker.listen").is_empty() { None } else { self.address("worker.listen") }
    }

    fn api_keys(&mut self) -> Vec<Secret> {
        let keys = self.settings.list("api.keys");
        for (place, key) in keys.iter().enumerate() {
            let place = place + 1;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let rest = format!("holds a key (number {place}) that no client could send");
                self.fault(
                    "api.keys",
                    &rest,
                    "write visible ASCII without spaces; `openssl rand -hex 32` makes a key",
                );
            }
            if key == crate::domain::secret::MASK {
                let rest = format!("holds `***` (number {place}), which stands for a key that is not shown");
                self.fault("api.keys", &rest, "write the key itself");
            }
        }
        keys.into_iter().map(Secret::new).collect()
    }

    fn secrets_key(&mut self) -> Option<SecretsKey> {
        match self.settings.text("secrets.key") {
            "" => Some(SecretsKey::None),
            text => match one_key(text) {
                Ok(key) => Some(key),
                Err(reason) => {
                    self.fault("secrets.key", &reason, KEY_HINT);
                    None
                }
            },
        }
    }

    fn old_keys(&mut self) -> Vec<SecretsKey> {
        let mut keys = Vec::new();
        for (place, text) in self.settings.list("secrets.old_keys").iter().enumerate() {
            match one_key(text) {
                Ok(key) => keys.push(key),
                Err(reason) => {
                    let rest = format!("holds a key (number {}) that {reason}", place + 1);
                    self.fault("secrets.old_keys", &rest, KEY_HINT);
                }
            }
        }
        keys
    }

    fn egress_allow(&mut self) -> Vec<String> {
        let rules = self.settings.list("egress.allow");
        if let Err(reasons) = Guard::new(&rules) {
            for reason in reasons {
                let message = format!("in {}, {reason}", self.settings.named("egress.allow"));
                self.faults.push(Fault::new("egress.allow", message).hint(reason.hint()));
            }
        }
        rules
    }

    fn insecure_tls(&mut self) -> Vec<String> {
        let hosts = self.settings.list("egress.insecure_tls");
        let mut checked = Vec::with_capacity(hosts.len());
        for host in hosts {
            // In brackets or not, an IPv6 address is meant when it reads as one.
            let bracketed =
                if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
            match url::Host::parse(&bracketed) {
                Ok(known) if !host.contains('*') => checked.push(known.to_string()),
                _ => self.fault(
                    "egress.insecure_tls",
                    &format!("holds `{host}`, which is not a host"),
                    "write each host by itself, without scheme, port or `*`: `staging.example.com`",
                ),
            }
        }
        checked
    }

    fn log_keep(&mut self) -> Option<LogKeep> {
        match self.settings.text("delivery_log") {
            "all" => Some(LogKeep::All),
            "failures" => Some(LogKeep::Failures),
            "off" => Some(LogKeep::Off),
            other => {
                let rest = format!("is `{other}`, which is unknown");
                self.fault("delivery_log", &rest, "write `all`, `failures` or `off`");
                None
            }
        }
    }

    fn log_format(&mut self) -> Option<LogFormat> {
        match self.settings.text("log.format") {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            other => {
                let rest = format!("is `{other}`, which is unknown");
                self.fault("log.format", &rest, "known formats are `text` and `json`");
                None
            }
        }
    }

    fn log_filter(&mut self) -> String {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        const HINT: &str =
            "write `info`, or `info,paperboy::http=debug`; levels are error, warn, info, debug, trace, off";
        let filter = self.settings.text("log.filter");
        // A word alone would be taken as the name of a target, and `warning` would silence everything.
        let odd = match filter.contains('[') {
            true => None,
            false => filter.split(',').map(str::trim).find(|part| {
                !part.contains('=') && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
            }),
        };
        if let Some(part) = odd {
            self.fault("log.filter", &format!("holds `{part}`, which is not a level"), HINT);
        } else if let Err(reason) = EnvFilter::builder().parse(filter) {
            self.fault("log.filter", &format!("cannot be used: {reason}"), HINT);
        }
        filter.into()
    }
}

const KEY_HINT: &str = "write 32 bytes as base64 (`openssl rand -base64 32` makes them), or `file:PATH`";

/// One key, or what is wrong with it; never the text itself.
fn one_key(text: &str) -> Result<SecretsKey, String> {
    match text.strip_prefix("file:") {
        Some("") => Err("names no file".to_owned()),
        Some(path) => Ok(SecretsKey::File(PathBuf::from(path))),
        None => SealKey::from_base64(text)
            .map(SecretsKey::Inline)
            .map_err(|reason| format!("cannot be used: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load, settings::variable_of};
    use crate::domain::streak::Rules;

    fn with(key: &str, value: &str) -> Result<Config, Vec<Fault>> {
        load(&Sources::from_text(None, &[(&variable_of(key), value)]))
    }

    fn refusal(key: &str, value: &str) -> String {
        let faults = with(key, value).expect_err(value);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert_eq!(faults[0].key, key);
        assert!(faults[0].hint.is_some(), "{faults:?}");
        faults[0].to_string()
    }

    #[test]
    fn numbers_are_held_to_their_range_at_both_ends() {
        for (key, low, high) in [
            ("broker.delay_unit_ms", 1, 60_000),
            ("broker.prefetch", 8, 65_535),
            ("broker.start_wait_s", 0, 3_600),
            ("cache.max_stale_s", 0, 604_800),
            ("delivery.grace_s", 1, 3_600),
            ("delivery.wait_age_max_s", 1, 2_592_000),
            ("dead.retention_days", 1, 3_650),
            ("auto_disable.failures_min", 1, 1_000_000),
            ("batches.idle_s", 0, 131_071),
            ("batches.retention_days", 1, 3_650),
            ("limits.event_bytes_max", 1_024, 134_217_728),
            ("limits.in_hand_bytes_max", 1_048_576, 1_099_511_627_776),
            ("limits.body_bytes_max", 1_024, 134_217_728),
            ("limits.bodies_bytes_max", 1_048_576, 17_179_869_184),
            ("limits.requests_per_s", 0, 1_000_000),
            ("limits.subscriptions_max", 1, 100_000),
            ("audit.retention_days", 1, 36_500),
            ("api.timeout_s", 1, 300),
            ("api.header_timeout_s", 1, 300),
            ("api.connections_max", 1, 65_535),
        ] {
            for allowed in [low, high] {
                assert!(with(key, &allowed.to_string()).is_ok(), "{key} = {allowed}");
            }
            for refused in [low - 1, high + 1, i64::MAX, i64::MIN] {
                let fault = refusal(key, &refused.to_string());
                assert!(fault.contains(&format!("from {low} to {high}")), "{fault}");
            }
        }
        for seconds in ["0.04", "3601", "nan", "inf", "-1"] {
            assert!(refusal("cache.refresh_s", seconds).contains("out of range"));
        }
        for hours in ["-1", "8761", "nan"] {
            assert!(refusal("auto_disable.after_h", hours).contains("out of range"));
        }
        let rules = with("auto_disable.after_h", "0.5").unwrap().auto_disable.rules();
        assert_eq!(rules, Some(Rules { after_ms: 1_800_000, failures_min: 10 }));
        assert_eq!(with("auto_disable.after_h", "0").unwrap().auto_disable.rules(), None);
        assert_eq!(with("cache.refresh_s", "0.05").unwrap().cache.refresh().as_millis(), 50);
    }

    #[test]
    fn a_prefix_begins_queue_names_that_every_broker_takes() {
        for good in ["a", "9", "paperboy-eu.1_x", &"a".repeat(64)] {
            assert_eq!(with("broker.prefix", good).unwrap().broker.prefix, good);
        }
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "é", &"a".repeat(65)] {
            refusal("broker.prefix", bad);
        }
    }

    #[test]
    fn what_is_not_built_yet_is_said_to_be_so() {
        assert!(refusal("broker.url", "embedded").contains("not supported yet"));
    }

    #[test]
    fn a_store_in_postgres_needs_a_key() {
        let faults = with("store.url", "postgres://u:canary@h/d").unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{faults:#?}") };
        assert_eq!(fault.key, "secrets.key");
        assert!(fault.to_string().contains("is empty") && !fault.to_string().contains("canary"), "{fault}");
        let key = SealKey::from_bytes([7; 32]).to_base64();
        let set =
            [("PAPERBOY__STORE__URL", "postgres://u:canary@h/d"), ("PAPERBOY__SECRETS__KEY", key.as_str())];
        load(&Sources::from_text(None, &set)).unwrap();
    }

    #[test]
    fn options_of_postgres_are_checked_without_being_repeated() {
        for bad in ["?passwd=canary", "?sslmode=canary", "?port=canary", "?sslmode=require&canary=1"] {
            let fault = refusal("store.url", &format!("postgres://u:canary@h/d{bad}"));
            assert!(fault.contains("`store.url`") && !fault.contains("canary"), "{fault}");
        }
    }

    #[test]
    fn bad_urls_are_refused_and_their_origin_is_named() {
        assert!(
            refusal("broker.url", "http://h")
                .contains("`broker.url` from `PAPERBOY__BROKER__URL` has scheme")
        );
        assert!(
            refusal("redis.url", "cache").contains("`redis.url` from `PAPERBOY__REDIS__URL` is not a URL")
        );
        assert!(
            refusal("store.url", "data.db")
                .contains("`store.url` from `PAPERBOY__STORE__URL` cannot be used")
        );
    }

    #[test]
    fn empty_means_not_set_for_the_cache_the_worker_and_the_key() {
        for key in ["redis.url", "worker.listen", "secrets.key"] {
            assert!(with(key, "").is_ok(), "{key}");
        }
    }

    #[test]
    fn addresses_to_listen_on_are_addresses() {
        assert!(with("worker.listen", "0.0.0.0:9090").unwrap().worker.listen.is_some());
        for bad in ["8080", ":8080", "localhost:8080", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(refusal("api.listen", bad).contains("not an IP address with a port"));
            refusal("worker.listen", bad);
        }
        refusal("api.listen", "");
    }

    #[test]
    fn a_seal_key_is_32_bytes_or_a_file_and_is_never_repeated() {
        let key = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTEyMzQ=";
        assert!(matches!(with("secrets.key", key).unwrap().secrets.key, SecretsKey::Inline(_)));
        let SecretsKey::File(path) = with("secrets.key", "file:/run/k").unwrap().secrets.key else {
            panic!()
        };
        assert_eq!(path, PathBuf::from("/run/k"));
        for bad in ["canary", "Y2FuYXJ5", "file:"] {
            let fault = refusal("secrets.key", bad);
            assert!(!fault.contains("canary") && !fault.contains("Y2FuYXJ5"), "{fault}");
        }
    }

    #[test]
    fn api_keys_can_be_sent_in_a_header_and_are_never_repeated() {
        assert_eq!(with("api.keys", "one,two").unwrap().api.keys.len(), 2);
        let fault = refusal("api.keys", "fine,can ary");
        assert!(fault.contains("number 2") && !fault.contains("can ary"), "{fault}");
        assert!(refusal("api.keys", "***").contains("write the key itself"));
    }

    #[test]
    fn every_bad_egress_rule_is_listed() {
        assert!(with("egress.allow", "10.0.0.0/8,127.0.0.1:9000,[fd00::/8]:443").is_ok());
        assert_eq!(with("egress.allow", "10.0.0.0/8,localhost,10.0.0.0/99").unwrap_err().len(), 2);
    }

    #[test]
    fn hosts_without_certificate_check_are_plain_hosts() {
        let hosts = with("egress.insecure_tls", "Staging.Example.com,127.0.0.1,::1,[::2]")
            .unwrap()
            .egress
            .insecure_tls;
        assert_eq!(hosts, ["staging.example.com", "127.0.0.1", "[::1]", "[::2]"]);
        for bad in ["https://h.example", "h.example:443", "*.example.com", "a b"] {
            refusal("egress.insecure_tls", bad);
        }
    }

    #[test]
    fn logs_have_a_known_format_and_a_filter_that_means_something() {
        assert_eq!(with("log.format", "json").unwrap().log.format, LogFormat::Json);
        assert!(refusal("log.format", "xml").contains("known formats are `text` and `json`"));
        for good in ["info", "WARN", "off", "info,lapin=off,paperboy::http=trace", "[span{field}]=debug"] {
            assert_eq!(with("log.filter", good).unwrap().log.filter, good);
        }
        for bad in ["", "warning", "info,verbose", "paperboy=loud"] {
            refusal("log.filter", bad);
        }
    }

    #[test]
    fn a_worker_with_a_file_of_its_own_and_a_broker_elsewhere_is_a_fault() {
        let far = with("broker.url", "amqp://u:canary@mq.example/v").unwrap();
        let faults = check_role(&far, Role::Worker);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("mq.example") && !faults[0].message.contains("canary"));
        assert!(faults[0].hint.as_ref().unwrap().contains("store.single_host"));
        assert_eq!(check_role(&far, Role::All), []);
        assert_eq!(check_role(&far, Role::Api), []);
        let near = load(&Sources::default()).unwrap();
        assert_eq!(check_role(&near, Role::Worker), []);
        let trusted = load(&Sources::from_text(
            Some("[broker]\nurl = \"amqp://mq.example\"\n[store]\nsingle_host = true"),
            &[],
        ));
        assert_eq!(check_role(&trusted.unwrap(), Role::Worker), []);
    }
}
