//! The `ballast` binary; everything is in the library, where tests reach it.

use std::process::ExitCode;

/// Returns freed pages to the kernel and is faster than the system's under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Agents start this very program to become a task's: before any thread or runtime is there.
    if let Some(status) = ballast_agent::task_exec::run_if_asked() {
        return status;
    }
    ballast_cli::main()
}
