//! The main job, shown: a cluster on this machine, a service under load, faults, and a table.

mod acts;
mod report;
mod stage;
mod story;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use report::Report;

use stage::Stage;
use story::Story;

/// Replicas at first.
const REPLICAS: u32 = 5;
/// Scaled up to.
const MORE: u32 = 10;
/// Scaled down to.
const FEWER: u32 = 3;
/// Between the acts, so that what one does is not put down to the next.
const PAUSE: Duration = Duration::from_millis(1500);

/// Runs the demo and returns what it showed.
///
/// # Errors
/// If the cluster or the load cannot be started. Failed requests and faults that do not heal are
/// no errors: the report says so.
pub fn run(example: &Path) -> Result<Report> {
    let story = Story::begin();
    let stage = Stage::build(&story, example, REPLICAS)?;
    let load = stage.drive(&story)?;
    std::thread::sleep(PAUSE);
    let mut acts = Vec::new();
    for act in [
        acts::kill_a_replica,
        acts::hang_a_replica,
        acts::kill_a_node,
        acts::scale_up,
        acts::scale_down,
    ] {
        acts.push(act(&stage, &story));
        std::thread::sleep(PAUSE);
    }
    story.say("the load stops");
    let zero = load.zero;
    load.stop();
    let outcome = load.join().context("the load")?;
    let report = Report::new(stage.isolation(), zero, outcome, acts);
    stage.close(report.is_good());
    Ok(report)
}

/// Returns the example of this repository.
///
/// # Errors
/// If it is not there.
pub fn example() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/hello.yaml")
        .canonicalize()
        .context("examples/hello.yaml")
}
