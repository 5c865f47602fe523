//! Programs and paths.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};

/// Returns the repository's root.
pub fn root() -> PathBuf {
    // The manifest's folder is the one thing that cargo tells both at run time and at build time.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), Path::to_owned)
}

/// Returns a command that runs `program` in the repository's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    // The cargo that started us sets these for us alone. Build scripts that look at them would
    // run again under us, and what depends on them be built anew.
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || [
                    "CARGO_BIN_NAME",
                    "CARGO_CRATE_NAME",
                    "CARGO_PRIMARY_PACKAGE",
                ]
                .contains(&name)
        });
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// Returns the cargo that started this program.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Returns a command that runs our program `name`, which the same cargo has built, from the same
/// folder as this one.
///
/// # Errors
/// This program does not know where it is.
pub fn built(name: &str) -> anyhow::Result<Command> {
    let here = std::env::current_exe().context("cannot find my own program")?;
    Ok(command(here.with_file_name(name)))
}

/// Returns the folder that cargo builds into.
///
/// # Errors
/// This program does not know where it is.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find my own program")?;
    let target = here.parent().and_then(Path::parent);
    Ok(target
        .context("this program lies in no target folder")?
        .to_owned())
}

/// Runs `command`, shown, to its end.
///
/// # Errors
/// It cannot be started, or ends otherwise than with 0.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs `command`, shown, to its end, and returns how it ended.
///
/// # Errors
/// It cannot be started.
pub fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    let line = line(command);
    eprintln!("    $ {line}");
    command
        .status()
        .with_context(|| format!("cannot start `{line}`"))
}

/// Runs `command` quietly and returns what it printed.
///
/// # Errors
/// It cannot be started, or ends otherwise than with 0.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

/// Returns whether `program` is on the path, or where a system keeps its daemons.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .any(|folder| folder.join(program).is_file())
}

/// Returns whether this process may do anything.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

fn line(command: &Command) -> String {
    let mut words = vec![
        Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
