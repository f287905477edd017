//! The tests' small private language: apps, receivers, the broker seen from outside, the ledger.

pub(crate) mod amqp;
pub(crate) mod app;
pub(crate) mod caller;
pub(crate) mod document;
pub(crate) mod failure;
pub(crate) mod home;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod receiver;
pub(crate) mod redis_tap;
pub(crate) mod services;
pub(crate) mod traces;
pub(crate) mod vector;

use std::time::{Duration, Instant};

pub(crate) use amqp::Amqp;
pub(crate) use app::{App, Serve};
pub(crate) use caller::Caller;
pub(crate) use http::ask;
pub(crate) use ledger::Ledger;
pub(crate) use receiver::{Hit, Receiver, Reply};

/// Waits until `ready` is true, looking often; fails with `what` after `limit_s`.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit_s: u64,
    mut ready: impl FnMut() -> F,
) {
    let deadline = Instant::now() + Duration::from_secs(limit_s);
    while !ready().await {
        assert!(Instant::now() < deadline, "not within {limit_s} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some letters nobody else uses.
pub(crate) fn unique() -> String {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

/// A loopback port that is free now, below the ephemeral range so that no client takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).unwrap();
        let port = 20_000 + u16::from_le_bytes(bytes) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
