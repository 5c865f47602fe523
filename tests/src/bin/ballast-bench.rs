//! What `cargo xtask bench` runs for clusters: `ballast-bench NAME [--json FILE] [--keep FOLDER]
//! [--wait SECONDS] [--tiny]`.
//!
//! `--json` writes the figures as an array; `--keep` writes everything to
//! `FOLDER/<date>-<name>/run.json`, as published figures need it. Exit status 0: measured; 1: a
//! case failed; 4: nothing could be measured.

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
    let benches = [ballast_tests::bench::run(&name, &options)?];
    options.report(&benches)?;
    Ok(Bench::status(&benches))
}
