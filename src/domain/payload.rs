//! The bytes of a request's body, in pieces that are signed and sent one after the other.
//!
//! What is large is a piece of its own and shared with the message it came with: a delivery never holds a body twice.

use std::fmt;

use bytes::Bytes;

/// A body in up to three pieces; empty ones count for nothing.
#[derive(Clone, Default, Eq)]
pub struct Payload([Bytes; 3]);

impl Payload {
    /// Something shared with a few bytes of ours around it.
    pub fn around(before: Vec<u8>, shared: Bytes, after: &'static [u8]) -> Payload {
        Payload([before.into(), shared, Bytes::from_static(after)])
    }

    /// Something shared between bytes of ours.
    pub fn between(before: Vec<u8>, shared: Bytes, after: Vec<u8>) -> Payload {
        Payload([before.into(), shared, after.into()])
    }

    /// Bytes of all pieces together.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> impl DoubleEndedIterator<Item = &Bytes> {
        self.0.iter().filter(|piece| !piece.is_empty())
    }

    /// All of it in one; a copy, unless it is one piece.
    pub fn joined(&self) -> Bytes {
        let mut pieces = self.pieces();
        match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => self.0.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(whole: Bytes) -> Payload {
        Payload([whole, Bytes::new(), Bytes::new()])
    }
}

impl From<Vec<u8>> for Payload {
    fn from(whole: Vec<u8>) -> Payload {
        Bytes::from(whole).into()
    }
}

/// How long it is, and nothing of it.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// The same bytes, wherever they are cut.
impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.joined() == other.joined()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_body() {
        let shared = Bytes::from_static(b"[1]");
        let payload = Payload::around(b"{\"a\":".to_vec(), shared.clone(), b"}");
        assert_eq!((payload.len(), payload.joined()), (9, Bytes::from_static(b"{\"a\":[1]}")));
        assert_eq!(payload, Payload::from(b"{\"a\":[1]}".to_vec()));
        assert_eq!(payload.pieces().nth(1).unwrap().as_ptr(), shared.as_ptr(), "nothing is copied");
        assert!(
            Payload::default().is_empty() && Payload::from(Bytes::new()).is_empty() && !payload.is_empty()
        );
        assert_eq!(Payload::default().joined(), Bytes::new());
    }
}
