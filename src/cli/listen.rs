//! `paperboy listen`: a receiver that verifies signatures and prints what arrives.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use axum::http::StatusCode;
use clap::Args;
use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::receiver::{self, Arrival, Receiver, Signature, TIMESTAMP_TOLERANCE_S};
use super::{Common, Failure, Problem, output};

/// What is printed of a body without `--raw`.
const BODY_SHOWN: usize = 4096;
/// Headers whose values open doors.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// A receiver that verifies signatures and prints what arrives.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy listen --port 9000 --secret whsec_…
  paperboy listen --port 9000 --fail-first 2      see retries come: 503 twice for every event, then 200
  paperboy listen --json | jq .body

With a secret it answers as a receiver should: 401 to what is unsigned, wrongly signed or older than 5 minutes.")]
pub(super) struct Listen {
    /// The port; 0 takes a free one and says which
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address to listen on; anything but a loopback address is open to the network
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    bind: IpAddr,
    /// Verify with this secret (`whsec_…`); repeat it while two are in use
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Verify with the secrets in this file, one a line
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What to answer
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Answer 503 to the first N requests of every event
    #[arg(long, default_value_t = 0, value_name = "N")]
    fail_first: u32,
    /// Print bodies as the bytes they are, whole, and credentials
    #[arg(long)]
    raw: bool,
}

impl Listen {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let keys = self.keys()?;
        let cannot = |error| Failure::world(format!("signals cannot be watched: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let status = StatusCode::from_u16(self.status)
            .map_err(|_| Failure::usage(format!("`{}` is not a status", self.status)))?;
        let (fail_first, verifies) = (self.fail_first, !keys.is_empty());
        let address = SocketAddr::new(self.bind, self.port);
        let started = Receiver::start(address, move |request| {
            let signature = receiver::check(&keys, request);
            let answer = match () {
                () if verifies && !signature.is_good() => (StatusCode::UNAUTHORIZED, "signature refused\n"),
                () if request.nth <= fail_first => (StatusCode::SERVICE_UNAVAILABLE, "failing on purpose\n"),
                () => (status, ""),
            };
            (signature, answer)
        });
        let mut receiver =
            started.await.map_err(|failure| failure.hint("choose another `--port`, or 0 for a free one"))?;
        eprintln!("listening on http://{} (ctrl-C ends it)", receiver.address());
        if !verifies {
            eprintln!(
                "signatures are not checked: give `--secret whsec_…`, which `paperboy subscription add` printed"
            );
        }
        if !self.bind.is_loopback() {
            eprintln!("warning: `{}` is open to the network", self.bind);
        }
        let mut count = Count::default();
        // A reader who is gone (`paperboy listen | head`) ends it like ctrl-C.
        let mut tell = |arrival: &Arrival| {
            count.add(&arrival.signature);
            self.print(common, count.requests, arrival).is_ok()
        };
        loop {
            let arrival = tokio::select! {
                arrival = receiver.next() => arrival,
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
            };
            match arrival {
                Some(arrival) if tell(&arrival) => {}
                _ => break,
            }
        }
        // What was answered already is told before the end.
        receiver.rest().iter().all(tell);
        eprintln!("{}", count.sentence());
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let mut secrets = self.secret.clone();
        if let Some(path) = &self.secret_file {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = secrets.len();
            secrets.extend(lines.map(str::to_owned));
            if secrets.len() == before {
                return Err(Failure::usage(format!("`{}` holds no secret", path.display()))
                    .hint("write one `whsec_…` a line"));
            }
        }
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (place, secret) in secrets.iter().enumerate() {
            match receiver::key(secret) {
                Some(key) => keys.push(key),
                // Never the secret itself: it may be right but for a letter.
                None => problems.push(Problem {
                    message: format!("secret {} is not one", place + 1),
                    hint: Some(
                        "a secret is `whsec_` and base64, as `paperboy subscription add` prints it".into(),
                    ),
                }),
            }
        }
        if problems.is_empty() { Ok(keys) } else { Err(Failure::refused(problems)) }
    }

    fn print(&self, common: &Common, number: u64, arrival: &Arrival) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if common.json {
            writeln!(out, "{}", line(number, arrival, self.raw))?;
        } else {
            out.write_all(&block(number, arrival, self.raw))?;
        }
        out.flush()
    }
}

/// What arrived, for the last line.
#[derive(Default)]
struct Count {
    requests: u64,
    verified: u64,
    stale: u64,
    wrong: u64,
    unsigned: u64,
    unchecked: u64,
}

impl Count {
    fn add(&mut self, signature: &Signature) {
        self.requests += 1;
        let counter = match signature {
            Signature::Verified { .. } if signature.is_good() => &mut self.verified,
            Signature::Verified { .. } => &mut self.stale,
            Signature::Wrong(_) => &mut self.wrong,
            Signature::Unsigned => &mut self.unsigned,
            Signature::Unchecked => &mut self.unchecked,
        };
        *counter += 1;
    }

    fn sentence(&self) -> String {
        let kinds = [
            (self.verified, "verified"),
            (self.stale, "verified but too old"),
            (self.wrong, "signed WRONG"),
            (self.unsigned, "unsigned"),
            (self.unchecked, "not checked"),
        ];
        let kinds =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        let noun = if self.requests == 1 { "request" } else { "requests" };
        let colon = if kinds.is_empty() { "" } else { ": " };
        format!("{} {noun}{colon}{kinds}", self.requests)
    }
}

/// What a person reads about the signature.
fn verdict(signature: &Signature) -> String {
    match signature {
        Signature::Verified { age_s } if signature.is_good() => {
            format!("signature verified, {}", ago(*age_s))
        }
        Signature::Verified { age_s } => format!(
            "signature verified, but {}: receivers refuse what is more than {TIMESTAMP_TOLERANCE_S} s away",
            ago(*age_s)
        ),
        Signature::Wrong(why) => format!("signature WRONG: {why}"),
        Signature::Unsigned => "unsigned".to_owned(),
        Signature::Unchecked => "signature not checked: no secret was given".to_owned(),
    }
}

fn ago(age_s: i64) -> String {
    if age_s < 0 {
        format!("dated {} s ahead of this clock", age_s.unsigned_abs())
    } else {
        format!("{age_s} s old")
    }
}

/// One request for people: what a stranger sent stands indented, so that it cannot pass for a line of ours.
fn block(number: u64, arrival: &Arrival, raw: bool) -> Vec<u8> {
    let request = &arrival.request;
    let (time, path) = (output::moment(request.at_ms), output::printable(&request.path));
    let mut block = format!("#{number}  {time}  {} {path}  -> {}\n", request.method, arrival.status.as_u16());
    block.push_str(&format!("    {}\n", output::printable(&verdict(&arrival.signature))));
    for (name, value) in &request.headers {
        let value = header_value(name.as_str(), &String::from_utf8_lossy(value.as_bytes()), raw);
        block.push_str(&format!("    {name}: {}\n", output::printable(&value)));
    }
    let body = &request.body;
    if raw {
        let mut bytes = block.into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\n\n");
        return bytes;
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(BODY_SHOWN)]);
    for line in output::printable(&text).lines() {
        block.push_str(&format!("  | {line}\n"));
    }
    if body.len() > BODY_SHOWN {
        block.push_str(&format!("    … {} more bytes; `--raw` prints all\n", body.len() - BODY_SHOWN));
    }
    block.push('\n');
    block.into_bytes()
}

/// A credential's value is hidden but for its scheme and length.
fn header_value(name: &str, value: &str, raw: bool) -> String {
    if raw || !CREDENTIALS.contains(&name) {
        return value.to_owned();
    }
    let scheme = value.split_once(' ').map_or("", |(scheme, _)| scheme);
    format!("{scheme} *** ({} characters)", value.chars().count()).trim_start().to_owned()
}

/// One request for scripts: the whole body, as text where it is text.
fn line(number: u64, arrival: &Arrival, raw: bool) -> Value {
    let request = &arrival.request;
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &request.headers {
        let value = header_value(name.as_str(), &String::from_utf8_lossy(value.as_bytes()), raw);
        // A header that comes twice is one with commas, as HTTP reads it.
        match headers.get_mut(name.as_str()) {
            Some(Value::String(before)) => before.push_str(&format!(", {value}")),
            _ => drop(headers.insert(name.to_string(), value.into())),
        }
    }
    let (word, why, age_s) = match &arrival.signature {
        Signature::Verified { age_s } if arrival.signature.is_good() => ("verified", None, Some(*age_s)),
        Signature::Verified { age_s } => ("stale", Some(verdict(&arrival.signature)), Some(*age_s)),
        Signature::Wrong(why) => ("wrong", Some(why.clone()), None),
        Signature::Unsigned => ("unsigned", None, None),
        Signature::Unchecked => ("unchecked", None, None),
    };
    let text = std::str::from_utf8(&request.body).ok();
    json!({
        "request": number,
        "at": output::moment(request.at_ms),
        "method": request.method,
        "path": request.path,
        "webhook_id": request.header("webhook-id"),
        "attempt": request.header("paperboy-attempt").parse::<u32>().ok(),
        "signature": word,
        "why": why,
        "age_s": age_s,
        "headers": headers,
        "body_bytes": request.body.len(),
        "body": text,
        "body_base64": text.is_none().then(|| BASE64.encode(&request.body)),
        "status": arrival.status.as_u16(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::body::Bytes;
    use axum::http::HeaderMap;

    use super::*;
    use crate::cli::receiver::Incoming;

    fn arrival(body: impl Into<Bytes>, signature: Signature) -> Arrival {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer abcdef".parse().unwrap());
        let request = Incoming {
            at: Instant::now(),
            at_ms: 1_800_000_000_000,
            method: "POST".into(),
            path: "/hook".into(),
            headers,
            body: body.into(),
            nth: 1,
        };
        Arrival { request, signature, status: StatusCode::OK }
    }

    #[test]
    fn a_block_says_plainly_what_the_signature_is() {
        for (signature, says) in [
            (Signature::Verified { age_s: 3 }, "    signature verified, 3 s old\n"),
            (Signature::Verified { age_s: 301 }, "    signature verified, but 301 s old: receivers refuse"),
            (Signature::Verified { age_s: -400 }, "but dated 400 s ahead of this clock: receivers refuse"),
            (Signature::Wrong("no".into()), "    signature WRONG: no\n"),
            (Signature::Unsigned, "    unsigned\n"),
            (Signature::Unchecked, "    signature not checked"),
        ] {
            let block = String::from_utf8(block(1, &arrival("{}", signature), false)).unwrap();
            assert!(block.contains(says), "{block}");
        }
    }

    #[test]
    fn a_body_cannot_pass_for_a_line_of_ours_or_drive_the_terminal() {
        let forged = arrival("{}\n#2  …\n    signature verified\u{1b}[2J", Signature::Unsigned);
        let block = String::from_utf8(block(1, &forged, false)).unwrap();
        assert!(block.ends_with("  | {}\n  | #2  …\n  |     signature verified\\u{1b}[2J\n\n"), "{block}");
    }

    #[test]
    fn a_long_body_is_cut_and_raw_is_whole() {
        let long = "x".repeat(BODY_SHOWN + 7);
        let shown = block(1, &arrival(long.clone(), Signature::Unsigned), false);
        assert!(String::from_utf8(shown).unwrap().contains("… 7 more bytes; `--raw` prints all"));
        let raw = block(1, &arrival(&b"\xff\x1b"[..], Signature::Unsigned), true);
        assert!(raw.ends_with(b"\n\n\xff\x1b\n\n"));
    }

    #[test]
    fn credentials_are_hidden_unless_asked_for() {
        let hidden = line(1, &arrival("{}", Signature::Unsigned), false);
        assert_eq!(hidden["headers"]["authorization"], "Bearer *** (13 characters)");
        let shown = line(1, &arrival("{}", Signature::Unsigned), true);
        assert_eq!(shown["headers"]["authorization"], "Bearer abcdef");
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        let line = line(1, &arrival(&b"\xff"[..], Signature::Verified { age_s: 301 }), false);
        assert_eq!(
            (&line["body"], &line["body_base64"], &line["signature"]),
            (&Value::Null, &json!("/w=="), &json!("stale"))
        );
    }

    #[test]
    fn the_last_line_counts_by_kind() {
        let mut count = Count::default();
        assert_eq!(count.sentence(), "0 requests");
        [Signature::Verified { age_s: 0 }, Signature::Wrong(String::new()), Signature::Unsigned]
            .iter()
            .for_each(|signature| count.add(signature));
        assert_eq!(count.sentence(), "3 requests: 1 verified, 1 signed WRONG, 1 unsigned");
    }
}
