//! Which settlements of one channel may be told together. Pure.
//!
//! Tags of a channel rise by one with each message. What is finished from the oldest on is acknowledged with one
//! frame for all of it (`multiple`); what finished behind a message that takes its time is acknowledged alone
//! after a few rounds, and after one where half of the window is finished and waits: it would take little new. A frame with `multiple` settles
//! everything up to its tag, so no tag is named that way before all below it are settled, and a message that goes
//! back is told before.

use std::collections::VecDeque;

use crate::broker::receipt::Settlement;

/// Rounds a finished message waits for those before it.
const PATIENCE: u32 = 3;
/// The same where half of the window is finished and waits.
const PATIENCE_IN_A_CROWD: u32 = 1;
/// So many told one by one behind the same message: a new channel costs less than going on like that.
const STUCK: u32 = 1_000;

/// What is to be told to the broker, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Give this one back to its queue.
    HandBack(u64),
    /// This one and everything before it is done with.
    AcknowledgeThrough(u64),
    /// This one is done with.
    Acknowledge(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Open,
    Finished,
    Told,
}

/// The tags of one channel since its beginning.
pub(super) struct Settlements {
    /// The oldest tag that is not settled and told; `tags` begins with it.
    oldest: u64,
    tags: VecDeque<Tag>,
    /// Finished tags by the round they finished in; some may have been told since.
    finished: VecDeque<(u32, u64)>,
    handed_back: Vec<u64>,
    /// Finished and not told.
    behind: usize,
    /// So many behind are a crowd.
    crowd: usize,
    /// Told one by one since the oldest was another.
    singly: u32,
    round: u32,
}

impl Settlements {
    /// Of a channel whose consumer may hold `window` messages. Its first tag is 1 (AMQP 0-9-1, `delivery-tag`: zero
    /// is reserved).
    pub(super) fn new(window: u16) -> Settlements {
        Settlements {
            oldest: 1,
            tags: VecDeque::new(),
            finished: VecDeque::new(),
            handed_back: Vec::new(),
            behind: 0,
            crowd: usize::from(window / 2),
            singly: 0,
            round: 0,
        }
    }

    /// Notes what became of a message.
    pub(super) fn settle(&mut self, tag: u64, settlement: Settlement) {
        let Some(place) = tag.checked_sub(self.oldest).and_then(|place| usize::try_from(place).ok()) else {
            return;
        };
        if place >= self.tags.len() {
            self.tags.resize(place + 1, Tag::Open);
        }
        match settlement {
            Settlement::Acknowledged => {
                self.tags[place] = Tag::Finished;
                self.behind += 1;
                self.finished.push_back((self.round, tag));
            }
            Settlement::HandedBack => {
                self.tags[place] = Tag::Told;
                self.handed_back.push(tag);
            }
        }
    }

    /// Whether something is noted and not told.
    pub(super) fn is_waiting(&self) -> bool {
        !self.finished.is_empty() || !self.handed_back.is_empty()
    }

    /// Whether the oldest message keeps very many from being told together; asked again, only when as many more were.
    pub(super) fn is_stuck(&mut self) -> bool {
        let is_stuck = self.singly >= STUCK;
        if is_stuck {
            self.singly = 0;
        }
        is_stuck
    }

    /// What is to be told now. Called every few milliseconds while something waits.
    pub(super) fn round(&mut self, orders: &mut Vec<Order>) {
        self.tell_through(orders);
        let patience = if self.behind > self.crowd { PATIENCE_IN_A_CROWD } else { PATIENCE };
        self.tell_singly(patience, orders);
        self.round = self.round.wrapping_add(1);
    }

    /// Everything that waits, because nothing more will come.
    pub(super) fn rest(&mut self, orders: &mut Vec<Order>) {
        self.tell_through(orders);
        self.tell_singly(0, orders);
    }

    /// Tells what goes back, then all that is finished from the oldest on.
    fn tell_through(&mut self, orders: &mut Vec<Order>) {
        orders.extend(self.handed_back.drain(..).map(Order::HandBack));
        let mut newest = None;
        while let Some(tag) = self.tags.front().filter(|tag| **tag != Tag::Open) {
            if *tag == Tag::Finished {
                newest = Some(self.oldest);
                self.behind -= 1;
            }
            self.tags.pop_front();
            self.oldest += 1;
            self.singly = 0;
        }
        // The tag named must be one the broker still waits for, or it closes the channel.
        orders.extend(newest.map(Order::AcknowledgeThrough));
    }

    fn tell_singly(&mut self, patience: u32, orders: &mut Vec<Order>) {
        while let Some((round, tag)) = self.finished.front().copied() {
            let place = tag.checked_sub(self.oldest).and_then(|place| usize::try_from(place).ok());
            match place.and_then(|place| self.tags.get_mut(place)) {
                // Still behind an open one.
                Some(state) if *state == Tag::Finished => {
                    if self.round.wrapping_sub(round) < patience {
                        return;
                    }
                    *state = Tag::Told;
                    self.behind -= 1;
                    self.singly += 1;
                    orders.push(Order::Acknowledge(tag));
                }
                _ => {}
            }
            self.finished.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn round(settlements: &mut Settlements) -> Vec<Order> {
        let mut orders = Vec::new();
        settlements.round(&mut orders);
        orders
    }

    fn settled(tags: &[u64]) -> Settlements {
        let mut settlements = Settlements::new(100);
        tags.iter().for_each(|tag| settlements.settle(*tag, Settlement::Acknowledged));
        settlements
    }

    #[test]
    fn what_is_finished_from_the_oldest_on_is_told_with_one_frame() {
        let mut settlements = settled(&[3, 1, 2]);
        assert_eq!(round(&mut settlements), [Order::AcknowledgeThrough(3)]);
        assert!(!settlements.is_waiting());
        assert_eq!(round(&mut settlements), []);
    }

    #[test]
    fn what_is_behind_an_open_one_waits_three_rounds_at_most() {
        let mut settlements = settled(&[2]);
        assert_eq!(round(&mut settlements), []);
        settlements.settle(1, Settlement::Acknowledged);
        settlements.settle(4, Settlement::Acknowledged);
        assert_eq!(round(&mut settlements), [Order::AcknowledgeThrough(2)]);
        // 3 is in the way, and stays there.
        assert_eq!(round(&mut settlements), []);
        assert_eq!(round(&mut settlements), []);
        assert_eq!(round(&mut settlements), [Order::Acknowledge(4)]);
        settlements.settle(3, Settlement::Acknowledged);
        assert_eq!(round(&mut settlements), [Order::AcknowledgeThrough(3)]);
        assert!(!settlements.is_waiting());
    }

    #[test]
    fn a_crowd_behind_an_open_one_waits_one_round() {
        let many: Vec<u64> = (2..=52).collect();
        let mut settlements = settled(&many);
        assert_eq!(round(&mut settlements), []);
        let told: Vec<Order> = many.iter().copied().map(Order::Acknowledge).collect();
        assert_eq!(round(&mut settlements), told);
        settlements.settle(1, Settlement::Acknowledged);
        assert_eq!(round(&mut settlements), [Order::AcknowledgeThrough(1)]);
        assert!(!settlements.is_waiting());
    }

    #[test]
    fn a_message_that_a_thousand_were_told_past_is_in_the_way() {
        let mut settlements = Settlements::new(100);
        for tag in 2..=1_000 {
            settlements.settle(tag, Settlement::Acknowledged);
        }
        while settlements.is_waiting() {
            round(&mut settlements);
        }
        assert!(!settlements.is_stuck());
        settlements.settle(1_001, Settlement::Acknowledged);
        while settlements.is_waiting() {
            round(&mut settlements);
        }
        assert!(settlements.is_stuck());
        assert!(!settlements.is_stuck(), "said once");
    }

    #[test]
    fn who_was_told_past_another_message_does_not_count() {
        let mut settlements = Settlements::new(100);
        for oldest in [1, 601] {
            for tag in oldest + 1..oldest + 600 {
                settlements.settle(tag, Settlement::Acknowledged);
            }
            while settlements.is_waiting() {
                round(&mut settlements);
            }
            assert!(!settlements.is_stuck());
            settlements.settle(oldest, Settlement::Acknowledged);
            round(&mut settlements);
        }
    }

    #[test]
    fn what_goes_back_is_told_before_anything_that_could_settle_it() {
        let mut settlements = settled(&[1, 3]);
        settlements.settle(2, Settlement::HandedBack);
        assert_eq!(round(&mut settlements), [Order::HandBack(2), Order::AcknowledgeThrough(3)]);
    }

    #[test]
    fn a_frame_never_names_a_message_that_went_back() {
        let mut settlements = settled(&[1]);
        settlements.settle(2, Settlement::HandedBack);
        assert_eq!(round(&mut settlements), [Order::HandBack(2), Order::AcknowledgeThrough(1)]);
    }

    /// What RabbitMQ's channel does with the orders (`collect_acks` of 3.10): a tag it does not wait for ends
    /// the channel; with `multiple` everything up to the tag is settled.
    #[derive(Default)]
    struct Channel {
        waiting: BTreeSet<u64>,
        acknowledged: BTreeSet<u64>,
        handed_back: BTreeSet<u64>,
    }

    impl Channel {
        fn obey(&mut self, orders: &[Order]) {
            for order in orders {
                let (Order::HandBack(tag) | Order::AcknowledgeThrough(tag) | Order::Acknowledge(tag)) =
                    *order;
                assert!(self.waiting.remove(&tag), "unknown delivery tag {tag}");
                match order {
                    Order::HandBack(_) => drop(self.handed_back.insert(tag)),
                    Order::Acknowledge(_) => drop(self.acknowledged.insert(tag)),
                    Order::AcknowledgeThrough(_) => {
                        let rest = self.waiting.split_off(&tag);
                        self.acknowledged.insert(tag);
                        self.acknowledged.extend(std::mem::replace(&mut self.waiting, rest));
                    }
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Delivered,
        /// The nth of those in hand ends.
        Ended(usize, bool),
        Round,
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let one = prop_oneof![
            4 => Just(Happening::Delivered),
            4 => (0_usize..40, prop::bool::weighted(0.9)).prop_map(|(which, well)| Happening::Ended(which, well)),
            1 => Just(Happening::Round),
        ];
        proptest::collection::vec(one, 0..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_message_is_settled_before_it_is_finished_and_all_are_soon_after(
            happenings in happenings(),
            window in 0_u16..60,
        ) {
            let (mut settlements, mut channel) = (Settlements::new(window), Channel::default());
            let mut in_hand: Vec<u64> = Vec::new();
            let mut ended: BTreeMap<u64, (bool, u32)> = BTreeMap::new();
            let (mut next, mut rounds) = (1, 0);
            for happening in happenings {
                match happening {
                    Happening::Delivered => {
                        in_hand.push(next);
                        channel.waiting.insert(next);
                        next += 1;
                    }
                    Happening::Ended(which, well) if !in_hand.is_empty() => {
                        let tag = in_hand.remove(which % in_hand.len());
                        let what = if well { Settlement::Acknowledged } else { Settlement::HandedBack };
                        settlements.settle(tag, what);
                        ended.insert(tag, (well, rounds));
                    }
                    Happening::Ended(..) => {}
                    Happening::Round => {
                        channel.obey(&round(&mut settlements));
                        rounds += 1;
                        for (tag, (_, since)) in &ended {
                            let told = !channel.waiting.contains(tag);
                            prop_assert!(told || rounds - since <= PATIENCE, "{tag} waits since round {since}");
                        }
                    }
                }
                for tag in &channel.acknowledged {
                    prop_assert!(ended.get(tag).is_some_and(|(well, _)| *well), "{tag} was not finished");
                }
            }
            let mut orders = Vec::new();
            settlements.rest(&mut orders);
            channel.obey(&orders);
            prop_assert!(!settlements.is_waiting());
            prop_assert_eq!(channel.waiting, in_hand.into_iter().collect::<BTreeSet<_>>());
            let (well, back): (Vec<_>, Vec<_>) = ended.iter().partition(|(_, (well, _))| *well);
            prop_assert_eq!(channel.acknowledged, well.into_iter().map(|(tag, _)| *tag).collect::<BTreeSet<_>>());
            prop_assert_eq!(channel.handed_back, back.into_iter().map(|(tag, _)| *tag).collect::<BTreeSet<_>>());
        }
    }
}
