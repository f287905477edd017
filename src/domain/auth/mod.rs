//! How a delivery proves who sends it: one header that stays the same, or a token from a login.

pub mod token;

use std::sync::Arc;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::domain::fault::Fault;
use crate::domain::headers;
use crate::domain::secret::Secret;
pub use token::TokenRequest;

const AUTHORIZATION: &str = "authorization";

/// The credentials of a subscription, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    None,
    /// A header of the receiver's own, such as `X-API-Key`.
    Header {
        name: String,
        value: Secret,
    },
    /// `Authorization: Bearer …` (RFC 6750 §2.1), the finished value.
    Bearer(Secret),
    /// `Authorization: Basic …` (RFC 7617), the finished value.
    Basic(Secret),
    /// `Authorization` with what a login answers at the time of delivery.
    Token(Arc<TokenRequest>),
}

impl Auth {
    /// A header and its value.
    ///
    /// # Errors
    /// Faults of `name` and `value`.
    pub fn header(name: &str, value: &Secret) -> Result<Self, Vec<Fault>> {
        let name_fault = headers::check_name(name).err().map(|fault| fault.under("name"));
        let value_fault = headers::check_value(value.expose()).err().map(|fault| fault.under("value"));
        let faults: Vec<Fault> = name_fault.into_iter().chain(value_fault).collect();
        if faults.is_empty() {
            Ok(Auth::Header { name: name.to_owned(), value: value.clone() })
        } else {
            Err(faults)
        }
    }

    /// A bearer token.
    ///
    /// # Errors
    /// A fault of `token` when it is empty, too long or holds anything but visible ASCII.
    pub fn bearer(token: &Secret) -> Result<Self, Fault> {
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "give the token alone, without the word `Bearer`";
            return Err(Fault::new("token", "must be visible ASCII without spaces").hint(hint));
        }
        finished("Bearer ", token.expose()).map(Auth::Bearer).map_err(|fault| fault.under("token"))
    }

    /// A user's name and password; both are sent as UTF-8.
    ///
    /// # Errors
    /// Faults of `username` and `password` when they cannot be sent (RFC 7617 §2).
    pub fn basic(username: &str, password: &Secret) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if username.contains(':') || username.chars().any(char::is_control) {
            faults.push(Fault::new("username", "may hold neither colons nor control characters"));
        }
        if password.expose().chars().any(char::is_control) {
            faults.push(Fault::new("password", "may not hold control characters"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        finished("Basic ", &encoded).map(Auth::Basic).map_err(|fault| vec![fault.under("password")])
    }

    /// The name of the header that is sent.
    pub fn header_name(&self) -> Option<&str> {
        match self {
            Auth::Token(_) => Some(AUTHORIZATION),
            _ => self.as_header().map(|(name, _)| name),
        }
    }

    /// The login that has to come first.
    pub fn token_request(&self) -> Option<&Arc<TokenRequest>> {
        match self {
            Auth::Token(login) => Some(login),
            _ => None,
        }
    }

    /// The header to send where it is always the same: name and value.
    pub fn as_header(&self) -> Option<(&str, &Secret)> {
        match self {
            Auth::None | Auth::Token(_) => None,
            Auth::Header { name, value } => Some((name, value)),
            Auth::Bearer(value) | Auth::Basic(value) => Some((AUTHORIZATION, value)),
        }
    }
}

fn finished(scheme: &str, credentials: &str) -> Result<Secret, Fault> {
    let value = Secret::new([scheme, credentials].concat());
    headers::check_value(value.expose()).map(|()| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(auth: &Auth) -> Option<(&str, &str)> {
        auth.as_header().map(|(name, value)| (name, value.expose()))
    }

    #[test]
    fn each_kind_is_one_header() {
        let secret = Secret::new("s3cret");
        assert_eq!(sent(&Auth::None), None);
        assert_eq!(sent(&Auth::header("X-API-Key", &secret).unwrap()), Some(("X-API-Key", "s3cret")));
        assert_eq!(sent(&Auth::bearer(&secret).unwrap()), Some(("authorization", "Bearer s3cret")));
    }

    /// The examples of RFC 7617 §2 and §2.1.
    #[test]
    fn basic_is_base64_of_utf_8() {
        let auth = Auth::basic("Aladdin", &Secret::new("open sesame")).unwrap();
        assert_eq!(sent(&auth), Some(("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")));
        let auth = Auth::basic("test", &Secret::new("123\u{a3}")).unwrap();
        assert_eq!(sent(&auth), Some(("authorization", "Basic dGVzdDoxMjPCow==")));
    }

    #[test]
    fn credentials_that_cannot_be_sent_are_refused_by_field() {
        let field = |result: Result<Auth, Fault>| result.unwrap_err().field;
        assert_eq!(field(Auth::bearer(&Secret::new("Bearer abc"))), "token");
        assert_eq!(field(Auth::bearer(&Secret::new(""))), "token");
        assert_eq!(field(Auth::bearer(&Secret::new("x".repeat(5_000)))), "token");
        let both = Auth::basic("a:b", &Secret::new("c\n")).unwrap_err();
        assert_eq!(
            both.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
            ["username", "password"]
        );
        assert_eq!(Auth::basic("a", &Secret::new("c\n")).unwrap_err().len(), 1);
        let faults = Auth::header("Host", &Secret::new("a\r\nb")).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["name", "value"]);
    }

    #[test]
    fn debug_shows_no_credentials() {
        let auth = Auth::basic("user", &Secret::new("canary")).unwrap();
        assert_eq!(format!("{auth:?}"), "Basic(***)");
    }
}
