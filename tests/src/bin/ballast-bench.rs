//! What `cargo xtask bench` runs: `ballast-bench NAME [--json FILE] [--keep FOLDER]`.
//!
//! `--json` writes the figures as an array; `--keep` writes everything to
//! `FOLDER/<date>-<name>/run.json`, as published figures need it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use ballast_bench::Options;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args
        .next()
        .context("usage: ballast-bench NAME [--json FILE] [--keep FOLDER]")?;
    let options = Options::parse(args)?;
    options.report(&ballast_tests::bench::run(&name)?)
}
