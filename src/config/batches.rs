//! `[batches]`: when documents are finished, and when batches close.

use std::collections::{BTreeMap, BTreeSet};

use super::check::Check;
use crate::domain::name::{EventType, Tenant};

/// Longest idle time, in units: the longest wait there is elsewhere.
const IDLE_MAX: u32 = 131_071;

/// What is set of batches.
#[derive(Debug, Clone)]
pub struct BatchesConfig {
    /// Types that say that a document is finished.
    pub finished: BTreeSet<EventType>,
    /// Units after its last document in which a batch closes.
    pub idle_s: u32,
    /// The same for single tenants.
    pub tenants: BTreeMap<Tenant, u32>,
    pub retention_days: u32,
}

impl Check<'_> {
    pub(super) fn batches(&mut self) -> BatchesConfig {
        let mut finished = BTreeSet::new();
        for text in self.settings.list("batches.finished") {
            match EventType::parse(&text) {
                Ok(kind) => {
                    finished.insert(kind);
                }
                Err(fault) => self.fault(
                    "batches.finished",
                    &format!("holds `{text}`, which is not an event's type: it {fault}"),
                    "write the types that end a document, such as `document.processed`",
                ),
            }
        }
        let mut tenants = BTreeMap::new();
        for text in self.settings.list("batches.tenants") {
            let parsed = text.rsplit_once('=').and_then(|(tenant, units)| {
                let units = units.trim().parse().ok().filter(|units| *units <= IDLE_MAX)?;
                Some((Tenant::parse(tenant.trim()).ok()?, units))
            });
            match parsed {
                Some((tenant, units)) if !tenants.contains_key(&tenant) => {
                    tenants.insert(tenant, units);
                }
                Some(_) => {
                    let hint = "keep one of them";
                    self.fault("batches.tenants", &format!("holds the tenant of `{text}` twice"), hint);
                }
                None => self.fault(
                    "batches.tenants",
                    &format!("holds `{text}`, which is not a tenant and its idle time"),
                    &format!("write `TENANT=SECONDS` with at most {IDLE_MAX}, such as `acme=60`"),
                ),
            }
        }
        BatchesConfig {
            finished,
            idle_s: self.number("batches.idle_s", 0..=IDLE_MAX.into()),
            tenants,
            retention_days: self.number("batches.retention_days", 1..=3_650),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Sources, load};

    #[test]
    fn a_tenant_may_have_an_idle_time_of_its_own() {
        let of = |text: &str| load(&Sources::from_text(None, &[("PAPERBOY__BATCHES__TENANTS", text)]));
        let batches = of("acme=60, bolt = 0").unwrap().batches;
        let tenants: Vec<_> =
            batches.tenants.iter().map(|(tenant, units)| (tenant.to_string(), *units)).collect();
        assert_eq!(tenants, [("acme".to_owned(), 60), ("bolt".to_owned(), 0)]);
        assert_eq!((batches.idle_s, batches.retention_days, batches.finished.len()), (30, 30, 3));
        for bad in ["acme", "acme=x", "acme=-1", "acme=131072", "a b=1", "acme=1,acme=2"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_ends_a_document_is_a_type() {
        let of = |text: &str| load(&Sources::from_text(None, &[("PAPERBOY__BATCHES__FINISHED", text)]));
        assert_eq!(of("doc.done").unwrap().batches.finished.len(), 1);
        assert!(of("doc done").is_err());
    }
}
