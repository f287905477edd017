//! The whole program against real RabbitMQ and Redis, started by `./test`.

mod bad_input;
mod bench;
mod cli;
mod delivery;
mod faults;
mod store_and_cache;
mod support;
mod tidy;
