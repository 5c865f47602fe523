//! The binary `ballast-loadgen`.
//!
//! Exit status 0: valid and within the objectives; 1: an objective missed; 2: usage, or the run
//! could not be made; 3: invalid, the figures are the generator's and not the target's; 4: a result
//! that was measured could not be written.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::main(&cli::args::Cli::parse())
}
