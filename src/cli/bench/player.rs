//! Plays one play: fills the queue, starts the worker, watches, and leaves nothing for the next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::contender::Contender;
use super::event::{Events, now_us};
use super::figures::{Figure, Figures, Round};
use super::histogram::Histogram;
use super::process;
use super::producer::{Producer, fill};
use super::scenario::{Pace, Play};
use super::tally::Counted;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::{Tags, Target};
use crate::cli::stage::Stage;
use crate::cli::{Failure, output};

/// How often the receiver is asked what it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const DELIVERY_LOG: &str = "PAPERBOY__DELIVERY_LOG";
/// How often a worker that starts is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(5);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longest time without one more delivery: longer than any time-out, and any wait of those that are put off.
const STALLS_AFTER: Duration = Duration::from_secs(90);
/// What is left to do for the last deliveries: acknowledgements, chiefly.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// How long what is late is waited for after an open loop.
const LATE_WITHIN: Duration = Duration::from_secs(10);

/// Where plays are played.
pub(super) struct Player<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) broker: &'a RabbitMq,
    pub(super) producer: &'a Producer,
    pub(super) receiver: SocketAddr,
    pub(super) receiver_pid: u32,
    pub(super) broker_pid: Option<u32>,
    /// Where the worker tells of itself.
    pub(super) health: SocketAddr,
}

/// CPU time of everybody and the worker's memory at one moment, beside what had arrived by then.
#[derive(Clone, Copy)]
struct Sample {
    received: u64,
    worker_us: Option<u64>,
    receiver_us: Option<u64>,
    broker_us: Option<u64>,
    rss_kib: Option<u64>,
}

/// What was seen on the way to the last delivery.
struct Watched {
    counted: Counted,
    /// With the first deliveries in it, and with a quarter of all.
    began: Option<Sample>,
    quarter: Option<Sample>,
}

impl Player<'_> {
    /// Plays it; the worker is gone afterwards and the queues are empty.
    pub(super) async fn play(&mut self, play: &Play, round: &Round, label: &str) -> Result<Figures, Failure> {
        let mut figures = Figures::default();
        let events = |part: &str| Events {
            run: format!("{}-{part}", label.replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
            crowd: &play.crowd,
            healthy_only: part == "fill" && !play.fill_bad,
            body_bytes: play.body_bytes,
        };
        if let Some(replay) = &play.replay {
            replay.bury(self.stage, self.broker, self.health, label).await?;
        }
        let queued = events("fill");
        if play.fill > 0 {
            self.begin_anew().await?;
            let bar = bar(play.fill, &format!("{label}: filling the queue"));
            fill(self.broker, &queued, play.fill, Target::Events, &Tags::default(), &bar).await?;
            bar.finish_and_clear();
        }
        let before = Sample { worker_us: Some(0), ..self.sample(0) };
        let started_us = now_us();
        self.start(play, &mut figures).await?;
        if play.fill > 0 {
            let wanted = queued.good_of(play.fill);
            let bar = bar(wanted as usize, label);
            let watched = self.watch(wanted, &bar).await?;
            bar.finish_and_clear();
            if !play.is_warm_up {
                self.emptied(before, started_us, &watched, &mut figures);
            }
        }
        if let Some(idle) = play.idle {
            sleep(idle).await;
            figures.set(Figure::IdleRssMib, process::rss_kib(self.stage.pid()).map(mib));
        }
        if let Some(pace) = play.pace {
            self.follow(play, pace, &events("pace"), round, label, &mut figures).await?;
        }
        if play.worker == Contender::Paperboy {
            let windows = ["events", "deliveries", "retries"].map(|queue| format!("queue=\"{queue}\""));
            let windows = windows.each_ref().map(String::as_str);
            figures.set(Figure::Places, metric(self.stage, self.health, "paperboy_window", &windows).await);
        }
        if play.log.is_some_and(|log| log != "off") {
            let written = metric(self.stage, self.health, "paperboy_delivery_log_written_total", &[]).await;
            let dropped = metric(self.stage, self.health, "paperboy_delivery_log_dropped_total", &[]).await;
            figures.set(Figure::LogWritten, written);
            // A counter that never counted is absent.
            figures.set(Figure::LogDropped, written.and(dropped.or(Some(0.0))));
        }
        figures.set(Figure::PeakRssMib, process::peak_rss_kib(self.stage.pid()).map(mib));
        // The receiver stays.
        self.stage.stop_all_but(1).await?;
        self.producer.purge().await?;
        Ok(figures)
    }

    /// Starts the worker and, where it tells, waits until it is ready.
    async fn start(&mut self, play: &Play, figures: &mut Figures) -> Result<(), Failure> {
        let arguments = play
            .worker
            .arguments(&play.crowd.addresses(&self.receiver.to_string()), play.crowd.tenants.len());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let prefetch = play.prefetch.map(|prefetch| ("PAPERBOY__BROKER__PREFETCH", prefetch.to_string()));
        // The floors keep no log either; whoever sets the variable measures with one.
        let callers = || std::env::var(DELIVERY_LOG).unwrap_or_else(|_| "off".to_owned());
        let log = play.log.map_or_else(callers, str::to_owned);
        let settings = prefetch.into_iter().chain([(DELIVERY_LOG, log)]);
        let begun = Instant::now();
        self.stage.start_with(play.worker.as_str(), &arguments, settings)?;
        if play.worker != Contender::Paperboy {
            return Ok(());
        }
        loop {
            let ready = self.stage.client().get(format!("http://{}/readyz", self.health)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                figures.set(Figure::ReadyMs, begun.elapsed().as_secs_f64() * 1000.0);
                return Ok(());
            }
            self.stage.check_alive()?;
            if begun.elapsed() > READY_WITHIN {
                let limit_s = READY_WITHIN.as_secs();
                return Err(Failure::world(format!("the worker is not ready after {limit_s} s")));
            }
            sleep(READY_EVERY).await;
        }
    }

    /// What an emptied queue tells. What the start costs belongs to no delivery; where all came within a blink it
    /// cannot be told apart.
    fn emptied(&self, before: Sample, started_us: u64, watched: &Watched, figures: &mut Figures) {
        let good = &watched.counted.good;
        let last = self.sample(good.received);
        let first = watched.began.filter(|began| began.received * 2 < last.received).unwrap_or(before);
        figures.set(Figure::Deliveries, number(good.received));
        figures.set(Figure::DeliveriesPerS, good.per_second());
        figures.set(Figure::WorkerUs, cost(&first, &last, |sample| sample.worker_us));
        figures.set(Figure::ReceiverUs, cost(&first, &last, |sample| sample.receiver_us));
        figures.set(Figure::BrokerUs, cost(&first, &last, |sample| sample.broker_us));
        figures.set(
            Figure::FirstMs,
            good.first_us.map(|at_us| number(at_us.saturating_sub(started_us)) / 1000.0),
        );
        figures.set(Figure::InFlight, Some(number(good.open_max)).filter(|open| *open > 0.0));
        figures.set(Figure::EarlyRssMib, watched.quarter.and_then(|sample| sample.rss_kib).map(mib));
        figures.set(Figure::LateRssMib, last.rss_kib.map(mib));
    }

    /// The open loop, and what of it came in time.
    async fn follow(
        &mut self,
        play: &Play,
        pace: Pace,
        events: &Events<'_>,
        round: &Round,
        label: &str,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let rate = pace.rate.per_second(round);
        let rate = rate.ok_or_else(|| Failure::world("there were too few events to tell a rate from"))?;
        self.begin_anew().await?;
        let planned = (rate * pace.length.as_secs_f64()).ceil();
        let bar = bar(planned as usize, &format!("{label}: {rate:.0}/s"));
        let mut held = Vec::new();
        let replaying = play.replay.as_ref().map(|replay| replay.begin(self.stage)).transpose()?;
        let before = self.sample(0);
        let paced = {
            let mut publishing = Box::pin(self.producer.pace(events, rate, pace.length, &bar));
            let mut tick = interval(Duration::from_secs(1));
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    paced = &mut publishing => break paced?,
                    _ = tick.tick() => {
                        self.stage.check_alive()?;
                        if play.worker == Contender::Paperboy {
                            held.extend(metric(self.stage, self.health, "paperboy_held_by_slow", &[]).await);
                        }
                    }
                }
            }
        };
        bar.finish_and_clear();
        let in_time = self.counted("/tally").await?;
        let after = self.sample(in_time.good.distinct());
        if let Some(replaying) = replaying {
            figures.set(Figure::Replayed, number(in_time.bad.received));
            replaying.end().await?;
        }
        let wanted = events.good_of(paced.events);
        let counted = self.late(wanted).await?;
        let times = Histogram::from_filled(&counted.good.latency);
        let arrived = number(in_time.good.distinct()) * 100.0 / number(wanted.max(1));
        // What an emptied queue told is not overwritten.
        if play.is_warm_up {
            figures.set(Figure::WorkerUs, cost(&before, &after, |sample| sample.worker_us));
            figures.set(Figure::BrokerUs, cost(&before, &after, |sample| sample.broker_us));
        }
        figures.set(Figure::OfferedPerS, number(wanted) / pace.length.as_secs_f64());
        figures.set(Figure::ArrivedPercent, arrived);
        figures.set(Figure::CarriedPerS, number(in_time.good.distinct()) / paced.took.as_secs_f64());
        figures.set(Figure::P50Ms, times.percentile_ms(50, wanted));
        figures.set(Figure::P99Ms, times.percentile_ms(99, wanted));
        figures.set(Figure::ProducerP99Ms, paced.late_p99_ms);
        if play_has_bad(events) {
            figures.set(Figure::BadAttempts, number(in_time.bad.received));
        }
        if play.worker == Contender::Paperboy {
            let samples = held.len().max(1);
            figures.set(
                Figure::HeldBySlow,
                (!held.is_empty()).then(|| held.iter().sum::<f64>() / samples as f64),
            );
            let given_back =
                metric(self.stage, self.health, "paperboy_given_back_total", &[]).await.unwrap_or(0.0);
            let again = given_back + number(counted.good.repeated);
            figures.set(Figure::RedeliveredPercent, again * 100.0 / number(paced.events as u64).max(1.0));
        }
        Ok(())
    }

    /// Waits a while for what is late.
    async fn late(&mut self, wanted: u64) -> Result<Counted, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < LATE_WITHIN && self.counted("/tally").await?.good.distinct() < wanted {
            self.stage.check_alive()?;
            sleep(LOOK_EVERY).await;
        }
        self.counted("/tally/latency").await
    }

    /// Waits until the receiver has this many, and a moment more.
    async fn watch(&mut self, wanted: u64, bar: &ProgressBar) -> Result<Watched, Failure> {
        let (mut began, mut quarter) = (None, None);
        let (mut known, mut since) = (0, Instant::now());
        loop {
            let received = self.counted("/tally").await?.good.distinct();
            bar.set_position(received);
            if received > known {
                (known, since) = (received, Instant::now());
                began.get_or_insert_with(|| self.sample(received));
                if received >= wanted / 4 {
                    quarter.get_or_insert_with(|| self.sample(received));
                }
            }
            if received >= wanted {
                sleep(SETTLED_AFTER).await;
                let counted = self.counted("/tally").await?;
                return Ok(Watched { counted, began, quarter });
            }
            self.stage.check_alive()?;
            if since.elapsed() > STALLS_AFTER {
                let limit_s = STALLS_AFTER.as_secs();
                return Err(Failure::world(format!(
                    "{known} of {wanted} deliveries arrived, then none for {limit_s} s"
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn counted(&self, path: &str) -> Result<Counted, Failure> {
        let answer = self.stage.client().get(self.tally(path)).send().await.map_err(lost)?;
        let text = answer.text().await.map_err(lost)?;
        Ok(serde_json::from_str(&text).map_err(anyhow::Error::from)?)
    }

    async fn begin_anew(&self) -> Result<(), Failure> {
        self.stage.client().delete(self.tally("/tally")).send().await.map_err(lost)?;
        Ok(())
    }

    fn tally(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver)
    }

    fn sample(&self, received: u64) -> Sample {
        let pid = self.stage.pid();
        Sample {
            received,
            worker_us: process::cpu_us(pid),
            receiver_us: process::cpu_us(self.receiver_pid),
            broker_us: self.broker_pid.and_then(process::cpu_us),
            rss_kib: process::rss_kib(pid),
        }
    }
}

fn play_has_bad(events: &Events<'_>) -> bool {
    events.crowd.tenants.iter().any(|tenant| tenant.bad.is_some())
}

/// A metric of the worker, summed over its labels, or over those that have one of `labels`; none where it does not
/// answer or does not have it.
async fn metric(stage: &Stage, health: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    let answer = stage.client().get(format!("http://{health}/metrics")).send().await.ok()?;
    let text = answer.text().await.ok()?;
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_wanted = labels.is_empty() || labels.iter().any(|label| rest.contains(label));
        let is_it = rest.starts_with([' ', '{']) && is_wanted;
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.reduce(|sum, value| sum + value)
}

/// A bar on a terminal; elsewhere a line, since a bench takes long.
pub(super) fn bar(total: usize, what: &str) -> ProgressBar {
    let bar = output::progress(total);
    if bar.is_hidden() {
        eprintln!("{what}");
    }
    bar.set_message(format!("{what}  "));
    bar
}

fn lost(error: reqwest::Error) -> Failure {
    Failure::world(format!("the bench's receiver does not answer: {error}"))
}

/// CPU time per delivery between two samples, in µs.
fn cost(first: &Sample, last: &Sample, of: fn(&Sample) -> Option<u64>) -> Option<f64> {
    let spent_us = number(of(last)?.saturating_sub(of(first)?));
    let deliveries = last.received.saturating_sub(first.received);
    (deliveries > 0).then(|| spent_us / number(deliveries))
}

#[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

fn mib(kib: u64) -> f64 {
    number(kib) / 1024.0
}
