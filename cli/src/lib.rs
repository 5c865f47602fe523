//! The `ballast` binary: commands, their rendering, and the composition of the roles.
//!
//! It decides nothing: a command is one or two requests to the API, and what comes back is shown.
//! Deliberately absent: any rule about services (those are `ballast_model::validate` and the
//! manager's), and any state between two runs.
//!
//! * [`args`]: the command line
//! * [`api`]: the client of the HTTP API
//! * [`command`]: what each command does
//! * [`render`]: tables and JSON
//! * [`compose`]: Compose files → service specs
//! * [`role`]: manager, agent, ingress, and all three in one process
//! * [`failure`]: what ends a command, and its exit status

pub mod api;
pub mod args;
pub mod command;
pub mod compose;
pub mod failure;
pub mod render;
pub mod role;

use std::process::ExitCode;

use clap::Parser;

pub use failure::Failure;

/// Runs the command line of this process; returns its exit status.
///
/// Statuses: 0 done, 1 refused or failed (the reason is on standard error), 2 usage.
pub fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are `Err` too; clap knows which of them go to standard output.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.report());
            ExitCode::from(failure.exit_status())
        }
    }
}
