//! The `auth` section, and credentials that stood in the URL.

use super::faults::Faults;
use super::not_yet;
use crate::domain::auth::Auth;
use crate::domain::fault::Fault;
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
    ];
    let needed: &[&str] = match spec.kind.as_str() {
        "none" => &[],
        "header" => &["name", "value"],
        "bearer" => &["token"],
        "basic" => &["username", "password"],
        "token_request" => {
            faults.0.push(not_yet("auth.kind", "token_request"));
            return None;
        }
        _ => {
            faults.unknown("auth.kind", "`none`, `header`, `bearer` and `basic`");
            return None;
        }
    };
    faults.only("auth", &spec.kind, &given, needed);
    let missing = given.iter().filter(|(name, is_given)| !is_given && needed.contains(name));
    for (name, _) in missing {
        faults.add(&format!("auth.{name}"), format!("is missing: `{}` needs it", spec.kind));
    }
    if let Some(userinfo) = userinfo {
        if spec.kind == "none" {
            return faults.keep("request.url", Auth::basic(&userinfo.username, &userinfo.password));
        }
        let fault = Fault::new("request.url", "holds credentials although `auth` is given");
        faults.0.push(fault.hint("take them out of the URL"));
    }
    match (spec.kind.as_str(), &spec.name, &spec.value, &spec.token, &spec.username, &spec.password) {
        ("none", ..) => Some(Auth::None),
        (_, Some(name), Some(value), ..) => faults.keep("auth", Auth::header(name, value)),
        (_, _, _, Some(token), ..) => faults.keep("auth", Auth::bearer(token)),
        (_, _, _, _, Some(username), Some(password)) => faults.keep("auth", Auth::basic(username, password)),
        _ => None,
    }
}
