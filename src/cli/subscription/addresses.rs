//! Addresses that the guard refuses as of now: said when a subscription is written, decided at every send.

use crate::config::Config;
use crate::domain::subscription::SubscriptionSpec;
use crate::http::guard::Guard;

pub(super) fn warn<'a>(config: &Config, specs: impl Iterator<Item = &'a SubscriptionSpec>) {
    let Ok(guard) = Guard::new(&config.egress.allow) else { return };
    for spec in specs {
        let url = spec.request.url.as_deref().map(url::Url::parse);
        if let Some(warning) = url.and_then(Result::ok).and_then(|url| guard.warning(&url)) {
            eprintln!("warning: {warning}");
        }
    }
}
