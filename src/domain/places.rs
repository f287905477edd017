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
//! A message that stays in hand also costs those behind it: they can no longer be acknowledged together. So **where a
//! queue brings two thousand messages a second for quick endpoints, those for slow ones are served aside**, in another
//! queue whose places they then hold; not where that is full itself, and in a second no more than it has places.
//!
//! Whoever is put off is told when its turn comes: those of one endpoint are spaced as its places become free, by how
//! long its answers take, or how long it has been silent, and how many places it may hold where they come back. So an
//! endpoint that takes a second is served as fast as it can be, and one that hangs is hardly asked for.
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
/// From so many messages a second for quick endpoints on, a queue is kept clear of slow ones.
const BUSY_EACH_SECOND: usize = 2_000;
/// What an answer is reckoned to take until one has come.
const ANSWER_MS_UNKNOWN: u64 = 1_000;
/// A later turn at an endpoint that nobody has heard from is a guess: not worth a hop for each binary digit.
const GUESSED_MS_MAX: u64 = 16_000;
/// The latest turn: whoever has it comes back sooner and asks again.
const TURN_MS_MAX: u64 = 256_000;

/// What becomes of a message that asks for a place with its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It holds one now; [`Places::leave`] gives it back.
    In,
    /// To ask again when the endpoint has answered, and after a while.
    Wait,
    /// To be sent to the queue aside, where it is likely to get one.
    Aside,
    /// To be put off until its turn.
    Defer { wait_ms: u64 },
}

/// A queue and how many places it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub queue: usize,
    pub capacity: usize,
}

/// The places of `QUEUES` queues and who holds them.
#[derive(Debug)]
pub struct Places<const QUEUES: usize> {
    endpoints: HashMap<SubscriptionId, Endpoint<QUEUES>>,
    tenants: HashMap<Tenant, Slow<QUEUES>>,
    /// Held by slow endpoints.
    slow: [usize; QUEUES],
    /// Held by anybody.
    held: [usize; QUEUES],
    /// What each queue brings for quick endpoints.
    quick: [Flow; QUEUES],
    /// What is sent aside.
    aside: Flow,
    swept_ms: u64,
}

/// Messages, counted by the second.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    second: u64,
    count: usize,
    /// The count of the second before.
    before: usize,
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
    /// The same of what they really took.
    answer_ms: Option<f32>,
    /// The latest answer, or when it was first asked after a time of nothing to do.
    heard_ms: u64,
    asked_ms: u64,
    /// Messages at its door.
    waiting: usize,
    /// As it was last judged: what it holds is counted with the slow ones.
    is_slow: bool,
    /// When the last of those that were put off has its turn, in microseconds.
    turn_us: u64,
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
        let (slow, held, quick) = ([0; QUEUES], [0; QUEUES], [Flow::default(); QUEUES]);
        let (endpoints, tenants, aside) = (HashMap::new(), HashMap::new(), Flow::default());
        Places { endpoints, tenants, slow, held, quick, aside, swept_ms: 0 }
    }
}

impl<const QUEUES: usize> Places<QUEUES> {
    /// Asks for a place in a queue. Slow endpoints may be sent to the queue `aside`.
    pub fn ask(
        &mut self,
        at: Lane,
        aside: Option<Lane>,
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

        let Lane { queue, capacity } = at;
        let comes_back_to = aside.unwrap_or(at);
        let aside = aside.filter(|aside| {
            pace == Pace::Slow
                && self.quick[queue].of_a_second(now_ms) >= BUSY_EACH_SECOND
                && self.aside.in_this_second(now_ms) < aside.capacity
                && self.held[aside.queue] < aside.capacity - aside.capacity / 4
        });
        let left = capacity.saturating_sub(self.slow[queue]);
        let admission = match (pace, aside) {
            (Pace::Quick, _) => {
                let held = endpoint.held[queue];
                if held == 0 || 2 * held < left || endpoint.is_heard(now_ms) {
                    Admission::In
                } else {
                    Admission::Wait
                }
            }
            (Pace::Slow, Some(aside)) if endpoint.has_room(aside, pace, &self.tenants, &self.slow) => {
                Admission::Aside
            }
            // It holds all it may there; here it would be in the way.
            (Pace::Slow, Some(_)) => endpoint.put_off([at, comes_back_to], &self.tenants, &self.slow, now_ms),
            _ if endpoint.has_room(at, pace, &self.tenants, &self.slow) => Admission::In,
            // Only an endpoint that is being asked can be heard from soon.
            (Pace::Unheard, _) if endpoint.total() > 0 => Admission::Wait,
            _ => endpoint.put_off([at, comes_back_to], &self.tenants, &self.slow, now_ms),
        };
        if admission == Admission::Aside {
            self.aside.note(now_ms);
        }
        if admission == Admission::In {
            if pace == Pace::Quick {
                self.quick[queue].note(now_ms);
            }
            self.held[queue] += 1;
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

    /// Whether a message that is still to be sent to a queue would be put off there anyway, or sent aside and put off
    /// then: so it may be put off at once, for so many milliseconds.
    pub fn ask_ahead(
        &mut self,
        at: Lane,
        aside: Lane,
        subscription: &SubscriptionId,
        now_ms: u64,
    ) -> Option<u64> {
        let endpoint = self.endpoints.get_mut(subscription)?;
        let pace = endpoint.pace(now_ms);
        endpoint.count(pace, &mut self.tenants, &mut self.slow);
        let has_room = |lane| endpoint.has_room(lane, pace, &self.tenants, &self.slow);
        if pace != Pace::Slow || has_room(at) || has_room(aside) {
            return None;
        }
        Some(endpoint.next_turn([at, aside], &self.tenants, &self.slow, now_ms))
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
        self.held[queue] = self.held[queue].saturating_sub(1);
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
            answer_ms: None,
            heard_ms: now_ms,
            asked_ms: now_ms,
            waiting: 0,
            is_slow: false,
            turn_us: 0,
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

impl Flow {
    fn note(&mut self, now_ms: u64) {
        let second = now_ms / 1_000;
        if second != self.second {
            let before = if second == self.second + 1 { self.count } else { 0 };
            *self = Flow { second, count: 0, before };
        }
        self.count = self.count.saturating_add(1);
    }

    /// In the last whole second, or this one if there are more by now.
    fn of_a_second(&self, now_ms: u64) -> usize {
        match (now_ms / 1_000).saturating_sub(self.second) {
            0 => self.count.max(self.before),
            1 => self.count,
            _ => 0,
        }
    }

    fn in_this_second(&self, now_ms: u64) -> usize {
        if now_ms / 1_000 == self.second { self.count } else { 0 }
    }
}

impl<const QUEUES: usize> Endpoint<QUEUES> {
    fn total(&self) -> usize {
        self.held.iter().sum()
    }

    /// Whether an endpoint that is not known to be quick may hold one place more.
    fn has_room(
        &self,
        Lane { queue, capacity }: Lane,
        pace: Pace,
        tenants: &HashMap<Tenant, Slow<QUEUES>>,
        slow: &[usize; QUEUES],
    ) -> bool {
        let (held, left) = (self.held[queue], capacity.saturating_sub(slow[queue]));
        let tenant = tenants.get(&self.tenant);
        let (of_tenant, sharing) = tenant.map_or((0, 1), |slow| (slow.held[queue], slow.endpoints.max(1)));
        let reserve = capacity / 8;
        let may = tenant_may_hold(Lane { queue, capacity }, tenants.len(), slow);
        let is_room = of_tenant < may && held < (may / sharing).max(1) && left > reserve;
        let is_first = of_tenant == 0 && left > reserve / 2;
        let is_new = pace == Pace::Unheard && self.total() == 0 && left > reserve / 4;
        is_room || is_first || is_new
    }

    /// The places it may hold as things are, others of its tenant considered.
    fn may_hold(&self, lane: Lane, tenants: &HashMap<Tenant, Slow<QUEUES>>, slow: &[usize; QUEUES]) -> usize {
        let sharing = tenants.get(&self.tenant).map_or(1, |slow| slow.endpoints.max(1));
        tenant_may_hold(lane, tenants.len(), slow) / sharing
    }

    fn put_off(
        &mut self,
        lanes: [Lane; 2],
        tenants: &HashMap<Tenant, Slow<QUEUES>>,
        slow: &[usize; QUEUES],
        now_ms: u64,
    ) -> Admission {
        Admission::Defer { wait_ms: self.next_turn(lanes, tenants, slow, now_ms) }
    }

    /// The time until the next turn, which is given away. The first lane is the one it cannot enter now, the second
    /// the one it comes back to; that may be smaller than it is going to be, right after the start.
    fn next_turn(
        &mut self,
        [at, comes_back_to]: [Lane; 2],
        tenants: &HashMap<Tenant, Slow<QUEUES>>,
        slow: &[usize; QUEUES],
        now_ms: u64,
    ) -> u64 {
        let may = |lane| self.may_hold(lane, tenants, slow);
        let places = may(comes_back_to).max(may(at) / 3).max(1) as u64;
        let each_us = self.expected_ms(now_ms) * 1_000 / places;
        let latest_us = (now_ms + TURN_MS_MAX) * 1_000;
        self.turn_us = (self.turn_us.max(now_ms * 1_000) + each_us).min(latest_us);
        let wait_ms = (self.turn_us / 1_000).saturating_sub(now_ms);
        if self.answer_ms.is_none() && wait_ms > GUESSED_MS_MAX {
            return wait_ms.div_ceil(1_000).next_power_of_two() * 1_000;
        }
        wait_ms
    }

    /// How long its next answer is reckoned to take.
    fn expected_ms(&self, now_ms: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of minutes at most")]
        let answer_ms = self.answer_ms.map_or(ANSWER_MS_UNKNOWN, |answer_ms| answer_ms as u64);
        let silent_ms = if self.total() > 0 { now_ms.saturating_sub(self.heard_ms) } else { 0 };
        answer_ms.max(silent_ms)
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
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one attempt are far below 2^24")]
        let took = elapsed_ms as f32;
        self.answer_ms =
            Some(self.answer_ms.map_or(took, |answer_ms| answer_ms + (took - answer_ms) * NEWEST));
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
            return;
        }
        // Nobody has to wait for a turn any more.
        self.turn_us = 0;
        if let Some(of_tenant) = tenants.get_mut(&self.tenant) {
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

/// The places that the slow endpoints of one of so many tenants may hold together.
fn tenant_may_hold<const QUEUES: usize>(
    Lane { queue, capacity }: Lane,
    tenants: usize,
    slow: &[usize; QUEUES],
) -> usize {
    let left = capacity.saturating_sub(slow[queue]);
    let equal = ((capacity - capacity / 8) / tenants.max(1)).max(1);
    left.min(equal)
}

#[cfg(test)]
mod tests;
