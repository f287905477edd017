//! The bench, at its smallest: every scenario has its figures and its words, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{App, eventually};

/// So little of everything that a debug build is through in seconds. What is measured then means nothing.
const SIZES: [&str; 16] = [
    "--events",
    "200",
    "--endpoints",
    "4",
    "--rounds",
    "1",
    "--rate",
    "50",
    "--latency-s",
    "1",
    "--idle-s",
    "1",
    "--seconds",
    "2",
    "--load-percent",
    "30",
];

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

/// Runs these scenarios to their end; what `--json` says of each.
async fn play(scenarios: &[&str]) -> Value {
    let app = App::new();
    let child = start(&app, &[scenarios, &SIZES, &["--json"]].concat());
    eventually("the bench has its folder", 30, async || prefix(&app).is_some()).await;
    let prefix = prefix(&app).unwrap();
    let output = timeout(Duration::from_secs(240), child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    for scenario in scenarios {
        assert!(error.contains(&format!("{scenario}, round 1 of 1")), "no progress is told: {error}");
    }
    assert_nothing_is_left(&app, &prefix).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["scenarios"].clone()
}

/// These figures of a play are there and above zero.
#[track_caller]
fn assert_figures(scenario: &Value, play: &str, figures: &[&str]) {
    let median = &scenario["plays"][play]["median"];
    for figure in figures {
        assert!(median[figure].as_f64().is_some_and(|value| value > 0.0), "{play} {figure}: {scenario:#}");
    }
}

/// Every check has a word and, where there is a limit, was measured.
#[track_caller]
fn assert_judged(scenario: &Value, count: usize) {
    let checks = scenario["checks"].as_array().unwrap();
    assert_eq!(checks.len(), count, "{scenario:#}");
    for check in checks {
        let verdict = check["verdict"].as_str().unwrap();
        assert!(["pass", "fail", "told"].contains(&verdict), "{check:#} of {scenario:#}");
        assert_eq!(check["rule"] == "told", verdict == "told", "{check:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_and_start_stand_beside_the_floor() {
    let scenarios = play(&["steady", "start"]).await;
    let steady = &scenarios["steady"];
    for worker in ["floor_single", "floor_coalesced", "paperboy"] {
        assert_figures(
            steady,
            worker,
            &["deliveries_per_s", "worker_us", "arrived_percent", "p50_ms", "p99_ms", "peak_rss_mib"],
        );
        let median = &steady["plays"][worker]["median"];
        assert_eq!(median["deliveries"], 200.0, "{steady:#}");
        assert!(median["p50_ms"].as_f64() <= median["p99_ms"].as_f64(), "{steady:#}");
    }
    assert_judged(steady, 5);
    assert_figures(&scenarios["start"], "paperboy", &["ready_ms", "first_ms"]);
    assert_figures(&scenarios["start"], "floor_coalesced", &["first_ms"]);
    assert_judged(&scenarios["start"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_fanout_and_matching_have_their_figures() {
    let scenarios = play(&["memory", "fanout", "matching"]).await;
    assert_figures(&scenarios["memory"], "idle", &["idle_rss_mib"]);
    let in_flight = &scenarios["memory"]["plays"]["in_flight"]["median"];
    // All 200 where the machine has nothing else to do.
    let waited = in_flight["in_flight"].as_f64();
    assert!(
        waited > Some(100.0) && waited <= Some(200.0),
        "they wait for their answers at once: {in_flight:#}"
    );
    assert_judged(&scenarios["memory"], 4);
    let fanned_out = &scenarios["fanout"]["plays"]["fanout_100"]["median"];
    assert_eq!(fanned_out["deliveries"], 200.0, "two events for a hundred: {fanned_out:#}");
    assert_judged(&scenarios["fanout"], 2);
    for play in ["matching_1", "matching_100", "matching_1000"] {
        let median = &scenarios["matching"]["plays"][play]["median"];
        assert_eq!(median["deliveries"], 200.0, "{play}: one of all wants each event: {median:#}");
    }
    assert_judged(&scenarios["matching"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_and_large_have_their_figures() {
    let scenarios = play(&["backlog", "large"]).await;
    assert_eq!(scenarios["backlog"]["plays"]["backlog"]["median"]["deliveries"], 1_000.0);
    assert_figures(&scenarios["backlog"], "backlog", &["early_rss_mib", "late_rss_mib"]);
    assert_judged(&scenarios["backlog"], 2);
    for worker in ["floor_coalesced", "paperboy"] {
        let median = &scenarios["large"]["plays"][worker]["median"];
        assert_eq!((&median["deliveries"], &median["in_flight"]), (&4.0.into(), &4.0.into()), "{median:#}");
    }
    assert_judged(&scenarios["large"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_endpoint_is_tried_and_the_others_get_theirs() {
    let scenarios = play(&["hang", "slow", "drip"]).await;
    for name in ["hang", "slow", "drip"] {
        let scenario = &scenarios[name];
        assert_figures(scenario, "probe", &["offered_per_s", "carried_per_s"]);
        assert_figures(scenario, "baseline", &["offered_per_s", "arrived_percent", "p99_ms"]);
        for play in ["apart", "together"] {
            assert_figures(scenario, play, &["offered_per_s", "arrived_percent", "bad_attempts"]);
        }
        assert_eq!(scenario["plays"]["saturated"]["median"]["deliveries"], 180.0, "{scenario:#}");
        assert_eq!(scenario["checks"].as_array().unwrap().len(), 11, "{scenario:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_a_replay_stand_beside_their_absence() {
    let scenarios = play(&["log", "replay"]).await;
    let log = &scenarios["log"];
    assert_figures(log, "off_quiet", &["offered_per_s", "worker_us"]);
    assert_figures(log, "all_quiet", &["offered_per_s", "worker_us", "log_written"]);
    assert_eq!(log["plays"]["off_quiet"]["median"].get("log_written"), None, "nothing is kept: {log:#}");
    assert_judged(log, 4);
    let replay = &scenarios["replay"];
    assert_eq!(replay["plays"]["baseline"]["median"].get("replayed"), None, "{replay:#}");
    for play in ["usual", "hurried"] {
        assert_figures(replay, play, &["offered_per_s", "p99_ms", "replayed"]);
    }
    assert_judged(replay, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_does_not_hold_is_said_and_ends_a_strict_bench_with_1() {
    let app = App::new();
    // Nobody delivers ten events that come a second late within 1.3 times of anything: the debug build's start
    // takes longer than an idle release build may, and its memory is the larger.
    let sizes = ["--rounds", "1", "--idle-s", "1", "--events", "10"];
    let child = start(&app, &[&["memory", "--strict", "--set", "log.filter=off"][..], &sizes].concat());
    let output = timeout(Duration::from_secs(120), child.wait_with_output()).await.unwrap().unwrap();
    let (printed, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let failed = printed.contains("FAIL  ");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{printed}{error}");
    assert_eq!(error.contains("these limits do not hold"), failed, "{printed}{error}");
    assert!(printed.contains("an idle worker: ") && printed.contains("(at most 30.0 MiB)"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_leaves_nothing() {
    let app = App::new();
    let child = start(&app, &["hang", "--events", "200000"]);
    let pid = child.id().unwrap().to_string();
    eventually("the bench has its receiver and is filling a queue", 60, async || {
        let Some(prefix) = prefix(&app) else { return false };
        let amqp = crate::support::Amqp::connect(app.setting("BROKER__URL"), &prefix).await;
        processes_of(&prefix).len() == 1 && amqp.ready("events").await > Some(0)
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
