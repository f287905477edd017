//! Who may hold how many places, so that one bad endpoint is not felt by the others.
//!
//! A *place* is one message in hand, from taking it until it is settled; every queue has as many as its consumer
//! may hold. The rule: **an endpoint that keeps answering within 250 ms always gets a place. One that is slower, or
//! silent, may hold at most as many places as slow ones leave free: one hog ends at a half, two at a third each.
//! What is over is put off without using an attempt. Tenants come first: the slow endpoints of one tenant share
//! equally what one tenant may hold.**
//!
//! Three things follow from it being judged while requests are under way:
//! - An endpoint nobody has heard from yet counts as slow, but what is over waits at the door, for its first answer
//!   or the 250 ms, whichever comes first.
//! - A quick endpoint that holds as many places as are left to the others and has fallen silent is not believed any
//!   further: it waits at the door until it answers or the 250 ms are over. An endpoint that keeps answering never
//!   waits there.
//! - However many are slow, the last eighth of the places is not for them, but for first places: its first half for
//!   tenants that hold none, the next quarter for endpoints nobody has heard from. And no slow tenant holds more
//!   than an equal share of the other seven eighths.
//!
//! The endpoint is the subscription. Time is in milliseconds from any beginning.

use std::collections::HashMap;

use crate::domain::name::{SubscriptionId, Tenant};

/// Slower than this is slow.
pub const QUICK_MS: u64 = 250;
/// An answer counts as at most this, so that one time-out is forgotten after some ten quick answers.
const COUNTED_MS_MAX: f32 = 1_000.0;
/// The share of the newest answer in the pace.
const NEWEST: f32 = 1.0 / 8.0;
/// A silence this short says nothing, however quick an endpoint is.
const SILENCE_MS_MIN: u64 = 10;
/// An endpoint that nobody asked for in this long is forgotten.
const FORGET_MS: u64 = 60_000;
const SWEEP_MS: u64 = 5_000;

/// What becomes of a message that asks for a place with its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It holds one now; [`Places::leave`] gives it back.
    In,
    /// To ask again when the endpoint has answered, and after a while.
    Wait,
    /// To be put off.
    Defer,
}

/// The places of `QUEUES` queues and who holds them.
#[derive(Debug)]
pub struct Places<const QUEUES: usize> {
    endpoints: HashMap<SubscriptionId, Endpoint<QUEUES>>,
    tenants: HashMap<Tenant, Slow<QUEUES>>,
    /// Held by slow endpoints.
    slow: [usize; QUEUES],
    swept_ms: u64,
}

/// What the slow endpoints of one tenant hold.
#[derive(Debug)]
struct Slow<const QUEUES: usize> {
    held: [usize; QUEUES],
    endpoints: usize,
}

#[derive(Debug)]
struct Endpoint<const QUEUES: usize> {
    tenant: Tenant,
    held: [usize; QUEUES],
    /// Sum of the moments at which what it holds began.
    began_ms: u64,
    /// The moving mean of its answers; `None` before the first.
    pace_ms: Option<f32>,
    /// The latest answer, or when it was first asked after a time of nothing to do.
    heard_ms: u64,
    asked_ms: u64,
    /// Messages at its door.
    waiting: usize,
    /// As it was last judged: what it holds is counted with the slow ones.
    is_slow: bool,
}

/// One endpoint as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEndpoint {
    pub subscription: SubscriptionId,
    pub tenant: Tenant,
    /// Places it holds, over all queues.
    pub held: usize,
    /// The moving mean of its answers; `None` while none has come.
    pub pace_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    /// Nothing is known of it yet.
    Unheard,
    Slow,
}

impl<const QUEUES: usize> Default for Places<QUEUES> {
    fn default() -> Self {
        Places { endpoints: HashMap::new(), tenants: HashMap::new(), slow: [0; QUEUES], swept_ms: 0 }
    }
}

impl<const QUEUES: usize> Places<QUEUES> {
    /// Asks for a place among the `capacity` of a queue.
    pub fn ask(
        &mut self,
        queue: usize,
        capacity: usize,
        tenant: &Tenant,
        subscription: &SubscriptionId,
        now_ms: u64,
    ) -> Admission {
        self.sweep(now_ms);
        if !self.endpoints.contains_key(subscription) {
            self.meet(tenant, subscription, now_ms);
        }
        let Some(endpoint) = self.endpoints.get_mut(subscription) else { return Admission::In };
        endpoint.asked_ms = now_ms;
        let pace = endpoint.pace(now_ms);
        endpoint.count(pace, &mut self.tenants, &mut self.slow);

        let (held, left) = (endpoint.held[queue], capacity.saturating_sub(self.slow[queue]));
        let admission = match pace {
            Pace::Quick if held == 0 || 2 * held < left || endpoint.is_heard(now_ms) => Admission::In,
            Pace::Quick => Admission::Wait,
            Pace::Unheard | Pace::Slow => {
                let tenant = self.tenants.get(&endpoint.tenant);
                let (of_tenant, sharing) =
                    tenant.map_or((0, 1), |slow| (slow.held[queue], slow.endpoints.max(1)));
                let reserve = capacity / 8;
                let equal = ((capacity - reserve) / self.tenants.len().max(1)).max(1);
                let may = left.min(equal);
                let is_room = of_tenant < may && held < (may / sharing).max(1) && left > reserve;
                let is_first = of_tenant == 0 && left > reserve / 2;
                let is_new = pace == Pace::Unheard && endpoint.total() == 0 && left > reserve / 4;
                // Only an endpoint that is being asked can be heard from soon.
                let is_telling = pace == Pace::Unheard && endpoint.total() > 0;
                match (is_room || is_first || is_new, is_telling) {
                    (true, _) => Admission::In,
                    (false, true) => Admission::Wait,
                    (false, false) => Admission::Defer,
                }
            }
        };
        if admission == Admission::In {
            endpoint.enter(queue, now_ms);
            if endpoint.is_slow {
                self.slow[queue] += 1;
                if let Some(slow) = self.tenants.get_mut(&endpoint.tenant) {
                    slow.held[queue] += 1;
                }
            }
        }
        admission
    }

    /// A place is given back; `began_ms` is when it was asked for. `is_answer` is false where the request was
    /// given up by ourselves, which says nothing of the endpoint. Whether messages wait at its door.
    pub fn leave(
        &mut self,
        queue: usize,
        subscription: &SubscriptionId,
        began_ms: u64,
        is_answer: bool,
        now_ms: u64,
    ) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(subscription) else { return false };
        endpoint.held[queue] = endpoint.held[queue].saturating_sub(1);
        endpoint.began_ms = endpoint.began_ms.saturating_sub(began_ms);
        if endpoint.is_slow {
            self.slow[queue] = self.slow[queue].saturating_sub(1);
            if let Some(slow) = self.tenants.get_mut(&endpoint.tenant) {
                slow.held[queue] = slow.held[queue].saturating_sub(1);
            }
        }
        if is_answer {
            endpoint.hear(now_ms.saturating_sub(began_ms), now_ms);
        }
        let pace = endpoint.pace(now_ms);
        endpoint.count(pace, &mut self.tenants, &mut self.slow);
        endpoint.waiting > 0
    }

    /// A message comes to the door of an endpoint, or leaves it.
    pub fn wait(&mut self, subscription: &SubscriptionId, comes: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(subscription) {
            endpoint.waiting = if comes { endpoint.waiting + 1 } else { endpoint.waiting.saturating_sub(1) };
        }
    }

    /// Places of a queue that slow endpoints hold.
    pub fn held_by_slow(&self, queue: usize) -> usize {
        self.slow[queue]
    }

    /// The slow endpoints that hold places, most places first, at most `count_max`.
    pub fn slowest(&self, count_max: usize) -> Vec<SlowEndpoint> {
        let slow = self.endpoints.iter().filter(|(_, endpoint)| endpoint.is_slow && endpoint.total() > 0);
        let mut slow: Vec<_> = slow
            .map(|(id, endpoint)| SlowEndpoint {
                subscription: id.clone(),
                tenant: endpoint.tenant.clone(),
                held: endpoint.total(),
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
                pace_ms: endpoint.pace_ms.map(|pace_ms| pace_ms as u64),
            })
            .collect();
        slow.sort_by(|a, b| b.held.cmp(&a.held).then_with(|| a.subscription.cmp(&b.subscription)));
        slow.truncate(count_max);
        slow
    }

    fn meet(&mut self, tenant: &Tenant, subscription: &SubscriptionId, now_ms: u64) {
        let endpoint = Endpoint {
            tenant: tenant.clone(),
            held: [0; QUEUES],
            began_ms: 0,
            pace_ms: None,
            heard_ms: now_ms,
            asked_ms: now_ms,
            waiting: 0,
            is_slow: false,
        };
        self.endpoints.insert(subscription.clone(), endpoint);
    }

    /// Forgets who has not been asked for in a while.
    fn sweep(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_MS {
            return;
        }
        self.swept_ms = now_ms;
        let (tenants, slow) = (&mut self.tenants, &mut self.slow);
        self.endpoints.retain(|_, endpoint| {
            let is_idle = endpoint.total() == 0 && endpoint.waiting == 0;
            let forgotten = is_idle && now_ms.saturating_sub(endpoint.asked_ms) >= FORGET_MS;
            if forgotten {
                endpoint.count(Pace::Quick, tenants, slow);
            }
            !forgotten
        });
    }
}

impl<const QUEUES: usize> Endpoint<QUEUES> {
    fn total(&self) -> usize {
        self.held.iter().sum()
    }

    fn enter(&mut self, queue: usize, now_ms: u64) {
        if self.total() == 0 {
            self.heard_ms = now_ms;
        }
        self.held[queue] += 1;
        self.began_ms += now_ms;
    }

    fn hear(&mut self, elapsed_ms: u64, now_ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one attempt are far below 2^24")]
        let counted = (elapsed_ms as f32).min(COUNTED_MS_MAX);
        self.pace_ms = Some(self.pace_ms.map_or(counted, |pace_ms| pace_ms + (counted - pace_ms) * NEWEST));
        self.heard_ms = now_ms;
    }

    fn pace(&self, now_ms: u64) -> Pace {
        if let Some(total) = u64::try_from(self.total()).ok().filter(|total| *total > 0) {
            let mean_age_ms = now_ms.saturating_sub(self.began_ms / total);
            if now_ms.saturating_sub(self.heard_ms) >= QUICK_MS || mean_age_ms >= QUICK_MS {
                return Pace::Slow;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a constant")]
        match self.pace_ms {
            None => Pace::Unheard,
            Some(pace_ms) if pace_ms < QUICK_MS as f32 => Pace::Quick,
            Some(_) => Pace::Slow,
        }
    }

    /// Whether it has answered within twice its own pace.
    fn is_heard(&self, now_ms: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
        let pace_ms = self.pace_ms.unwrap_or(0.0) as u64;
        now_ms.saturating_sub(self.heard_ms) <= (2 * pace_ms).max(SILENCE_MS_MIN)
    }

    /// Counts what it holds with the slow ones, or no longer.
    fn count(&mut self, pace: Pace, tenants: &mut HashMap<Tenant, Slow<QUEUES>>, slow: &mut [usize; QUEUES]) {
        let is_slow = pace != Pace::Quick;
        if is_slow == self.is_slow {
            return;
        }
        self.is_slow = is_slow;
        if is_slow {
            let of_tenant =
                tenants.entry(self.tenant.clone()).or_insert(Slow { held: [0; QUEUES], endpoints: 0 });
            of_tenant.endpoints += 1;
            for (queue, held) in self.held.iter().enumerate() {
                of_tenant.held[queue] += held;
                slow[queue] += held;
            }
        } else if let Some(of_tenant) = tenants.get_mut(&self.tenant) {
            of_tenant.endpoints = of_tenant.endpoints.saturating_sub(1);
            for (queue, held) in self.held.iter().enumerate() {
                of_tenant.held[queue] = of_tenant.held[queue].saturating_sub(*held);
                slow[queue] = slow[queue].saturating_sub(*held);
            }
            if of_tenant.endpoints == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests;
