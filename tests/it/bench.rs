//! The bench, at its smallest: figures that can be, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{App, eventually};

/// Starts a bench in the app's folder, with a place of its own for temporary files.
fn start(app: &App, arguments: &[&str]) -> Child {
    let temporary = app.path("temporary");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = app.command(&[&["bench"], arguments].concat());
    command.env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The prefix of a bench that runs: its folder has the same name.
fn prefix(app: &App) -> Option<String> {
    let mut entries = std::fs::read_dir(app.path("temporary")).ok()?.flatten();
    let name = entries.find_map(|entry| entry.file_name().into_string().ok())?;
    name.strip_prefix("paperboy-").map(str::to_owned)
}

/// Command lines of processes that know this prefix from their environment.
fn processes_of(prefix: &str) -> Vec<String> {
    let ours = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&format!("PAPERBOY__BROKER__PREFIX={prefix}\0"))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let line = |process: &Path| std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
    processes.filter(|process| ours(process)).map(|process| line(&process)).collect()
}

async fn assert_nothing_is_left(app: &App, prefix: &str) {
    assert_eq!(processes_of(prefix), Vec::<String>::new());
    let amqp = crate::support::Amqp::connect(app.setting("BROKER__URL"), prefix).await;
    for queue in ["events", "retries", "dead.events", "delay.00"] {
        assert_eq!(amqp.ready(queue).await, None, "`{prefix}.{queue}` is left");
    }
    assert_eq!(std::fs::read_dir(app.path("temporary")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_bench_has_plausible_figures_and_leaves_nothing() {
    let app = App::new();
    let arguments =
        ["--events", "300", "--runs", "1", "--rate", "50", "--latency-s", "1", "--idle-s", "1", "--json"];
    let child = start(&app, &arguments);
    eventually("the bench has its folder", 30, async || prefix(&app).is_some()).await;
    let prefix = prefix(&app).unwrap();
    let output = timeout(Duration::from_secs(120), child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    for worker in ["floor_single", "floor_coalesced", "paperboy"] {
        let figures = &report["workers"][worker]["median"];
        assert_eq!(figures["deliveries"], 300, "{report:#}");
        assert!((40..=60).contains(&figures["paced"].as_u64().unwrap()), "{report:#}");
        for figure in ["deliveries_per_s", "worker_us", "p50_ms", "p99_ms", "peak_rss_mib"] {
            assert!(is_positive(&figures[figure]), "{worker} {figure}: {report:#}");
        }
        assert!(figures["p50_ms"].as_f64() <= figures["p99_ms"].as_f64(), "{report:#}");
    }
    for ratio in ["worker_cpu", "throughput", "p99"] {
        assert!(is_positive(&report["ratios"]["to_floor_single"][ratio]), "{report:#}");
    }
    assert!(is_positive(&report["idle_rss_mib"]), "{report:#}");
    assert_nothing_is_left(&app, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_leaves_nothing() {
    let app = App::new();
    let child = start(&app, &["--events", "200000", "--idle-s", "1"]);
    let pid = child.id().unwrap().to_string();
    eventually("the bench has its receiver and its idle worker", 30, async || {
        prefix(&app).is_some_and(|prefix| processes_of(&prefix).len() >= 2)
    })
    .await;
    let prefix = prefix(&app).unwrap();
    let kill = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    assert!(kill.success());
    let output = timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert_nothing_is_left(&app, &prefix).await;
}
