//! Whoever wants a command to end: ctrl-C, SIGTERM, a terminal that is closed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;

/// The signals that ask to end.
pub(in crate::cli) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals are ours to handle.
    pub(in crate::cli) fn watch() -> Result<Signals, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::world(format!("signals cannot be watched: {error}")))
        };
        Ok(Signals {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(in crate::cli) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
