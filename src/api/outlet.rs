//! The way out of a connection: given up when an answer is not read in time.
//!
//! Whoever asks and never reads would keep the answer, the connection and its place for good: the kernel goes on
//! probing a reader that has no room, and no other limit is about writing.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose writes are patient for so long.
pub(super) struct Outlet<S> {
    stream: S,
    patience: Duration,
    /// Runs from the first write that had to wait until all that was written is gone.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Outlet<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Outlet<S> {
        Outlet { stream, patience, waiting: None }
    }

    /// What a write came to; none that waits waits for ever.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outlet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outlet<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked for once everything before it is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        let flushed = ready!(self.in_time(context, flushed));
        self.waiting = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn answer(outlet: &mut Outlet<impl AsyncWrite + Unpin>, bytes: usize) -> io::Result<()> {
        outlet.write_all(&vec![b'x'; bytes]).await?;
        outlet.flush().await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let (ours, _theirs) = duplex(64);
        let began = tokio::time::Instant::now();
        let error = answer(&mut Outlet::new(ours, PATIENCE), 65).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    /// A byte now and then is no way to keep a place.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_in_time_as_a_whole() {
        let (ours, mut theirs) = duplex(64);
        let dripping = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let error = answer(&mut Outlet::new(ours, PATIENCE), 1_000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn every_answer_has_its_own_time() {
        let (ours, mut theirs) = duplex(64);
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 100];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut bytes).await.unwrap();
            }
        });
        let mut outlet = Outlet::new(ours, PATIENCE);
        for _ in 0..5 {
            answer(&mut outlet, 100).await.unwrap();
        }
        reading.await.unwrap();
    }
}
