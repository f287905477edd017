//! The `request` section.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Faults;
use crate::domain::body::{self, BodyTemplate, Names};
use crate::domain::fault::Fault;
use crate::domain::headers;
use crate::domain::request::{BodyForm, Method};
use crate::domain::spec::RequestSpec;
use crate::domain::subscription::RequestPlan;
use crate::domain::template::{UrlTemplate, Userinfo};

const CONTENT_TYPE_BYTES_MAX: usize = 256;
const NAMES_MAX: usize = 200;
const TIMEOUT_S: std::ops::RangeInclusive<u32> = 1..=120;
const TIMEOUT_S_DEFAULT: u32 = 30;

/// The plan, and the credentials that stood in its URL.
pub(super) fn check_request(
    spec: &RequestSpec,
    faults: &mut Faults,
) -> Option<(RequestPlan, Option<Userinfo>)> {
    let method = check_method(spec.method.as_deref(), faults);
    let body = check_body(spec, faults);
    let url = match &spec.url {
        Some(url) => faults.keep("request.url", UrlTemplate::parse(url)),
        None => {
            faults.add("request.url", "is missing");
            None
        }
    };
    let header_faults = headers::check_list(spec.headers.iter().map(|(name, value)| (name.as_str(), value)));
    faults.0.extend(header_faults.into_iter().map(|fault| fault.under("request.headers")));
    let content_type = spec.content_type.as_deref().unwrap_or("application/json");
    if !(1..=CONTENT_TYPE_BYTES_MAX).contains(&content_type.len()) || !headers::is_value(content_type) {
        faults.add(
            "request.content_type",
            format!("must be 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters"),
        );
    }
    let timeout_s = spec.timeout_s.unwrap_or(TIMEOUT_S_DEFAULT);
    if !TIMEOUT_S.contains(&timeout_s) {
        faults.add("request.timeout_s", format!("must be {} to {}", TIMEOUT_S.start(), TIMEOUT_S.end()));
    }
    let (method, (url, userinfo)) = (method?, url?);
    let plan = RequestPlan {
        method,
        url,
        headers: spec.headers.clone().into_iter().collect(),
        body: body.unwrap_or(method.default_body()),
        content_type: content_type.to_owned(),
        timeout: Duration::from_secs(u64::from(timeout_s)),
    };
    Some((plan, userinfo))
}

fn check_method(name: Option<&str>, faults: &mut Faults) -> Option<Method> {
    let method = name.map_or(Some(Method::Post), Method::parse);
    if method.is_none() {
        faults.unknown("request.method", "`POST`, `PUT`, `PATCH`, `GET` and `DELETE`");
    }
    method
}

/// `None` leaves the choice to the method.
fn check_body(spec: &RequestSpec, faults: &mut Faults) -> Option<BodyForm> {
    if spec.names.len() > NAMES_MAX {
        faults.add("request.names", format!("holds more than {NAMES_MAX} names"));
    }
    let text = spec.body.as_deref()?;
    if body::is_template(text) {
        let template = BodyTemplate::parse(text, Names::new(&spec.names));
        return faults.keep("request.body", template).map(|template| BodyForm::Template(Arc::new(template)));
    }
    let form = BodyForm::parse(text);
    if form.is_none() {
        let fault = Fault::new("request.body", "is no form that is known");
        faults.0.push(
            fault.hint("known are `envelope`, `data`, `event`, `none`, a preset's name and a template"),
        );
    }
    form
}
