//! One worker, one run: it empties a full queue, then follows a steady rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::time::sleep;

use super::contender::Contender;
use super::event::Events;
use super::figures::{Figures, round};
use super::tally::Counted;
use super::{load, process};
use crate::broker::rabbitmq::RabbitMq;
use crate::cli::stage::Stage;
use crate::cli::{Failure, output};

/// How often the receiver is asked what it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest time without one more delivery.
const STALLS_AFTER: Duration = Duration::from_secs(30);
/// What is left to do for the last deliveries: acknowledgements, chiefly.
const SETTLED_AFTER: Duration = Duration::from_millis(200);

/// Where a round is played, and what every round has in common.
pub(super) struct Round<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) broker: &'a RabbitMq,
    pub(super) receiver: SocketAddr,
    pub(super) receiver_pid: u32,
    pub(super) broker_pid: Option<u32>,
    pub(super) events: usize,
    pub(super) endpoints: usize,
    pub(super) body_bytes: usize,
    pub(super) rate: u32,
    pub(super) latency: Duration,
}

/// CPU time of everybody at one moment, beside what had arrived by then.
#[derive(Clone, Copy)]
struct Sample {
    received: u64,
    worker_us: Option<u64>,
    receiver_us: Option<u64>,
    broker_us: Option<u64>,
}

impl Round<'_> {
    /// Plays it; the worker is gone afterwards and the queue empty.
    pub(super) async fn play(&mut self, contender: Contender, label: &str) -> Result<Figures, Failure> {
        let events = |part: &str| Events {
            run: format!("{}-{}-{part}", contender.as_str(), label.replace(' ', "-")),
            endpoints: self.endpoints,
            body_bytes: self.body_bytes,
        };
        let (backlog, paced) = (events("full"), events("paced"));
        self.begin_anew().await?;
        let bar = self.bar(self.events, &format!("{label}: filling the queue"));
        load::fill(self.broker, &backlog, self.events, &bar).await?;
        bar.finish_and_clear();

        let bar = self.bar(self.events, &format!("{label}: {}", contender.title()));
        let arguments = contender.arguments(&self.receiver.to_string(), self.endpoints);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut first = Sample { worker_us: Some(0), ..self.sample(0) };
        self.stage.start(contender.as_str(), &arguments)?;
        let (drained, began) = self.wait_for(self.events as u64, &bar).await?;
        bar.finish_and_clear();
        let last = self.sample(drained.received);
        // What the start costs belongs to no delivery; where all came within a blink it cannot be told apart.
        if let Some(began) = began
            && began.received * 2 < last.received
        {
            first = began;
        }

        self.begin_anew().await?;
        let length_s = self.latency.as_secs_f64();
        let bar = self.bar(
            (f64::from(self.rate) * length_s) as usize,
            &format!("{label}: {} at {}/s", contender.title(), self.rate),
        );
        let published = load::open_loop(self.broker, &paced, self.rate, self.latency, &bar).await?;
        bar.finish_and_clear();
        let (followed, _) = self.wait_for(published as u64, &ProgressBar::hidden()).await?;
        let peak_rss_kib = process::peak_rss_kib(self.stage.pid());
        // The receiver stays.
        self.stage.stop_all_but(1).await?;

        let each = |of: fn(&Sample) -> Option<u64>| cost(&first, &last, of);
        Ok(Figures {
            deliveries: drained.received,
            deliveries_per_s: drained.per_second().round(),
            worker_us: each(|sample| sample.worker_us),
            receiver_us: each(|sample| sample.receiver_us),
            broker_us: each(|sample| sample.broker_us),
            paced: followed.received,
            p50_ms: ms(followed.p50_us),
            p99_ms: ms(followed.p99_us),
            peak_rss_mib: peak_rss_kib.map(mib),
        })
    }

    /// Waits until the receiver has this many, and a moment more; also the first sample with a delivery in it.
    async fn wait_for(
        &mut self,
        count: u64,
        bar: &ProgressBar,
    ) -> Result<(Counted, Option<Sample>), Failure> {
        let mut began = None;
        let (mut known, mut since) = (0, Instant::now());
        loop {
            let counted = self.counted().await?;
            bar.set_position(counted.received);
            if counted.received > known {
                (known, since) = (counted.received, Instant::now());
                began.get_or_insert_with(|| self.sample(counted.received));
            }
            if counted.received >= count {
                sleep(SETTLED_AFTER).await;
                let counted = self.counted().await?;
                if counted.received == count {
                    return Ok((counted, began));
                }
                return Err(Failure::world(format!("{} deliveries of {count} events", counted.received)));
            }
            self.stage.check_alive()?;
            if since.elapsed() > STALLS_AFTER {
                let limit_s = STALLS_AFTER.as_secs();
                return Err(Failure::world(format!(
                    "{known} of {count} events arrived, then none for {limit_s} s"
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn counted(&self) -> Result<Counted, Failure> {
        let answer = self.stage.client().get(self.tally()).send().await.map_err(lost)?;
        let text = answer.text().await.map_err(lost)?;
        Ok(serde_json::from_str(&text).map_err(anyhow::Error::from)?)
    }

    async fn begin_anew(&self) -> Result<(), Failure> {
        self.stage.client().delete(self.tally()).send().await.map_err(lost)?;
        Ok(())
    }

    fn tally(&self) -> String {
        format!("http://{}/tally", self.receiver)
    }

    fn sample(&self, received: u64) -> Sample {
        Sample {
            received,
            worker_us: process::cpu_us(self.stage.pid()),
            receiver_us: process::cpu_us(self.receiver_pid),
            broker_us: self.broker_pid.and_then(process::cpu_us),
        }
    }

    fn bar(&self, total: usize, what: &str) -> ProgressBar {
        let bar = output::progress(total);
        bar.set_message(format!("{what}  "));
        bar
    }
}

fn lost(error: reqwest::Error) -> Failure {
    Failure::world(format!("the bench's receiver does not answer: {error}"))
}

/// CPU time per delivery between two samples, in µs.
#[expect(clippy::cast_precision_loss, reason = "times and counts are far below 2^52")]
fn cost(first: &Sample, last: &Sample, of: fn(&Sample) -> Option<u64>) -> Option<f64> {
    let spent_us = of(last)?.saturating_sub(of(first)?) as f64;
    let deliveries = last.received.saturating_sub(first.received) as f64;
    (deliveries > 0.0).then(|| round(spent_us / deliveries))
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^52")]
fn ms(us: u64) -> f64 {
    round(us as f64 / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "memory in KiB is far below 2^52")]
pub(super) fn mib(kib: u64) -> f64 {
    round(kib as f64 / 1024.0)
}
