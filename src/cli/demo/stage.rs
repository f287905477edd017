//! Where the demo plays: a temporary folder, Paperboy processes with settings of their own, and their end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{Failure, print};
use crate::config::Config;

/// How long a process may take until it is ready, beyond its wait for the broker.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often a wait that lasts says why.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// How long a process may take to end after SIGTERM; its deliveries have `delivery.grace_s` of these.
const STOP_WITHIN: Duration = Duration::from_secs(15);
const GRACE_S: u32 = 5;
/// How long any other command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Lines of each log that a failed demo prints.
const LOG_LINES: usize = 12;

/// The folder, the settings and the processes.
pub(super) struct Stage {
    folder: Folder,
    program: PathBuf,
    /// Every setting that is not the default, for all processes and commands.
    environment: Vec<(&'static str, String)>,
    unit: Duration,
    running: Vec<Running>,
    client: reqwest::Client,
}

/// One `paperboy serve`.
struct Running {
    name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// What a command printed.
pub(super) struct Printed {
    pub(super) stdout: String,
}

impl Stage {
    /// Makes the folder; starts nothing yet.
    pub(super) fn new(config: &Config, receiver: SocketAddr) -> Result<Stage, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::world(format!("the demo cannot find its own program: {error}")))?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        let client = client.map_err(|error| Failure::world(format!("no HTTP client: {error}")))?;
        let folder = Folder::make(&config.broker.prefix)?;
        let mut environment = vec![
            ("PAPERBOY__BROKER__URL", config.broker.url.expose().to_owned()),
            ("PAPERBOY__BROKER__PREFIX", config.broker.prefix.clone()),
            ("PAPERBOY__BROKER__DELAY_UNIT_MS", config.broker.delay_unit_ms.to_string()),
            ("PAPERBOY__BROKER__START_WAIT_S", config.broker.start_wait_s.to_string()),
            ("PAPERBOY__STORE__URL", format!("sqlite://{}", folder.path.join("paperboy.db").display())),
            ("PAPERBOY__STORE__SINGLE_HOST", "true".to_owned()),
            ("PAPERBOY__CACHE__REFRESH_S", "0.25".to_owned()),
            ("PAPERBOY__DELIVERY__GRACE_S", GRACE_S.to_string()),
            ("PAPERBOY__EGRESS__ALLOW", receiver.to_string()),
        ];
        if let Some(url) = &config.redis.url {
            environment.push(("PAPERBOY__REDIS__URL", url.expose().to_owned()));
        }
        let unit = Duration::from_millis(config.broker.delay_unit_ms.into());
        Ok(Stage { folder, program, environment, unit, running: Vec::new(), client })
    }

    /// What one unit of waiting lasts here.
    pub(super) fn unit(&self) -> Duration {
        self.unit
    }

    /// The settings worth telling: no address with a password in it.
    pub(super) fn settings_told(&self) -> impl Iterator<Item = String> {
        let told = self.environment.iter().filter(|(name, _)| !name.ends_with("URL"));
        told.map(|(name, value)| format!("{name}={value}"))
    }

    /// This program with the demo's settings and none of the caller's.
    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
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

    /// Starts `paperboy serve` in a role, answering health at `address`; its log goes to a file.
    pub(super) fn serve(&mut self, role: &str, address: SocketAddr) -> Result<(), Failure> {
        let number = self.running.len() + 1;
        let key = if role == "worker" { "worker.listen" } else { "api.listen" };
        let listen = format!("{key}={address}");
        let arguments = ["serve", "--role", role, "--set", &listen];
        print::command(&line(&arguments));
        let log = self.folder.path.join(format!("{number}-{role}.log"));
        let cannot =
            |error: std::io::Error| Failure::world(format!("`{}` cannot start: {error}", line(&arguments)));
        let file = File::create(&log).map_err(cannot)?;
        let other = file.try_clone().map_err(cannot)?;
        let mut command = self.command(arguments);
        // A group of its own: ctrl-C is for the demo, which then ends each process in order.
        command.stdin(Stdio::null()).stdout(file).stderr(other).process_group(0);
        let child = command.spawn().map_err(cannot)?;
        let pid = child.id().unwrap_or_default();
        self.running.push(Running { name: format!("{role} {number}"), child, pid, log });
        Ok(())
    }

    /// Waits until the process started last is ready, and says how long that took.
    pub(super) async fn ready(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let Some(running) = self.running.last_mut() else { return Ok(()) };
        let url = format!("http://{address}/readyz");
        let begun = Instant::now();
        let mut told = begun;
        loop {
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(Failure::world(format!(
                    "process `{}` ended before it was ready: {status}",
                    running.name
                )));
            }
            let why_not = match self.client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => answer.text().await.unwrap_or_default().trim().to_owned(),
                Err(_) => "nobody listens yet".to_owned(),
            };
            if begun.elapsed() > READY_WITHIN {
                return Err(Failure::world(format!(
                    "process `{}` is not ready after {} s: {why_not}",
                    running.name,
                    READY_WITHIN.as_secs()
                )));
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                print::aside(&format!("waiting, {} s: {why_not}", begun.elapsed().as_secs()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        print::say(&format!("process {}, ready after {:.1} s", running.pid, begun.elapsed().as_secs_f64()));
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
        self.run(arguments, input, true).await
    }

    /// Runs a command in sight whose table should fit the reader's terminal, if there is one.
    pub(super) async fn look(&self, arguments: &[&str]) -> Result<(), Failure> {
        if !std::io::stdout().is_terminal() {
            return self.show(arguments, None).await.map(|_| ());
        }
        print::command(&line(arguments));
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        let ended = timeout(COMMAND_WITHIN, command.status()).await;
        let status =
            ended.map_err(|_| too_long(arguments))?.map_err(|error| cannot_run(arguments, &error))?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::world(format!("`{}` failed: {status}", line(arguments))))
        }
    }

    /// Runs a command out of sight.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<Printed, Failure> {
        self.run(arguments, None, false).await
    }

    async fn run(&self, arguments: &[&str], input: Option<&str>, shown: bool) -> Result<Printed, Failure> {
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
        let (stdout, stderr) =
            (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        if shown || !ended.status.success() {
            print::output(&stdout);
            print::output(&stderr);
        }
        if !ended.status.success() {
            return Err(Failure::world(format!("`{}` failed: {}", line(arguments), ended.status)));
        }
        Ok(Printed { stdout: stdout.into_owned() })
    }

    /// The end of every log, and where they stay.
    pub(super) fn show_logs(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.folder.keep = true;
        for running in &self.running {
            let text = std::fs::read(&running.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("\nlast lines of process `{}`:", running.name);
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("  {line}");
            }
        }
        eprintln!("\nthe whole logs are in `{}`", self.folder.path.display());
    }

    /// Asks every process to end, waits, and says how they ended.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut troubles = Vec::new();
        let mut asked = Vec::new();
        let mut waited_for = Vec::new();
        for running in &mut self.running {
            match running.child.try_wait() {
                Ok(Some(status)) => {
                    troubles.push(format!("process `{}` had ended already: {status}", running.name))
                }
                _ => {
                    asked.push(running.pid.to_string());
                    waited_for.push(running);
                }
            }
        }
        if !asked.is_empty() {
            print::command(&format!("kill -TERM {}", asked.join(" ")));
            // The shell's own `kill`: the program of that name is not installed everywhere.
            let mut kill = Command::new("sh");
            kill.args(["-c", "kill -TERM \"$@\"", "sh"]).args(&asked).kill_on_drop(true);
            if !timeout(STOP_WITHIN, kill.status())
                .await
                .is_ok_and(|done| done.is_ok_and(|status| status.success()))
            {
                troubles.push("SIGTERM could not be sent".to_owned());
            }
        }
        let mut ended_well = 0;
        for running in waited_for {
            let left = STOP_WITHIN.saturating_sub(begun.elapsed());
            match timeout(left, running.child.wait()).await {
                Ok(Ok(status)) if status.success() => ended_well += 1,
                Ok(Ok(status)) => troubles.push(format!("process `{}` ended with {status}", running.name)),
                Ok(Err(error)) => troubles.push(format!("process `{}` is lost: {error}", running.name)),
                Err(_) => {
                    let _ = running.child.kill().await;
                    troubles.push(format!("process `{}` did not end by itself and was killed", running.name));
                }
            }
        }
        if troubles.is_empty() {
            if ended_well > 0 {
                let took = begun.elapsed().as_secs_f64();
                print::say(&format!(
                    "{ended_well} processes ended by themselves with exit code 0, in {took:.1} s"
                ));
            }
            return Ok(());
        }
        Err(Failure::world(troubles.join("; ")))
    }

    /// Ends every process at once.
    pub(super) fn kill(&mut self) {
        for running in &mut self.running {
            let _ = running.child.start_kill();
        }
    }
}

/// A command as one would type it.
fn line(arguments: &[&str]) -> String {
    let words = arguments.iter().map(|word| print::shell_word(word));
    std::iter::once("paperboy".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn too_long(arguments: &[&str]) -> Failure {
    Failure::world(format!("`{}` did not end within {} s", line(arguments), COMMAND_WITHIN.as_secs()))
}

fn cannot_run(arguments: &[&str], error: &std::io::Error) -> Failure {
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

/// A folder only we can read, removed when dropped.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(name: &str) -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("paperboy-{name}"));
        make_private(&path).map_err(|error| {
            Failure::world(format!("cannot make the folder `{}`: {error}", path.display()))
        })?;
        Ok(Folder { path, keep: false })
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        match std::fs::remove_dir_all(&self.path) {
            Ok(()) => print::say("removed the temporary folder"),
            Err(error) => eprintln!("the folder `{}` could not be removed: {error}", self.path.display()),
        }
    }
}
