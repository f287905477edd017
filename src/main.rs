//! The `paperboy` program; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    paperboy::cli::run(std::env::args_os())
}
