//! Why no answer came, as a class and a sentence.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::{guard::Denied, resolver::LookupError};
use crate::domain::{
    cause::Cause,
    statuses::{Class, Seen},
};

/// Why no answer came. The text never holds the URL, which can hold secrets.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// Closer than the class, where that is known.
    pub(super) cause: Cause,
    pub(super) text: String,
    /// This process or machine lacks something; the receiver was never reached.
    pub(super) is_ours: bool,
}

impl Failure {
    pub(super) fn new(class: Class, text: impl Into<String>) -> Failure {
        Failure { class, cause: Cause::of(Seen::Failure(class)), text: text.into(), is_ours: false }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        Failure::new(Class::Blocked, denied.to_string())
    }
}

/// Classes a client's error by what it was caused by.
impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Failure {
        // The client's own text ends in the URL: only what caused it is looked at.
        let causes = causes(&error);
        let class = causes.iter().find_map(Trigger::class).unwrap_or_else(|| {
            if error.is_connect() {
                // TCP does not end while connecting, but a TLS handshake can.
                if causes.iter().any(Trigger::is_end_of_stream) { Class::Tls } else { Class::Connect }
            } else if error.is_timeout() || causes.iter().any(Trigger::is_lost_connection) {
                // No time limit is set in the client but the one for connecting.
                Class::Connect
            } else {
                Class::BadResponse
            }
        });
        let closer = match class {
            Class::Connect if error.is_timeout() => Some(Cause::ConnectTimeout),
            Class::Connect => causes.iter().find_map(Trigger::connection),
            Class::Tls => causes.iter().find_map(Trigger::handshake),
            _ => None,
        };
        let expired = causes.iter().find_map(Trigger::expired_at);
        let text = match (expired, causes.last()) {
            _ if error.is_timeout() => "could not connect in time".to_owned(),
            (Some(moment), _) => format!("the certificate expired on {moment}"),
            (None, Some(cause)) => cause.0.to_string(),
            (None, None) => "no connection".to_owned(),
        };
        Failure {
            cause: closer.unwrap_or(Cause::of(Seen::Failure(class))),
            is_ours: error.is_connect() && causes.iter().any(Trigger::is_lack),
            ..Failure::new(class, text)
        }
    }
}

struct Trigger<'a>(&'a (dyn Error + 'static));

impl Trigger<'_> {
    /// The class of a cause that says it by its type.
    fn class(&self) -> Option<Class> {
        match self.0 {
            cause if cause.is::<Denied>() => Some(Class::Blocked),
            cause if cause.is::<LookupError>() => Some(Class::Dns),
            cause if cause.is::<rustls::Error>() => Some(Class::Tls),
            _ => None,
        }
    }

    fn is_end_of_stream(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::UnexpectedEof)
    }

    /// Says whether the connection broke, or was closed before the head of the answer was complete.
    fn is_lost_connection(&self) -> bool {
        // hyper gives these two no type that can be reached from here; a test holds on to the first text.
        const CLOSED: [&str; 2] = ["connection closed before message completed", "operation was canceled"];
        self.io_kind().is_some() || CLOSED.contains(&self.0.to_string().as_str())
    }

    /// How the connection failed, where the system or the client says it.
    fn connection(&self) -> Option<Cause> {
        match self.io_kind() {
            Some(io::ErrorKind::ConnectionRefused) => Some(Cause::ConnectRefused),
            Some(io::ErrorKind::TimedOut) => Some(Cause::ConnectTimeout),
            Some(
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof,
            ) => Some(Cause::ConnectReset),
            Some(_) => None,
            None => self.is_lost_connection().then_some(Cause::ConnectReset),
        }
    }

    /// What was wrong with certificate or handshake.
    fn handshake(&self) -> Option<Cause> {
        match self.0.downcast_ref::<TlsError>()? {
            TlsError::InvalidCertificate(fault) => match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Some(Cause::TlsExpired)
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Some(Cause::TlsName)
                }
                CertificateError::BadEncoding
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
                | CertificateError::Revoked => None,
                // Whatever else is wrong, the chain ends at nobody we trust: an unknown issuer, a certificate
                // that signs itself, a signature that is not the issuer's.
                _ => Some(Cause::TlsUntrusted),
            },
            TlsError::PeerIncompatible(_)
            | TlsError::InvalidMessage(_)
            | TlsError::AlertReceived(
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
            ) => Some(Cause::TlsProtocol),
            _ => None,
        }
    }

    /// When the certificate expired.
    fn expired_at(&self) -> Option<jiff::Timestamp> {
        match self.0.downcast_ref::<TlsError>()? {
            TlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                jiff::Timestamp::from_second(i64::try_from(not_after.as_secs()).ok()?).ok()
            }
            _ => None,
        }
    }

    /// Says whether the system refused us a socket: too many open files here or on the whole machine, no memory,
    /// no buffers (errno(3) of Linux).
    fn is_lack(&self) -> bool {
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOBUFS: i32 = 105;
        let code = self.0.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        matches!(code, Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        self.0.downcast_ref::<io::Error>().map(io::Error::kind)
    }
}

/// Lists what caused an error, outermost first, without the error itself.
fn causes(error: &reqwest::Error) -> Vec<Trigger<'_>> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(Trigger(cause));
        // `io::Error::source` skips the error it wraps, which is the one that matters for TLS.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| cause.source());
    }
    causes
}
