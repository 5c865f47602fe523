//! The commands `compare` and `ab`.

use anyhow::{Context, Result, ensure};
use ballast_loadgen::Report;
use ballast_loadgen::compare::Comparison;
use ballast_loadgen::compare::ab::{self, Turn};
use ballast_loadgen::compare::args::{AbArgs, CompareArgs};
use ballast_loadgen::plan::Plan;
use clap::Args;

use super::args::RunArgs;
use super::build::build;
use super::drive::Driver;
use super::outputs::{self, Losses};
use super::run::LOST;

/// Two targets in turn.
#[derive(Debug, Args)]
pub struct AbCommand {
    /// How each turn is made.
    #[command(flatten)]
    pub run: RunArgs,
    /// How many turns, and how long.
    #[command(flatten)]
    pub turns: AbArgs,
}

/// A turn that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct NoTurn(anyhow::Error);

/// Compares the reports of earlier runs; returns the exit status.
pub fn compare(args: &CompareArgs) -> Result<u8> {
    let compared = args.compare()?;
    let mut losses = Losses::default();
    let to_stdout = args
        .json
        .as_ref()
        .is_some_and(|path| path.as_os_str() == "-");
    if !to_stdout {
        for comparison in &compared {
            losses.note("standard output", outputs::print(&comparison.to_string()));
        }
    }
    match (&args.json, &compared[..]) {
        (Some(path), [only]) => outputs::write_json(path, only, &mut losses),
        (Some(path), several) => outputs::write_json(path, &several, &mut losses),
        (None, _) => {}
    }
    let worst = compared.iter().map(Comparison::exit_status).max();
    Ok(status(&losses, worst.unwrap_or_default()))
}

/// Drives two targets in turn and compares them; returns the exit status.
pub fn ab(command: &AbCommand) -> Result<u8> {
    let args = &command.run;
    outputs::check(&args.out)?;
    ensure!(
        args.ask.urls.len() == 2 && args.ask.targets.is_empty(),
        "ab needs two URLs: the one that is compared with, and the other"
    );
    let names = [args.ask.urls[0].as_str(), args.ask.urls[1].as_str()];
    let plans = [only(args, 0)?, only(args, 1)?];
    let driver = Driver::new(&args.machine).context("cannot watch for Ctrl-C")?;
    let turn = |turn: Turn, span| -> Result<Report, NoTurn> {
        let plan = Plan {
            duration: span,
            ..plans[usize::from(turn == Turn::B)].clone()
        };
        Ok(driver.drive(plan).map_err(NoTurn)?.report)
    };
    let quiet = args.out.quiet;
    let compared = ab::run(
        &command.turns.options(),
        names,
        turn,
        |so_far| {
            if !quiet {
                // People look on; what is kept goes to standard output.
                eprintln!("{so_far}");
            }
        },
        || driver.interrupts.count() > 0,
    )?;
    let mut losses = Losses::default();
    if !outputs::takes_stdout(&args.out) {
        losses.note("standard output", outputs::print(&compared.to_string()));
    }
    if let Some(path) = &args.out.json {
        outputs::write_json(path, &compared, &mut losses);
    }
    Ok(status(&losses, compared.exit_status()))
}

/// Returns the plan of one of the two URLs.
fn only(args: &RunArgs, index: usize) -> Result<Plan> {
    let mut args = args.clone();
    args.ask.urls = vec![args.ask.urls[index].clone()];
    Ok(build(&args)?.plan)
}

fn status(losses: &Losses, status: u8) -> u8 {
    if losses.is_empty() { status } else { LOST }
}
