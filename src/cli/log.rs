//! The log: one line per happening on standard error, as text for people or JSON for machines.

use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

use crate::config::{LogConfig, LogFormat};

/// lapin prints whole returned messages under this target: bodies of customers. Off, whatever the filter says.
const LEAKY: &str = "lapin::returned_messages";

/// Starts logging; a second call changes nothing.
pub(super) fn start(config: &LogConfig) {
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(wants_colour()).with_target(false).boxed(),
    };
    let quiet = filter_fn(|metadata| is_harmless(metadata.target(), *metadata.level()));
    let _ = Registry::default().with(layer.with_filter(filter(&config.filter)).with_filter(quiet)).try_init();
}

/// What lapin calls an error is an error to us only where we say so ourselves: it is silent unless named.
fn filter(text: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("lapin=off,{text}"))
}

/// Below `info` the libraries print what goes over the wire: logins, headers, bodies. Only our own lines,
/// which hold none of it, may be as talkative as the filter says.
fn is_harmless(target: &str, level: Level) -> bool {
    let is_ours = target == "paperboy" || target.starts_with("paperboy::");
    is_ours || (level <= Level::INFO && !target.starts_with(LEAKY))
}

fn wants_colour() -> bool {
    use std::io::IsTerminal as _;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_went_over_a_wire_is_printed() {
        assert!(!is_harmless("lapin::io_loop", Level::TRACE));
        assert!(!is_harmless("hyper_util::client", Level::DEBUG));
        assert!(!is_harmless("lapin::returned_messages", Level::ERROR));
        assert!(is_harmless("lapin::io_loop", Level::WARN));
        assert!(is_harmless("paperboy::worker", Level::TRACE));
    }

    #[test]
    fn lapin_speaks_only_when_named() {
        assert_eq!(filter("info").to_string(), "lapin=off,info");
        assert_eq!(filter("info,lapin=warn").to_string(), "lapin=warn,info");
    }
}
