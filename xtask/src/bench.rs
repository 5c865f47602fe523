//! Builds and starts the measurements, which live in `tests/` with the cluster harness.

use anyhow::bail;

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::shell;

/// Measures `name`.
///
/// # Errors
/// There is no such bench, something is missing or does not build, or it could not be measured.
pub fn run(name: &str, args: &[&str]) -> anyhow::Result<()> {
    if !["failover", "scale", "all"].contains(&name) {
        bail!("there is no bench `{name}`; there are failover, scale, all");
    }
    step("setup", || setup::run(Purpose::Bench))?;
    // Only what is measured is built for speed: fat LTO takes minutes for each program. What
    // drives and looks on is the same as in the tests.
    step("release build", || {
        shell::run(shell::cargo().args([
            "build",
            "--release",
            "--locked",
            "--package",
            "ballast-cli",
            "--package",
            "ballast-hello",
            "--bins",
        ]))
    })?;
    step("build", || {
        shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--locked"]))
    })?;
    let mut bench = shell::built("ballast-bench")?;
    let release = shell::target_dir()?.join("release");
    shell::run(bench.arg(name).args(args).env("BALLAST_BIN_DIR", release))
}
