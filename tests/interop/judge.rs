//! A receiver in another language, as a process that is told secrets and says what it thinks of every request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::support::document::{block, read, root};
use super::support::eventually;
use super::support::services::Folder;

/// What the receiver said of one request.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Verdict {
    pub(super) path: String,
    pub(super) id: String,
    /// Of the body, in hex.
    pub(super) sha256: String,
    /// By verifier, an answer for each secret it knows.
    pub(super) verified: BTreeMap<String, Vec<bool>>,
}

pub(super) struct Judge {
    port: u64,
    stdin: ChildStdin,
    lines: Arc<Mutex<Vec<Value>>>,
    _child: Child,
    /// Where the snippet is.
    _folder: Folder,
}

impl Judge {
    pub(super) async fn python() -> Judge {
        let mut command = Command::new(tools().join("venv/bin/python"));
        command.arg(root().join("tests/interop/receiver.py"));
        Judge::start(command, "snippet.py", &block(&read("docs/receiver.md"), "python")).await
    }

    pub(super) async fn node() -> Judge {
        let mut command = Command::new("node");
        command.arg(root().join("tests/interop/receiver.mjs"));
        let snippet = block(&read("docs/receiver.md"), "js") + "\nmodule.exports = { verify };\n";
        Judge::start(command, "snippet.cjs", &snippet).await
    }

    /// Starts a receiver with the snippet of the document beside its own verifiers.
    async fn start(mut command: Command, name: &str, snippet: &str) -> Judge {
        let folder = Folder::new();
        let path = folder.path().join(name);
        std::fs::write(&path, snippet).unwrap();
        command.arg(path).arg(tools()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                seen.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let mut judge = Judge { port: 0, stdin, lines, _child: child, _folder: folder };
        judge.said("port").await;
        judge.port = judge.lines.lock().unwrap()[0]["port"].as_u64().unwrap();
        judge
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// From now on requests of this path are verified with each of these secrets.
    pub(super) async fn learn(&mut self, path: &str, scheme: &str, secrets: &[&str]) {
        self.tell(&json!({ "path": path, "scheme": scheme, "secrets": secrets })).await;
        let is_known = || self.lines.lock().unwrap().iter().any(|line| line["known"] == path);
        eventually("the receiver knows its secrets", 10, async || is_known()).await;
    }

    pub(super) async fn tell(&mut self, line: &Value) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Everything judged so far, in its order.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let lines = self.lines.lock().unwrap();
        let verdicts = lines.iter().filter(|line| line["verified"].is_object());
        verdicts.map(|line| Verdict::deserialize(line).unwrap()).collect()
    }

    async fn said(&self, key: &str) {
        let is_said = || self.lines.lock().unwrap().iter().any(|line| !line[key].is_null());
        eventually("the receiver starts", 30, async || is_said()).await;
    }
}

/// The folder in which `./test --interop` put the tools.
pub(super) fn tools() -> PathBuf {
    let folder = std::env::var_os("PAPERBOY_TEST_INTEROP_DIR")
        .expect("PAPERBOY_TEST_INTEROP_DIR is not set: run these tests with `./test --interop`");
    Path::new(&folder).to_owned()
}
