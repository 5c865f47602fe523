//! The `ballast` binary; everything is in the library, where tests reach it.

use std::process::ExitCode;

/// Returns freed pages to the kernel and is faster than the system's under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ballast_cli::main()
}
