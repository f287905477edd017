//! Where the broker is and how to log in.

use std::{fmt, net::IpAddr};

use url::Url;

use super::Fault;
use crate::domain::secret::Secret;

/// An `amqp://` or `amqps://` URL that the client understands; printed without its password.
#[derive(Clone)]
pub struct BrokerUrl {
    text: Secret,
    url: Url,
}

impl BrokerUrl {
    /// Checks the text of `broker.url`; a fault never repeats it, for it may hold a password.
    pub fn parse(text: &str) -> Result<BrokerUrl, Fault> {
        const EXAMPLE: &str =
            "write `amqp://user:password@host:5672/%2f`, where `%2f` is the virtual host `/`";
        let fault = |message: &str| Fault::new("broker.url", message);
        if text == "embedded" {
            return Err(fault("`broker.url` = `embedded` is not supported yet").hint(EXAMPLE));
        }
        if text.is_empty() {
            return Err(fault("`broker.url` is empty").hint(EXAMPLE));
        }
        let url = Url::parse(text)
            .map_err(|reason| fault(&format!("`broker.url` is not a URL: {reason}")).hint(EXAMPLE))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            let message = format!("`broker.url` has scheme `{}`, which no broker speaks", url.scheme());
            return Err(fault(&message).hint(EXAMPLE));
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() {
            return Err(fault("`broker.url` names no host").hint(EXAMPLE));
        }
        if host.starts_with('[') {
            // The client would silently connect to `localhost` instead (amq-protocol-uri 10.6).
            return Err(fault(
                "`broker.url` holds an IPv6 address, which the AMQP client does not understand",
            )
            .hint("give the broker a name that resolves to that address"));
        }
        if url.port() == Some(0) {
            return Err(fault("`broker.url` names port 0").hint(EXAMPLE));
        }
        if url.fragment().is_some() {
            return Err(fault("`broker.url` holds a `#`").hint("in a password write `%23` for `#`"));
        }
        match url.path() {
            "/" => {
                return Err(fault(
                    "`broker.url` ends in `/`, which names the virtual host with the empty name",
                )
                .hint("write `/%2f`, or nothing, for the virtual host `/`"));
            }
            path if path.get(1..).is_some_and(|vhost| vhost.contains('/')) => {
                return Err(fault("`broker.url` has more than one part after the host")
                    .hint("in the name of a virtual host write `%2f` for `/`"));
            }
            _ => {}
        }
        Ok(BrokerUrl { text: Secret::new(text), url })
    }

    /// The whole URL with its password, for the client only.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The URL as people may see it: `amqp://user:***@host/vhost`.
    pub fn redacted(&self) -> String {
        redacted(&self.url)
    }

    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(if self.url.scheme() == "amqps" { 5671 } else { 5672 })
    }

    /// Says whether the host is certainly this machine: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_end_matches('.').to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

/// Prints a URL with `***` for its password and `?…` for its query, which can hold one as well.
pub(super) fn redacted(url: &Url) -> String {
    let login = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (user, None) => format!("{user}@"),
        (user, Some(_)) => format!("{user}:***@"),
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { "?…" } else { "" };
    format!("{}://{login}{}{port}{}{query}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        BrokerUrl::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn keeps_the_text_for_the_client_and_hides_the_password_from_people() {
        let url = BrokerUrl::parse("amqps://rabbit:p%40ss@mq.example:5671/%2f?heartbeat=10").unwrap();
        assert_eq!(url.expose(), "amqps://rabbit:p%40ss@mq.example:5671/%2f?heartbeat=10");
        assert_eq!(url.redacted(), "amqps://rabbit:***@mq.example:5671/%2f?…");
        assert_eq!(format!("{url:?} {url}").matches("***").count(), 2);
        assert_eq!((url.host(), url.port()), ("mq.example", 5671));
        assert_eq!(BrokerUrl::parse("amqps://h").unwrap().port(), 5671);
        assert_eq!(BrokerUrl::parse("amqp://h/v").unwrap().port(), 5672);
    }

    #[test]
    fn knows_this_machine_from_another() {
        for local in ["amqp://localhost", "amqp://LOCALHOST.:5672", "amqp://u:p@127.0.0.9/v"] {
            assert!(BrokerUrl::parse(local).unwrap().is_loopback(), "{local}");
        }
        for other in ["amqp://rabbitmq", "amqp://10.0.0.1", "amqp://localhost.example", "amqp://0.0.0.0"] {
            assert!(!BrokerUrl::parse(other).unwrap().is_loopback(), "{other}");
        }
    }

    #[test]
    fn says_that_the_embedded_broker_is_not_there_yet() {
        assert!(refusal("embedded").contains("`broker.url` = `embedded` is not supported yet"));
    }

    #[test]
    fn refuses_what_the_client_would_misread() {
        assert!(refusal("").contains("empty"));
        assert!(refusal("localhost:5672").contains("scheme"));
        assert!(refusal("http://h").contains("scheme `http`"));
        assert!(refusal("rabbit").contains("not a URL"));
        assert!(refusal("amqp://").contains("no host"));
        assert!(refusal("amqp:///v").contains("no host"));
        assert!(refusal("amqp://[::1]/v").contains("IPv6"));
        assert!(refusal("amqp://h:0/v").contains("port 0"));
        assert!(refusal("amqp://h/").contains("empty name"));
        assert!(refusal("amqp://h/a/b").contains("more than one part"));
        assert!(refusal("amqp://u:p@h/v#x").contains("%23"));
    }

    #[test]
    fn a_refusal_never_repeats_the_password() {
        for text in
            ["amqp://u:canary@[::1]/v", "http://u:canary@h", "amqp://u:canary@h:99999/", "amqp://u:canary@h/"]
        {
            assert!(!refusal(text).contains("canary"), "{}", refusal(text));
        }
    }
}
