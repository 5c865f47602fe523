//! Installs what a task lacks.

use std::process::Command;

use anyhow::{bail, ensure};

use crate::progress::step;
use crate::{bench, ebpf, shell};

/// What the machine is to be ready for; each needs what the ones before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// `cargo xtask demo`, and any build.
    Demo,
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask bench`: the peers.
    Bench,
}

impl Purpose {
    /// Returns the purpose with that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "demo" => Self::Demo,
            "test" => Self::Test,
            "bench" => Self::Bench,
            _ => bail!("`{name}` is none of test, demo, bench"),
        })
    }
}

struct Need {
    /// Any of these will do.
    programs: &'static [&'static str],
    package: &'static str,
    from: Purpose,
    /// Without it something is left out, and said; nothing fails.
    optional: bool,
}

/// Returns a peer that a bench compares with, if the system has it.
const fn peer(programs: &'static [&'static str], package: &'static str) -> Need {
    Need {
        programs,
        package,
        from: Purpose::Bench,
        optional: true,
    }
}

/// Returns a client that the ingress is tested with, if the system has it.
const fn client(programs: &'static [&'static str], package: &'static str) -> Need {
    Need {
        from: Purpose::Test,
        ..peer(programs, package)
    }
}

const NEEDS: &[Need] = &[
    Need {
        programs: &["cc", "gcc", "clang"],
        package: "gcc",
        from: Purpose::Demo,
        optional: false,
    },
    Need {
        programs: &["make"],
        package: "make",
        from: Purpose::Demo,
        optional: false,
    },
    Need {
        programs: &["cmake"],
        package: "cmake",
        from: Purpose::Demo,
        optional: false,
    },
    Need {
        programs: &["ip"],
        package: "iproute2",
        from: Purpose::Demo,
        optional: false,
    },
    Need {
        programs: &["nginx"],
        package: "nginx-light",
        from: Purpose::Test,
        optional: false,
    },
    Need {
        programs: &["redis-server"],
        package: "redis-server",
        from: Purpose::Test,
        optional: false,
    },
    Need {
        programs: &["python3"],
        package: "python3",
        from: Purpose::Test,
        optional: false,
    },
    // Makes the clocks of the processes under test jump.
    Need {
        programs: &["faketime"],
        package: "faketime",
        from: Purpose::Test,
        optional: false,
    },
    // Counts the instructions of hot paths.
    Need {
        programs: &["valgrind"],
        package: "valgrind",
        from: Purpose::Test,
        optional: true,
    },
    client(&["curl"], "curl"),
    client(&["h2load"], "nghttp2-client"),
    client(&["wrk"], "wrk"),
    // An ACME server.
    client(&["pebble"], "pebble"),
    client(
        &["chromium", "chromium-browser", "google-chrome"],
        "chromium",
    ),
    peer(&["haproxy"], "haproxy"),
    peer(&["ab"], "apache2-utils"),
    peer(&["hey"], "hey"),
];

/// Installs the packages that `purpose` lacks: as root with the system's package manager,
/// otherwise by telling the one line to run.
///
/// # Errors
/// Something is missing that nothing works without, and cannot be installed.
pub fn run(purpose: Purpose) -> anyhow::Result<()> {
    packages(purpose)?;
    if purpose >= Purpose::Bench {
        bench::install_oha()?;
        bench::install_from_python()?;
        if let Err(error) = ebpf::run(&["--setup"]) {
            eprintln!("    without tools for kernel programs: {error:#}");
        }
    }
    Ok(())
}

fn packages(purpose: Purpose) -> anyhow::Result<()> {
    let all = missing(purpose, |_| true);
    if all.is_empty() {
        return Ok(());
    }
    let needed = missing(purpose, |need| !need.optional);
    let list = all.join(" ");
    if !shell::has("apt-get") || !shell::is_root() {
        ensure!(
            needed.is_empty(),
            "packages are missing; run:\n\n    sudo apt-get update && sudo apt-get install -y {list}\n"
        );
        eprintln!("    what these would add is left out: {list}");
        return Ok(());
    }
    step(&format!("installing {list}"), || {
        shell::run(apt().args(["update", "-qq"]))?;
        if !needed.is_empty() {
            install(&needed)?;
        }
        // Each alone: one that this system does not have must not keep the others away.
        for package in missing(purpose, |need| need.optional) {
            if let Err(error) = install(&[package]) {
                eprintln!("    without {package}: {error:#}");
            }
        }
        Ok(())
    })?;
    let still = missing(purpose, |need| !need.optional);
    ensure!(
        still.is_empty(),
        "still missing after the installation: {}",
        still.join(" ")
    );
    Ok(())
}

fn apt() -> Command {
    let mut apt = shell::command("apt-get");
    // Runlevel 1 keeps Debian's scripts from starting the daemons: we start our own.
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    apt
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    shell::run(
        apt()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
}

fn missing(purpose: Purpose, which: impl Fn(&Need) -> bool) -> Vec<&'static str> {
    NEEDS
        .iter()
        .filter(|need| need.from <= purpose && which(need))
        .filter(|need| !need.programs.iter().any(|program| shell::has(program)))
        .map(|need| need.package)
        .collect()
}
