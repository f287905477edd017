//! A way to Redis that a test can make refuse, fall silent or work again.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::free_port;

/// What becomes of a command.
#[derive(Clone, Debug)]
enum Mood {
    Works,
    /// Answered with this error.
    Refuses(String),
    /// The same, where it would change something.
    RefusesWrites(String),
    /// Left lying, as long as this lasts.
    Silent,
}

/// Stands before a Redis.
pub(crate) struct RedisTap {
    port: u16,
    mood: watch::Sender<Mood>,
    task: JoinHandle<()>,
}

impl RedisTap {
    /// Before the Redis at this loopback port; passes everything on.
    pub(crate) async fn before(redis: u16) -> RedisTap {
        let (port, (mood, seen)) = (free_port(), watch::channel(Mood::Works));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, redis, seen.clone()));
            }
        });
        RedisTap { port, mood, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn work(&self) {
        self.set(Mood::Works);
    }

    /// Answers every command with an error such as `LOADING Redis is loading`.
    pub(crate) fn refuse(&self, error: &str) {
        self.set(Mood::Refuses(error.to_owned()));
    }

    pub(crate) fn refuse_writes(&self, error: &str) {
        self.set(Mood::RefusesWrites(error.to_owned()));
    }

    pub(crate) fn fall_silent(&self) {
        self.set(Mood::Silent);
    }

    fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Drop for RedisTap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection: commands one way, one at a time, answers the other.
async fn serve(client: TcpStream, redis: u16, mood: watch::Receiver<Mood>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", redis)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let answers = tokio::spawn(pass_on(from_server, Arc::clone(&to_client)));
    let _ = commands(from_client, to_server, &to_client, mood).await;
    answers.abort();
}

async fn pass_on(mut from: OwnedReadHalf, to: Arc<tokio::sync::Mutex<OwnedWriteHalf>>) {
    let mut some = [0; 65_536];
    while let Ok(bytes @ 1..) = from.read(&mut some).await {
        if to.lock().await.write_all(&some[..bytes]).await.is_err() {
            return;
        }
    }
    // Redis is gone: so are we.
    let _ = to.lock().await.shutdown().await;
}

async fn commands(
    from: OwnedReadHalf,
    mut to_server: OwnedWriteHalf,
    to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
    mut mood: watch::Receiver<Mood>,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    while let Some((name, bytes)) = command(&mut from).await? {
        // Nobody can change it any more once the tap is gone.
        let Ok(now) = mood.wait_for(|mood| !matches!(mood, Mood::Silent)).await.map(|now| now.clone()) else {
            return Ok(());
        };
        match now {
            Mood::Refuses(error) => answer(to_client, &error).await?,
            Mood::RefusesWrites(error) if WRITES.contains(&name.as_str()) => {
                answer(to_client, &error).await?
            }
            Mood::Works | Mood::RefusesWrites(_) | Mood::Silent => to_server.write_all(&bytes).await?,
        }
    }
    Ok(())
}

/// Those that we use.
const WRITES: [&str; 9] = ["SET", "SETEX", "SETNX", "EVAL", "EVALSHA", "SADD", "SREM", "DEL", "HSET"];

async fn answer(to_client: &tokio::sync::Mutex<OwnedWriteHalf>, error: &str) -> std::io::Result<()> {
    to_client.lock().await.write_all(format!("-{error}\r\n").as_bytes()).await
}

/// The next command: its name and its bytes as they came (an array of bulk strings, as clients send).
async fn command(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    let mut name = String::new();
    for _ in 0..number(&bytes) {
        let start = bytes.len();
        from.read_until(b'\n', &mut bytes).await?;
        let (text, length) = (bytes.len(), number(&bytes[start..]));
        bytes.resize(text + length + 2, 0);
        from.read_exact(&mut bytes[text..]).await?;
        if name.is_empty() {
            name = String::from_utf8_lossy(&bytes[text..text + length]).to_uppercase();
        }
    }
    Ok(Some((name, bytes)))
}

/// Of `*3` or `$12`.
fn number(line: &[u8]) -> usize {
    String::from_utf8_lossy(line).trim()[1..].parse().unwrap()
}
