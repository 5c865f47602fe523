//! The tools that build for the kernel's virtual machine: a compiler whose library comes with its
//! source, and a linker that speaks its LLVM.
//!
//! Those that the kept object was made with are Debian's, unpacked beside everything else under
//! `target/bpf`, so that they never shadow the user's own compiler and need no root. Where they
//! cannot be had, a nightly of rustup with `rust-src` does as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail, ensure};

use crate::progress::step;
use crate::shell;

/// The linker, from crates.io.
const LINKER: &str = "0.13.0";
/// The release of Debian's compiler for which the object is kept.
const RUST: &str = "1.96.0+dfsg1-1~deb12u2";
/// The release of its LLVM.
const LLVM: &str = "1:22.1.8-1~deb12u1";
/// Packages of the compiler's release.
const RUST_PACKAGES: [&str; 4] = [
    "rustc-web",
    "rust-web-src",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
];
/// Packages of LLVM's release.
const LLVM_PACKAGES: [&str; 3] = ["libllvm22", "llvm-22", "llvm-22-dev"];
/// What those link to and a small system may lack.
const LIBRARIES: [&str; 3] = ["libedit2", "libz3-4", "libxml2"];
/// Says, in the unpacked folder, which release it is and that it is whole.
const STAMP: &str = "ballast-unpacked";
/// What it says of any other release.
const OTHER: &str = "another release\n";

/// Tools that are there.
#[derive(Debug)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The folder that its library's source lies in.
    pub sysroot: PathBuf,
    /// Where libraries lie that the loader of programs does not look for by itself.
    libraries: Option<PathBuf>,
    /// The folder of `bpf-linker`.
    linker: PathBuf,
    /// What takes debug information out of an object.
    pub strip: PathBuf,
    /// Tools with the same are taken to make the same bytes.
    pub identity: String,
}

impl Toolchain {
    /// Lets `command` use these tools.
    pub fn apply(&self, command: &mut Command) {
        let path = env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.linker.clone()).chain(env::split_paths(&path));
        if let Ok(path) = env::join_paths(paths) {
            command.env("PATH", path);
        }
        // `-Z` on a compiler that is no nightly.
        command
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1");
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    fn identify(mut self) -> anyhow::Result<Self> {
        let mut rustc = shell::command(&self.rustc);
        self.apply(&mut rustc);
        let version = shell::output(rustc.arg("-vV"))?;
        let line = |start: &str| version.lines().find(|line| line.starts_with(start));
        let llvm = line("LLVM version: ").context("the compiler names no LLVM")?;
        let mut linker = shell::command(self.linker.join("bpf-linker"));
        self.apply(&mut linker);
        let linker = shell::output(linker.arg("--version"))?;
        self.identity = [
            line("rustc ").unwrap_or_default(),
            &llvm.replace("version: ", ""),
            linker.lines().next().unwrap_or_default(),
        ]
        .join(", ");
        Ok(self)
    }
}

/// Returns the folder of everything that is built for the kernel.
///
/// # Errors
/// This program lies in no target folder.
pub fn folder() -> anyhow::Result<PathBuf> {
    Ok(shell::target_dir()?.join("bpf"))
}

/// Returns tools, installed first if there are none.
///
/// # Errors
/// None can be installed; all that was tried is said.
pub fn install() -> anyhow::Result<Toolchain> {
    let debian = match debian() {
        Ok(tools) => return Ok(tools),
        Err(error) => error,
    };
    let nightly = match nightly() {
        Ok(tools) => return Ok(tools),
        Err(error) => error,
    };
    bail!(
        "no tools to build for the kernel's virtual machine:\n  \
         Debian's packages: {debian:#}\n  \
         rustup's nightly: {nightly:#}"
    )
}

/// Debian's packages, unpacked.
fn debian() -> anyhow::Result<Toolchain> {
    let folder = folder()?;
    let root = folder.join("root");
    let stamp = format!("{RUST} {LLVM}\n");
    if fs::read_to_string(root.join(STAMP)).is_ok_and(|there| there == stamp || there == OTHER) {
        return linked(&root, &folder);
    }
    ensure!(
        shell::has("apt-get") && shell::has("dpkg-deb"),
        "this system has no apt-get and dpkg-deb"
    );
    let pinned = step(
        "fetching a compiler for the kernel's virtual machine",
        || fetch(&folder.join("debs")),
    )?;
    step("unpacking it", || {
        unpack(&folder.join("debs"), &root)?;
        fs::write(root.join(STAMP), if pinned { &stamp } else { OTHER })?;
        fs::remove_dir_all(folder.join("debs"))?;
        Ok(())
    })?;
    linked(&root, &folder)
}

/// Fetches the packages, and returns whether they are of the releases that the object is kept for.
/// A mirror that has newer ones has dropped those.
fn fetch(debs: &Path) -> anyhow::Result<bool> {
    fs::create_dir_all(debs)?;
    let download = |pinned: bool| {
        let release = |release: &str| {
            if pinned {
                format!("={release}")
            } else {
                String::new()
            }
        };
        let rust = RUST_PACKAGES.map(|name| format!("{name}{}", release(RUST)));
        let llvm = LLVM_PACKAGES.map(|name| format!("{name}{}", release(LLVM)));
        let mut apt = shell::command("apt-get");
        apt.current_dir(debs)
            // Fetching as another user fails in a folder that is not theirs.
            .args(["download", "-qq", "-o", "APT::Sandbox::User="])
            .args(rust.iter().chain(&llvm))
            .args(LIBRARIES);
        shell::run(&mut apt)
    };
    if download(true).is_ok() {
        return Ok(true);
    }
    // Lists that are missing or old.
    if shell::is_root() {
        shell::run(shell::command("apt-get").args(["update", "-qq"]))?;
        if download(true).is_ok() {
            return Ok(true);
        }
    }
    download(false).map(|()| false)
}

fn unpack(debs: &Path, root: &Path) -> anyhow::Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root)?;
    for deb in fs::read_dir(debs)? {
        let deb = deb?.path();
        shell::run(shell::command("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
    }
    // Nothing is linked statically, and they are most of what was unpacked.
    for library in fs::read_dir(root.join("usr/lib/llvm-22/lib"))? {
        let library = library?.path();
        if library.extension().is_some_and(|ending| ending == "a") {
            fs::remove_file(library)?;
        }
    }
    Ok(())
}

/// Returns the unpacked tools with their linker, built first if it is not there.
fn linked(root: &Path, folder: &Path) -> anyhow::Result<Toolchain> {
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    let libraries = root.join("usr/lib").join(multiarch);
    let linker = folder.join("linker");
    if !linker.join("bin/bpf-linker").is_file() {
        step("building the linker for it", || {
            let mut cargo = shell::cargo();
            cargo
                .args(["install", "--quiet", "bpf-linker", "--locked", "--force"])
                .args(["--version", LINKER, "--no-default-features"])
                .args(["--features", "llvm-22"])
                .arg("--root")
                .arg(&linker)
                .env("CARGO_TARGET_DIR", folder.join("linker-build"))
                .env("LLVM_PREFIX", root.join("usr/lib/llvm-22"))
                .env("LD_LIBRARY_PATH", &libraries)
                .env("LIBRARY_PATH", &libraries)
                // Its work is done inside LLVM: it need not be fast, but be there soon.
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
                .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
            shell::run(&mut cargo)?;
            fs::remove_dir_all(folder.join("linker-build"))?;
            Ok(())
        })?;
    }
    let tools = Toolchain {
        rustc: root.join("usr/bin/rustc"),
        sysroot: root.join("usr"),
        libraries: Some(libraries),
        linker: linker.join("bin"),
        strip: root.join("usr/lib/llvm-22/bin/llvm-strip"),
        identity: String::new(),
    };
    tools.identify()
}

/// A nightly of rustup, with the library's source and the linker that is on the path.
fn nightly() -> anyhow::Result<Toolchain> {
    ensure!(shell::has("rustup"), "there is no rustup");
    let rustc =
        shell::output(shell::command("rustup").args(["which", "rustc", "--toolchain", "nightly"]))?;
    let rustc = PathBuf::from(rustc.trim());
    let sysroot = rustc
        .parent()
        .and_then(Path::parent)
        .context("the compiler lies in no folder")?
        .to_owned();
    if !sysroot.join("lib/rustlib/src/rust/library").is_dir() {
        shell::run(shell::command("rustup").args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            "nightly",
        ]))?;
    }
    let linker = on_path("bpf-linker").context("`cargo install bpf-linker` is missing")?;
    let strip = [
        "llvm-strip",
        "llvm-strip-22",
        "llvm-strip-21",
        "llvm-strip-19",
    ]
    .iter()
    .find_map(|name| on_path(name))
    .context("llvm-strip is missing")?;
    let tools = Toolchain {
        rustc,
        sysroot,
        libraries: None,
        linker: linker.parent().unwrap_or(Path::new("/")).to_owned(),
        strip,
        identity: String::new(),
    };
    tools.identify()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|full| full.is_file())
}
