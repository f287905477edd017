//! From the four sources of settings to one checked [`Config`].

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Config, Fault,
    check::check,
    settings::{Settings, VARIABLE_PREFIX},
    sources::SourceTables,
};

/// What is laid over the defaults, weakest first. Holds secrets, so it cannot be printed.
#[derive(Default, Clone)]
pub struct Sources {
    pub file: Option<ConfigFile>,
    /// The process' whole environment; only `PAPERBOY__…` is looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys and values given as flags.
    pub flags: Vec<(String, Value)>,
}

/// A configuration file; the text, or why there is none.
#[derive(Clone)]
pub struct ConfigFile {
    pub path: PathBuf,
    pub text: Result<String, String>,
}

impl Sources {
    /// Reads the file named by `--config`, else by `PAPERBOY_CONFIG`; a file that cannot be read is a fault
    /// of [`load`].
    pub fn gather(
        config_flag: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Sources {
        let environment: Vec<_> = environment.into_iter().collect();
        let named =
            || environment.iter().find(|(name, value)| name == "PAPERBOY_CONFIG" && !value.is_empty());
        let path = config_flag.or_else(|| named().map(|(_, value)| PathBuf::from(value)));
        let file = path.map(|path| ConfigFile {
            text: std::fs::read_to_string(&path).map_err(|reason| reason.to_string()),
            path,
        });
        Sources { file, environment, flags: Vec::new() }
    }

    /// Makes sources out of texts, for tests and demos; the file is called `paperboy.toml`.
    pub fn from_text(file: Option<&str>, variables: &[(&str, &str)]) -> Sources {
        Sources {
            file: file.map(|text| ConfigFile { path: "paperboy.toml".into(), text: Ok(text.into()) }),
            environment: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            flags: Vec::new(),
        }
    }

    /// Adds a flag, which wins over everything else.
    #[must_use]
    pub fn flag(mut self, key: &str, value: impl Into<Value>) -> Sources {
        self.flags.push((key.into(), value.into()));
        self
    }
}

/// Merges the sources and checks the result.
///
/// # Errors
/// Every fault there is, in the order of the sources: names and types first, values after them.
pub fn load(sources: &Sources) -> Result<Config, Vec<Fault>> {
    let Merged { settings, sources, mut faults } = merge(sources);
    match check(&settings, &sources, &mut faults) {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

/// Settings that are not checked yet.
pub(super) struct Merged {
    pub(super) settings: Settings,
    /// The queues that are there already.
    pub(super) sources: SourceTables,
    pub(super) faults: Vec<Fault>,
}

/// Lays the sources over each other; a key at fault keeps the value it had before.
pub(super) fn merge(sources: &Sources) -> Merged {
    let mut settings = Settings::defaults();
    let mut faults = Vec::new();
    let mut tables = SourceTables::default();
    if let Some(file) = &sources.file {
        match parse(file) {
            Ok(mut table) => {
                tables = SourceTables::take(file.path.clone(), &mut table);
                settings.apply_file(file.path.clone(), table, &mut faults);
            }
            Err(fault) => faults.push(fault),
        }
    }
    for (name, value) in &sources.environment {
        let readable_name = name.to_string_lossy();
        if !readable_name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        faults.extend(match value.to_str() {
            Some(text) => settings.apply_variable(&readable_name, text).err(),
            None => Some(Fault::new(readable_name.clone(), format!("`{readable_name}` is not UTF-8"))),
        });
    }
    for (key, value) in &sources.flags {
        faults.extend(settings.apply_flag(key, value.clone()).err());
    }
    Merged { settings, sources: tables, faults }
}

fn parse(file: &ConfigFile) -> Result<Table, Fault> {
    let path = file.path.display();
    let text = file.text.as_ref().map_err(|reason| {
        Fault::new(path.to_string(), format!("could not read `{path}`: {reason}"))
            .hint("`--config` or `PAPERBOY_CONFIG` names this file")
    })?;
    text.parse::<Table>().map_err(|error| syntax_fault(&file.path, text, &error))
}

/// Says where the file is no TOML. The line itself is not shown: it may hold a secret.
fn syntax_fault(path: &Path, text: &str, error: &toml::de::Error) -> Fault {
    let path = path.display();
    let place = error.span().and_then(|span| text.get(..span.start)).map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!(", line {line}, column {column}")
    });
    let reason = error.message().lines().collect::<Vec<_>>().join(", ");
    Fault::new(path.to_string(), format!("`{path}`{} is not TOML: {reason}", place.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
        load(&Sources::from_text(file, variables))
            .err()
            .unwrap_or_default()
            .iter()
            .map(Fault::to_string)
            .collect()
    }

    fn only_fault(file: Option<&str>, variables: &[(&str, &str)]) -> String {
        let faults = faults(file, variables);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults[0].clone()
    }

    #[test]
    fn defaults_are_a_valid_configuration() {
        let config = load(&Sources::default()).unwrap();
        assert_eq!(config.broker.url.redacted(), "amqp://guest:***@127.0.0.1:5672/%2f");
        assert_eq!((config.broker.prefix.as_str(), config.broker.delay_unit_ms), ("paperboy", 1000));
        assert_eq!(
            (config.broker.prefetch, config.broker.declare, config.broker.start_wait_s),
            (512, true, 10)
        );
        assert!(config.redis.url.is_none() && config.worker.listen.is_none() && config.api.keys.is_empty());
        assert_eq!(config.store.url.to_string(), "sqlite://data/paperboy.db");
        assert_eq!((config.cache.refresh_s, config.cache.max_stale_s), (1.0, 600));
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((config.delivery.grace_s, config.delivery.wait_age_max_s), (35, 86_400));
        assert_eq!((config.dead.drain, config.dead.retention_days), (true, 30));
        assert_eq!(config.limits.event_bytes_max, 16 << 20);
    }

    #[test]
    fn later_sources_win() {
        let file = "[broker]\nprefix = \"from-file\"\nprefetch = 100\ndelay_unit_ms = 20";
        let sources = Sources::from_text(
            Some(file),
            &[("PAPERBOY__BROKER__PREFETCH", "200"), ("PAPERBOY__BROKER__DELAY_UNIT_MS", "30")],
        )
        .flag("broker.delay_unit_ms", 40);
        let broker = load(&sources).unwrap().broker;
        assert_eq!((broker.prefix.as_str(), broker.prefetch, broker.delay_unit_ms), ("from-file", 200, 40));
    }

    #[test]
    fn three_faults_in_one_file_and_the_environment_are_all_listed() {
        let file = "[broker]\nprefech = 4\n[store]\nurl = \"mysql://u:canary@h/d\"";
        let faults = faults(Some(file), &[("PAPERBOY__API__LISTEN", "nowhere")]);
        assert_eq!(faults.len(), 3, "{faults:#?}");
        let all = faults.join("\n");
        assert!(all.contains(
            "unknown key `broker.prefech` in `paperboy.toml`\nhint: did you mean `broker.prefetch`?"
        ));
        assert!(all.contains("`store.url` in `paperboy.toml` cannot be used: unknown kind of store"));
        assert!(all.contains("`api.listen` from `PAPERBOY__API__LISTEN`"));
        assert!(!all.contains("canary"));
    }

    #[test]
    fn an_unknown_variable_is_a_fault_and_the_nearest_is_named() {
        let fault = only_fault(None, &[("PAPERBOY__BROKER__PREFECH", "9")]);
        assert_eq!(
            fault,
            "error: unknown variable `PAPERBOY__BROKER__PREFECH`\nhint: did you mean `PAPERBOY__BROKER__PREFETCH`?"
        );
        assert!(only_fault(None, &[("PAPERBOY__broker__url", "x")]).contains("`PAPERBOY__BROKER__URL`"));
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        let variables =
            [("PAPERBOY_CONFIG", ""), ("PAPERBOY_API", "http://x"), ("PAPERBOY_PORT", "1"), ("HOME", "/")];
        assert_eq!(faults(None, &variables), [] as [&str; 0]);
    }

    #[test]
    fn an_unknown_section_is_a_fault_even_when_empty() {
        assert!(only_fault(Some("[brokr]"), &[]).contains("did you mean `broker`?"));
        assert!(only_fault(Some("brokr = 1"), &[]).contains("did you mean `broker`?"));
        assert!(only_fault(Some("[brokr]\nprefix = \"a\""), &[]).contains("did you mean `broker.prefix`?"));
        assert!(only_fault(Some("broker = 1"), &[]).contains("`broker` in `paperboy.toml` must be a table"));
    }

    #[test]
    fn what_comes_later_is_named_as_such() {
        assert!(
            only_fault(Some("[delivery_log]\nkeep = 1"), &[]).contains("`delivery_log` is not supported yet")
        );
    }

    #[test]
    fn a_wrong_type_says_what_to_write_and_never_the_value() {
        let fault = only_fault(Some("[broker]\nprefetch = \"canary\""), &[]);
        assert_eq!(
            fault,
            "error: `broker.prefetch` in `paperboy.toml` must be a whole number, not a string\nhint: the default is `prefetch = 512`"
        );
        let fault = only_fault(None, &[("PAPERBOY__BROKER__DECLARE", "canary")]);
        assert!(
            fault.contains("must be `true` or `false`") && fault.contains("PAPERBOY__BROKER__DECLARE=true")
        );
        assert!(!fault.contains("canary"));
        assert!(only_fault(Some("[api]\nkeys = [1]"), &[]).contains("must be a list of strings"));
        assert!(only_fault(Some("[api]\nkeys = \"canary\""), &[]).contains("must be a list of strings"));
        assert!(only_fault(Some("[broker.prefetch]\nx = 1"), &[]).contains("not a table"));
        assert!(only_fault(None, &[("PAPERBOY__BROKER__PREFETCH", "")]).contains("must be a whole number"));
    }

    #[test]
    fn a_wrong_type_never_shows_the_value_of_an_earlier_source() {
        let fault =
            only_fault(Some("[broker]\nurl = \"amqp://u:canary@h\""), &[("PAPERBOY__BROKER__URLS", "x")]);
        assert!(!fault.contains("canary"));
        let sources =
            Sources::from_text(Some("[secrets]\nkey = \"file:canary\""), &[]).flag("secrets.key", 1);
        assert!(!load(&sources).unwrap_err()[0].to_string().contains("canary"));
    }

    #[test]
    fn a_list_is_comma_separated_in_the_environment() {
        let config = load(&Sources::from_text(
            None,
            &[("PAPERBOY__EGRESS__ALLOW", "10.0.0.0/8, 127.0.0.1:9000 ,"), ("PAPERBOY__API__KEYS", "")],
        ))
        .unwrap();
        assert_eq!(config.egress.allow, ["10.0.0.0/8", "127.0.0.1:9000"]);
        assert!(config.api.keys.is_empty());
    }

    #[test]
    fn a_flag_given_as_text_is_read_like_a_variable() {
        let sources = Sources::default().flag("egress.allow", "127.0.0.1,::1").flag("broker.prefetch", "64");
        let config = load(&sources).unwrap();
        assert_eq!((config.egress.allow.len(), config.broker.prefetch), (2, 64));
        let faults = load(&Sources::default().flag("broker.prefetch", "many").flag("x.y", "z")).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_whole_number_is_also_a_number() {
        let config = load(&Sources::from_text(Some("[cache]\nrefresh_s = 2"), &[])).unwrap();
        assert_eq!(config.cache.refresh_s, 2.0);
    }

    #[test]
    fn a_file_that_is_no_toml_is_placed_by_line_and_column_and_its_text_stays_hidden() {
        let fault = only_fault(Some("[broker]\nprefix = \"a\"\n[secrets]\nkey = \"canary\n"), &[]);
        assert!(fault.contains("`paperboy.toml`, line 4, column "), "{fault}");
        assert!(!fault.contains("canary"), "{fault}");
        assert!(only_fault(Some("a = 1\na = 2"), &[]).contains("line 2, column 1"));
        let fault = only_fault(Some("key = canary"), &[]);
        assert!(fault.contains("line 1, column 7") && !fault.contains("canary"), "{fault}");
    }

    #[test]
    fn faults_of_the_environment_are_listed_beside_a_broken_file() {
        let faults = faults(Some("["), &[("PAPERBOY__X", "1")]);
        assert_eq!(faults.len(), 2, "{faults:#?}");
    }

    #[test]
    fn a_missing_file_is_a_fault_that_names_it() {
        let sources = Sources::gather(Some("/nonexistent/p.toml".into()), []);
        let faults = load(&sources).unwrap_err();
        assert!(faults[0].message.contains("could not read `/nonexistent/p.toml`"), "{faults:?}");
    }

    #[test]
    fn the_config_flag_wins_over_the_variable() {
        let variable = |value: &str| [(OsString::from("PAPERBOY_CONFIG"), OsString::from(value))];
        assert_eq!(Sources::gather(None, variable("/v.toml")).file.unwrap().path, Path::new("/v.toml"));
        let both = Sources::gather(Some("/f.toml".into()), variable("/v.toml"));
        assert_eq!(both.file.unwrap().path, Path::new("/f.toml"));
        assert!(Sources::gather(None, variable("")).file.is_none());
    }
}
