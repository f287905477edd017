//! The whole program against real RabbitMQ, Redis and PostgreSQL, started by `./test`.

mod bad_input;
mod cli;
mod delivery;
mod faults;
mod postgres;
mod store_and_cache;
mod store_contract;
mod support;
mod tidy;
