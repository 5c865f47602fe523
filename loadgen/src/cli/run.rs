//! One run: start, look on, print, write.

use anyhow::{Context, Result};
use ballast_loadgen::Report;

use super::args::RunArgs;
use super::build::{Ready, build};
use super::drive::Driver;
use super::outputs::{self, Losses};

/// Exit status: a result is lost.
pub const LOST: u8 = 4;

/// Does what the flags say; returns the exit status.
pub fn run(args: &RunArgs) -> Result<u8> {
    outputs::check(&args.out)?;
    let Ready { plan, notes } = build(args)?;
    for note in &notes {
        eprintln!("ballast-loadgen: {note}");
    }
    let driver = Driver::new(&args.machine).context("cannot watch for Ctrl-C")?;
    if args.judge.find_max {
        return super::find_max::run(args, &plan, &driver);
    }
    let driver = driver.showing(&args.out);
    let mut outcome = driver.drive(plan)?;
    outcome.report.assert(&args.judge.slo);
    Ok(finish(args, &outcome.report))
}

/// Prints the report, writes what was asked for, judges; returns the exit status.
fn finish(args: &RunArgs, report: &Report) -> u8 {
    let mut losses = Losses::default();
    if !outputs::takes_stdout(&args.out) {
        losses.note("standard output", outputs::print(&report.to_string()));
    }
    outputs::write_all(&args.out, report, &mut losses);
    for slo in report.slos.iter().filter(|slo| !slo.met) {
        eprintln!("SLO missed: {}", slo.miss);
    }
    if losses.is_empty() {
        report.exit_status()
    } else {
        LOST
    }
}
