//! Dead letters for a play: put into the store the way they come there, and sent again meanwhile.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::crowd::Crowd;
use super::event::Events;
use super::player::bar;
use super::producer::fill;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::{Tags, Target};
use crate::cli::Failure;
use crate::cli::stage::{Stage, cannot_run};

const LISTEN: &str = "PAPERBOY__API__LISTEN";
/// The drain keeps some thousand letters a second.
const KEPT_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a replay may go on after the open loop it was beside.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A replay beside an open loop.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    /// One tenant with one endpoint, which takes everything by now.
    pub(super) crowd: Crowd,
    pub(super) letters: usize,
    /// Letters a second.
    pub(super) rate: u32,
}

/// A running `paperboy dead replay`.
pub(super) struct Replaying(Child);

impl Replay {
    /// Publishes the letters to their queue and waits until a drain of its own, listening at `address`, has kept all.
    pub(super) async fn bury(
        &self,
        stage: &mut Stage,
        broker: &RabbitMq,
        address: SocketAddr,
        label: &str,
    ) -> Result<(), Failure> {
        let tags = Tags {
            subscription: Some(self.subscription(stage).await?),
            reason: Some("exhausted".to_owned()),
            attempt: 10,
            ..Tags::default()
        };
        let run = label.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let letters = Events { run, crowd: &self.crowd, healthy_only: false, body_bytes: 777 };
        let bar = bar(self.letters, &format!("{label}: dead letters"));
        fill(broker, &letters, self.letters, Target::DeadDeliveries, &tags, &bar).await?;
        bar.finish_and_clear();
        let listen = (LISTEN, address.to_string());
        stage.start_with("drain", &["serve", "--role", "api"], [listen])?;
        let begun = Instant::now();
        while self.kept(stage).await? < self.letters as u64 {
            stage.check_alive()?;
            if begun.elapsed() > KEPT_WITHIN {
                let limit_s = KEPT_WITHIN.as_secs();
                return Err(Failure::world(format!("the dead letters are not kept after {limit_s} s")));
            }
            sleep(LOOK_EVERY).await;
        }
        // The receiver stays.
        stage.stop_all_but(1).await?;
        Ok(())
    }

    /// Sends all of them again, in a process of its own.
    pub(super) fn begin(&self, stage: &Stage) -> Result<Replaying, Failure> {
        let (tenant, rate) = (self.crowd.tenant(0), self.rate.to_string());
        let arguments = ["dead", "replay", "--all", "--tenant", &tenant, "--rate", &rate];
        let mut command = stage.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Replaying).map_err(|error| cannot_run(&arguments, &error))
    }

    async fn subscription(&self, stage: &Stage) -> Result<String, Failure> {
        let arguments = ["subscription", "list", "--tenant", &self.crowd.tenant(0), "--json"];
        let printed = stage.run(&arguments, None).await?.checked(&arguments)?;
        let id = printed
            .stdout
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).ok()?["id"].as_str().map(str::to_owned));
        id.ok_or_else(|| Failure::world("the subscription of the dead letters is not there"))
    }

    /// Letters that are there and not yet sent.
    async fn kept(&self, stage: &Stage) -> Result<u64, Failure> {
        let arguments = ["dead", "groups", "--tenant", &self.crowd.tenant(0), "--json"];
        let printed = stage.run(&arguments, None).await?.checked(&arguments)?;
        let letters = printed
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["letters"].as_u64());
        Ok(letters.sum())
    }
}

impl Replaying {
    /// Waits for its end; one that takes too long is ended.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        match timeout(ENDS_WITHIN, self.0.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::world(format!("`paperboy dead replay` failed: {status}"))),
            Ok(Err(error)) => Err(Failure::world(format!("`paperboy dead replay` is lost: {error}"))),
            Err(_) => {
                let _ = self.0.kill().await;
                Ok(())
            }
        }
    }
}
