//! The receiver: answers 200 to everything and counts, as cheaply as can be, in a process of its own.
//!
//! A hand-written loop over kept-alive HTTP/1.1 connections, for it shares the machine with what is measured.
//! `GET /tally` tells what was counted, `DELETE /tally` begins anew, `GET /readyz` says it listens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::event::now_us;
use super::tally::Tally;
use crate::cli::Failure;
use crate::cli::stage::{Signals, end_with_parent};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Takes and counts deliveries.
#[derive(Args, Debug)]
pub(in crate::cli) struct Receiver {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
}

type Shared = Arc<Mutex<Tally>>;

impl Receiver {
    pub(in crate::cli) async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::watch()?;
        end_with_parent();
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            Failure::world(format!("the receiver cannot listen on `{}`: {error}", self.listen))
        })?;
        let tally = Shared::new(Mutex::new(Tally::new()));
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        // As many as the worker opens, which its prefetch bounds; they end with the process.
                        tokio::spawn(converse(stream, Arc::clone(&tally)));
                    }
                }
            }
        }
    }
}

/// Answers one request after another; a connection that breaks or talks nonsense is left.
async fn converse(mut stream: TcpStream, tally: Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(head) = read_head(&mut stream, &mut buffer).await? else { return Ok(()) };
        let whole = head.bytes + head.body_bytes;
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        match head.wants {
            Wants::Delivered => {
                lock(&tally).count(&buffer[head.bytes..whole], Instant::now(), now_us());
                stream.write_all(OK).await?;
            }
            Wants::Tally => {
                let counted = lock(&tally).counted();
                let body = serde_json::to_string(&counted)?;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await?;
            }
            Wants::Anew => {
                *lock(&tally) = Tally::new();
                stream.write_all(OK).await?;
            }
            Wants::Nothing => stream.write_all(OK).await?,
        }
        buffer.drain(..whole);
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head of a request, as far as it matters here.
struct Head {
    bytes: usize,
    body_bytes: usize,
    wants: Wants,
}

#[derive(Debug, PartialEq)]
enum Wants {
    Delivered,
    Tally,
    Anew,
    Nothing,
}

/// `None` when the connection has ended, or sends something that is no request.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(parse_head(&buffer[..end + 4]));
        }
        if buffer.len() > HEAD_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse_head(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let wants = match (words.next()?, words.next()?) {
        ("POST", _) => Wants::Delivered,
        ("GET", "/tally") => Wants::Tally,
        ("DELETE", "/tally") => Wants::Anew,
        _ => Wants::Nothing,
    };
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body_bytes = length.map_or(Some(0), |(_, value)| value.trim().parse().ok())?;
    Some(Head { bytes: bytes.len(), body_bytes, wants })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_of_a_head() {
        let head = |text: &str| parse_head(text.as_bytes()).map(|head| (head.body_bytes, head.wants));
        let post = "POST /e/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(head(post), Some((12, Wants::Delivered)));
        assert_eq!(head("GET /tally HTTP/1.1\r\n\r\n"), Some((0, Wants::Tally)));
        assert_eq!(head("DELETE /tally HTTP/1.1\r\n\r\n"), Some((0, Wants::Anew)));
        assert_eq!(head("POST /e/1 HTTP/1.1\r\ncontent-length: x\r\n\r\n"), None);
    }
}
