//! The story, part by part: each shows something, and fails the demo unless it was seen to happen.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::receiver::{Arrival, Receiver};
use super::stage::Stage;
use super::{Failure, print};
use crate::cli::stage::free_addresses;

const TENANT: &str = "acme";
/// Longest silence of the receiver while something should arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);
/// How long a dead letter may be on its way to the store.
const KEPT_WITHIN: Duration = Duration::from_secs(20);
/// How long we listen for what should not come.
const SILENCE: Duration = Duration::from_millis(500);

/// Plays every part; the first expectation that fails ends it.
pub(super) async fn tell(stage: &mut Stage, receiver: &mut Receiver) -> Result<(), Failure> {
    start(stage, receiver).await?;
    subscribe(stage, receiver).await?;
    let mut log =
        Log { unit: stage.unit(), last: HashMap::new(), arrivals: 0, delivered: 0, retries: 0, replays: 0 };
    deliver_and_retry(stage, receiver, &mut log).await?;
    let event = give_up(stage, receiver, &mut log).await?;
    repair_and_replay(stage, receiver, &mut log, &event).await?;
    print::heading("What was seen");
    print::good(&format!(
        "{} requests, every signature verified: {} delivered, {} retries, {} replay; no dead letter left",
        log.arrivals, log.delivered, log.retries, log.replays
    ));
    print::say("next: `paperboy serve`, then `paperboy subscription add` with an address of yours");
    Ok(())
}

async fn start(stage: &mut Stage, receiver: &Receiver) -> Result<(), Failure> {
    print::say("a SQLite store in a temporary folder, and three processes:");
    let [api, first, second] = free_addresses()?;
    // The store is made by the first process; the others find it.
    for (role, address) in [("api", api), ("worker", first), ("worker", second)] {
        stage.serve(role, address)?;
        stage.ready(address).await?;
    }
    print::say("what these commands are told in their environment, besides the addresses of the services:");
    for setting in stage.settings_told() {
        print::aside(&format!("  {setting}"));
    }
    print::say("a receiver that checks every signature by itself and misbehaves:");
    print::say(&format!("  {:<32} takes everything", receiver.url("erp")));
    print::say(&format!("  {:<32} answers 503 twice, then 200", receiver.url("flaky")));
    print::say(&format!("  {:<32} answers 500 until it is repaired", receiver.url("broken")));
    Ok(())
}

async fn subscribe(stage: &Stage, receiver: &Receiver) -> Result<(), Failure> {
    print::heading(&format!("Three subscriptions of tenant `{TENANT}`"));
    let add = ["subscription", "add", "--tenant", TENANT];
    let simple = [("erp", "document.*,batch.completed"), ("flaky", "document.processed")];
    for (endpoint, events) in simple {
        let url = receiver.url(endpoint);
        let flags = ["--name", endpoint, "--url", &url, "--events", events];
        let printed = stage.show(&[&add[..], &flags].concat(), None).await?;
        receiver.learn(endpoint, secret(&printed.stdout)?);
    }
    print::say("the third gives up after 3 attempts instead of 10, so that we see the end of it:");
    let document = format!(
        r#"{{
  "tenant": "{TENANT}",
  "name": "broken",
  "events": ["batch.completed"],
  "request": {{"url": "{}"}},
  "retry": {{"kind": "exponential", "base": 2, "max_attempts": 3}}
}}"#,
        receiver.url("broken")
    );
    let printed = stage.show(&["subscription", "add", "--file", "-"], Some(&document)).await?;
    receiver.learn("broken", secret(&printed.stdout)?);
    Ok(())
}

/// The secret that `subscription add` shows once.
fn secret(printed: &str) -> Result<&str, Failure> {
    let secret = printed.lines().find_map(|line| line.strip_prefix("secret: "));
    secret.ok_or_else(|| Failure::world("`paperboy subscription add` printed no secret"))
}

async fn deliver_and_retry(stage: &Stage, receiver: &mut Receiver, log: &mut Log) -> Result<(), Failure> {
    print::heading("A delivery, and one that is tried again");
    let event = "evt-2041";
    let data = r#"{"supplier": "Northwind", "total": "1280.00", "currency": "EUR"}"#;
    let flags = ["publish", "--tenant", TENANT, "--type", "document.processed", "--id", event];
    let more = ["--document-id", "inv-2041", "--data", data];
    stage.show(&[&flags[..], &more].concat(), None).await?;
    print::say(&format!(
        "two subscriptions want it; after a failure the waits are 2, 4, 8 … seconds, here {} s for each second",
        log.unit.as_secs_f64()
    ));
    let arrivals = log.follow(receiver, event, 4).await?;
    expect(&arrivals, "erp", &[200])?;
    expect(&arrivals, "flaky", &[503, 503, 200])?;
    // The second request to `/flaky` is the first that waited.
    let place = |endpoint, nth| {
        let mut places = arrivals.iter().enumerate().filter(|(_, arrival)| arrival.endpoint == endpoint);
        places.nth(nth).map(|(place, _)| place)
    };
    if place("erp", 0) > place("flaky", 1) {
        return Err(Failure::world("`/erp` was held up by `/flaky`"));
    }
    print::good("delivered to both, and the one that failed did not hold up the other");
    Ok(())
}

async fn give_up(stage: &Stage, receiver: &mut Receiver, log: &mut Log) -> Result<String, Failure> {
    print::heading("One that fails to the end: a dead letter");
    let event = "evt-2042";
    let flags = ["publish", "--tenant", TENANT, "--type", "batch.completed", "--id", event];
    let more = ["--batch-id", "batch-17", "--data", r#"{"documents": 12}"#];
    stage.show(&[&flags[..], &more].concat(), None).await?;
    let arrivals = log.follow(receiver, event, 4).await?;
    expect(&arrivals, "erp", &[200])?;
    expect(&arrivals, "broken", &[500, 500, 500])?;
    let letter = kept(stage, event).await?;
    let id = letter["id"].as_str().unwrap_or_default();
    print::bad(&format!(
        "given up after {} attempts ({}), and kept:",
        letter["attempts"],
        letter["reason"].as_str().unwrap_or_default()
    ));
    stage.look(&["dead", "list"]).await?;
    stage.show(&["dead", "show", id], None).await?;
    Ok(event.to_owned())
}

/// The open dead letter of this event, once it is in the store.
async fn kept(stage: &Stage, event: &str) -> Result<Value, Failure> {
    let begun = Instant::now();
    loop {
        let printed = stage.ask(&["dead", "list", "--event", event, "--json"]).await?;
        if let Some(line) = printed.stdout.lines().next() {
            return Ok(serde_json::from_str(line).map_err(anyhow::Error::from)?);
        }
        if begun.elapsed() > KEPT_WITHIN {
            return Err(Failure::world(format!(
                "no dead letter of event `{event}` was kept within {} s",
                KEPT_WITHIN.as_secs()
            )));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn repair_and_replay(
    stage: &Stage,
    receiver: &mut Receiver,
    log: &mut Log,
    event: &str,
) -> Result<(), Failure> {
    print::heading("Repaired and replayed");
    receiver.repair();
    print::say("`/broken` is repaired: from now on it answers 200");
    stage.show(&["dead", "replay", "--all"], None).await?;
    let arrivals = log.follow(receiver, event, 1).await?;
    expect(&arrivals, "broken", &[200])?;
    let replay = arrivals.iter().find_map(|arrival| arrival.replay.as_deref());
    if replay != Some("1") {
        return Err(Failure::world(format!(
            "the replay came with `paperboy-replay: {}`",
            replay.unwrap_or("(none)")
        )));
    }
    print::good(
        "delivered, with the webhook-id it had before: a receiver can tell that it is the same event",
    );
    stage.look(&["dead", "list"]).await?;
    let open = stage.ask(&["dead", "list", "--json"]).await?.stdout;
    if !open.is_empty() {
        return Err(Failure::world(format!("still a dead letter after the replay: {}", open.trim())));
    }
    if let Some(extra) = receiver.next(SILENCE).await {
        return Err(Failure::world(format!("one more request came to `/{}`: {extra:?}", extra.endpoint)));
    }
    Ok(())
}

/// What the endpoint answered to one event, in order.
fn expect(arrivals: &[Arrival], endpoint: &str, wanted: &[u16]) -> Result<(), Failure> {
    let seen = arrivals.iter().filter(|arrival| arrival.endpoint == endpoint);
    let seen: Vec<u16> = seen.map(|arrival| arrival.status.as_u16()).collect();
    if seen == wanted {
        return Ok(());
    }
    Err(Failure::world(format!("`/{endpoint}` was expected to answer {wanted:?}, and answered {seen:?}")))
}

/// Tells arrivals as they come, with the waits between attempts.
struct Log {
    unit: Duration,
    /// The last arrival by endpoint and webhook id.
    last: HashMap<(String, String), Arrival>,
    arrivals: usize,
    delivered: usize,
    retries: usize,
    replays: usize,
}

impl Log {
    /// Tells this many requests that belong to one event.
    async fn follow(
        &mut self,
        receiver: &mut Receiver,
        event: &str,
        count: usize,
    ) -> Result<Vec<Arrival>, Failure> {
        let mut arrivals = Vec::with_capacity(count);
        while arrivals.len() < count {
            let Some(arrival) = receiver.next(ARRIVES_WITHIN).await else {
                return Err(Failure::world(format!(
                    "{} of {count} requests came for event `{event}`, then none within {} s",
                    arrivals.len(),
                    ARRIVES_WITHIN.as_secs()
                )));
            };
            self.tell(&arrival, event)?;
            arrivals.push(arrival);
        }
        Ok(arrivals)
    }

    fn tell(&mut self, arrival: &Arrival, event: &str) -> Result<(), Failure> {
        if let Some(why) = &arrival.forged {
            return Err(Failure::world(format!("`/{}` refused a signature: {why}", arrival.endpoint)));
        }
        if arrival.webhook_id != event {
            return Err(Failure::world(format!(
                "`/{}` got webhook-id `{}`, not `{event}`",
                arrival.endpoint, arrival.webhook_id
            )));
        }
        self.arrivals += 1;
        self.delivered += usize::from(arrival.status.is_success());
        let mut text = format!(
            "POST /{:<7} webhook-id {}  attempt {}  signature verified  -> {}",
            arrival.endpoint,
            arrival.webhook_id,
            arrival.attempt,
            arrival.status.as_u16()
        );
        let key = (arrival.endpoint.clone(), arrival.webhook_id.clone());
        let before = self.last.insert(key, arrival.clone());
        if let Some(replay) = &arrival.replay {
            self.replays += 1;
            text.push_str(&format!("  paperboy-replay: {replay}"));
        } else if let Some(before) = before {
            self.retries += 1;
            let waited = arrival.at.duration_since(before.at);
            let units = before
                .attempt
                .parse()
                .ok()
                .and_then(|attempt| 2_u32.checked_pow(attempt))
                .unwrap_or_default();
            text.push_str(&format!(
                "  {:.2} s later ({:.2} s were set)",
                waited.as_secs_f64(),
                (self.unit * units).as_secs_f64()
            ));
            if waited < self.unit * units {
                return Err(Failure::world(format!(
                    "attempt {} came after {:.2} s, before its {units} units were over",
                    arrival.attempt,
                    waited.as_secs_f64()
                )));
            }
        }
        if arrival.status.is_success() {
            print::good(&text)
        } else {
            print::bad(&text)
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_secret_where_add_prints_it() {
        assert_eq!(secret("sub_1\nsecret: whsec_x\n").unwrap(), "whsec_x");
        assert!(secret("sub_1\n").is_err());
    }
}
