//! The whole program against real RabbitMQ and Redis, started by `./test`.

mod delivery;
mod faults;
mod store_and_cache;
mod support;
