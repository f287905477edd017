//! Who subscribes: tenants with subscriptions, and how the endpoints behind them answer.

use serde_json::{Value, json};

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// 200, without a body.
    AtOnce,
    /// The same after so many milliseconds.
    After(u32),
    /// Never.
    Hang,
    /// 200 at once, then one byte of the body a second for ever.
    Drip,
}

impl Manner {
    /// The word for it in a path.
    pub(super) fn word(self) -> String {
        match self {
            Manner::AtOnce => "at-once".to_owned(),
            Manner::After(ms) => format!("after-{ms}"),
            Manner::Hang => "hang".to_owned(),
            Manner::Drip => "drip".to_owned(),
        }
    }

    /// The manner of a path's word; what is unknown is answered at once.
    pub(super) fn parse(word: &str) -> Manner {
        match word {
            "hang" => Manner::Hang,
            "drip" => Manner::Drip,
            _ => match word.strip_prefix("after-").and_then(|ms| ms.parse().ok()) {
                Some(ms) => Manner::After(ms),
                None => Manner::AtOnce,
            },
        }
    }
}

/// One tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenant {
    /// Subscriptions that want its events, each with an endpoint of its own.
    pub(super) good: usize,
    pub(super) manner: Manner,
    /// One more that wants them, whose endpoint behaves like this.
    pub(super) bad: Option<Manner>,
    /// Subscriptions that want other events.
    pub(super) idle: usize,
}

impl Tenant {
    /// One subscription, answered like this.
    pub(super) fn simple(manner: Manner) -> Tenant {
        Tenant { good: 1, manner, bad: None, idle: 0 }
    }
}

/// Tenants whose events take turns.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    /// Its own: tenants are named after it.
    pub(super) name: String,
    pub(super) tenants: Vec<Tenant>,
    /// How long a delivery may take.
    pub(super) timeout_s: u32,
}

/// As a subscription's default.
const TIMEOUT_S: u32 = 30;
/// Where paths to endpoints begin whose deliveries are asked for, and those of the bad one.
pub(super) const GOOD: &str = "good";
pub(super) const BAD: &str = "bad";

impl Crowd {
    pub(super) fn new(name: impl Into<String>, tenants: Vec<Tenant>) -> Crowd {
        Crowd { name: name.into(), tenants, timeout_s: TIMEOUT_S }
    }

    /// So many tenants with one endpoint each, which answers at once.
    pub(super) fn simple(name: impl Into<String>, tenants: usize) -> Crowd {
        Crowd::new(name, vec![Tenant::simple(Manner::AtOnce); tenants])
    }

    /// The tenant an event with this number is for; without the bad ones' where `healthy_only`.
    pub(super) fn tenant_of(&self, number: usize, healthy_only: bool) -> usize {
        if !healthy_only {
            return number % self.tenants.len().max(1);
        }
        let healthy: Vec<usize> =
            (0..self.tenants.len()).filter(|n| self.tenants[*n].bad.is_none()).collect();
        healthy.get(number % healthy.len().max(1)).copied().unwrap_or_default()
    }

    /// The deliveries to good endpoints that the first so many events ask for.
    pub(super) fn good_of(&self, events: usize, healthy_only: bool) -> u64 {
        let turn: Vec<u64> = (0..self.tenants.len())
            .filter(|n| !healthy_only || self.tenants[*n].bad.is_none())
            .map(|n| self.tenants[n].good as u64)
            .collect();
        let length = turn.len().max(1);
        let whole = turn.iter().sum::<u64>() * (events / length) as u64;
        whole + turn.iter().take(events % length).sum::<u64>()
    }

    /// The name of a tenant.
    pub(super) fn tenant(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    /// Where a worker without subscriptions sends to: one endpoint a tenant.
    pub(super) fn addresses(&self, receiver: &str) -> String {
        let manner = self.tenants.first().map_or(Manner::AtOnce, |tenant| tenant.manner);
        format!("http://{receiver}/{GOOD}/{}", manner.word())
    }

    /// Every subscription, as `subscription add` takes them.
    pub(super) fn subscriptions(&self, receiver: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for (number, tenant) in self.tenants.iter().enumerate() {
            let mut add = |events: &str, name: String, path: String| {
                all.push(json!({
                    "tenant": self.tenant(number),
                    "name": name,
                    "events": [events],
                    "request": { "url": format!("http://{receiver}/{path}"), "timeout_s": self.timeout_s },
                }));
            };
            for endpoint in 0..tenant.good {
                let path = format!("{GOOD}/{}/{number}/{endpoint}", tenant.manner.word());
                add("bench.*", format!("good {endpoint}"), path);
            }
            if let Some(bad) = tenant.bad {
                add("bench.*", "bad".to_owned(), format!("{BAD}/{}/{number}/0", bad.word()));
            }
            for other in 0..tenant.idle {
                add(
                    &format!("other.{other}.*"),
                    format!("idle {other}"),
                    format!("{GOOD}/at-once/{number}/idle"),
                );
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_is_what_its_word_says() {
        for manner in [Manner::AtOnce, Manner::After(20_000), Manner::Hang, Manner::Drip] {
            assert_eq!(Manner::parse(&manner.word()), manner);
        }
    }

    #[test]
    fn good_deliveries_are_counted_as_events_are_dealt() {
        let bad = Tenant { good: 0, bad: Some(Manner::Hang), ..Tenant::simple(Manner::AtOnce) };
        let mixed = Tenant { good: 2, ..bad };
        let crowd = Crowd::new("c", vec![Tenant::simple(Manner::AtOnce), bad, mixed]);
        for healthy_only in [false, true] {
            for events in 0..20 {
                let dealt =
                    (0..events).map(|number| crowd.tenants[crowd.tenant_of(number, healthy_only)].good);
                assert_eq!(crowd.good_of(events, healthy_only), dealt.sum::<usize>() as u64, "{events}");
            }
        }
        assert_eq!(crowd.good_of(10, true), 10, "the bad ones are left out");
        assert_eq!(crowd.subscriptions("h:1").len(), 5);
    }
}
