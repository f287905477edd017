//! What batches and their documents are called, and the ids that are made of it.

use std::fmt;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use crate::domain::name::Tenant;

/// A random UUID of our own, under which ids of completions and of notices are made; never to be changed.
const NAMESPACE: [u8; 16] =
    [0x3c, 0x0e, 0x5b, 0x71, 0x8d, 0x24, 0x4f, 0x96, 0xa1, 0x5e, 0x92, 0x7b, 0x06, 0xd4, 0xc8, 0x1f];

/// Longest name, in bytes.
const BYTES_MAX: usize = 200;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What it must be, for messages.
            pub const RULE: &'static str = "1 to 200 bytes without control characters";

            /// None where the text cannot be kept.
            pub fn parse(text: &str) -> Option<$name> {
                let is_good = (1..=BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
                is_good.then(|| $name(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text!(
    /// What a producer calls a batch. Platforms name theirs freely ("Loan 7741"), so it may hold spaces.
    BatchId
);
text!(
    /// What a producer calls a document.
    DocumentId
);

/// The id of the event that tells of a batch's completion: always the same, however often it is published.
pub fn completion_id(tenant: &Tenant, batch: &BatchId) -> String {
    uuid_of(&[tenant.as_str(), batch.as_str()])
}

/// The id of the notice that a document was late.
pub fn late_id(tenant: &Tenant, batch: &BatchId, document: &DocumentId) -> String {
    uuid_of(&[tenant.as_str(), batch.as_str(), document.as_str()])
}

/// A version 5 UUID (RFC 9562 §5.5) over names that hold no zero byte.
fn uuid_of(names: &[&str]) -> String {
    let mut hash = Sha1::new();
    hash.update(NAMESPACE);
    hash.update(names.join("\0"));
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid().to_string()
}
