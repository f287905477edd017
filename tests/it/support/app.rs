//! A deployment of paperboy for one test: its own prefix, store and settings; processes of the real binary.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::services::{Folder, shared};
use super::{Amqp, eventually, free_port, unique};

/// What a subscription command printed.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) id: String,
    pub(crate) secret: String,
}

pub(crate) struct App {
    pub(crate) prefix: String,
    folder: Folder,
    settings: BTreeMap<String, String>,
}

impl App {
    /// Short units, loopback allowed, the shared broker and Redis.
    pub(crate) fn new() -> App {
        let prefix = format!("t{}", unique());
        let folder = Folder::new();
        let store = format!("sqlite://{}", folder.path().join("paperboy.db").display());
        let mut app = App { prefix: prefix.clone(), folder, settings: BTreeMap::new() };
        app.set("BROKER__URL", &shared("PAPERBOY_TEST_AMQP_URL"));
        app.set("REDIS__URL", &shared("PAPERBOY_TEST_REDIS_URL"));
        app.set("BROKER__PREFIX", &prefix);
        app.set("BROKER__DELAY_UNIT_MS", "20");
        app.set("STORE__URL", &store);
        app.set("EGRESS__ALLOW", "127.0.0.0/8");
        app.set("API__LISTEN", &format!("127.0.0.1:{}", free_port()));
        app.set("CACHE__REFRESH_S", "0.5");
        app
    }

    /// As [`App::new`], with the store in a new database of the shared PostgreSQL, its tables not made yet.
    pub(crate) async fn in_postgres() -> App {
        let server = shared("PAPERBOY_TEST_POSTGRES_URL");
        let app = App::with_store(&server);
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {}", app.prefix));
        connection.execute(create).await.unwrap();
        let (server, _) = server.rsplit_once('/').unwrap();
        let url = format!("{server}/{}", app.prefix);
        App::set_store(app, &url)
    }

    /// As [`App::new`], with the store at this address and a key.
    pub(crate) fn with_store(url: &str) -> App {
        App::set_store(App::new(), url)
    }

    fn set_store(mut app: App, url: &str) -> App {
        app.set("STORE__URL", url);
        app.set("SECRETS__KEY", &data_encoding::BASE64.encode(&[7; 32]));
        app
    }

    /// Sets `PAPERBOY__NAME` for every process and command from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(format!("PAPERBOY__{name}"), value.to_owned());
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        &self.settings[&format!("PAPERBOY__{name}")]
    }

    /// Gives every process and command from now on a configuration file of its own.
    pub(crate) fn configure(&mut self, toml: &str) {
        let path = self.path("paperboy.toml");
        std::fs::write(&path, toml).unwrap();
        self.settings.insert("PAPERBOY_CONFIG".into(), path.display().to_string());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_of(env!("CARGO_BIN_EXE_paperboy"));
        command.args(arguments);
        command
    }

    /// Any program, in the app's folder with its settings.
    pub(crate) fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.settings).current_dir(self.folder.path());
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command that may fail.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .unwrap_or_else(|_| panic!("`paperboy {arguments:?}` hangs"))
            .unwrap()
    }

    /// Runs a command that must work; its standard output.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`paperboy {}` failed:\n{error}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must work with this on its standard input.
    pub(crate) async fn ok_with_input(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with_input(arguments, input).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`paperboy {}` failed:\n{error}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that may fail with this on its standard input.
    pub(crate) async fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that has already found its fault reads no further.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    /// Runs a command with this on its standard input, whatever becomes of it.
    pub(crate) async fn output_of(&self, mut command: Command, input: &str) -> Output {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that has already found its fault reads no further.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        ended.await.expect("the command hangs").unwrap()
    }

    /// Does to the SQLite file what no command does.
    pub(crate) async fn sql(&self, statement: &str) {
        let url = format!("sqlite://{}", self.path("paperboy.db").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    /// Every file the app has written, by its path.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let (mut folders, mut files) = (vec![self.folder.path().to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push((path.display().to_string(), std::fs::read(&path).unwrap())),
                }
            }
        }
        files
    }

    /// Lines of a command's `--json` output.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        self.ok(&all).await.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Adds a subscription given as JSON and waits until it is used.
    pub(crate) async fn subscribe(&self, document: Value) -> Created {
        self.subscribe_all(&[document]).await.remove(0)
    }

    pub(crate) async fn subscribe_all(&self, documents: &[Value]) -> Vec<Created> {
        let input = Value::from(documents).to_string();
        let printed = self.ok_with_input(&["subscription", "add", "--file", "-", "--json"], &input).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        printed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| Created { id: text(&line["id"]), secret: text(&line["secret"]) })
            .collect()
    }

    /// Makes the store, as a first `serve` of role `api` would.
    pub(crate) async fn migrate(&self) {
        self.ok(&["store", "migrate"]).await;
    }

    /// Starts `paperboy serve` and waits until it is ready.
    pub(crate) async fn serve(&self, role: &str) -> Serve {
        let serve = self.serve_unready(role).await;
        serve.wait_ready().await;
        serve
    }

    /// Starts `paperboy serve` without waiting.
    pub(crate) async fn serve_unready(&self, role: &str) -> Serve {
        let port = free_port();
        let log = self.path(&format!("{role}-{}.log", unique()));
        let mut command = self.command(&["serve", "--role", role]);
        command
            .env("PAPERBOY__API__LISTEN", format!("127.0.0.1:{port}"))
            .env("PAPERBOY__WORKER__LISTEN", format!("127.0.0.1:{port}"))
            .env("NO_COLOR", "1")
            .stderr(std::fs::File::create(&log).unwrap());
        Serve { child: command.spawn().unwrap(), port, log }
    }

    /// The broker as an outsider sees it.
    pub(crate) async fn amqp(&self) -> Amqp {
        Amqp::connect(self.setting("BROKER__URL"), &self.prefix).await
    }

    /// Waits until this many dead letters are open; they are returned newest first.
    pub(crate) async fn wait_for_dead(&self, count: usize, limit_s: u64) -> Vec<Value> {
        let what = format!("{count} dead letters");
        eventually(&what, limit_s, || async { self.json(&["dead", "list"]).await.len() >= count }).await;
        self.json(&["dead", "list"]).await
    }
}

impl Drop for App {
    /// Takes the queues away again: hundreds of apps of one run would fill the broker's memory.
    fn drop(&mut self) {
        let (url, prefix) = (self.setting("BROKER__URL").to_owned(), self.prefix.clone());
        let unit = self.setting("BROKER__DELAY_UNIT_MS").to_owned();
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // A broker that a test took down has nothing to take away.
            let _ = runtime.block_on(async {
                let removed = super::amqp::remove_topology(&url, &prefix, &unit);
                tokio::time::timeout(Duration::from_secs(20), removed).await
            });
        };
        let _ = std::thread::spawn(remove).join();
    }
}

/// A running `paperboy serve`.
pub(crate) struct Serve {
    pub(crate) child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Serve {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of a GET, none while nobody listens.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    pub(crate) async fn wait_ready(&self) {
        for _ in 0..1500 {
            if self.is_ready().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not ready within 30 s; its log:\n{}", self.log());
    }

    /// The value of a metric, summed over its labels that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").await.map(|(_, text)| text).unwrap_or_default();
        let is_it = |line: &&str| line.starts_with(name) && line.contains(label);
        text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().expect("still running").to_string()
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid()]).status().await.unwrap();
        assert!(status.success());
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and the exit within `limit_s`.
    pub(crate) async fn stop_within(&mut self, limit_s: u64) -> ExitStatus {
        self.signal("-TERM").await;
        tokio::time::timeout(Duration::from_secs(limit_s), self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("still running {limit_s} s after SIGTERM:\n{}", self.log()))
            .unwrap()
    }

    /// SIGTERM and a clean exit.
    pub(crate) async fn stop(mut self) {
        let status = self.stop_within(45).await;
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

/// An event as a producer writes it.
pub(crate) fn event(id: &str, tenant: &str, kind: &str) -> Vec<u8> {
    json!({ "id": id, "type": kind, "tenant": tenant, "data": { "pages": 3 } }).to_string().into_bytes()
}

/// A subscription to everything of a tenant.
pub(crate) fn subscription(tenant: &str, url: &str) -> Value {
    json!({ "tenant": tenant, "events": ["#"], "request": { "url": url } })
}
