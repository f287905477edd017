//! Where `demo` and `bench` play: a temporary folder, Paperboy processes with settings of their own, and their end.
//!
//! Nothing here speaks to the reader on standard output; each command tells its own story.

mod ending;
mod folder;
mod parent;
mod prefix;
mod signals;

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Failure;
use crate::config::Config;
pub(super) use ending::Ending;
use folder::Folder;
pub(super) use parent::end_with_parent;
pub(super) use prefix::{REMOVE_WITHIN, left_behind, own, remove_queues};
pub(super) use signals::Signals;

/// How long a process may take until it is ready, beyond its wait for the broker.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM; its deliveries have `delivery.grace_s` of these.
const STOP_WITHIN: Duration = Duration::from_secs(15);
const GRACE_S: u32 = 5;
/// How long any other command may take.
pub(super) const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Lines of each log that a failed command prints.
const LOG_LINES: usize = 12;

/// The folder, the settings and the processes.
pub(super) struct Stage {
    folder: Folder,
    program: PathBuf,
    /// Every setting that is not the default, for all processes and commands.
    environment: Vec<(&'static str, String)>,
    running: Vec<Running>,
    client: reqwest::Client,
}

/// One process of ours that runs until it is stopped.
struct Running {
    name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// What a command printed, and how it ended.
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) status: ExitStatus,
}

/// How a stop went that had no trouble.
pub(super) struct Stopped {
    pub(super) processes: usize,
    pub(super) took: Duration,
}

impl Stage {
    /// Makes the folder and the settings, with deliveries to `receiver` allowed; starts nothing yet.
    pub(super) fn new(config: &Config, receiver: SocketAddr) -> Result<Stage, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::world(format!("paperboy cannot find its own program: {error}")))?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        let client = client.map_err(|error| Failure::world(format!("no HTTP client: {error}")))?;
        let folder = Folder::make(&config.broker.prefix)?;
        let environment = vec![
            ("PAPERBOY__BROKER__URL", config.broker.url.expose().to_owned()),
            ("PAPERBOY__BROKER__PREFIX", config.broker.prefix.clone()),
            ("PAPERBOY__BROKER__DELAY_UNIT_MS", config.broker.delay_unit_ms.to_string()),
            ("PAPERBOY__BROKER__START_WAIT_S", config.broker.start_wait_s.to_string()),
            ("PAPERBOY__STORE__URL", format!("sqlite://{}", folder.path().join("paperboy.db").display())),
            ("PAPERBOY__STORE__SINGLE_HOST", "true".to_owned()),
            ("PAPERBOY__CACHE__REFRESH_S", "0.25".to_owned()),
            ("PAPERBOY__DELIVERY__GRACE_S", GRACE_S.to_string()),
            ("PAPERBOY__EGRESS__ALLOW", receiver.to_string()),
        ];
        Ok(Stage { folder, program, environment, running: Vec::new(), client })
    }

    /// One more setting for all processes and commands from now on.
    pub(super) fn set(&mut self, variable: &'static str, value: String) {
        self.environment.push((variable, value));
    }

    /// The settings worth telling: no address with a password in it.
    pub(super) fn settings_told(&self) -> impl Iterator<Item = String> {
        let told = self.environment.iter().filter(|(name, _)| !name.ends_with("URL"));
        told.map(|(name, value)| format!("{name}={value}"))
    }

    /// A client for what the processes themselves answer.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// This program with the stage's settings and none of the caller's.
    pub(super) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PAPERBOY") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a process that runs until it is stopped; its log goes to a file.
    pub(super) fn start(&mut self, name: &str, arguments: &[&str]) -> Result<(), Failure> {
        self.start_with(name, arguments, None)
    }

    /// The same, with settings for this process alone.
    pub(super) fn start_with(
        &mut self,
        name: &str,
        arguments: &[&str],
        settings: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<(), Failure> {
        let number = self.running.len() + 1;
        let log = self.folder.path().join(format!("{number}-{name}.log"));
        let cannot = |error: std::io::Error| cannot_run(arguments, &error);
        let file = File::options().create(true).append(true).open(&log).map_err(cannot)?;
        let other = file.try_clone().map_err(cannot)?;
        let mut command = self.command(arguments);
        command.envs(settings);
        // A group of its own: ctrl-C is for the caller, which then ends each process in order. Its input is
        // ours, and ends with us whatever happens.
        command.stdin(Stdio::piped()).stdout(file).stderr(other).process_group(0);
        let child = command.spawn().map_err(cannot)?;
        let pid = child.id().unwrap_or_default();
        self.running.push(Running { name: format!("{name} {number}"), child, pid, log });
        Ok(())
    }

    /// The process started last.
    pub(super) fn pid(&self) -> u32 {
        self.running.last().map_or(0, |running| running.pid)
    }

    /// Fails when the process started last has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        let Some(running) = self.running.last_mut() else { return Ok(()) };
        match running.child.try_wait() {
            Ok(Some(status)) => Err(Failure::world(format!("process `{}` ended: {status}", running.name))),
            _ => Ok(()),
        }
    }

    /// Waits until the process started last is ready; `waiting` hears now and then why not.
    pub(super) async fn ready(
        &mut self,
        address: SocketAddr,
        mut waiting: impl FnMut(Duration, &str),
    ) -> Result<Duration, Failure> {
        let url = format!("http://{address}/readyz");
        let begun = Instant::now();
        loop {
            self.check_alive()?;
            let why_not = match self.client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(begun.elapsed()),
                Ok(answer) => answer.text().await.unwrap_or_default().trim().to_owned(),
                Err(_) => "nobody listens yet".to_owned(),
            };
            if begun.elapsed() > READY_WITHIN {
                let name = self.running.last().map_or("", |running| &running.name);
                let limit_s = READY_WITHIN.as_secs();
                return Err(Failure::world(format!(
                    "process `{name}` is not ready after {limit_s} s: {why_not}"
                )));
            }
            waiting(begun.elapsed(), &why_not);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<Printed, Failure> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot_run(arguments, &error))?;
        let stdin = child.stdin.take();
        let ran = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                stdin.write_all(input.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let ended = timeout(COMMAND_WITHIN, ran).await.map_err(|_| too_long(arguments))?;
        let ended = ended.map_err(|error| cannot_run(arguments, &error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Printed { stdout: text(&ended.stdout), stderr: text(&ended.stderr), status: ended.status })
    }

    /// Prints the end of every log to standard error, and keeps the folder they are in.
    pub(super) fn show_logs(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.folder.keep();
        for running in &self.running {
            eprintln!("\nlast lines of process `{}`:", running.name);
            show_end(&running.log);
        }
        eprintln!("\nthe whole logs are in `{}`", self.folder.path().display());
    }

    /// The processes that still run.
    pub(super) fn running(&mut self) -> Vec<u32> {
        let alive = self.running.iter_mut().filter_map(|running| match running.child.try_wait() {
            Ok(Some(_)) => None,
            _ => Some(running.pid),
        });
        alive.collect()
    }

    /// Asks every process to end and waits.
    pub(super) async fn stop(&mut self) -> Result<Stopped, Failure> {
        self.stop_all_but(0).await
    }

    /// Asks every process but the first `kept` to end, waits, and forgets them.
    pub(super) async fn stop_all_but(&mut self, kept: usize) -> Result<Stopped, Failure> {
        let begun = Instant::now();
        let mut troubles = Vec::new();
        let mut waited_for = Vec::new();
        for mut running in self.running.split_off(kept.min(self.running.len())) {
            match running.child.try_wait() {
                Ok(Some(status)) => {
                    troubles.push(format!("process `{}` had ended already: {status}", running.name))
                }
                _ => waited_for.push(running),
            }
        }
        if !waited_for.is_empty() && !terminate(&waited_for).await {
            troubles.push("SIGTERM could not be sent".to_owned());
        }
        let mut processes = 0;
        for mut running in waited_for {
            let left = STOP_WITHIN.saturating_sub(begun.elapsed());
            match timeout(left, running.child.wait()).await {
                Ok(Ok(status)) if status.success() => processes += 1,
                Ok(Ok(status)) => troubles.push(format!("process `{}` ended with {status}", running.name)),
                Ok(Err(error)) => troubles.push(format!("process `{}` is lost: {error}", running.name)),
                Err(_) => {
                    let _ = running.child.kill().await;
                    troubles.push(format!("process `{}` did not end by itself and was killed", running.name));
                }
            }
        }
        if troubles.is_empty() {
            return Ok(Stopped { processes, took: begun.elapsed() });
        }
        Err(Failure::world(troubles.join("; ")))
    }

    /// Ends every process at once.
    pub(super) fn kill(&mut self) {
        for running in &mut self.running {
            let _ = running.child.start_kill();
        }
    }

    /// Gives the folder up; false where it stays, for its logs or because it cannot be removed.
    pub(super) fn close(self) -> bool {
        self.folder.remove()
    }
}

impl Printed {
    /// The same, or a failure where the command failed.
    pub(super) fn checked(self, arguments: &[&str]) -> Result<Printed, Failure> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Failure::world(format!("`{}` failed: {}", line(arguments), self.status)))
    }
}

async fn terminate(asked: &[Running]) -> bool {
    // The shell's own `kill`: the program of that name is not installed everywhere.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -TERM \"$@\"", "sh"]).kill_on_drop(true);
    kill.args(asked.iter().map(|running| running.pid.to_string()));
    timeout(STOP_WITHIN, kill.status()).await.is_ok_and(|done| done.is_ok_and(|status| status.success()))
}

fn show_end(log: &Path) {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("  {line}");
    }
}

/// A command as one would type it.
pub(super) fn line(arguments: &[&str]) -> String {
    let words = arguments.iter().map(|word| shell_word(word));
    std::iter::once("paperboy".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The word as a shell takes it, in quotes where it needs them.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

pub(super) fn too_long(arguments: &[&str]) -> Failure {
    Failure::world(format!("`{}` did not end within {} s", line(arguments), COMMAND_WITHIN.as_secs()))
}

pub(super) fn cannot_run(arguments: &[&str], error: &std::io::Error) -> Failure {
    Failure::world(format!("`{}` cannot be run: {error}", line(arguments)))
}

/// Addresses on free ports; all are held until all are chosen, so they differ.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], Failure> {
    let cannot = |error: std::io::Error| Failure::world(format!("no free port on the loopback: {error}"));
    let mut held = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address).map_err(cannot)?;
        *address = listener.local_addr().map_err(cannot)?;
        held.push(listener);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_a_shell_would_change_are_quoted() {
        assert_eq!(shell_word("http://127.0.0.1:80/erp"), "http://127.0.0.1:80/erp");
        assert_eq!(shell_word("document.*"), "'document.*'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
