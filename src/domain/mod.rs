//! The pure core: bytes to events, events to requests, answers to verdicts.
//!
//! Nothing here waits, reads a clock, draws randomness, looks at the environment or writes a log;
//! whatever it needs of those arrives as an argument.

pub mod auth;
pub mod batch;
pub mod body;
pub mod cause;
pub mod delay;
pub mod event;
pub mod fault;
pub mod filter;
pub mod headers;
pub mod history;
pub mod key;
pub mod keyring;
pub mod matching;
pub mod name;
pub mod notice;
pub mod outcome;
pub mod payload;
pub mod placeholder;
pub mod places;
pub mod pointer;
pub mod preset;
pub mod reply;
pub mod request;
pub mod retry;
pub mod seal;
pub mod secret;
pub mod signature;
pub mod source;
pub mod spec;
pub mod statuses;
pub mod streak;
pub mod subscription;
pub mod template;
pub mod time;
pub mod veil;
