//! Services for tests: the shared ones `./test` started, and private ones that a test may break.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{eventually, free_port, unique};

/// What `./test` exports; a missing service is a failure, not a skip.
pub(crate) fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests with `./test`, which starts the services")
    })
}

/// `rabbitmqctl` for the broker `./test` started.
pub(crate) async fn control_shared_broker(arguments: &[&str]) {
    let program = Path::new(&shared("PAPERBOY_TEST_LOCAL_DIR")).join("rabbitmqctl");
    let output = Command::new(program).args(arguments).output().await.unwrap();
    assert!(
        output.status.success(),
        "rabbitmqctl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("paperboy-test-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    /// A failed test leaves its folder, with the logs of its processes, to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("logs are left in {}", self.0.display());
            return;
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A RabbitMQ of its own, for tests that kill it.
pub(crate) struct PrivateBroker {
    folder: Folder,
    pub(crate) url: String,
}

impl PrivateBroker {
    pub(crate) async fn start() -> PrivateBroker {
        let folder = Folder::new();
        let env = local(folder.path(), &["up", "--only", "broker"]).await;
        let line = env.lines().find_map(|line| line.strip_prefix("export PAPERBOY__BROKER__URL="));
        let url =
            line.expect("`deploy/local up` prints the broker's address").trim_matches(['"', '\'']).to_owned();
        PrivateBroker { folder, url }
    }

    /// kill -9; the data stays.
    pub(crate) async fn kill(&self) {
        local(self.folder.path(), &["kill-broker"]).await;
    }

    pub(crate) async fn restart(&self) {
        local(self.folder.path(), &["start-broker"]).await;
    }

    /// `rabbitmqctl` for this node.
    pub(crate) async fn control(&self, arguments: &[&str]) -> String {
        let program = self.folder.path().join("local").join("rabbitmqctl");
        let output = Command::new(program).args(arguments).output().await.unwrap();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn down(self) {
        local(self.folder.path(), &["down"]).await;
    }
}

/// A PostgreSQL of its own, for tests that end it.
pub(crate) struct PrivatePostgres {
    folder: Folder,
    pub(crate) url: String,
}

impl PrivatePostgres {
    pub(crate) async fn start() -> PrivatePostgres {
        let folder = Folder::new();
        let env = local(folder.path(), &["up", "--only", "postgres"]).await;
        let line = env.lines().find_map(|line| line.strip_prefix("export PAPERBOY__STORE__URL="));
        let url = line.expect("`deploy/local up` prints the store's address").to_owned();
        PrivatePostgres { folder, url }
    }

    /// Ends it at once, as a crash does; the data stays.
    pub(crate) async fn kill(&self) {
        local(self.folder.path(), &["kill-postgres"]).await;
    }

    pub(crate) async fn restart(&self) {
        local(self.folder.path(), &["start-postgres"]).await;
    }

    pub(crate) async fn down(self) {
        local(self.folder.path(), &["down"]).await;
    }
}

async fn local(folder: &Path, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/local");
    let output = Command::new(script)
        .args(arguments)
        .env("PAPERBOY_LOCAL_DIR", folder.join("local"))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "deploy/local {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A Redis of its own, for tests that stop or flush it.
pub(crate) struct PrivateRedis {
    port: u16,
    /// Empty: none is asked for.
    password: String,
    folder: Folder,
    child: Option<Child>,
}

impl PrivateRedis {
    pub(crate) async fn start() -> PrivateRedis {
        PrivateRedis::start_with_password("").await
    }

    pub(crate) async fn start_with_password(password: &str) -> PrivateRedis {
        let (port, password) = (free_port(), password.to_owned());
        let mut redis = PrivateRedis { port, password, folder: Folder::new(), child: None };
        redis.resume().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        self.url_of_database(0)
    }

    pub(crate) fn url_of_database(&self, index: u32) -> String {
        let login = if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        format!("redis://{login}127.0.0.1:{}/{index}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Such as `-STOP`.
    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().and_then(Child::id).expect("still running").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Ends it and starts it anew, empty.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    /// Writes bytes into a field of a hash.
    pub(crate) async fn set_field(&self, key: &str, field: &str, value: &[u8]) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd("HSET");
        command.arg(key).arg(field).arg(value);
        let _: u64 = command.query_async(&mut connection).await.unwrap();
    }

    /// Ends it; what it knew is gone.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    pub(crate) async fn resume(&mut self) {
        let port = self.port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", &self.password, "--dir"])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = format!("127.0.0.1:{port}");
        eventually("Redis answers", 10, || async { tokio::net::TcpStream::connect(&address).await.is_ok() })
            .await;
    }

    /// One command; the answer is not looked at.
    pub(crate) async fn command(&self, words: &[&str]) {
        let _: redis::Value = self.ask(words).await;
    }

    /// One command and its answer.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }

    /// Whether it answers at once.
    pub(crate) async fn answers(&self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
        redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
    }

    /// Everything it holds, names and values.
    pub(crate) async fn dump(&self) -> Vec<u8> {
        let mut dump = Vec::new();
        for key in self.ask::<Vec<String>>(&["KEYS", "*"]).await {
            let read: &[&str] = match self.ask::<String>(&["TYPE", &key]).await.as_str() {
                "string" => &["GET", &key],
                "hash" => &["HGETALL", &key],
                "zset" => &["ZRANGE", &key, "0", "-1"],
                "set" => &["SMEMBERS", &key],
                kind => panic!("nobody reads a {kind}"),
            };
            dump.extend_from_slice(format!("\n{key} = ").as_bytes());
            flatten(&self.ask(read).await, &mut dump);
        }
        dump
    }

    /// Hears every command from now on, with all its arguments.
    pub(crate) async fn monitor(&self) -> Wire {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(format!("AUTH {}\r\nMONITOR\r\n", self.password).as_bytes()).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut some = [0; 65_536];
            while let Ok(bytes @ 1..) = stream.read(&mut some).await {
                keep.lock().unwrap().extend_from_slice(&some[..bytes]);
            }
        });
        let listens = async || heard.lock().unwrap().windows(4).filter(|part| part == b"OK\r\n").count() == 2;
        eventually("Redis lets us listen", 10, listens).await;
        Wire { heard, task }
    }

    /// The tenants that are cached under a prefix, each with its sealed record.
    pub(crate) async fn sealed_records(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let mut records = Vec::new();
        for key in self.ask::<Vec<String>>(&["KEYS", &format!("{prefix}:tenant:*")]).await {
            let sealed = self.ask(&["HGET", &key, "sealed"]).await;
            records.push((key, sealed));
        }
        records
    }

    /// How often a command was called since the start, such as `hmget`.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.ask(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    }
}

/// The bytes in an answer, one after the other.
fn flatten(value: &redis::Value, into: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => into.extend_from_slice(bytes),
        redis::Value::Array(values) | redis::Value::Set(values) => {
            values.iter().for_each(|value| flatten(value, into));
        }
        redis::Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            flatten(key, into);
            flatten(value, into);
        }),
        other => into.extend_from_slice(format!("{other:?}").as_bytes()),
    }
}

/// What was said to a Redis.
pub(crate) struct Wire {
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Wire {
    pub(crate) fn take(self) -> Vec<u8> {
        self.task.abort();
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}
