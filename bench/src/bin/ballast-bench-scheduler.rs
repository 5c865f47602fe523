//! What `cargo xtask bench scheduler` runs: `ballast-bench-scheduler [--json FILE] [--keep FOLDER]
//! [--only CASE] [--runs N]`.

use std::process::ExitCode;

use ballast_bench::{Options, scheduler};

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1))
        .and_then(|options| options.report(&[scheduler::run(&options)]));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
