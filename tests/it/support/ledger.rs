//! The ledger: what was confirmed in, against what receivers saw and what is left. The oracle of the fault tests.
//!
//! A subscription is known by the path of its URL. A delivery counts when the receiver answered 2xx.

use std::collections::{BTreeMap, BTreeSet};

use super::Hit;

#[derive(Default)]
pub(crate) struct Ledger {
    /// Event id and path of every delivery that must happen.
    expected: BTreeSet<(String, String)>,
    /// Secret of each path.
    secrets: BTreeMap<String, String>,
}

/// What the ledger found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    pub(crate) lost: Vec<(String, String)>,
    pub(crate) unexpected: Vec<(String, String)>,
    /// Deliveries beyond the first of each item.
    pub(crate) duplicates: usize,
    pub(crate) badly_signed: usize,
    /// An item with more counted attempts than the policy allows.
    pub(crate) over_attempts: usize,
}

impl Ledger {
    pub(crate) fn subscription(&mut self, path: &str, secret: &str) {
        self.secrets.insert(path.to_owned(), secret.to_owned());
    }

    pub(crate) fn expect(&mut self, event: &str, path: &str) {
        self.expected.insert((event.to_owned(), path.to_owned()));
    }

    pub(crate) fn len(&self) -> usize {
        self.expected.len()
    }

    /// Compares with what a receiver saw.
    pub(crate) fn audit(&self, hits: &[Hit]) -> Audit {
        let mut delivered: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut audit = Audit::default();
        for hit in hits {
            let signed = self.secrets.get(&hit.path).is_some_and(|secret| hit.is_signed_with(secret));
            audit.badly_signed += usize::from(!signed);
            audit.over_attempts +=
                usize::from(hit.header("paperboy-attempt").parse::<u32>().is_ok_and(|n| n > 10));
            if (200..300).contains(&hit.status) {
                *delivered.entry((hit.id().to_owned(), hit.path.clone())).or_default() += 1;
            }
        }
        for item in &self.expected {
            if !delivered.contains_key(item) {
                audit.lost.push(item.clone());
            }
        }
        for (item, times) in delivered {
            audit.duplicates += times - 1;
            if !self.expected.contains(&item) {
                audit.unexpected.push(item);
            }
        }
        audit
    }

    /// Nothing lost, nothing unexpected, everything signed; returns the duplicates.
    #[track_caller]
    pub(crate) fn assert_conserved(&self, hits: &[Hit]) -> usize {
        let audit = self.audit(hits);
        assert_eq!(audit.lost, [], "lost {} of {}", audit.lost.len(), self.expected.len());
        assert_eq!(audit.unexpected, [], "deliveries nobody asked for");
        assert_eq!((audit.badly_signed, audit.over_attempts), (0, 0));
        audit.duplicates
    }
}

mod tests {
    use std::time::Instant;

    use axum::http::HeaderMap;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn hit(id: &str, path: &str, status: u16) -> Hit {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", "1614265330".parse().unwrap());
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        headers.insert("webhook-signature", signature.parse().unwrap());
        let body = axum::body::Bytes::from_static(b"{\"test\": 2432232314}");
        let (method, path) = ("POST".to_owned(), path.to_owned());
        Hit { method, path, headers, body, at: Instant::now(), unix_s: 1_614_265_330, nth: 1, status }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.subscription("/a", SECRET);
        ledger.expect("msg_p5jXN8AQM9LWM0D4loKWxJek", "/a");
        ledger
    }

    #[test]
    fn is_content_with_one_good_delivery() {
        let hits = [hit("msg_p5jXN8AQM9LWM0D4loKWxJek", "/a", 200)];
        assert_eq!(ledger().assert_conserved(&hits), 0);
    }

    #[test]
    fn sees_what_is_lost_repeated_unexpected_or_badly_signed() {
        let good = || hit("msg_p5jXN8AQM9LWM0D4loKWxJek", "/a", 200);
        assert_eq!(ledger().audit(&[]).lost.len(), 1);
        assert_eq!(ledger().audit(&[hit("msg_p5jXN8AQM9LWM0D4loKWxJek", "/a", 500)]).lost.len(), 1);
        assert_eq!(ledger().audit(&[good(), good()]).duplicates, 1);
        let stray = ledger().audit(&[good(), hit("other", "/a", 200)]);
        assert_eq!((stray.unexpected.len(), stray.badly_signed), (1, 1));
        let mut changed = good();
        changed.body = axum::body::Bytes::from_static(b"{\"test\":2432232314}");
        assert_eq!(ledger().audit(&[changed]).badly_signed, 1);
        assert_eq!(ledger().audit(&[good(), hit("msg_p5jXN8AQM9LWM0D4loKWxJek", "/b", 200)]).badly_signed, 1);
    }
}
