//! `ballast-task-exec`: what `ballast task-exec` is, alone, for this crate's tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    ballast_agent::task_exec::run_if_asked().unwrap_or(ExitCode::from(2))
}
