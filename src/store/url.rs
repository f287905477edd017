//! Where the store is, as written in `store.url`.

use std::fmt;
use std::path::{Path, PathBuf};

/// A checked `store.url`.
///
/// `Display` and `Debug` hide a password, so an address may stand in a log line or an error.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file: `sqlite://data/paperboy.db` is relative to the working folder, `sqlite:///var/…` is not.
    Sqlite { path: PathBuf },
    /// The whole address, password included.
    Postgres(String),
}

/// Why a `store.url` cannot be used; never repeats the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlFault {
    #[error("unknown kind of store; write `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`")]
    Scheme,
    #[error("no file named; write `sqlite://data/paperboy.db`")]
    NoPath,
    #[error("a store in memory would be forgotten; name a file as in `sqlite://data/paperboy.db`")]
    InMemory,
    #[error("`?` and `#` are not allowed in the path of an SQLite store; give the path alone")]
    PathOptions,
    #[error("not a Postgres address; write `postgres://USER:PASSWORD@HOST/DATABASE`")]
    Postgres,
    #[error("one of the options after `?` is unknown; known are {}", OPTIONS.join(", "))]
    PostgresOption,
    #[error("one of the options after `?` has a value that cannot be used")]
    PostgresValue,
}

impl StoreUrl {
    /// Reads `store.url`. The path of an SQLite store is taken as it stands, without percent-decoding.
    pub fn parse(text: &str) -> Result<StoreUrl, StoreUrlFault> {
        let (scheme, rest) = text.split_once(':').ok_or(StoreUrlFault::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" => parse_path(rest.strip_prefix("//").unwrap_or(rest)),
            "postgres" | "postgresql" => parse_postgres(text),
            _ => Err(StoreUrlFault::Scheme),
        }
    }

    /// The file of an SQLite store.
    pub fn path(&self) -> Option<&Path> {
        match self {
            StoreUrl::Sqlite { path } => Some(path),
            StoreUrl::Postgres(_) => None,
        }
    }
}

/// What may stand after `?`, besides `options[NAME]` for a setting of the session.
const OPTIONS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "options[search_path]"];

fn parse_postgres(text: &str) -> Result<StoreUrl, StoreUrlFault> {
    let url = ::url::Url::parse(text).map_err(|_| StoreUrlFault::Postgres)?;
    if !url.has_host() {
        return Err(StoreUrlFault::Postgres);
    }
    // sqlx would log an option it does not know, and what is after the `=` may be a password.
    let is_known = |name: &str| OPTIONS.contains(&name) || name.starts_with("options[");
    if !url.query_pairs().all(|(name, _)| is_known(&name)) {
        return Err(StoreUrlFault::PostgresOption);
    }
    text.parse::<sqlx::postgres::PgConnectOptions>().map_err(|_| StoreUrlFault::PostgresValue)?;
    Ok(StoreUrl::Postgres(text.to_owned()))
}

fn parse_path(path: &str) -> Result<StoreUrl, StoreUrlFault> {
    if path.starts_with(":memory:") {
        return Err(StoreUrlFault::InMemory);
    }
    if path.contains(['?', '#']) {
        return Err(StoreUrlFault::PathOptions);
    }
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return Err(StoreUrlFault::NoPath);
    }
    Ok(StoreUrl::Sqlite { path: PathBuf::from(path) })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite { path } => write!(out, "sqlite://{}", path.display()),
            StoreUrl::Postgres(text) => out.write_str(&without_password(text)),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "StoreUrl({self})")
    }
}

/// Hides a password in the user part, and what the options say.
fn without_password(text: &str) -> String {
    let Ok(mut url) = ::url::Url::parse(text) else { return "postgres://…".to_owned() };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "postgres://…".to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.to_string().replace("?%E2%80%A6", "?…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathBuf {
        match StoreUrl::parse(text) {
            Ok(StoreUrl::Sqlite { path }) => path,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn reads_relative_and_absolute_files() {
        assert_eq!(path("sqlite://data/paperboy.db"), PathBuf::from("data/paperboy.db"));
        assert_eq!(path("sqlite:///var/lib/paperboy.db"), PathBuf::from("/var/lib/paperboy.db"));
        assert_eq!(path("sqlite:p.db"), PathBuf::from("p.db"));
        assert_eq!(path("SQLITE://a b.db"), PathBuf::from("a b.db"));
    }

    #[test]
    fn refuses_what_would_not_last_or_is_no_store() {
        for (text, fault) in [
            ("sqlite://", StoreUrlFault::NoPath),
            ("sqlite://data/", StoreUrlFault::NoPath),
            ("sqlite::memory:", StoreUrlFault::InMemory),
            ("sqlite://:memory:", StoreUrlFault::InMemory),
            ("sqlite://p.db?mode=rwc", StoreUrlFault::PathOptions),
            ("mysql://h/d", StoreUrlFault::Scheme),
            ("data/paperboy.db", StoreUrlFault::Scheme),
            ("", StoreUrlFault::Scheme),
            ("postgres:paperboy", StoreUrlFault::Postgres),
            ("postgres:///paperboy", StoreUrlFault::Postgres),
            ("postgres://h/d?passwd=x", StoreUrlFault::PostgresOption),
            ("postgres://h/d?sslmode=sometimes", StoreUrlFault::PostgresValue),
        ] {
            assert_eq!(StoreUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn never_shows_a_password() {
        let url = StoreUrl::parse(
            "postgres://ann:canary@db.example:5432/p?options[search_path]=canary&sslmode=require",
        )
        .unwrap();
        assert_eq!(url.to_string(), "postgres://ann:***@db.example:5432/p?…");
        assert!(!format!("{url:?}").contains("canary"));
        assert_eq!(StoreUrl::parse("sqlite://p.db").unwrap().to_string(), "sqlite://p.db");
    }
}
