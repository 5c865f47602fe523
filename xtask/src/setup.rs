//! Installs what a task lacks.

use anyhow::{bail, ensure};

use crate::progress::step;
use crate::shell;

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
}

const NEEDS: &[Need] = &[
    Need {
        programs: &["cc", "gcc", "clang"],
        package: "gcc",
        from: Purpose::Demo,
    },
    Need {
        programs: &["make"],
        package: "make",
        from: Purpose::Demo,
    },
    Need {
        programs: &["cmake"],
        package: "cmake",
        from: Purpose::Demo,
    },
    Need {
        programs: &["ip"],
        package: "iproute2",
        from: Purpose::Demo,
    },
    Need {
        programs: &["nginx"],
        package: "nginx-light",
        from: Purpose::Test,
    },
    Need {
        programs: &["redis-server"],
        package: "redis-server",
        from: Purpose::Test,
    },
    Need {
        programs: &["python3"],
        package: "python3",
        from: Purpose::Test,
    },
    // Makes the clocks of the processes under test jump.
    Need {
        programs: &["faketime"],
        package: "faketime",
        from: Purpose::Test,
    },
    Need {
        programs: &["haproxy"],
        package: "haproxy",
        from: Purpose::Bench,
    },
];

/// Installs the packages that `purpose` lacks: as root with the system's package manager,
/// otherwise by telling the one line to run.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn run(purpose: Purpose) -> anyhow::Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("sudo apt-get update && sudo apt-get install -y {list}");
    ensure!(
        shell::has("apt-get"),
        "these are missing and there is no apt-get to install them with: {list}"
    );
    ensure!(
        shell::is_root(),
        "packages are missing; run:\n\n    {by_hand}\n"
    );
    step(&format!("installing {list}"), || {
        let apt = || {
            let mut apt = shell::command("apt-get");
            // Runlevel 1 keeps Debian's scripts from starting the daemons: we start our own.
            apt.env("DEBIAN_FRONTEND", "noninteractive")
                .env("RUNLEVEL", "1");
            apt
        };
        shell::run(apt().args(["update", "-qq"]))?;
        shell::run(
            apt()
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(&missing),
        )
    })?;
    let still = self::missing(purpose);
    ensure!(
        still.is_empty(),
        "still missing after the installation: {}",
        still.join(" ")
    );
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static str> {
    NEEDS
        .iter()
        .filter(|need| need.from <= purpose)
        .filter(|need| !need.programs.iter().any(|program| shell::has(program)))
        .map(|need| need.package)
        .collect()
}
