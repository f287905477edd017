//! The whole program against real RabbitMQ, Redis and PostgreSQL, started by `./test`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says where its logs are"
)]

mod answers;
mod api;
mod api_limits;
mod api_subscriptions;
mod apply;
mod bad_input;
mod batches;
mod bench;
mod body_faults;
mod broker;
mod calls;
mod canary;
mod cli;
mod config;
mod dead_letters;
mod deliveries;
mod deliveries_api;
mod delivery;
mod deploy;
mod docs;
mod door;
mod fairness;
mod faults;
mod notices;
mod ops;
mod platform_documents;
mod platform_door;
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
mod store_streaks;
mod subscriptions;
mod support;
mod tidy;
mod tokens;
