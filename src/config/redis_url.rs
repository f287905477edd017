//! Where the shared cache is and how to log in.

use std::fmt;

use url::Url;

use super::{Fault, broker_url::redacted};
use crate::domain::secret::Secret;

/// A `redis://` or `rediss://` URL; printed without its password.
#[derive(Clone)]
pub struct RedisUrl {
    text: Secret,
    url: Url,
}

impl RedisUrl {
    /// Checks the text of `redis.url`; a fault never repeats it, for it may hold a password.
    pub fn parse(text: &str) -> Result<RedisUrl, Fault> {
        const EXAMPLE: &str = "write `redis://[user:password@]host[:6379][/0]`, or nothing for no cache";
        let fault = |message: String| Fault::new("redis.url", message).hint(EXAMPLE);
        let url = Url::parse(text).map_err(|reason| fault(format!("`redis.url` is not a URL: {reason}")))?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(fault(format!("`redis.url` has scheme `{}`, which is not supported", url.scheme())));
        }
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(fault("`redis.url` names no host".into()));
        }
        if url.port() == Some(0) {
            return Err(fault("`redis.url` names port 0".into()));
        }
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && database.parse::<u16>().is_err() {
            return Err(fault("`redis.url` names a database that is not a number".into()));
        }
        // The client takes `#insecure` as "do not check the certificate"; nobody should get that by a
        // password's `#`.
        if url.fragment().is_some() {
            return Err(fault("`redis.url` holds a `#`".into()).hint("in a password write `%23` for `#`"));
        }
        Ok(RedisUrl { text: Secret::new(text), url })
    }

    /// The whole URL with its password, for the client only.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The URL as people may see it: `redis://user:***@host`.
    pub fn redacted(&self) -> String {
        redacted(&self.url)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_the_password_from_people() {
        let url = RedisUrl::parse("rediss://:canary@cache.example:6380/2").unwrap();
        assert_eq!(url.expose(), "rediss://:canary@cache.example:6380/2");
        assert_eq!(
            format!("{url} {url:?}"),
            "rediss://:***@cache.example:6380/2 rediss://:***@cache.example:6380/2"
        );
    }

    #[test]
    fn refuses_what_no_client_could_use() {
        for (text, why) in [
            ("localhost:6379", "scheme `localhost`"),
            ("cache", "not a URL"),
            ("unix:///run/redis.sock", "scheme `unix`"),
            ("redis:///0", "no host"),
            ("redis://h:0", "port 0"),
            ("redis://h/first", "not a number"),
            ("rediss://h/0#insecure", "`#`"),
        ] {
            let refusal = RedisUrl::parse(text).unwrap_err().to_string();
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }
}
