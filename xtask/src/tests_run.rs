//! Runs every test.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::{instructions, shell};

/// Builds everything once and runs the tests, those that match `filter` if there is one.
///
/// # Errors
/// Something is missing, does not build, or fails.
pub fn run(filter: &[&str]) -> anyhow::Result<()> {
    step("setup", || setup::run(Purpose::Test))?;
    // The cluster tests start these programs. The same profile and the same set of packages as the
    // tests have: nothing is built twice.
    step("build", || {
        shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--locked"]))
    })?;
    // One name asks for one test: the models are run with all of them, or by their own names.
    if filter.is_empty() || filter.iter().any(|name| name.contains("loom")) {
        step("model checks", model_checks)?;
    }
    if filter.is_empty() || filter.contains(&"instructions") {
        step("instructions", instructions::gate)?;
    }
    if shell::has("cargo-nextest") {
        step("tests", || {
            shell::run(
                shell::cargo()
                    .args([
                        "nextest",
                        "run",
                        "--workspace",
                        "--locked",
                        "--no-fail-fast",
                    ])
                    .args(filter),
            )
        })?;
        return Ok(());
    }
    eprintln!("    cargo-nextest is not installed: `cargo test` does it, more slowly");
    let mut total = Summary::default();
    // What loads the machine runs alone, as `.config/nextest.toml` has it.
    for (name, args) in [
        ("tests", ["--skip", "cluster_"].as_slice()),
        ("cluster tests", ["cluster_", "--test-threads=1"].as_slice()),
    ] {
        eprintln!("==> {name}");
        let summary = cargo_test(filter, args)?;
        total.passed += summary.passed;
        total.failed += summary.failed;
        total.broken |= summary.broken;
    }
    let verdict = if total.is_ok() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} passed; {} failed",
        total.passed, total.failed
    );
    ensure!(total.is_ok(), "tests failed");
    Ok(())
}

/// Runs the scheduler's lock-free protocols in every interleaving. The model checker takes the
/// place of the atomics by a `cfg`, which would build everything anew: so this crate alone, in a
/// folder of its own.
fn model_checks() -> anyhow::Result<()> {
    let target = shell::target_dir()?.join("loom");
    shell::run(
        shell::cargo()
            .args(["test", "--locked", "--package", "ballast-scheduler"])
            .args(["--lib", "loom_"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", target),
    )
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    /// The runner ended badly: a test aborted, or nothing was built.
    broken: bool,
}

impl Summary {
    fn is_ok(&self) -> bool {
        self.failed == 0 && !self.broken && self.passed > 0
    }

    /// Adds one binary's `test result:` line.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let number: u64 = number.parse().unwrap_or_default();
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

fn cargo_test(filter: &[&str], args: &[&str]) -> anyhow::Result<Summary> {
    let mut child = shell::cargo()
        .args(["test", "--workspace", "--locked", "--no-fail-fast", "--"])
        .args(args)
        .args(filter)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read cargo's output")?;
        println!("{line}");
        summary.add(&line);
    }
    summary.broken = !child.wait().context("cargo vanished")?.success();
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_binaries_add_up() {
        let mut summary = Summary::default();
        summary.add("test a::b ... ok");
        summary.add("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        summary.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; finished");
        assert_eq!((summary.passed, summary.failed), (5, 1));
        assert!(!summary.is_ok());
    }
}
