//! The whole program against real RabbitMQ, Redis and PostgreSQL, started by `./test`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says where its logs are"
)]

mod api;
mod apply;
mod bad_input;
mod batches;
mod bench;
mod broker;
mod canary;
mod cli;
mod config;
mod dead_letters;
mod deliveries;
mod delivery;
mod deploy;
mod docs;
mod door;
mod fairness;
mod faults;
mod ops;
mod platform_documents;
mod platform_snapshots;
mod platforms;
mod postgres;
mod redis_faults;
mod rotate_key;
mod scale;
mod sources;
mod store_and_cache;
mod store_batches;
mod store_contract;
mod store_deliveries;
mod store_replays;
mod subscriptions;
mod support;
mod tidy;
mod tokens;
