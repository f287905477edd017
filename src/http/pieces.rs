//! A body of several pieces on its way out, with the length it has altogether.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::domain::payload::Payload;

/// The client's body of a payload: the same memory, whether it is one piece or several.
pub(super) fn body(payload: &Payload) -> reqwest::Body {
    let mut pieces = payload.pieces();
    match (pieces.next(), pieces.next()) {
        (None, _) => Bytes::new().into(),
        (Some(only), None) => only.clone().into(),
        _ => reqwest::Body::wrap(Pieces(payload.pieces().rev().cloned().collect())),
    }
}

/// What is still to be sent, last piece first.
struct Pieces(Vec<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    /// Exact, so that the request has a `content-length` and is not chunked.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
