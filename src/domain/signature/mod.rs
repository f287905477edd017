//! Signatures over the exact bytes of a request, one scheme a file.
//!
//! A scheme is prepared once per subscription (secrets decoded, keys set up) and then signs every attempt
//! afresh. It never looks inside the body. Verifying is the receiver's matter and is not here.

pub mod hmac;
pub mod standard;

use http::HeaderMap;

use crate::domain::payload::Payload;

/// A prepared signature scheme. A new scheme is one file and one variant.
#[derive(Clone, Debug)]
pub enum Scheme {
    Standard(standard::Standard),
    Hmac(hmac::HmacScheme),
}

impl Scheme {
    /// Adds this scheme's headers for one attempt.
    ///
    /// `id` is the value of `webhook-id` (a default header of every delivery, so no scheme repeats it),
    /// `timestamp` is Unix seconds, `body` the bytes as sent.
    pub fn sign(&self, id: &str, timestamp: i64, body: &Payload, headers: &mut HeaderMap) {
        match self {
            Scheme::Standard(scheme) => scheme.sign(id, timestamp, body, headers),
            Scheme::Hmac(scheme) => scheme.sign(id, timestamp, body, headers),
        }
    }

    /// The names of the headers that [`Scheme::sign`] adds, for finding clashes.
    pub fn header_names(&self) -> Vec<&str> {
        match self {
            Scheme::Standard(_) => vec![standard::TIMESTAMP, standard::SIGNATURE],
            Scheme::Hmac(scheme) => scheme.header_names(),
        }
    }

    /// Whether the receiver needs the attempt's time to verify.
    pub fn signs_timestamp(&self) -> bool {
        match self {
            Scheme::Standard(_) => true,
            Scheme::Hmac(scheme) => scheme.signs_timestamp(),
        }
    }

    /// Whether this scheme tells the receiver the attempt's time.
    pub fn sends_timestamp(&self) -> bool {
        match self {
            Scheme::Standard(_) => true,
            Scheme::Hmac(scheme) => scheme.sends_timestamp(),
        }
    }
}
