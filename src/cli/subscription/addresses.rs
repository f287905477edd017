//! Addresses that the guard refuses as of now: said when a subscription is written, decided at every send.

use crate::config::Config;
use crate::domain::subscription::SubscriptionSpec;
use crate::http::guard::Guard;

pub(super) fn warn<'a>(config: &Config, specs: impl Iterator<Item = &'a SubscriptionSpec>) {
    let Ok(guard) = Guard::new(&config.egress.allow) else { return };
    for spec in specs {
        let login = spec.auth.as_ref().and_then(|auth| auth.url.as_deref());
        for url in [spec.request.url.as_deref(), login].into_iter().flatten() {
            let url = url::Url::parse(url);
            if let Some(warning) = url.ok().and_then(|url| guard.warning(&url)) {
                eprintln!("warning: {warning}");
            }
        }
    }
}
