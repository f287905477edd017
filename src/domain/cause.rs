//! Why an attempt failed, in words for people: a closed set, finer than the classes that `success` and
//! `retry.on` name.
//!
//! Each cause has one line that says what happened and one that says who can do what about it, fit to be
//! forwarded to whoever runs the receiver. Neither repeats anything of the event or of the answer.

use crate::domain::statuses::{Class, Seen};

/// Why an attempt was not a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The host's name did not resolve.
    Dns,
    /// No connection, for a reason that was not told closer.
    Connect,
    ConnectRefused,
    /// The connection broke before an answer was complete.
    ConnectReset,
    /// Name, TCP and TLS took longer than connecting may.
    ConnectTimeout,
    /// The TLS handshake failed, for a reason that was not told closer.
    Tls,
    TlsExpired,
    TlsUntrusted,
    /// The certificate is for another name.
    TlsName,
    /// No common version or cipher, or no TLS at all.
    TlsProtocol,
    /// The head of the answer did not come in time.
    Timeout,
    /// The address guard denied the address.
    Blocked,
    /// No credentials could be had.
    Auth,
    /// The request could not be built from the event.
    Template,
    /// What came back was not HTTP we accept.
    BadResponse,
    /// 3xx, which is never followed.
    Redirect,
    /// 401 or 403.
    Unauthorized,
    /// 404.
    NotFound,
    /// 410.
    Gone,
    /// 413.
    TooLarge,
    /// 429.
    Throttled,
    /// Any other 4xx.
    ClientError,
    /// 502, 503 or 504.
    Unavailable,
    /// Any other 5xx.
    ServerError,
    /// A status that is none of these.
    OddStatus,
}

impl Cause {
    pub const ALL: [Cause; 25] = [
        Cause::Dns,
        Cause::Connect,
        Cause::ConnectRefused,
        Cause::ConnectReset,
        Cause::ConnectTimeout,
        Cause::Tls,
        Cause::TlsExpired,
        Cause::TlsUntrusted,
        Cause::TlsName,
        Cause::TlsProtocol,
        Cause::Timeout,
        Cause::Blocked,
        Cause::Auth,
        Cause::Template,
        Cause::BadResponse,
        Cause::Redirect,
        Cause::Unauthorized,
        Cause::NotFound,
        Cause::Gone,
        Cause::TooLarge,
        Cause::Throttled,
        Cause::ClientError,
        Cause::Unavailable,
        Cause::ServerError,
        Cause::OddStatus,
    ];

    /// What can be told from a status or a class alone.
    pub fn of(seen: Seen) -> Cause {
        match seen {
            Seen::Status(status) => Cause::of_status(status),
            Seen::Failure(class) => Cause::of_class(class),
        }
    }

    fn of_status(status: u16) -> Cause {
        match status {
            300..=399 => Cause::Redirect,
            401 | 403 => Cause::Unauthorized,
            404 => Cause::NotFound,
            410 => Cause::Gone,
            413 => Cause::TooLarge,
            429 => Cause::Throttled,
            400..=499 => Cause::ClientError,
            502..=504 => Cause::Unavailable,
            500..=599 => Cause::ServerError,
            _ => Cause::OddStatus,
        }
    }

    fn of_class(class: Class) -> Cause {
        match class {
            Class::Timeout => Cause::Timeout,
            Class::Connect => Cause::Connect,
            Class::Dns => Cause::Dns,
            Class::Tls => Cause::Tls,
            Class::Blocked => Cause::Blocked,
            Class::Auth => Cause::Auth,
            Class::Template => Cause::Template,
            Class::BadResponse => Cause::BadResponse,
        }
    }

    /// The word for it in history, delivery log and filters: at most 20 bytes of letters and `_`. One that is
    /// finer than a class begins with the word of that class.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Dns => "dns",
            Cause::Connect => "connect",
            Cause::ConnectRefused => "connect_refused",
            Cause::ConnectReset => "connect_reset",
            Cause::ConnectTimeout => "connect_timeout",
            Cause::Tls => "tls",
            Cause::TlsExpired => "tls_expired",
            Cause::TlsUntrusted => "tls_untrusted",
            Cause::TlsName => "tls_name",
            Cause::TlsProtocol => "tls_protocol",
            Cause::Timeout => "timeout",
            Cause::Blocked => "blocked",
            Cause::Auth => "auth",
            Cause::Template => "template",
            Cause::BadResponse => "bad_response",
            Cause::Redirect => "redirect",
            Cause::Unauthorized => "unauthorized",
            Cause::NotFound => "not_found",
            Cause::Gone => "gone",
            Cause::TooLarge => "too_large",
            Cause::Throttled => "throttled",
            Cause::ClientError => "client_error",
            Cause::Unavailable => "unavailable",
            Cause::ServerError => "server_error",
            Cause::OddStatus => "odd_status",
        }
    }

    /// Reads what a history says of an attempt: a status (`503`), a class or a cause.
    pub fn parse(what: &str) -> Option<Cause> {
        if let Ok(status) = what.parse() {
            return Some(Cause::of_status(status));
        }
        Cause::ALL.into_iter().find(|cause| cause.as_str() == what)
    }

    /// What happened, as one line without a full stop; `host` is the receiver's name.
    pub fn line(self, host: &str) -> String {
        match self {
            Cause::Dns => format!("the name {host} does not resolve"),
            Cause::Connect => format!("no connection to {host} could be made or kept"),
            Cause::ConnectRefused => format!("{host} refuses connections: nothing listens on that port"),
            Cause::ConnectReset => format!("{host} closed the connection before it answered"),
            Cause::ConnectTimeout => format!("{host} did not take a connection in time"),
            Cause::Tls => format!("no secure connection to {host} could be made"),
            Cause::TlsExpired => format!("the certificate of {host} has expired"),
            Cause::TlsUntrusted => format!("the certificate of {host} is signed by nobody we trust"),
            Cause::TlsName => format!("the certificate of {host} is for another name"),
            Cause::TlsProtocol => format!("{host} does not speak TLS 1.2 or 1.3 on that port"),
            Cause::Timeout => format!("{host} took the request and did not answer in time"),
            Cause::Blocked => format!("{host} is at an address that deliveries must not go to"),
            Cause::Auth => format!("no credentials for {host} could be had"),
            Cause::Template => "the request could not be built from this event".to_owned(),
            Cause::BadResponse => format!("what {host} answered is not HTTP that we understand"),
            Cause::Redirect => format!("{host} redirects to another address, which is not followed"),
            Cause::Unauthorized => format!("{host} does not accept our credentials"),
            Cause::NotFound => format!("there is nothing at this address of {host}"),
            Cause::Gone => format!("{host} says that this address is gone for good"),
            Cause::TooLarge => format!("the event is larger than {host} accepts"),
            Cause::Throttled => format!("{host} asks for fewer requests"),
            Cause::ClientError => format!("{host} does not accept this request"),
            Cause::Unavailable => format!("{host} is not available at the moment"),
            Cause::ServerError => format!("{host} failed while it handled the request"),
            Cause::OddStatus => format!("{host} answered with a status that has no meaning here"),
        }
    }

    /// What can be done about it, and by whom.
    pub fn hint(self) -> &'static str {
        match self {
            Cause::Dns => "check the spelling of the address and the name's DNS records",
            Cause::Connect | Cause::ConnectReset => {
                "check that the receiver runs, and the logs of whatever stands before it"
            }
            Cause::ConnectRefused => "start the receiver, or correct the port in the address",
            Cause::ConnectTimeout => "open the firewall for our addresses, or check that the receiver runs",
            Cause::Tls => "check the certificate and the TLS settings of the receiver",
            Cause::TlsExpired => "renew the certificate; deliveries can be replayed afterwards",
            Cause::TlsUntrusted => {
                "use a certificate of a public authority, and send the intermediate certificates with it"
            }
            Cause::TlsName => "use a certificate for this name, or correct the host in the address",
            Cause::TlsProtocol => "switch TLS 1.2 or 1.3 on, or correct the port in the address",
            Cause::Timeout => {
                "answer first and work afterwards, or raise `timeout_s` of the subscription (at most 120)"
            }
            Cause::Blocked => {
                "use a public address; the operator of paperboy can allow a private one (`egress.allow`)"
            }
            Cause::Auth => "check the address and the credentials of the token request",
            Cause::Template => "the address names a field that the event lacks: correct one of the two",
            Cause::BadResponse => "check that an HTTP/1.1 server answers at this address",
            Cause::Redirect => "set the address that the redirect leads to",
            Cause::Unauthorized => "renew the credentials of the subscription, or the secret on both sides",
            Cause::NotFound => "correct the path in the address, or bring the route back",
            Cause::Gone => "set the new address, or remove the subscription",
            Cause::TooLarge => "raise the receiver's limit, or publish a link instead of the contents",
            Cause::Throttled => "raise the receiver's limit; the retries keep to its `Retry-After`",
            Cause::ClientError => "the receiver's answer and its log say what it expects",
            Cause::Unavailable => "wait for the receiver to come back; what died meanwhile can be replayed",
            Cause::ServerError => "the receiver's log at that time says what went wrong",
            Cause::OddStatus => "answer 2xx for what was taken and 4xx or 5xx for what was not",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_found_by_its_word_which_fits_a_history() {
        for cause in Cause::ALL {
            let word = cause.as_str();
            assert_eq!(Cause::parse(word), Some(cause));
            assert!(word.len() <= 20 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }

    #[test]
    fn the_word_of_every_class_is_the_word_of_a_cause() {
        for class in Class::ALL {
            assert_eq!(Cause::of(Seen::Failure(class)).as_str(), class.as_str());
        }
    }

    #[test]
    fn every_line_names_the_host_and_neither_line_nor_hint_is_a_sentence_with_a_full_stop() {
        for cause in Cause::ALL {
            let line = cause.line("erp.example.com");
            assert!(line.contains("erp.example.com") || cause == Cause::Template, "{line}");
            assert!(!line.ends_with('.') && !cause.hint().ends_with('.'), "{line}");
        }
    }

    #[test]
    fn statuses_are_told_by_what_they_mean_to_the_receivers_people() {
        let told = [301, 401, 403, 404, 410, 413, 429, 400, 503, 500, 999]
            .map(|status| Cause::of_status(status).as_str());
        assert_eq!(
            told,
            [
                "redirect",
                "unauthorized",
                "unauthorized",
                "not_found",
                "gone",
                "too_large",
                "throttled",
                "client_error",
                "unavailable",
                "server_error",
                "odd_status"
            ]
        );
        assert_eq!(Cause::parse("503"), Some(Cause::Unavailable));
        assert_eq!(Cause::parse("nonsense"), None);
    }
}
