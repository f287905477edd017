//! The `paperboy` program; everything it does is in the library.

use std::process::ExitCode;

// A delivery is a hundred small allocations on every thread: a fifth of the worker's CPU with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    paperboy::cli::run(std::env::args_os())
}
