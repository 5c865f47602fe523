//! Where the programs under test are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Names the folder with the programs, instead of the one that the tests were built into.
const OVERRIDE: &str = "BALLAST_BIN_DIR";

/// Returns the folder of `ballast`, `ballast-hello` and `ballast-loadgen`.
///
/// That is `$BALLAST_BIN_DIR`, or the profile's folder that this program was built into. A
/// workspace-wide test run builds them there, because the packages they belong to have integration
/// tests; a run of this package alone does not, so what is missing then is built on demand.
///
/// # Errors
/// If this program does not lie in a target folder and nothing else is named.
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os(OVERRIDE) {
        return Ok(PathBuf::from(dir));
    }
    let this = std::env::current_exe().context("the path of this program")?;
    let dir = this.parent().context("this program lies in a folder")?;
    // Tests lie in `target/<profile>/deps`, programs in `target/<profile>`.
    let dir = if dir.ends_with("deps") {
        dir.parent().context("deps lies in a profile's folder")?
    } else {
        dir
    };
    Ok(dir.to_owned())
}

/// Returns the path of a program of ours; builds it if it is missing.
///
/// # Errors
/// It does not build.
pub fn program(name: &str) -> Result<PathBuf> {
    bin(name)
}

/// Returns the path of a program of ours; builds it if it is missing.
pub(crate) fn bin(name: &str) -> Result<PathBuf> {
    let dir = bin_dir()?;
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    if std::env::var_os(OVERRIDE).is_some() {
        bail!("{} has no {name}", dir.display());
    }
    build(&dir)?;
    if path.is_file() {
        Ok(path)
    } else {
        bail!("the build did not make {}", path.display())
    }
}

/// Builds every program of the workspace once, however many test processes ask at a time.
fn build(dir: &Path) -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| build_locked(dir).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build_locked(dir: &Path) -> Result<()> {
    let lock = File::create(dir.join(".ballast-tests-build.lock")).context("the build lock")?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .context("waiting for the build lock")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("this package lies in the workspace")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--workspace", "--bins", "--quiet"])
        .current_dir(workspace);
    match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    if let Some(target) = dir.parent() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("cargo build of the programs under test ended with {status}");
    }
    Ok(())
}
