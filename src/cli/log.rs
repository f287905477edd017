//! The log: one line per happening on standard error, as text for people or JSON for machines.

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

use crate::config::{LogConfig, LogFormat};

/// lapin prints whole returned messages under this target: bodies of customers. Off, whatever the filter says.
const LEAKY: &str = "lapin::returned_messages";

/// Starts logging; a second call changes nothing.
pub(super) fn start(config: &LogConfig) {
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(wants_colour()).with_target(false).boxed(),
    };
    let quiet = filter_fn(|metadata| !metadata.target().starts_with(LEAKY));
    let _ = Registry::default().with(layer.with_filter(filter).with_filter(quiet)).try_init();
}

fn wants_colour() -> bool {
    use std::io::IsTerminal as _;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}
