//! The command line.
//!
//! - [`args`]: the flags; [`target`]: those with a form of their own
//! - [`build`]: from flags to a plan, with what contradicts itself refused
//! - [`run`]: one run; [`drive`]: here, or on workers; [`find_max`]: many, to the highest rate that meets the objectives
//! - [`compare`]: the commands `compare` and `ab`
//! - [`outputs`]: print first, then write
//! - `interrupt`: Ctrl-C

pub mod args;
mod build;
mod compare;
mod drive;
mod find_max;
mod interrupt;
mod outputs;
mod run;
mod target;
mod work;

use std::process::ExitCode;

use args::{Cli, Command};

/// Does what the command line says.
pub fn main(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        None => run::run(&cli.run),
        Some(Command::Compare(args)) => compare::compare(args),
        Some(Command::Ab(command)) => compare::ab(command),
        Some(Command::Coordinate(args)) if args.machine.workers.is_empty() => {
            Err(anyhow::anyhow!("coordinate needs --workers HOST:PORT,…"))
        }
        Some(Command::Coordinate(args)) => run::run(args),
        Some(Command::Worker(args)) => work::run(args),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ballast-loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}
