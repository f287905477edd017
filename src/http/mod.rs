//! The way out: one attempt over HTTP, to no address that is not allowed.
//!
//! This folder sends what `domain::request` made and says what came back. It does not retry, follow
//! redirects, use proxies, decode bodies or judge answers, and it keeps no event. Every outbound request of
//! Paperboy goes through [`Sender`], so that every one of them passes the [`guard`].

mod clients;
mod drains;
mod failure;
pub mod guard;
mod pieces;
mod resolver;
pub mod rule;
pub mod sender;
pub mod tokens;
mod whole;

use std::future::Future;

use crate::domain::{outcome::Answer, request::Request};

pub use sender::{Sender, SenderSettings};

/// Sends one request and tells what came back; failures are answers too.
pub trait Transport: Send + Sync + 'static {
    /// Returns at the latest after `request.timeout` and a quarter of a second.
    fn send(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

impl<T: Transport> Transport for std::sync::Arc<T> {
    fn send(&self, request: Request) -> impl Future<Output = Answer> + Send {
        T::send(self, request)
    }
}
