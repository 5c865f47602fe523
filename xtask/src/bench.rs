//! Builds and starts the measurements: those of clusters live in `tests/` with the cluster harness,
//! those of what runs in memory in `bench/`.

use anyhow::bail;

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::shell;

/// Measures `name`.
///
/// # Errors
/// There is no such bench, something is missing or does not build, or it could not be measured.
pub fn run(name: &str, args: &[&str]) -> anyhow::Result<()> {
    match name {
        "scheduler" => in_memory("ballast-bench-scheduler", args),
        "durable" | "failover" | "fleet" | "scale" => clusters(name, args),
        "all" => {
            in_memory("ballast-bench-scheduler", args)?;
            clusters(name, args)
        }
        _ => bail!(
            "there is no bench `{name}`; there are durable, failover, fleet, scale, scheduler, all"
        ),
    }
}

/// Builds one small program for speed, and runs it.
fn in_memory(program: &str, args: &[&str]) -> anyhow::Result<()> {
    step("release build", || {
        shell::run(shell::cargo().args([
            "build",
            "--release",
            "--locked",
            "--package",
            "ballast-bench",
            "--bin",
            program,
        ]))
    })?;
    let program = shell::target_dir()?.join("release").join(program);
    shell::run(shell::command(program).args(args))
}

fn clusters(name: &str, args: &[&str]) -> anyhow::Result<()> {
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
