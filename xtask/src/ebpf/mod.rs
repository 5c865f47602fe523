//! The object with the programs for the kernel: built from `ebpf/xdp` and kept in the repository,
//! so that a plain build of the workspace embeds it without any of the tools that make it.
//!
//! The same tools make the same bytes wherever the checkout lies: the sources are copied under
//! `target/bpf/src` into a workspace of their own, so that no path of this machine gets into the
//! hash of a symbol, and what paths remain are mapped to fixed ones.

mod toolchain;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail, ensure};

use crate::shell;
use toolchain::Toolchain;

#[path = "../../../ebpf/loader/fingerprint.rs"]
pub(crate) mod fingerprint;

/// The workspace that the copy is built in. Its profile is all that the object depends on besides
/// the sources, the flags and the tools.
const WORKSPACE: &str = "\
[workspace]
resolver = \"3\"
members = [\"xdp\"]

[workspace.package]
version = \"0.1.0\"
edition = \"2024\"
rust-version = \"1.95\"
license = \"Apache-2.0\"
publish = false

[workspace.lints]

[profile.release]
opt-level = 3
codegen-units = 1
debug = 2
panic = \"abort\"
overflow-checks = false
";
/// The binary whose object is kept.
const PROGRAMS: &str = "ballast-xdp";
/// The one that measurements need besides: what restores packets, and the floors.
const BENCH: &str = "ballast-xdp-bench";
/// The target of the kernel's virtual machine.
const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and writes it into the repository, or with `--check` compares.
///
/// # Errors
/// There are no tools and none can be installed; or the sources do not build; or what is kept is
/// not what they make.
pub fn run(args: &[&str]) -> anyhow::Result<()> {
    match args {
        [] => write(),
        ["--check"] => check(),
        ["--setup"] => toolchain::install().map(|_| ()),
        ["--bench"] => bench().map(|path| println!("{}", path.display())),
        _ => bail!("usage: cargo xtask ebpf [--check | --setup | --bench]"),
    }
}

fn write() -> anyhow::Result<()> {
    let tools = toolchain::install()?;
    let object = build(&tools, PROGRAMS, false)?;
    let loader = loader();
    let fresh = shell::root().join("ebpf/xdp/Cargo.lock");
    fs::copy(source_dir()?.join("Cargo.lock"), &fresh).context("cannot keep the lock file")?;
    fs::create_dir_all(loader.join("object"))?;
    fs::write(loader.join(fingerprint::OBJECT), &object)?;
    let sources = fingerprint::of_sources(&ebpf())?;
    let record = format!(
        "sources {sources}\nobject {}\ntools {}\n",
        fingerprint::of_bytes(&object),
        tools.identity
    );
    fs::write(loader.join(fingerprint::RECORD), record)?;
    eprintln!("    {}: {} bytes", fingerprint::OBJECT, object.len());
    Ok(())
}

/// Builds what measurements need and returns where its object lies.
///
/// # Errors
/// See [`run`].
pub fn bench() -> anyhow::Result<PathBuf> {
    let tools = toolchain::install()?;
    build(&tools, BENCH, true)?;
    built(BENCH)
}

/// Builds the object from its sources, and compares if the tools are those that made the one that
/// is kept: others may make other bytes that are as good.
///
/// # Errors
/// See [`run`].
pub fn check() -> anyhow::Result<()> {
    let record = record()?;
    let tools = match toolchain::install() {
        Ok(tools) => tools,
        Err(error) => {
            // What is kept is still held to its sources by `tidy`.
            eprintln!("    SKIP: not built from source: {error:#}");
            return Ok(());
        }
    };
    let object = build(&tools, PROGRAMS, true)?;
    let kept = fs::read(loader().join(fingerprint::OBJECT)).context("no object is kept")?;
    let made_by = fingerprint::recorded(&record, "tools").unwrap_or_default();
    if tools.identity != made_by {
        eprintln!("    built with {}: not compared", tools.identity);
        eprintln!("    the one that is kept was built with {made_by}");
        // For whoever wants to test this one: the loader takes it from there if told to.
        eprintln!("    it lies in {}", built(PROGRAMS)?.display());
        return Ok(());
    }
    ensure!(
        object == kept,
        "ebpf/loader/{} is not what its sources make: `cargo xtask ebpf` writes it",
        fingerprint::OBJECT
    );
    eprintln!("    {} bytes, the same as kept", object.len());
    Ok(())
}

/// Complains if the object that is kept was built from other sources, or is another than was
/// recorded. Needs no tools.
pub fn complaints() -> Vec<String> {
    let stale = || -> anyhow::Result<Vec<String>> {
        let record = record()?;
        let object = fs::read(loader().join(fingerprint::OBJECT)).context("no object is kept")?;
        let mut complaints = Vec::new();
        for (key, now) in [
            ("sources", fingerprint::of_sources(&ebpf())?),
            ("object", fingerprint::of_bytes(&object)),
        ] {
            if fingerprint::recorded(&record, key) != Some(now.as_str()) {
                complaints.push(format!(
                    "ebpf/loader/{}: was made with other {key}: `cargo xtask ebpf`",
                    fingerprint::RECORD
                ));
            }
        }
        Ok(complaints)
    };
    stale().unwrap_or_else(|error| vec![format!("ebpf/loader: {error:#}")])
}

/// Returns the bytes of the object of one binary, stripped, built from the sources as they are.
fn build(tools: &Toolchain, bin: &str, locked: bool) -> anyhow::Result<Vec<u8>> {
    let source = copy_sources()?;
    let mut cargo = shell::cargo();
    cargo
        .current_dir(&source)
        .args(["build", "--release", "--quiet", "-Zbuild-std=core"])
        // The package by name: others of the workspace would be built with what they have by default.
        .args(["--package", PROGRAMS, "--bin", bin])
        .args(["--target", TARGET])
        .env("CARGO_TARGET_DIR", source.join("target"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(tools, &source)?)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    if locked {
        cargo.arg("--locked");
    }
    tools.apply(&mut cargo);
    shell::run(&mut cargo)?;
    let whole = source.join("target").join(TARGET).join("release").join(bin);
    let stripped = built(bin)?;
    let mut strip = shell::command(&tools.strip);
    tools.apply(&mut strip);
    shell::run(strip.arg("-g").arg(&whole).arg("-o").arg(&stripped))?;
    let object = fs::read(&stripped).context("the stripped object is not there")?;
    for path in [shell::root(), cargo_home()] {
        let path = path.to_string_lossy().into_owned();
        let found = object
            .windows(path.len())
            .any(|window| window == path.as_bytes());
        ensure!(!found, "the object names {path}: its flags must map it");
    }
    Ok(object)
}

/// Where the stripped object of a binary lies once it was built.
pub(crate) fn built(bin: &str) -> anyhow::Result<PathBuf> {
    Ok(source_dir()?.join(format!("{bin}.o")))
}

/// Returns the compiler's flags, as cargo wants them in a variable.
fn flags(tools: &Toolchain, source: &Path) -> anyhow::Result<OsString> {
    let mut flags: Vec<String> = [
        // The linker makes BTF of it; the rest is stripped.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
    ]
    .map(str::to_owned)
    .into();
    let mut map = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    // The last that fits wins.
    map(&cargo_home(), "/cargo");
    let registries = cargo_home().join("registry/src");
    for registry in fs::read_dir(&registries).into_iter().flatten() {
        // Its name has a hash of where the registry is.
        map(&registry?.path(), "/cargo");
    }
    map(&tools.sysroot, "/rust");
    map(source, "/ballast");
    Ok(flags.join("\u{1f}").into())
}

fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    )
}

/// Copies what goes into the object and returns the folder of its workspace. Files that have not
/// changed stay, for cargo looks at their times.
fn copy_sources() -> anyhow::Result<PathBuf> {
    let target = source_dir()?;
    let ebpf = ebpf();
    let mut wanted = vec![
        (PathBuf::from("Cargo.toml"), WORKSPACE.as_bytes().to_vec()),
        (
            PathBuf::from("Cargo.lock"),
            fs::read(ebpf.join("xdp/Cargo.lock")).unwrap_or_default(),
        ),
    ];
    for path in fingerprint::inputs(&ebpf)? {
        if path.ends_with("xdp/Cargo.lock") {
            continue;
        }
        let mut text = fs::read(ebpf.join(&path))?;
        if path.ends_with("Cargo.toml") {
            // What only tests need would have to be in the lock file.
            text = without_dev_dependencies(&String::from_utf8(text)?).into_bytes();
        }
        wanted.push((path, text));
    }
    for member in ["common", "xdp"] {
        remove_others(&target, &PathBuf::from(member), &wanted)?;
    }
    for (path, bytes) in wanted {
        if bytes.is_empty() {
            continue;
        }
        let full = target.join(path);
        if fs::read(&full).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(full.parent().context("a file without a folder")?)?;
        fs::write(full, bytes)?;
    }
    Ok(target)
}

/// Removes the files of an earlier copy that are no longer wanted.
fn remove_others(
    target: &Path,
    folder: &Path,
    wanted: &[(PathBuf, Vec<u8>)],
) -> anyhow::Result<()> {
    for entry in fs::read_dir(target.join(folder)).into_iter().flatten() {
        let path = folder.join(entry?.file_name());
        if target.join(&path).is_dir() {
            remove_others(target, &path, wanted)?;
        } else if !wanted.iter().any(|(wanted, _)| *wanted == path) {
            fs::remove_file(target.join(&path))?;
        }
    }
    Ok(())
}

/// Returns a manifest without its tables of dev-dependencies.
fn without_dev_dependencies(manifest: &str) -> String {
    let mut dev = false;
    let mut kept = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            dev = line.starts_with("[dev-dependencies");
        }
        if !dev {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn record() -> anyhow::Result<String> {
    fs::read_to_string(loader().join(fingerprint::RECORD)).context("no record of the object")
}

fn ebpf() -> PathBuf {
    shell::root().join("ebpf")
}

fn loader() -> PathBuf {
    ebpf().join("loader")
}

fn source_dir() -> anyhow::Result<PathBuf> {
    Ok(toolchain::folder()?.join("src"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dev_dependencies_leave_the_manifest() {
        let manifest =
            "[package]\nname = \"x\"\n[dev-dependencies]\nproptest = \"1\"\n[[bin]]\na = 1\n";
        assert_eq!(
            without_dev_dependencies(manifest),
            "[package]\nname = \"x\"\n[[bin]]\na = 1\n"
        );
    }

    #[test]
    fn fingerprint_changes_with_names_and_contents() {
        let folder = env::temp_dir().join(format!("ballast-fingerprint-{}", std::process::id()));
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        file("xdp/src/main.rs", "one");
        file("xdp/tests/a.rs", "not in it");
        let first = fingerprint::of_sources(&folder).expect("read");
        file("xdp/tests/a.rs", "still not in it");
        let same = fingerprint::of_sources(&folder).expect("read");
        file("xdp/src/main.rs", "two");
        let content = fingerprint::of_sources(&folder).expect("read");
        fs::rename(
            folder.join("xdp/src/main.rs"),
            folder.join("xdp/src/other.rs"),
        )
        .expect("renamed");
        let name = fingerprint::of_sources(&folder).expect("read");
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(first, same);
        assert_ne!(first, content);
        assert_ne!(content, name);
    }
}
