//! The init alone: for tests and benches, and for programs that would rather not be their own init.

use std::process::ExitCode;

fn main() -> ExitCode {
    atoll_container_bridge::init::main()
}
