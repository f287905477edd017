//! The `auth` section, and credentials that stood in the URL.

use std::sync::Arc;

use super::faults::Faults;
use crate::domain::auth::{Auth, TokenRequest, token};
use crate::domain::fault::Fault;
use crate::domain::secret::Secret;
use crate::domain::spec::AuthSpec;
use crate::domain::template::Userinfo;

pub(super) fn check_auth(
    spec: Option<&AuthSpec>,
    userinfo: Option<Userinfo>,
    faults: &mut Faults,
) -> Option<Auth> {
    let none = AuthSpec { kind: "none".to_owned(), ..Default::default() };
    let spec = spec.unwrap_or(&none);
    let given = [
        ("name", spec.name.is_some()),
        ("value", spec.value.is_some()),
        ("token", spec.token.is_some()),
        ("username", spec.username.is_some()),
        ("password", spec.password.is_some()),
        ("url", spec.url.is_some()),
        ("method", spec.method.is_some()),
        ("headers", !spec.headers.is_empty()),
        ("body", spec.body.is_some()),
        ("encoding", spec.encoding.is_some()),
        ("token_pointer", spec.token_pointer.is_some()),
        ("scheme", spec.scheme.is_some()),
        ("expires_pointer", spec.expires_pointer.is_some()),
        ("cache_s", spec.cache_s.is_some()),
    ];
    let needed: &[&str] = match spec.kind.as_str() {
        "none" => &[],
        "header" => &["name", "value"],
        "bearer" => &["token"],
        "basic" => &["username", "password"],
        "token_request" => {
            let allowed: Vec<&str> = given[5..].iter().map(|(name, _)| *name).collect();
            faults.only("auth", &spec.kind, &given, &allowed);
            if userinfo.is_some() {
                faults.0.push(credentials_twice());
            }
            return faults.keep("auth", login(spec)).map(|login| Auth::Token(Arc::new(login)));
        }
        _ => {
            faults.unknown("auth.kind", "`none`, `header`, `bearer`, `basic` and `token_request`");
            return None;
        }
    };
    faults.only("auth", &spec.kind, &given, needed);
    let mut is_incomplete = false;
    for (name, _) in given.iter().filter(|(name, is_given)| !is_given && needed.contains(name)) {
        is_incomplete = true;
        faults.add(&format!("auth.{name}"), format!("is missing: `{}` needs it", spec.kind));
    }
    if let Some(userinfo) = userinfo {
        if spec.kind == "none" {
            return faults.keep("request.url", Auth::basic(&userinfo.username, &userinfo.password));
        }
        faults.0.push(credentials_twice());
    }
    // Beside one that is missing the other is looked at all the same.
    let some = Secret::new("x");
    let good = match spec.kind.as_str() {
        "none" => Some(Auth::None),
        "header" => {
            let (name, value) = (spec.name.as_deref().unwrap_or("x"), spec.value.as_ref().unwrap_or(&some));
            faults.keep("auth", Auth::header(name, value))
        }
        "bearer" => faults.keep("auth", Auth::bearer(spec.token.as_ref().unwrap_or(&some))),
        _ => {
            let (name, word) = (spec.username.as_deref().unwrap_or("x"), spec.password.as_ref());
            faults.keep("auth", Auth::basic(name, word.unwrap_or(&some)))
        }
    };
    good.filter(|_| !is_incomplete)
}

fn credentials_twice() -> Fault {
    Fault::new("request.url", "holds credentials although `auth` is given").hint("take them out of the URL")
}

fn login(spec: &AuthSpec) -> Result<TokenRequest, Vec<Fault>> {
    TokenRequest::new(&token::Settings {
        method: spec.method.as_deref(),
        url: spec.url.as_deref().unwrap_or_default(),
        headers: spec.headers.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        body: spec.body.as_ref(),
        encoding: spec.encoding.as_deref(),
        token_pointer: spec.token_pointer.as_deref(),
        scheme: spec.scheme.as_deref(),
        expires_pointer: spec.expires_pointer.as_deref(),
        cache_s: spec.cache_s,
    })
}
