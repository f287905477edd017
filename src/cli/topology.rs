//! `paperboy topology show|declare|check`: the exchanges, queues and bindings of this deployment.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::failure::Problem;
use super::{Common, Failure, output, services};
use crate::broker::rabbitmq::inspect::{Extent, Finding};
use crate::broker::rabbitmq::topology::{Argument, Item, Topology, TopologyError};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Print what there must be, without asking the broker
    Show,
    /// Declare what is missing and say what that was, whatever `broker.declare` says
    Declare,
    /// Ask the broker what is missing or different; changes nothing
    #[command(
        after_help = "AMQP tells whether a queue exists, and whether its arguments are equal to ours by declaring it
again, which changes nothing. With `broker.declare = false` only existence is asked. Nothing tells
whether a binding exists: `paperboy topology declare` makes sure of it."
    )]
    Check,
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        let extent = match self {
            Command::Show => {
                show(common, &Topology::new(&config.broker.prefix, config.broker.delay_unit_ms));
                return Ok(());
            }
            Command::Declare => Extent::Declare,
            Command::Check if config.broker.declare => Extent::Arguments,
            Command::Check => Extent::Existence,
        };
        let inspector = services::inspector(&config).await?;
        let findings = inspector.check(extent).await;
        inspector.close().await;
        let findings = findings.map_err(|error| Failure::world(error.to_string()))?;
        print(common, &findings);
        let problems: Vec<Problem> = findings.iter().filter_map(|(_, finding)| problem(finding)).collect();
        let (all, wrong) = (findings.len(), problems.len());
        if wrong > 0 {
            return Err(Failure::world_disagrees(problems));
        }
        let told = match extent {
            Extent::Declare => {
                let made = findings.iter().filter(|(item, finding)| is_new(item, finding)).count();
                format!("declared {made} of {}; the binding is made sure of", all - 1)
            }
            Extent::Arguments => format!("{} exchanges and queues are as they must be; {BINDINGS}", all - 1),
            Extent::Existence => format!(
                "{} exchanges and queues exist; `broker.declare` is false, so their arguments were not asked; {BINDINGS}",
                all - 1
            ),
        };
        eprintln!("{told}");
        Ok(())
    }
}

const BINDINGS: &str = "bindings cannot be asked in AMQP (`paperboy topology declare` makes sure of them)";

fn is_new(item: &Item, finding: &Finding) -> bool {
    matches!(finding, Finding::Declared) && !matches!(item, Item::Binding { .. })
}

fn show(common: &Common, topology: &Topology) {
    let items = topology.items();
    if common.json {
        items.iter().for_each(|item| output::json_line(&item_json(item)));
        return;
    }
    let rows = items.iter().map(|item| vec![name(item), kind(item).to_owned(), arguments(item)]).collect();
    output::table(&["name", "kind", "arguments"], rows, "nothing");
}

fn print(common: &Common, findings: &[(Item, Finding)]) {
    if common.json {
        for (item, finding) in findings {
            let mut line = item_json(item);
            line["state"] = json!(word(finding));
            line["fault"] = match finding {
                Finding::Wrong(error) => json!(error.to_string()),
                _ => Value::Null,
            };
            output::json_line(&line);
        }
        return;
    }
    let row =
        |(item, finding): &(Item, Finding)| vec![name(item), kind(item).to_owned(), word(finding).to_owned()];
    output::table(&["name", "kind", "state"], findings.iter().map(row).collect(), "nothing");
}

fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Exists => "exists",
        Finding::Equal => "fine",
        Finding::Declared => "declared",
        Finding::Unasked => "not asked",
        Finding::Wrong(TopologyError::Mismatch { .. }) => "DIFFERENT",
        Finding::Wrong(TopologyError::Missing { .. }) => "MISSING",
        Finding::Wrong(TopologyError::Denied { .. }) => "NOT ALLOWED",
        Finding::Wrong(TopologyError::Stream { .. }) => "A STREAM",
        Finding::Wrong(TopologyError::Connection(_)) => "UNKNOWN",
    }
}

fn problem(finding: &Finding) -> Option<Problem> {
    let Finding::Wrong(error) = finding else { return None };
    Some(match error {
        // Nobody was asked to declare it.
        TopologyError::Missing { name } => Problem {
            message: format!("`{name}` does not exist on the broker"),
            hint: Some("`paperboy topology declare` declares it, with a user that may configure".into()),
        },
        error => Problem { message: error.to_string(), hint: error.hint() },
    })
}

fn name(item: &Item) -> String {
    match item {
        Item::Exchange { name } | Item::Queue { name, .. } => name.clone(),
        Item::Binding { queue, exchange, .. } => format!("{exchange} -> {queue}"),
    }
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Exchange { .. } => "topic exchange",
        Item::Queue { .. } => "quorum queue",
        Item::Binding { .. } => "binding",
    }
}

fn arguments(item: &Item) -> String {
    match item {
        Item::Exchange { .. } => "durable".to_owned(),
        Item::Queue { arguments, .. } => {
            let arguments = arguments.iter().map(|(name, value)| format!("{name}={}", argument(value)));
            arguments.collect::<Vec<_>>().join("\n")
        }
        Item::Binding { key, .. } => format!("routing key {key}"),
    }
}

fn argument(value: &Argument) -> Value {
    match value {
        Argument::Text(text) => json!(text),
        Argument::Number(number) => json!(number),
        Argument::Flag(flag) => json!(flag),
    }
}

fn item_json(item: &Item) -> Value {
    match item {
        Item::Exchange { name } => {
            json!({ "kind": "exchange", "name": name, "type": "topic", "durable": true })
        }
        Item::Queue { name, arguments } => {
            let mut table = Map::from_iter([("x-queue-type".to_owned(), json!("quorum"))]);
            table.extend(arguments.iter().map(|(name, value)| ((*name).to_owned(), argument(value))));
            json!({ "kind": "queue", "name": name, "durable": true, "arguments": table })
        }
        Item::Binding { queue, exchange, key } => {
            json!({ "kind": "binding", "queue": queue, "exchange": exchange, "key": key })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_shown_with_their_arguments() {
        let items = Topology::new("p", 1000).items();
        let find =
            |wanted: &str| items.iter().find(|item| item.name() == wanted && kind(item) == "quorum queue");
        let level = find("p.delay.03").unwrap();
        assert!(arguments(level).contains("x-message-ttl=8000"), "{}", arguments(level));
        let shown = item_json(level);
        assert_eq!(shown["arguments"]["x-dead-letter-routing-key"], "p.retries");
        assert_eq!(shown["arguments"]["x-queue-type"], "quorum");
        let binding = items.iter().find(|item| kind(item) == "binding").unwrap();
        assert_eq!(
            (name(binding), arguments(binding)),
            ("p.events -> p.events".into(), "routing key #".into())
        );
    }

    #[test]
    fn what_is_missing_is_told_with_the_command_that_declares_it() {
        let missing = Finding::Wrong(TopologyError::Missing { name: "p.retries".into() });
        let problem = problem(&missing).unwrap();
        assert_eq!(problem.message, "`p.retries` does not exist on the broker");
        assert!(problem.hint.unwrap().contains("`paperboy topology declare`"));
        assert!(super::problem(&Finding::Equal).is_none());
    }
}
