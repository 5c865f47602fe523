//! Builds and starts the demo, which lives in `tests/` with the cluster harness.

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::shell;

/// Shows the main job on this machine.
///
/// # Errors
/// Something is missing or does not build, a request failed, or a fault was not healed.
pub fn run(args: &[&str]) -> anyhow::Result<()> {
    step("setup", || setup::run(Purpose::Demo))?;
    // The profile and the packages of the tests: what one built, the other uses.
    step("build", || {
        shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--locked"]))
    })?;
    shell::run(shell::built("ballast-demo")?.args(args))
}
