//! What the documents promise: their snippets run, their commands exist, their tables are complete.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use lapin::Connection;
use serde_json::Value;

use crate::support::app::subscription;
use crate::support::document::{block, blocks, documents, example, read, root, shown_commands};
use crate::support::services::Folder;
use crate::support::vector::{Vector, vectors, vectors_of_now};
use crate::support::{App, Receiver, Reply};

/// Whether a program is here; a test without it says so and goes on.
fn is_there(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        println!("skipped: `{program}` is not here");
    }
    is_there
}

/// Runs a program that prints `true` or `false` for each line it is given, and compares.
fn judge(mut command: Command, vectors: &[Vector]) {
    let mut input = String::new();
    for Vector { clock, secret, id, timestamp, signature, body, .. } in vectors {
        let clock = clock.map(|clock| clock.to_string()).unwrap_or_default();
        writeln!(input, "{clock}\t{secret}\t{id}\t{timestamp}\t{signature}\t{body}").unwrap();
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let printed = String::from_utf8(output.stdout).unwrap().to_lowercase();
    let judged: Vec<&str> = printed.lines().collect();
    assert_eq!(judged.len(), vectors.len(), "{printed}");
    for (judged, vector) in judged.iter().zip(vectors) {
        assert_eq!(*judged, vector.is_genuine.to_string(), "{vector:#?}");
    }
}

/// A snippet with the lines that feed it, as a file.
fn write(folder: &Folder, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_python_receiver_tells_good_from_bad() {
    const FEED: &str = r#"
import sys
real_time = time.time
for line in sys.stdin.read().splitlines():
    clock, secret, id, timestamp, signature, body = line.split("\t")
    time.time = (lambda: int(clock)) if clock else real_time
    headers = {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    try:
        print(verify(secret, headers, body.encode()))
    except ValueError:
        print(False)
"#;
    if is_there("python3", "--version") {
        let folder = Folder::new();
        let path = write(&folder, "receiver.py", &(block(&read("docs/receiver.md"), "python") + FEED));
        let mut command = Command::new("python3");
        command.arg(path);
        judge(command, &vectors());
    }
}

#[test]
fn the_node_receiver_tells_good_from_bad() {
    const FEED: &str = r#"
const realNow = Date.now;
for (const line of require("node:fs").readFileSync(0, "utf8").trimEnd().split("\n")) {
  const [clock, secret, id, timestamp, signature, body] = line.split("\t");
  Date.now = clock ? () => Number(clock) * 1000 : realNow;
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
  console.log(verify(secret, headers, Buffer.from(body)));
}
"#;
    if is_there("node", "--version") {
        let folder = Folder::new();
        let path = write(&folder, "receiver.cjs", &(block(&read("docs/receiver.md"), "js") + FEED));
        let mut command = Command::new("node");
        command.arg(path);
        judge(command, &vectors());
    }
}

#[test]
fn the_java_receiver_tells_good_from_bad() {
    const FEED: &str = r#"class Feed {
    public static void main(String[] arguments) throws Exception {
        java.util.Scanner input = new java.util.Scanner(System.in, "UTF-8");
        while (input.hasNextLine()) {
            String[] part = input.nextLine().split("\t", -1);
            boolean genuine = false;
            try {
                genuine = Webhook.verify(part[1], part[2], part[3], part[4], part[5].getBytes("UTF-8"));
            } catch (NumberFormatException notANumber) {
            }
            System.out.println(genuine);
        }
    }
}

"#;
    if is_there("java", "--version") {
        let folder = Folder::new();
        // `java FILE` runs the first class of a file.
        let snippet = block(&read("docs/receiver.md"), "java")
            .replace("class Webhook {", &format!("{FEED}class Webhook {{"));
        let path = write(&folder, "Feed.java", &snippet);
        let mut command = Command::new("java");
        command.arg(path);
        judge(command, &vectors_of_now());
    }
}

#[test]
fn the_go_receiver_tells_good_from_bad() {
    const FEED: &str = r#"package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		part := strings.Split(lines.Text(), "\t")
		header := http.Header{}
		header.Set("webhook-id", part[2])
		header.Set("webhook-timestamp", part[3])
		header.Set("webhook-signature", part[4])
		fmt.Println(verify(part[1], header, []byte(part[5])))
	}
}
"#;
    if is_there("go", "version") {
        let folder = Folder::new();
        let snippet = block(&read("docs/receiver.md"), "go").replace("package webhook", "package main");
        let files = [write(&folder, "webhook.go", &snippet), write(&folder, "feed.go", FEED)];
        let mut command = Command::new("go");
        command.arg("run").args(files);
        judge(command, &vectors_of_now());
    }
}

#[test]
fn the_php_receiver_tells_good_from_bad() {
    const FEED: &str = r#"
foreach (explode("\n", rtrim(stream_get_contents(STDIN), "\n")) as $line) {
    [, $secret, $id, $timestamp, $signature, $body] = explode("\t", $line);
    $headers = ['webhook-id' => $id, 'webhook-timestamp' => $timestamp, 'webhook-signature' => $signature];
    echo verify($secret, $headers, $body) ? "true\n" : "false\n";
}
"#;
    if is_there("php", "--version") {
        let folder = Folder::new();
        let path = write(&folder, "receiver.php", &(block(&read("docs/receiver.md"), "php") + FEED));
        let mut command = Command::new("php");
        command.arg(path);
        judge(command, &vectors_of_now());
    }
}

#[test]
fn the_rust_producer_is_the_example() {
    assert_eq!(block(&read("docs/producer.md"), "rust"), read("examples/producer.rs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producers_of_the_documents_reach_a_receiver() {
    let app = App::new();
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    let serve = app.serve("all").await;
    let made = app.subscribe(subscription("acme", &receiver.url("/ocr/:id"))).await;
    let folder = Folder::new();
    let document = read("docs/producer.md");

    let mut producers = vec![(example("producer").display().to_string(), Vec::new())];
    if is_there("python3", "--version") && succeeds("python3", &["-c", "import pika"]) {
        let path = write(&folder, "producer.py", &block(&document, "python"));
        producers.push(("python3".into(), vec![path.display().to_string()]));
    }
    let java = block(&document, "java");
    match std::env::var("CLASSPATH").ok().filter(|path| path.contains("amqp-client")) {
        Some(classpath) if is_there("javac", "--version") => {
            let path = write(&folder, "Producer.java", &java).display().to_string();
            producers.push(("java".into(), vec!["-cp".into(), classpath, path]));
        }
        _ => println!("skipped: no `amqp-client` in CLASSPATH"),
    }
    for needed in [
        "confirmSelect()",
        "deliveryMode(2)",
        "mandatory = true",
        "addReturnListener",
        "waitForConfirmsOrDie",
    ] {
        assert!(java.contains(needed), "the Java producer lacks `{needed}`");
    }
    assert_eq!(java.matches('{').count(), java.matches('}').count());

    for (place, (program, arguments)) in producers.iter().enumerate() {
        let run = |exchange: String| {
            let mut command = app.command_of(program);
            command.args(arguments).env("AMQP_URL", app.setting("BROKER__URL")).env("EXCHANGE", exchange);
            async move { command.output().await.unwrap() }
        };
        let published = run(format!("{}.events", app.prefix)).await;
        assert!(published.status.success(), "`{program}`: {}", String::from_utf8_lossy(&published.stderr));
        let hit = receiver.wait_for(place + 1, 10).await.remove(place);
        assert_eq!((hit.id(), hit.path.as_str()), ("evt_0192d7f0", "/ocr/a7046a49"), "`{program}`");
        assert!(hit.is_signed_with(&made.secret));
        assert!(hit.body.windows(5).any(|bytes| bytes == b"pages"));

        let lost = run("amq.topic".into()).await;
        assert!(!lost.status.success(), "`{program}` takes an event that came back for safe");
    }
    serve.stop().await;
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    let succeeds = ran.is_ok_and(|status| status.success());
    if !succeeds {
        println!("skipped: `{program} {}` does not work here", arguments.join(" "));
    }
    succeeds
}

#[tokio::test]
async fn the_source_of_the_documents_makes_the_event_they_show() {
    let mut app = App::new();
    let document = read("docs/producer.md");
    let queue = format!("{}-legacy", app.prefix);
    app.configure(&block(&document, "toml").replace("ocr.webhooks", &queue));
    app.ok(&["config", "check"]).await;
    let shown = blocks(&document, "text");
    let [message, event] = shown.as_slice() else { panic!("a message and its event: {shown:#?}") };
    let expected: Value = serde_json::from_str(event).unwrap();

    let connection = Connection::connect(app.setting("BROKER__URL"), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare(queue.as_str().into(), Default::default(), Default::default()).await.unwrap();
    let publish = channel.basic_publish(
        "".into(),
        queue.as_str().into(),
        Default::default(),
        message.as_bytes(),
        Default::default(),
    );
    publish.await.unwrap();
    let mut mapped = app.json(&["source", "test", "--source", "legacy"]).await.remove(0)["event"].take();
    assert!(mapped["id"].as_str().unwrap().starts_with("src_"));
    mapped["id"] = expected["id"].clone();
    assert_eq!(mapped, expected);
    channel.queue_delete(queue.into(), Default::default()).await.unwrap();
}

/// The sources that the manual of the settings shows, as they would stand in a file.
#[tokio::test]
async fn the_source_of_the_manual_is_a_good_one() {
    let mut app = App::new();
    let manual = read("config/default.toml");
    let (_, shown) = manual.split_once("# [[sources]]").unwrap();
    // Commented out as a whole; what is a comment within stands behind two signs.
    let file: String =
        shown.lines().filter_map(|line| line.strip_prefix("# ")).map(|line| format!("{line}\n")).collect();
    app.configure(&format!("[[sources]]\n{file}"));
    app.ok(&["config", "check"]).await;
    let printed = app.ok(&["config", "show"]).await;
    for field in [
        "name",
        "queue",
        "prefetch",
        "tenant",
        "type",
        "id",
        "time",
        "document_id",
        "batch_id",
        "inbox",
        "data",
    ] {
        assert!(printed.contains(&format!("\n{field} = ")), "`{field}` is not shown: {printed}");
    }
}

#[test]
fn every_command_in_the_documents_exists() {
    let mut faults = Vec::new();
    let mut count = 0;
    for name in documents() {
        for command in shown_commands(&read(&name)) {
            count += 1;
            let line = format!("{name}: `paperboy {}`", command.words.join(" "));
            let help = Command::new(env!("CARGO_BIN_EXE_paperboy"))
                .args(&command.words)
                .arg("--help")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&help.stdout);
            if !help.status.success() {
                faults.push(format!("{line} is no command"));
                continue;
            }
            let unknown = command.flags.iter().filter(|flag| !text.contains(flag.as_str()));
            faults.extend(unknown.map(|flag| format!("{line} has no `{flag}`")));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    assert!(count > 10, "{count} commands were found");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut faults = Vec::new();
    for name in documents() {
        let text = read(&name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&name)
            } else {
                root().join(&name).parent().unwrap().join(path)
            };
            let found = std::fs::read_to_string(&target);
            let is_there = found.is_ok_and(|text| anchor.is_empty() || anchors(&text).contains(anchor));
            if !is_there {
                faults.push(format!("{name}: `{link}` leads nowhere"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The anchors that a document's headings make.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        words.chars().filter(|char| char.is_alphanumeric() || [' ', '-'].contains(char)).collect::<String>()
    };
    headings.map(|line| anchor(line).replace(' ', "-")).collect()
}

#[test]
fn the_table_of_metrics_is_complete() {
    let mut emitted = BTreeSet::new();
    collect_metrics(&root().join("src"), &mut emitted);
    let document = read("docs/operations.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `paperboy_")?.split('`').next());
    let told: BTreeSet<String> = rows.map(|name| format!("paperboy_{name}")).collect();
    assert!(emitted.len() > 10, "{emitted:?}");
    assert_eq!(told, emitted);
}

/// The names given to `counter!`, `gauge!` and `histogram!`.
fn collect_metrics(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_metrics(&path, names);
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for call in ["counter!(", "gauge!(", "histogram!("] {
            let calls = text.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            names.extend(calls.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
}
