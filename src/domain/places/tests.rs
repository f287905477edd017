use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CAPACITY: usize = 308;
const LANE: Lane = Lane { queue: 0, capacity: CAPACITY };
const ASIDE: Lane = Lane { queue: 1, capacity: 102 };

fn tenant(n: usize) -> Tenant {
    Tenant::parse(&format!("t{n}")).unwrap()
}

fn endpoint(tenant: usize, n: usize) -> SubscriptionId {
    SubscriptionId::parse(&format!("sub_{tenant}_{n}")).unwrap()
}

fn is_put_off(admission: Admission) -> bool {
    matches!(admission, Admission::Defer { .. })
}

/// Places and the requests under way, by endpoint (tenant and number) and beginning.
#[derive(Default)]
struct World {
    places: Places<2>,
    under_way: Vec<((usize, usize), u64)>,
    now_ms: u64,
}

impl World {
    fn ask(&mut self, who: (usize, usize)) -> Admission {
        let admission = self.places.ask(LANE, None, &tenant(who.0), &endpoint(who.0, who.1), self.now_ms);
        if admission == Admission::In {
            self.under_way.push((who, self.now_ms));
        }
        admission
    }

    /// The oldest request of an endpoint is answered.
    fn answer(&mut self, who: (usize, usize)) {
        let place = self.under_way.iter().position(|(held_by, _)| *held_by == who).unwrap();
        let (who, began_ms) = self.under_way.remove(place);
        self.places.leave(0, &endpoint(who.0, who.1), began_ms, true, self.now_ms);
    }

    fn held(&self, who: (usize, usize)) -> usize {
        self.under_way.iter().filter(|(held_by, _)| *held_by == who).count()
    }

    /// An endpoint that has answered at once, often enough to be known for it.
    fn prove(&mut self, who: (usize, usize)) {
        for _ in 0..10 {
            assert_eq!(self.ask(who), Admission::In);
            self.now_ms += 1;
            self.answer(who);
        }
    }

    /// Asks for these in turn, again and again, of which nobody answers: each request times out after 30 s.
    fn flood(&mut self, endpoints: &[(usize, usize)]) {
        self.flood_for(180, endpoints);
    }

    fn flood_for(&mut self, seconds: u64, endpoints: &[(usize, usize)]) {
        let until_ms = self.now_ms + seconds * 1_000;
        while self.now_ms < until_ms {
            self.time_out();
            for who in endpoints {
                for _ in 0..3 {
                    self.ask(*who);
                }
            }
            self.now_ms += 300;
        }
    }

    fn time_out(&mut self) {
        while self.under_way.first().is_some_and(|(_, began_ms)| self.now_ms - began_ms >= 30_000) {
            self.answer(self.under_way[0].0);
        }
    }

    /// What the counts must be, made from nothing.
    fn check(&self) {
        let slow: usize = self.places.endpoints.values().filter(|e| e.is_slow).map(Endpoint::total).sum();
        assert_eq!(self.places.slow[0], slow);
        assert_eq!(self.places.held[0], self.under_way.len());
        let mut tenants: BTreeMap<&Tenant, (usize, usize)> = BTreeMap::new();
        for endpoint in self.places.endpoints.values().filter(|endpoint| endpoint.is_slow) {
            let of_tenant = tenants.entry(&endpoint.tenant).or_default();
            *of_tenant = (of_tenant.0 + endpoint.total(), of_tenant.1 + 1);
        }
        let counted: BTreeMap<_, _> = self
            .places
            .tenants
            .iter()
            .map(|(tenant, slow)| (tenant, (slow.held[0], slow.endpoints)))
            .collect();
        assert_eq!(counted, tenants);
        for (id, endpoint) in &self.places.endpoints {
            let held = self.under_way.iter().filter(|(who, _)| self::endpoint(who.0, who.1) == *id);
            assert_eq!(endpoint.total(), held.clone().count());
            assert_eq!(endpoint.began_ms, held.map(|(_, began_ms)| began_ms).sum::<u64>());
        }
    }
}

#[test]
fn one_hog_ends_at_a_half_two_at_a_third_each() {
    for (hogs, each) in [(1, CAPACITY / 2), (2, CAPACITY / 3), (3, CAPACITY / 4)] {
        let mut world = World::default();
        let all: Vec<_> = (0..hogs).map(|tenant| (tenant, 0)).collect();
        world.flood(&all);
        for who in all {
            assert!(world.held(who).abs_diff(each) <= 1, "{hogs} hogs: {}", world.held(who));
            assert!(is_put_off(world.ask(who)));
        }
        world.check();
    }
}

#[test]
fn a_quick_endpoint_that_falls_silent_is_stopped_at_a_half_too() {
    let mut world = World::default();
    world.prove((0, 0));
    for _ in 0..20 {
        for _ in 0..20 {
            world.ask((0, 0));
        }
        world.now_ms += 20;
    }
    assert_eq!(world.held((0, 0)), CAPACITY / 2);
    assert!(is_put_off(world.ask((0, 0))));
}

#[test]
fn what_is_over_waits_at_the_door_for_the_first_answer_and_no_longer_than_a_quarter_of_a_second() {
    let mut world = World::default();
    while world.ask((0, 0)) == Admission::In {}
    assert_eq!(world.ask((0, 0)), Admission::Wait);
    world.now_ms += 2;
    world.answer((0, 0));
    assert_eq!(world.ask((0, 0)), Admission::In, "it has answered quickly");

    let mut world = World::default();
    while world.ask((0, 0)) == Admission::In {}
    world.now_ms += QUICK_MS;
    assert!(is_put_off(world.ask((0, 0))));
}

#[test]
fn tenants_come_first_and_the_slow_endpoints_of_one_share() {
    let mut world = World::default();
    world.flood(&[(0, 0), (0, 1), (0, 2), (1, 0)]);
    let of_first: Vec<_> = (0..3).map(|n| world.held((0, n))).collect();
    assert!(of_first.iter().sum::<usize>().abs_diff(CAPACITY / 3) <= 5, "{of_first:?}");
    assert!(of_first.iter().all(|held| held.abs_diff(CAPACITY / 9) <= 2), "{of_first:?}");
    assert!(world.held((1, 0)).abs_diff(CAPACITY / 3) <= 5, "{}", world.held((1, 0)));
}

#[test]
fn however_many_are_slow_somebody_quick_is_served() {
    let mut world = World::default();
    let all: Vec<_> = (0..400).map(|tenant| (tenant, 0)).collect();
    world.flood(&all);
    let left = CAPACITY - world.places.held_by_slow(0);
    assert!((CAPACITY / 32..=CAPACITY / 8).contains(&left), "{left}");
    let mut world = World::default();
    world.prove((1000, 0));
    world.flood_for(50, &all);
    world.prove((1000, 0));
}

#[test]
fn who_is_quick_again_is_believed_again() {
    let mut world = World::default();
    world.flood(&[(0, 0)]);
    while world.held((0, 0)) > 0 {
        world.answer((0, 0));
    }
    assert_eq!(world.places.slowest(9).len(), 0, "holds nothing");
    for _ in 0..12 {
        assert_eq!(world.ask((0, 0)), Admission::In);
        world.now_ms += 5;
        world.answer((0, 0));
    }
    assert_eq!(world.places.endpoints[&endpoint(0, 0)].pace(world.now_ms), Pace::Quick);
    world.check();
}

#[test]
fn a_request_that_we_gave_up_says_nothing_of_the_endpoint() {
    let mut world = World::default();
    world.prove((0, 0));
    world.ask((0, 0));
    let (_, began_ms) = world.under_way.pop().unwrap();
    world.now_ms += 200;
    world.places.leave(0, &endpoint(0, 0), began_ms, false, world.now_ms);
    assert!(world.places.endpoints[&endpoint(0, 0)].pace_ms.unwrap() < 5.0);
}

/// So many messages for a quick endpoint within a second, each answered at once.
fn bring(world: &mut World, count: u64) {
    let quick = (1000, 0);
    for n in 0..count {
        assert_eq!(world.ask(quick), Admission::In);
        world.now_ms += (n + 1) * 1_000 / count - n * 1_000 / count;
        world.answer(quick);
    }
}

fn ask_aside(world: &mut World, who: (usize, usize), aside: Option<Lane>) -> Admission {
    world.places.ask(LANE, aside, &tenant(who.0), &endpoint(who.0, who.1), world.now_ms)
}

#[test]
fn slow_endpoints_are_served_aside_where_the_queue_is_busy_for_quick_ones() {
    let mut world = World::default();
    world.flood_for(29, &[(0, 0), (0, 0)]);
    bring(&mut world, 1_900);
    assert_ne!(ask_aside(&mut world, (0, 0), Some(ASIDE)), Admission::Aside, "too little to do");
    bring(&mut world, 2_100);
    let held = world.held((0, 0));
    assert_eq!(ask_aside(&mut world, (0, 0), Some(ASIDE)), Admission::Aside);
    assert!(is_put_off(ask_aside(&mut world, (0, 0), None)), "{held} places are all it may hold here");
    assert_eq!(ask_aside(&mut world, (1000, 0), Some(ASIDE)), Admission::In, "quick ones are not sent aside");
    world.now_ms += 2_000;
    assert_ne!(ask_aside(&mut world, (0, 0), Some(ASIDE)), Admission::Aside, "it is quiet again");
}

#[test]
fn nothing_is_sent_aside_beyond_the_places_there() {
    let mut world = World::default();
    world.flood_for(29, &[(0, 0)]);
    bring(&mut world, 2_100);
    bring(&mut world, 2_100);
    while world.held((0, 0)) > 0 {
        world.answer((0, 0));
    }
    let mut sent = 0;
    while ask_aside(&mut world, (0, 0), Some(ASIDE)) == Admission::Aside {
        // It arrives there before the next one asks.
        let (tenant, endpoint) = (tenant(0), endpoint(0, 0));
        assert_eq!(world.places.ask(ASIDE, None, &tenant, &endpoint, world.now_ms), Admission::In);
        sent += 1;
        assert!(sent <= ASIDE.capacity);
    }
    assert_eq!(sent, ASIDE.capacity / 2);
    assert!(is_put_off(ask_aside(&mut world, (0, 0), Some(ASIDE))), "not back into this queue's own places");
}

#[test]
fn no_more_is_sent_aside_in_a_second_than_there_are_places() {
    let mut world = World::default();
    world.flood_for(29, &[(0, 0)]);
    bring(&mut world, 2_100);
    bring(&mut world, 2_100);
    let held = world.held((0, 0));
    let sent = (0..200).filter(|_| ask_aside(&mut world, (0, 0), Some(ASIDE)) == Admission::Aside).count();
    assert_eq!(sent, ASIDE.capacity, "what is on its way is held by nobody yet");
    assert_eq!(world.held((0, 0)), held);
    bring(&mut world, 2_100);
    assert_eq!(ask_aside(&mut world, (0, 0), Some(ASIDE)), Admission::Aside, "in the next second");
}

#[test]
fn nothing_is_sent_aside_where_others_fill_the_places() {
    let mut world = World::default();
    world.flood_for(29, &[(0, 0)]);
    bring(&mut world, 2_100);
    bring(&mut world, 2_100);
    for n in 0..ASIDE.capacity - ASIDE.capacity / 4 {
        let (tenant, endpoint) = (tenant(2_000 + n), endpoint(2_000 + n, 0));
        assert_eq!(world.places.ask(ASIDE, None, &tenant, &endpoint, world.now_ms), Admission::In);
    }
    assert_ne!(ask_aside(&mut world, (0, 0), Some(ASIDE)), Admission::Aside);
}

#[test]
fn a_message_is_put_off_before_it_is_sent_only_where_it_would_be_put_off_after() {
    let mut world = World::default();
    let (hog, well) = ((0, 0), (1, 0));
    let ahead = |world: &mut World, who: (usize, usize)| {
        world.places.ask_ahead(LANE, ASIDE, &endpoint(who.0, who.1), world.now_ms).is_some()
    };
    assert!(!ahead(&mut world, hog), "nobody knows it");
    world.prove(well);
    world.flood_for(60, &[hog]);
    assert!(!ahead(&mut world, well), "it answers");
    // It holds all it may here, but there is room aside.
    assert!(is_put_off(world.ask(hog)) && !ahead(&mut world, hog));
    for _ in 0..ASIDE.capacity / 2 {
        let admission = world.places.ask(ASIDE, None, &tenant(0), &endpoint(0, 0), world.now_ms);
        assert_eq!(admission, Admission::In);
    }
    assert!(ahead(&mut world, hog));
    world.time_out();
    world.now_ms += 30_000;
    world.time_out();
    assert!(!ahead(&mut world, hog), "it has places again");
}

/// What becomes of so many messages that come within a second for an endpoint which answers after so long (and which
/// nobody has heard from before): the second in which the last of them is answered, and how often all were put off.
/// What is put off comes back to the queue aside, at the whole second after its turn.
fn burst(messages: u64, answer_ms: u64, seconds_max: u64) -> (u64, u64, u64) {
    let (mut world, tenant, endpoint) = (World::default(), tenant(0), endpoint(0, 0));
    // When each comes to which lane; when each that is under way is answered.
    let mut coming: BTreeMap<u64, Vec<Lane>> = BTreeMap::new();
    let mut answers: BTreeMap<u64, Vec<(usize, u64)>> = BTreeMap::new();
    for n in 0..messages {
        coming.entry(n * 1_000 / messages).or_default().push(LANE);
    }
    let (mut answered, mut put_off, mut last_ms) = (0, 0, 0);
    for now_ms in 0..seconds_max * 1_000 {
        world.now_ms = now_ms;
        for (queue, began_ms) in answers.remove(&now_ms).unwrap_or_default() {
            world.places.leave(queue, &endpoint, began_ms, true, now_ms);
            (answered, last_ms) = (answered + 1, now_ms);
        }
        for lane in coming.remove(&now_ms).unwrap_or_default() {
            let aside = (lane == LANE).then_some(ASIDE);
            match world.places.ask(lane, aside, &tenant, &endpoint, now_ms) {
                Admission::In => {
                    let until_ms = now_ms + answer_ms;
                    answers.entry(until_ms).or_default().push((lane.queue, now_ms));
                }
                Admission::Wait => coming.entry(now_ms + 25).or_default().push(lane),
                Admission::Aside => coming.entry(now_ms + 1).or_default().push(ASIDE),
                Admission::Defer { wait_ms } => {
                    put_off += 1;
                    let back_ms = now_ms + wait_ms.div_ceil(1_000).clamp(1, 256) * 1_000;
                    coming.entry(back_ms).or_default().push(ASIDE);
                }
            }
        }
    }
    (answered, last_ms / 1_000, put_off)
}

#[test]
fn a_slow_endpoint_is_served_about_as_fast_as_it_answers() {
    // Half of the places aside: 51 a second, beside the 154 of its queue in the first.
    let (answered, last_s, put_off) = burst(2_000, 1_000, 120);
    assert_eq!(answered, 2_000);
    assert!(last_s <= 60, "37 s would do, it took {last_s}");
    assert!(put_off <= 4_000, "{put_off} times for 2,000 messages");
    let (answered, last_s, _) = burst(400, 3_000, 120);
    assert!(answered == 400 && last_s <= 40, "{answered} in {last_s} s");
}

#[test]
fn who_hangs_is_hardly_asked_for() {
    // Each attempt ends after 30 s.
    let (_, _, put_off) = burst(10_000, 30_000, 250);
    assert!(put_off <= 25_000, "{put_off} times for 10,000 messages in four minutes");
}

#[test]
fn nobody_waits_for_a_turn_at_an_endpoint_that_is_quick_again() {
    let mut world = World::default();
    world.flood(&[(0, 0)]);
    while world.held((0, 0)) > 0 {
        world.answer((0, 0));
    }
    assert!(world.places.endpoints[&endpoint(0, 0)].turn_us > world.now_ms * 1_000);
    for _ in 0..40 {
        if world.ask((0, 0)) == Admission::In {
            world.now_ms += 1;
            world.answer((0, 0));
        }
    }
    assert_eq!(world.places.endpoints[&endpoint(0, 0)].turn_us, 0);
}

#[test]
fn the_slowest_are_shown_by_what_they_hold() {
    let mut world = World::default();
    world.flood_for(20, &[(0, 0)]);
    world.flood_for(5, &[(1, 0)]);
    let shown = world.places.slowest(1);
    assert_eq!((shown[0].subscription.as_str(), shown[0].held), ("sub_0_0", world.held((0, 0))));
    assert_eq!(shown[0].pace_ms, None);
}

#[test]
fn who_is_not_asked_for_any_more_is_forgotten() {
    let mut world = World::default();
    world.prove((0, 0));
    world.flood(&[(1, 0)]);
    world.now_ms += FORGET_MS + SWEEP_MS;
    world.prove((2, 0));
    assert!(!world.places.endpoints.contains_key(&endpoint(0, 0)));
    assert!(world.places.endpoints.contains_key(&endpoint(1, 0)), "it still holds places");
    world.check();
}

#[derive(Clone, Debug)]
enum Happening {
    Ask(usize, usize),
    /// The nth request under way ends, by an answer or not.
    End(usize, bool),
    Later(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        6 => (0_usize..4, 0_usize..3).prop_map(|(tenant, n)| Happening::Ask(tenant, n)),
        3 => (0_usize..400, prop::bool::weighted(0.9)).prop_map(|(which, well)| Happening::End(which, well)),
        1 => prop_oneof![0_u64..40, 200_u64..400, Just(70_000)].prop_map(Happening::Later),
    ];
    proptest::collection::vec(one, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_place_is_lost_or_made(happenings in happenings()) {
        let mut world = World::default();
        for happening in happenings {
            match happening {
                Happening::Ask(tenant, n) => {
                    world.ask((tenant, n));
                }
                Happening::End(which, is_answer) if !world.under_way.is_empty() => {
                    let ((tenant, n), began_ms) = world.under_way.remove(which % world.under_way.len());
                    world.places.leave(0, &endpoint(tenant, n), began_ms, is_answer, world.now_ms);
                }
                Happening::End(..) => {}
                Happening::Later(ms) => world.now_ms += ms,
            }
            world.check();
        }
        while let Some(((tenant, n), began_ms)) = world.under_way.pop() {
            world.places.leave(0, &endpoint(tenant, n), began_ms, true, world.now_ms);
        }
        world.check();
        prop_assert_eq!(world.places.held_by_slow(0), 0);
    }

    /// Whatever a quick endpoint is asked for, and whoever else hangs.
    #[test]
    fn an_endpoint_that_answers_quickly_is_never_put_off(
        asked in proptest::collection::vec((0_u64..30, 1_u64..QUICK_MS), 1..300),
        hogs in 0_usize..5,
    ) {
        let mut world = World::default();
        let hogs: Vec<_> = (1..=hogs).map(|tenant| (tenant, 0)).collect();
        world.flood(&hogs);
        world.prove((0, 0));
        let mut due: Vec<u64> = Vec::new();
        for (pause_ms, takes_ms) in asked {
            for _ in 0..pause_ms {
                world.now_ms += 1;
                let ended = due.iter().filter(|at| **at <= world.now_ms).count();
                due.retain(|at| *at > world.now_ms);
                // Which of them ends is the same to the rule, so that the oldest does.
                (0..ended).for_each(|_| world.answer((0, 0)));
            }
            let admission = world.ask((0, 0));
            prop_assert!(!is_put_off(admission));
            if admission == Admission::In {
                due.push(world.now_ms + takes_ms);
            }
        }
    }

    /// Work-conserving: who answers after the same quick time again and again gets every place it asks for.
    #[test]
    fn an_endpoint_that_keeps_answering_never_waits(
        takes_ms in 1_u64..QUICK_MS,
        bursts in proptest::collection::vec((0_u64..300, 1_usize..CAPACITY / 4), 1..40),
    ) {
        let mut world = World::default();
        let mut due: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
        for _ in 0..20 {
            prop_assert_eq!(world.ask((0, 0)), Admission::In);
            world.now_ms += takes_ms;
            world.answer((0, 0));
        }
        for (pause_ms, count) in bursts {
            for _ in 0..pause_ms {
                world.now_ms += 1;
                while due.front().is_some_and(|at| *at <= world.now_ms) {
                    due.pop_front();
                    world.answer((0, 0));
                }
            }
            for _ in 0..count.min(CAPACITY - due.len()) {
                prop_assert_eq!(world.ask((0, 0)), Admission::In);
                due.push_back(world.now_ms + takes_ms);
            }
        }
    }

}

proptest! {
    // Each is ten minutes of up to three hundred endpoints.
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Nobody starves: with any number of endpoints that all hang until they time out, each is asked again and
    /// again, as it comes back from its waits.
    #[test]
    fn every_hanging_endpoint_is_tried_again_and_again(
        tenants in 1_usize..60,
        each in 1_usize..6,
        order in any::<u64>(),
    ) {
        let mut world = World::default();
        let all: Vec<_> = (0..tenants).flat_map(|t| (0..each).map(move |n| (t, n))).collect();
        let mut tried: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        let mut random = order | 1;
        for _ in 0..600 * all.len() {
            world.time_out();
            // Messages come back from their waits in any order.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let who = all[usize::try_from(random % all.len() as u64).unwrap()];
            if world.ask(who) == Admission::In {
                *tried.entry(who).or_default() += 1;
            }
            world.now_ms += 600 / all.len() as u64;
        }
        for who in all {
            prop_assert!(tried.get(&who).is_some_and(|times| *times >= 3), "{who:?} of {tenants} × {each}: {tried:?}");
        }
    }
}
