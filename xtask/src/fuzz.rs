//! libFuzzer on the toolchain that everything else is built with.
//!
//! cargo-fuzz asks for nightly because it turns the address sanitizer on. What libFuzzer itself
//! needs (counters at every edge, operands of comparisons) stable has flags for, and the targets
//! are of code without `unsafe`: panics, overflows and what a target asserts are what is looked
//! for.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::progress::step;
use crate::shell;

const MANIFEST: &str = "fuzz/Cargo.toml";
/// Inputs to begin with, by target.
const SEEDS: &str = "fuzz/seeds";
/// How long each target runs, unless the user says otherwise.
const SECONDS: u32 = 60;
/// One input that takes longer is a finding, too.
const INPUT_SECONDS: u32 = 10;
/// Memory after which a target is stopped as a finding: decoders have limits far below.
const MEMORY_MIB: u32 = 2048;

/// What libFuzzer is fed by, and what turns an overflow into a finding.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=yes -Coverflow-checks=yes --cfg fuzzing";

/// Runs every target, or one, for so many seconds.
///
/// # Errors
/// The arguments are wrong, a target does not build, or it found something.
pub fn run(args: &[&str]) -> Result<()> {
    let known = targets()?;
    let mut seconds = SECONDS;
    let mut chosen = Vec::new();
    for arg in args {
        if let Ok(number) = arg.parse() {
            seconds = number;
        } else if known.iter().any(|target| target == arg) {
            chosen.push((*arg).to_owned());
        } else {
            bail!("no fuzz target `{arg}`; there are: {}", known.join(", "));
        }
    }
    if chosen.is_empty() {
        chosen = known;
    }
    let host = host()?;
    let build = shell::target_dir()?.join("fuzz");
    step("building the fuzz targets", || {
        let mut cargo = shell::cargo();
        cargo.args([
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            MANIFEST,
        ]);
        // With a target named, build scripts and macros stay as they are.
        cargo.args(["--target", &host, "--target-dir"]).arg(&build);
        for target in &chosen {
            cargo.args(["--bin", target]);
        }
        shell::run(cargo.env("RUSTFLAGS", RUSTFLAGS))
    })?;
    for target in &chosen {
        let program = build.join(&host).join("release").join(target);
        step(&format!("fuzz {target}"), || {
            fuzz(&build, &program, target, seconds)
        })?;
    }
    Ok(())
}

fn fuzz(build: &Path, program: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = build.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let findings = build.join("findings");
    std::fs::create_dir_all(&findings).with_context(|| findings.display().to_string())?;
    let mut command = shell::command(program);
    // What it learns goes to the first folder, the others are only read.
    command.arg(&corpus);
    let seeds = shell::root().join(SEEDS).join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_SECONDS}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        format!("-artifact_prefix={}/{target}-", findings.display()),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    let status = shell::status(&mut command)?;
    ensure!(
        status.success(),
        "{target} found something: {}",
        findings.display()
    );
    Ok(())
}

/// Returns the names of the targets.
fn targets() -> Result<Vec<String>> {
    let folder = shell::root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            names.extend(stem.map(str::to_owned));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns what this machine is to the compiler.
fn host() -> Result<String> {
    let about = shell::output(shell::command("rustc").arg("-vV"))?;
    let line = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names no host")?.to_owned())
}
