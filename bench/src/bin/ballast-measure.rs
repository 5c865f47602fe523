//! What `cargo xtask bench` runs for all that needs no cluster: `ballast-measure NAME
//! [--json FILE] [--keep FOLDER] [--only CASE] [--runs N] [--pairs N] [--wait SECONDS] [--tiny]`.
//!
//! Exit status 0: measured; 1: a case failed; 4: nothing could be measured.

use std::process::ExitCode;

use anyhow::{Context, Result};
use ballast_bench::{Bench, Options};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let name = args.next().context("which bench?")?;
    let options = Options::parse(args)?;
    let benches = [ballast_bench::run(&name, &options)?];
    options.report(&benches)?;
    Ok(Bench::status(&benches))
}
