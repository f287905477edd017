//! The stage with everything on it in sight: each command is shown as one would type it, with what it prints.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Failure, print};
use crate::cli::stage::{self, Printed, line};
use crate::config::Config;

/// How often a wait that lasts says why.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// The demo's processes and commands.
pub(super) struct Stage {
    inner: stage::Stage,
    unit: Duration,
}

impl Stage {
    /// Makes the folder; starts nothing yet.
    pub(super) fn new(config: &Config, receiver: SocketAddr) -> Result<Stage, Failure> {
        let mut inner = stage::Stage::new(config, receiver)?;
        if let Some(url) = &config.redis.url {
            inner.set("PAPERBOY__REDIS__URL", url.expose().to_owned());
        }
        let unit = Duration::from_millis(config.broker.delay_unit_ms.into());
        Ok(Stage { inner, unit })
    }

    /// What one unit of waiting lasts here.
    pub(super) fn unit(&self) -> Duration {
        self.unit
    }

    /// The settings worth telling: no address with a password in it.
    pub(super) fn settings_told(&self) -> impl Iterator<Item = String> {
        self.inner.settings_told()
    }

    /// Starts `paperboy serve` in a role, answering health at `address`.
    pub(super) fn serve(&mut self, role: &str, address: SocketAddr) -> Result<(), Failure> {
        let key = if role == "worker" { "worker.listen" } else { "api.listen" };
        let listen = format!("{key}={address}");
        let arguments = ["serve", "--role", role, "--set", &listen];
        print::command(&line(&arguments));
        self.inner.start(role, &arguments)
    }

    /// Waits until the process started last is ready, and says how long that took.
    pub(super) async fn ready(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let mut told = Instant::now();
        let waiting = |since: Duration, why_not: &str| {
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                print::aside(&format!("waiting, {} s: {why_not}", since.as_secs()));
            }
        };
        let took = self.inner.ready(address, waiting).await?;
        print::say(&format!("process {}, ready after {:.1} s", self.inner.pid(), took.as_secs_f64()));
        Ok(())
    }

    /// Runs a command in sight: the line, what it is given, what it prints.
    pub(super) async fn show(&self, arguments: &[&str], input: Option<&str>) -> Result<Printed, Failure> {
        match input {
            None => print::command(&line(arguments)),
            Some(input) => {
                print::command(&format!("{} <<'END'", line(arguments)));
                print::output(input);
                print::output("END");
            }
        }
        let printed = self.inner.run(arguments, input).await?;
        print_both(&printed);
        printed.checked(arguments)
    }

    /// Runs a command in sight whose table should fit the reader's terminal, if there is one.
    pub(super) async fn look(&self, arguments: &[&str]) -> Result<(), Failure> {
        if !std::io::stdout().is_terminal() {
            return self.show(arguments, None).await.map(|_| ());
        }
        print::command(&line(arguments));
        let mut command = self.inner.command(arguments);
        command.stdin(Stdio::null());
        let ended = timeout(stage::COMMAND_WITHIN, command.status()).await;
        let status = ended
            .map_err(|_| stage::too_long(arguments))?
            .map_err(|error| stage::cannot_run(arguments, &error))?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::world(format!("`{}` failed: {status}", line(arguments))))
        }
    }

    /// Runs a command out of sight, unless it fails.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<Printed, Failure> {
        let printed = self.inner.run(arguments, None).await?;
        if !printed.status.success() {
            print_both(&printed);
        }
        printed.checked(arguments)
    }

    /// The end of every log, and where they stay.
    pub(super) fn show_logs(&mut self) {
        self.inner.show_logs();
    }

    /// Asks every process to end, waits, and says how they ended.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let asked: Vec<String> = self.inner.running().iter().map(ToString::to_string).collect();
        if !asked.is_empty() {
            print::command(&format!("kill -TERM {}", asked.join(" ")));
        }
        let stopped = self.inner.stop().await?;
        if stopped.processes > 0 {
            print::say(&format!(
                "{} processes ended by themselves with exit code 0, in {:.1} s",
                stopped.processes,
                stopped.took.as_secs_f64()
            ));
        }
        Ok(())
    }

    /// Ends every process at once.
    pub(super) fn kill(&mut self) {
        self.inner.kill();
    }

    /// Removes the folder, unless its logs are to be kept.
    pub(super) fn close(self) {
        if self.inner.close() {
            print::say("removed the temporary folder");
        }
    }
}

fn print_both(printed: &Printed) {
    print::output(&printed.stdout);
    print::output(&printed.stderr);
}
