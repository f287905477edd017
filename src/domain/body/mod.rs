//! A body in a receiver's own form: a JSON text with places that an event fills.
//!
//! A template is JSON itself. A string that is nothing but a place in braces (`"{tenant}"`) stands for that value;
//! a member named `...` whose value is `"{data}"` stands for the members of `data`, among the others. A string
//! that begins with `{{` is itself, without the first brace. What the event does not have is left out with its
//! member, and is `null` in a list.
//!
//! `data` goes in as the producer's bytes and is never written anew. Everything else is prepared once.

mod place;
mod template;

pub use self::place::{Names, Place};
pub use self::template::{BodyTemplate, Filled};

use crate::domain::fault::Fault;

/// The longest text of a template.
pub const TEMPLATE_BYTES_MAX: usize = 16 * 1024;
/// How deep a template may be nested.
const DEPTH_MAX: usize = 16;

/// Why an event cannot fill a body. Names the place, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the event's type has no name in `request.names`, which the body needs")]
    NoName,
    #[error("`data` is no object, and the body takes its members")]
    NotAnObject,
    #[error("the event's `time` cannot be written in the body's form")]
    Time,
}

/// Whether the text of `request.body` is a template and not the name of a form.
pub fn is_template(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn fault(message: impl Into<String>) -> Fault {
    Fault::new("", message.into())
}
