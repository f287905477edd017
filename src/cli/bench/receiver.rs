//! The receiver: counts deliveries as cheaply as can be, in a process of its own, and answers as the path says.
//!
//! A hand-written loop over kept-alive HTTP/1.1 connections, for it shares the machine with what is measured; of a
//! body it keeps the beginning only. `GET /tally` tells what was counted, `GET /tally/latency` with all times,
//! `DELETE /tally` begins anew, `GET /readyz` says it listens.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::crowd::{BAD, Manner};
use super::event::{Stamp, now_us};
use super::tally::{Group, Tally};
use crate::cli::Failure;
use crate::cli::stage::{Signals, end_with_parent};

const HEAD_BYTES_MAX: usize = 64 * 1024;
/// So much of a body is kept: an event's stamp stands in it.
const BODY_BYTES_KEPT: usize = 1024;
/// So much of the rest is read at once, and forgotten.
const SKIPPED_AT_ONCE: usize = 64 * 1024;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const DRIP_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const DRIP: &[u8] = b"1\r\n.\r\n";

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
        let tally = Shared::default();
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                accepted = listener.accept() => {
                    match accepted {
                        // As many as the worker opens, which its prefetch bounds; they end with the process.
                        Ok((stream, _)) => drop(tokio::spawn(converse(stream, Arc::clone(&tally)))),
                        // No descriptor left: others end, or the bench sees what is missing.
                        Err(_) => sleep(Duration::from_millis(10)).await,
                    }
                }
            }
        }
    }
}

/// Answers one request after another; a connection that breaks or talks nonsense is left.
async fn converse(mut stream: TcpStream, tally: Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4 * 1024);
    loop {
        let Some(head) = read_head(&mut stream, &mut buffer).await? else { return Ok(()) };
        while buffer.len() < head.bytes + head.body_bytes.min(BODY_BYTES_KEPT) {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let whole = head.bytes + head.body_bytes;
        let kept = whole.min(buffer.len());
        let stamp = Stamp::read(&buffer[head.bytes..kept.min(head.bytes + BODY_BYTES_KEPT)]);
        buffer.drain(..kept);
        if !skip(&mut stream, whole - kept).await? {
            return Ok(());
        }
        match head.wants {
            Wants::Delivered { is_bad, path, manner } => {
                group(&mut lock(&tally), is_bad).count(&path, stamp, Instant::now(), now_us());
                let open = (manner != Manner::AtOnce).then(|| Open::begin(&tally, is_bad));
                answer(&mut stream, manner).await?;
                drop(open);
            }
            Wants::Tally { with_latency } => {
                let counted = lock(&tally).counted(with_latency);
                let body = serde_json::to_string(&counted)?;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await?;
            }
            Wants::Anew => {
                lock(&tally).begin_anew();
                stream.write_all(OK).await?;
            }
            Wants::Nothing => stream.write_all(OK).await?,
        }
    }
}

/// Answers as the endpoint does; fails once the other side has gone.
async fn answer(stream: &mut TcpStream, manner: Manner) -> std::io::Result<()> {
    match manner {
        Manner::AtOnce => stream.write_all(OK).await,
        // Nothing more is sent here before the answer: whatever comes is the end.
        Manner::After(ms) => {
            tokio::select! {
                () = sleep(Duration::from_millis(ms.into())) => stream.write_all(OK).await,
                _ = stream.read_u8() => Err(ErrorKind::ConnectionAborted.into()),
            }
        }
        Manner::Hang => {
            let _ = stream.read_u8().await;
            Err(ErrorKind::ConnectionAborted.into())
        }
        Manner::Drip => {
            stream.write_all(DRIP_HEAD).await?;
            loop {
                stream.write_all(DRIP).await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Reads so many bytes and forgets them; false where the connection ended before.
async fn skip(stream: &mut TcpStream, mut bytes: usize) -> std::io::Result<bool> {
    if bytes == 0 {
        return Ok(true);
    }
    let mut place = vec![0; bytes.min(SKIPPED_AT_ONCE)];
    while bytes > 0 {
        let wanted = bytes.min(place.len());
        let read = stream.read(&mut place[..wanted]).await?;
        if read == 0 {
            return Ok(false);
        }
        bytes -= read;
    }
    Ok(true)
}

/// A request that waits for its answer, until it is dropped.
struct Open {
    tally: Shared,
    is_bad: bool,
}

impl Open {
    fn begin(tally: &Shared, is_bad: bool) -> Open {
        group(&mut lock(tally), is_bad).open();
        Open { tally: Arc::clone(tally), is_bad }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        group(&mut lock(&self.tally), self.is_bad).close();
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn group(tally: &mut Tally, is_bad: bool) -> &mut Group {
    if is_bad { &mut tally.bad } else { &mut tally.good }
}

/// The head of a request, as far as it matters here.
struct Head {
    bytes: usize,
    body_bytes: usize,
    wants: Wants,
}

#[derive(Debug, PartialEq)]
enum Wants {
    Delivered { is_bad: bool, path: String, manner: Manner },
    Tally { with_latency: bool },
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
        ("POST", path) => {
            let mut parts = path.split('/').skip(1);
            let is_bad = parts.next() == Some(BAD);
            let manner = Manner::parse(parts.next().unwrap_or_default());
            Wants::Delivered { is_bad, path: path.to_owned(), manner }
        }
        ("GET", "/tally") => Wants::Tally { with_latency: false },
        ("GET", "/tally/latency") => Wants::Tally { with_latency: true },
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
    use tokio::time::timeout;

    use super::*;

    /// What one request to this path is answered with, until the client has said that it will say no more.
    async fn answer_of(path: &str, until: &[u8]) -> (Vec<u8>, Shared) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let tally = Shared::default();
        tokio::spawn(converse(stream, Arc::clone(&tally)));
        let request = format!("POST {path} HTTP/1.1\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let talk = async {
            while !got.ends_with(until) {
                assert_ne!(client.read_buf(&mut got).await.unwrap(), 0, "the end came first");
            }
            client.shutdown().await.unwrap();
            if until != DRIP {
                client.read_to_end(&mut got).await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), talk).await.expect("the answer ends");
        (got, tally)
    }

    #[tokio::test]
    async fn each_endpoint_answers_in_its_manner() {
        for path in ["/good/at-once/0/0", "/good/after-1/0/0"] {
            let (got, tally) = answer_of(path, OK).await;
            assert_eq!((got.as_slice(), lock(&tally).counted(false).good.received), (OK, 1), "{path}");
        }
        let (got, tally) = answer_of("/bad/hang/0/0", b"").await;
        assert_eq!((got.as_slice(), lock(&tally).counted(false).bad.received), (&b""[..], 1));
        let (got, tally) = answer_of("/bad/drip/0/0", DRIP).await;
        assert!(got.starts_with(DRIP_HEAD));
        assert_eq!(lock(&tally).counted(false).bad.open_max, 1);
    }

    #[test]
    fn reads_what_matters_of_a_head() {
        let head = |text: &str| parse_head(text.as_bytes()).map(|head| (head.body_bytes, head.wants));
        let delivered =
            |is_bad, path: &str, manner| Wants::Delivered { is_bad, path: path.to_owned(), manner };
        let post = "POST /good/after-20/1/0 HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(head(post), Some((12, delivered(false, "/good/after-20/1/0", Manner::After(20)))));
        let bad = "POST /bad/drip/9/0 HTTP/1.1\r\n\r\n";
        assert_eq!(head(bad), Some((0, delivered(true, "/bad/drip/9/0", Manner::Drip))));
        assert_eq!(head("GET /tally HTTP/1.1\r\n\r\n"), Some((0, Wants::Tally { with_latency: false })));
        assert_eq!(head("DELETE /tally HTTP/1.1\r\n\r\n"), Some((0, Wants::Anew)));
        assert_eq!(head("POST /e/1 HTTP/1.1\r\ncontent-length: x\r\n\r\n"), None);
    }
}
