//! Which published messages came back: attribution of returns to hops, apart from any channel.
//!
//! RabbitMQ sends an unroutable message back before it confirms it, positively. lapin keeps the returns in a line
//! and, while it works off an acknowledgement of many tags in no particular order, gives the oldest return to each
//! tag it resolves, whosever it is. From that follows what a confirm means:
//!
//! - its own return was seen, here or with another confirm: it came back;
//! - it carried nothing: the line was empty at its turn, so its own return, if there was one, had been given to a
//!   confirm resolved before it. Once everything resolved so far is taken in, none seen means it arrived;
//! - it carried another's return: its own may have been left to a tag resolved after it. Nobody knows until the
//!   whole acknowledgement has been worked off.

use std::collections::HashSet;

/// What became of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in a queue.
    Arrived,
    /// No queue took it.
    CameBack,
    /// To be asked for again with [`Returns::settle`] when the acknowledgement is surely worked off.
    Doubtful,
}

/// Returns seen whose hops have not been judged yet.
#[derive(Debug, Default)]
pub(super) struct Returns {
    seen: HashSet<u64>,
}

impl Returns {
    /// Judges confirms: each hop with the hop whose return it carried, if any. `batch` must hold everything that
    /// was resolved before any of it and has not been taken in yet.
    pub(super) fn take_in(&mut self, batch: &[(u64, Option<u64>)]) -> Vec<(u64, Fate)> {
        self.seen.extend(batch.iter().filter_map(|(_, carried)| *carried));
        let judged = batch.iter().map(|(hop, carried)| {
            let fate = match carried {
                _ if self.seen.remove(hop) => Fate::CameBack,
                Some(_) => Fate::Doubtful,
                None => Fate::Arrived,
            };
            (*hop, fate)
        });
        judged.collect()
    }

    /// The fate of a doubtful hop once its acknowledgement is worked off.
    pub(super) fn settle(&mut self, hop: u64) -> Fate {
        if self.seen.remove(&hop) { Fate::CameBack } else { Fate::Arrived }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// lapin's side: works off one acknowledgement of `tags` in the given order.
    fn resolve(tags: &[u64], line: &mut VecDeque<u64>) -> Vec<(u64, Option<u64>)> {
        tags.iter().map(|tag| (*tag, line.pop_front())).collect()
    }

    #[test]
    fn a_return_carried_by_a_neighbour_is_told_apart() {
        let mut returns = Returns::default();
        let judged = returns.take_in(&[(5, Some(4)), (4, Some(5)), (6, None)]);
        assert_eq!(judged, [(5, Fate::CameBack), (4, Fate::CameBack), (6, Fate::Arrived)]);
    }

    #[test]
    fn a_confirm_with_anothers_return_is_doubted_until_the_rest_is_seen() {
        let mut returns = Returns::default();
        assert_eq!(returns.take_in(&[(5, Some(4))]), [(5, Fate::Doubtful)]);
        assert_eq!(returns.take_in(&[(4, Some(5))]), [(4, Fate::CameBack)]);
        assert_eq!(returns.settle(5), Fate::CameBack);
        let mut returns = Returns::default();
        assert_eq!(returns.take_in(&[(7, Some(4)), (4, None)]), [(7, Fate::Doubtful), (4, Fate::CameBack)]);
        assert_eq!(returns.settle(7), Fate::Arrived);
    }

    proptest! {
        /// Any unroutable hops, any acknowledgements, any order within them, batches cut anywhere.
        #[test]
        fn no_hop_that_came_back_is_told_as_arrived_and_none_that_arrived_as_back(
            unroutable in proptest::collection::vec(any::<bool>(), 1..60),
            acknowledgements in proptest::collection::vec(1usize..12, 1..60),
            order in any::<u64>(),
            cuts in proptest::collection::vec(1usize..9, 1..60),
        ) {
            let came_back = |hop: u64| unroutable[usize::try_from(hop).unwrap()];
            let mut hops: VecDeque<u64> = (0..unroutable.len() as u64).collect();
            let (mut line, mut returns, mut seed) = (VecDeque::new(), Returns::default(), order);
            let (mut sizes, mut cuts) = (acknowledgements.iter().cycle(), cuts.iter().cycle());
            while !hops.is_empty() {
                let size = (*sizes.next().unwrap()).min(hops.len());
                let mut tags: Vec<u64> = hops.drain(..size).collect();
                // Every return of an acknowledgement's tags comes before it.
                line.extend(tags.iter().copied().filter(|hop| came_back(*hop)));
                for place in (1..tags.len()).rev() {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    tags.swap(place, usize::try_from(seed >> 33).unwrap() % (place + 1));
                }
                let resolved = resolve(&tags, &mut line);
                let (mut rest, mut doubtful) = (resolved.as_slice(), Vec::new());
                while !rest.is_empty() {
                    let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                    // The set of futures may yield them in another order than they were resolved in.
                    let mut batch = now.to_vec();
                    batch.reverse();
                    for (hop, fate) in returns.take_in(&batch) {
                        match fate {
                            Fate::Doubtful => doubtful.push(hop),
                            fate => prop_assert_eq!(fate == Fate::CameBack, came_back(hop), "hop {}", hop),
                        }
                    }
                    rest = later;
                }
                for hop in doubtful {
                    prop_assert_eq!(returns.settle(hop) == Fate::CameBack, came_back(hop), "doubtful hop {}", hop);
                }
            }
            prop_assert!(returns.seen.is_empty());
        }
    }
}
