//! The command `worker`.

use anyhow::{Context, Result};
use ballast_loadgen::fleet::worker::{Worker, WorkerOptions};
use ballast_loadgen::plan::Cores;

use super::args::WorkerArgs;

/// Serves coordinators until the process is ended; returns the exit status.
pub fn run(args: &WorkerArgs) -> Result<u8> {
    let cores = args.cores.as_ref().unwrap_or(&Cores::All);
    let options = WorkerOptions {
        token: args.token.clone(),
        cores: cores.resolve(&Cores::allowed()).context("--cores")?,
        once: args.once,
    };
    let lanes = options.cores.len();
    let worker = Worker::listen(args.listen, options)?;
    // Tests and scripts read the port from this line.
    let plural = if lanes == 1 { "" } else { "s" };
    println!(
        "listening on {} with {lanes} lane{plural}",
        worker.address()?
    );
    worker.serve(|line| eprintln!("{line}"))?;
    Ok(0)
}
