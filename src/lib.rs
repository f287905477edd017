//! Paperboy: a webhook delivery worker for document platforms.
//!
//! One message is one straight line: bytes → event → matching subscriptions → signed request → answer →
//! verdict → settle. [`domain`] holds everything of it that does not wait; [`worker`] runs it over the traits
//! of [`broker`], [`cache`] and [`http`]; [`cli`] chooses the real services in one place.

pub mod api;
pub mod broker;
pub mod cache;
pub mod cli;
pub mod config;
pub mod desk;
pub mod domain;
pub mod http;
pub mod store;
pub mod worker;
