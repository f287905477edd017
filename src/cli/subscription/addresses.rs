//! Addresses that the guard refuses as of now: said when a subscription is written, decided at every send.

use crate::desk::Desk;
use crate::domain::subscription::SubscriptionSpec;

pub(super) fn warn<'a>(desk: &Desk, specs: impl Iterator<Item = &'a SubscriptionSpec>) {
    for warning in specs.filter_map(|spec| desk.address_warning(spec)) {
        eprintln!("warning: {warning}");
    }
}
