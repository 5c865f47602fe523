//! One run: start, look on, print, write.

use std::time::Duration;

use anyhow::{Context, Result};
use ballast_loadgen::plan::Plan;
use ballast_loadgen::{Outcome, Report, Running, Slo, Verdict};

use super::args::RunArgs;
use super::build::{Ready, build};
use super::interrupt::Interrupts;
use super::outputs::{self, Losses};

/// How often a run is looked at: nobody sees a shorter delay.
const LOOK: Duration = Duration::from_millis(100);

/// Exit status: within the objectives.
pub const OK: u8 = 0;
/// Exit status: an objective missed.
pub const MISSED: u8 = 1;
/// Exit status: the figures are not the target's.
pub const INVALID: u8 = 3;
/// Exit status: a result is lost.
pub const LOST: u8 = 4;

/// Does what the flags say; returns the exit status.
pub fn run(args: &RunArgs) -> Result<u8> {
    outputs::check(&args.out)?;
    let Ready { plan, notes } = build(args)?;
    for note in &notes {
        eprintln!("ballast-loadgen: {note}");
    }
    let interrupts = Interrupts::watch().context("cannot watch for Ctrl-C")?;
    if args.judge.find_max {
        return super::find_max::run(args, &plan, &interrupts);
    }
    let outcome = drive(plan, &interrupts)?;
    Ok(finish(args, &outcome.report))
}

/// Makes one run to its end, or to the first Ctrl-C; a second one gives up what is in flight.
pub fn drive(plan: Plan, interrupts: &Interrupts) -> Result<Outcome> {
    let before = interrupts.count();
    let running = ballast_loadgen::start(plan)?;
    while !running.is_finished() {
        heed(&running, interrupts.count() - before);
        std::thread::park_timeout(LOOK);
    }
    Ok(running.join()?)
}

fn heed(running: &Running, interrupts: u32) {
    match interrupts {
        0 => {}
        1 => running.stop(),
        _ => running.abort(),
    }
}

/// Prints the report, writes what was asked for, judges; returns the exit status.
pub fn finish(args: &RunArgs, report: &Report) -> u8 {
    let mut losses = Losses::default();
    if !outputs::takes_stdout(&args.out) {
        losses.note("standard output", outputs::print(&report.to_string()));
    }
    if let Some(path) = &args.out.json {
        match serde_json::to_vec_pretty(report) {
            Ok(mut json) => {
                json.push(b'\n');
                outputs::write(path, &json, &mut losses);
            }
            Err(error) => losses.note(&path.display().to_string(), Err(error.into())),
        }
    }
    let missed = missed(&args.judge.slo, report);
    for miss in &missed {
        eprintln!("SLO missed: {miss}");
    }
    match report.verdict {
        _ if !losses.is_empty() => LOST,
        Verdict::Invalid => INVALID,
        Verdict::Valid if !missed.is_empty() => MISSED,
        Verdict::Valid => OK,
    }
}

/// Returns how the report misses each objective that it misses.
pub fn missed(slos: &[Slo], report: &Report) -> Vec<String> {
    slos.iter().filter_map(|slo| slo.miss(report)).collect()
}
