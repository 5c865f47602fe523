//! The gate that every change passes, and what writes instead of checking.

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::{ebpf, shell, tests_run, tidy};

/// Formats the code.
pub fn fmt() -> anyhow::Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all"]))
}

/// Formats, and applies what clippy can.
pub fn fix() -> anyhow::Result<()> {
    shell::run(shell::cargo().args([
        "clippy",
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
        "--allow-staged",
    ]))?;
    fmt()
}

/// Checks everything and writes nothing. The cheap checks come first, the tests last, so that
/// their summary is what remains on the screen.
pub fn verify() -> anyhow::Result<()> {
    step("format", || {
        shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
    })?;
    step("tidy", tidy::run)?;
    step("setup", || setup::run(Purpose::Test))?;
    step("object for the kernel", ebpf::check)?;
    step("clippy", || {
        shell::run(shell::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        shell::run(
            shell::cargo()
                .args(["doc", "--workspace", "--no-deps", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })?;
    step("dependencies", dependencies)?;
    tests_run::run(&[])
}

/// Licenses, banned crates and sources (`deny.toml`), and advisories where their database can be
/// fetched.
fn dependencies() -> anyhow::Result<()> {
    if !shell::has("cargo-deny") {
        eprintln!("    SKIP: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "check", "licenses", "bans", "sources"]))?;
    if shell::run(shell::cargo().args(["deny", "fetch", "db"])).is_err() {
        eprintln!("    SKIP: advisories: their database cannot be fetched from here");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "check", "--disable-fetch", "advisories"]))
}
