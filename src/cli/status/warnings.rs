//! What is wrong with a deployment, in words; decided from what was seen and nothing else.

use super::{Facts, Kept, Processes, troubled};
use crate::broker::Queue;

impl Facts {
    /// Everything a person should look at, most urgent first.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.missing(&mut warnings);
        self.taking(&mut warnings);
        self.dead(&mut warnings);
        self.processes(&mut warnings);
        match &self.store {
            Kept::There(store) => warnings.extend(troubled::warnings(&store.troubled)),
            Kept::Unknown(why) => warnings.push(format!("the store cannot be read: {why}")),
            Kept::Missing => {}
        }
        warnings
    }

    fn missing(&self, warnings: &mut Vec<String>) {
        let all =
            self.queues.iter().map(|(_, queue)| queue).chain(self.levels.iter().map(|(_, level)| level));
        let (mut missing, mut there) = (Vec::new(), 0);
        for queue in all {
            match queue.depth {
                Some(_) => there += 1,
                None => missing.push(format!("`{}`", queue.name)),
            }
        }
        if missing.is_empty() {
            return;
        }
        let what = if there == 0 {
            "none of the queues exist".to_owned()
        } else {
            format!("{} missing", list(&missing))
        };
        warnings.push(format!(
            "{what}: `paperboy topology declare`, or a start of `paperboy serve`, declares them"
        ));
    }

    /// Who takes from the queues of work, and what lies in them meanwhile.
    fn taking(&self, warnings: &mut Vec<String>) {
        let mut is_taken = true;
        for kind in [Queue::Events, Queue::Deliveries, Queue::Retries] {
            let Some((name, depth)) = self.depth(kind) else { continue };
            if depth.consumers == 0 {
                is_taken = false;
                let holds = if depth.ready > 0 {
                    format!(", which holds {}", messages(depth.ready))
                } else {
                    String::new()
                };
                warnings.push(format!("no process takes from `{name}`{holds}: start `paperboy serve` with role `all` or `worker`"));
            }
        }
        let waiting: u32 = self.waiting().map(|(_, _, ready)| ready).sum();
        if !is_taken && waiting > 0 {
            warnings.push(format!(
                "{} in the delay levels: nobody delivers what comes back from there",
                if waiting == 1 { "1 message waits".to_owned() } else { format!("{waiting} messages wait") }
            ));
        }
    }

    fn dead(&self, warnings: &mut Vec<String>) {
        for kind in [Queue::DeadDeliveries, Queue::DeadEvents] {
            let Some((name, depth)) = self.depth(kind) else { continue };
            if depth.ready == 0 || depth.consumers > 0 {
                continue;
            }
            let todo = if self.drains {
                "start `paperboy serve` with role `all` or `api`"
            } else {
                "`dead.drain` is false; `paperboy dead list --from-queue` shows them"
            };
            warnings.push(format!("`{name}` holds {} and nobody drains it: {todo}", messages(depth.ready)));
        }
    }

    fn processes(&self, warnings: &mut Vec<String>) {
        if let Processes::Unknown(why) = &self.processes {
            warnings.push(format!("Redis does not answer, so no process is seen: {why}"));
        }
        for process in self.heard() {
            if !process.faults.is_empty() {
                warnings.push(format!("{} is not ready: {}", process.place(), process.faults.join("; ")));
            }
            if !process.troubles.is_empty() {
                warnings.push(format!("{} has trouble: {}", process.place(), process.troubles.join("; ")));
            }
            if process.balance.as_ref().is_some_and(|balance| !balance.adds_up()) {
                warnings.push(format!("the balance of {} does not add up", process.place()));
            }
        }
    }

    fn depth(&self, kind: Queue) -> Option<(&str, super::Depth)> {
        let (_, queue) = self.queues.iter().find(|(queue, _)| *queue == kind)?;
        Some((queue.name.as_str(), queue.depth?))
    }
}

fn messages(count: u32) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn list(names: &[String]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::{Counted, Counts, Depth, Heartbeat};
    use super::*;

    fn counted(name: &str, ready: u32, consumers: u32) -> Counted {
        Counted { name: name.into(), depth: Some(Depth { ready, consumers }) }
    }

    fn well() -> Facts {
        Facts {
            queues: vec![
                (Queue::Events, counted("p.events", 9, 2)),
                (Queue::Deliveries, counted("p.deliveries", 0, 2)),
                (Queue::Retries, counted("p.retries", 0, 2)),
                (Queue::DeadDeliveries, counted("p.dead.deliveries", 4, 1)),
                (Queue::DeadEvents, counted("p.dead.events", 0, 1)),
            ],
            levels: vec![(1000, counted("p.delay.00", 0, 0)), (2000, counted("p.delay.01", 3, 0))],
            processes: Processes::Heard(vec![Heartbeat {
                id: "1".into(),
                role: "worker".into(),
                host: "h".into(),
                pid: 7,
                version: "1".into(),
                started_ms: 0,
                at_ms: 0,
                drains: false,
                faults: Vec::new(),
                keys: Vec::new(),
                troubles: Vec::new(),
                balance: Some(Counts::default()),
                slow: Vec::new(),
            }]),
            store: Kept::Missing,
            drains: true,
        }
    }

    fn process(facts: &mut Facts) -> &mut Heartbeat {
        let Processes::Heard(heard) = &mut facts.processes else { panic!("heard") };
        &mut heard[0]
    }

    #[test]
    fn nothing_is_said_of_a_deployment_that_is_well() {
        assert_eq!(well().warnings(), Vec::<String>::new());
        let without = Facts { processes: Processes::NoRedis, ..well() };
        assert_eq!(without.warnings(), Vec::<String>::new());
    }

    #[test]
    fn work_that_nobody_takes_is_told_with_what_waits() {
        let mut facts = well();
        facts.queues[0].1 = counted("p.events", 9, 0);
        let warnings = facts.warnings();
        assert_eq!(
            warnings[0],
            "no process takes from `p.events`, which holds 9 messages: start `paperboy serve` with role `all` or `worker`"
        );
        assert_eq!(
            warnings[1],
            "3 messages wait in the delay levels: nobody delivers what comes back from there"
        );
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn a_dead_queue_that_nobody_drains_is_told_with_what_to_do() {
        let mut facts = well();
        facts.queues[3].1 = counted("p.dead.deliveries", 1, 0);
        assert!(
            facts.warnings()[0]
                .starts_with("`p.dead.deliveries` holds 1 message and nobody drains it: start")
        );
        facts.drains = false;
        assert!(facts.warnings()[0].ends_with("`paperboy dead list --from-queue` shows them"));
    }

    #[test]
    fn missing_queues_are_named_in_one_sentence() {
        let mut facts = well();
        facts.queues[2].1.depth = None;
        facts.levels[0].1.depth = None;
        assert!(facts.warnings()[0].starts_with("`p.retries`, `p.delay.00` are missing: "));
        facts.queues.iter_mut().for_each(|(_, queue)| queue.depth = None);
        facts.levels.iter_mut().for_each(|(_, level)| level.depth = None);
        assert_eq!(facts.warnings().len(), 1);
        assert!(facts.warnings()[0].starts_with("none of the queues exist: "));
    }

    #[test]
    fn a_process_that_is_not_ready_and_a_balance_that_is_off_are_told() {
        let mut facts = well();
        process(&mut facts).faults = vec!["publish: no connection".into()];
        process(&mut facts).troubles = vec!["sources: one is missing".into()];
        process(&mut facts).balance = Some(Counts { taken: 1, ..Counts::default() });
        assert_eq!(
            facts.warnings(),
            [
                "worker on `h` (pid 7) is not ready: publish: no connection",
                "worker on `h` (pid 7) has trouble: sources: one is missing",
                "the balance of worker on `h` (pid 7) does not add up"
            ]
        );
    }

    #[test]
    fn what_cannot_be_seen_is_told() {
        let facts = Facts {
            processes: Processes::Unknown("timed out".into()),
            store: Kept::Unknown("locked".into()),
            ..well()
        };
        assert_eq!(facts.warnings().len(), 2);
    }
}
