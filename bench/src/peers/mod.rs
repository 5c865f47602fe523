//! Programs that we are measured with and against.

mod certificate;
mod generator;
mod nginx;
mod proxies;
mod proxy;

use std::path::PathBuf;

use anyhow::{Context, Result};
pub use certificate::Certificate;
pub use generator::{Generator, Load, Report};
pub use nginx::Nginx;
pub use proxies::ballast_config;
pub use proxy::{Entries, Entry, Proxy, Setup};

/// Names the folder with our own programs, instead of the one that this program was built into.
const OVERRIDE: &str = "BALLAST_BIN_DIR";

/// Returns where `program` is: on the path, or where a system keeps its daemons.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Returns a program of ours: in `$BALLAST_BIN_DIR`, or where this program was built.
///
/// # Errors
/// It is not there.
pub fn ours(program: &str) -> Result<PathBuf> {
    let folder = if let Some(folder) = std::env::var_os(OVERRIDE) {
        PathBuf::from(folder)
    } else {
        let this = std::env::current_exe().context("the path of this program")?;
        let folder = this.parent().context("this program lies in a folder")?;
        // Tests lie in `target/<profile>/deps`, programs in `target/<profile>`.
        let folder = if folder.ends_with("deps") {
            folder.parent().context("deps lies in a profile's folder")?
        } else {
            folder
        };
        folder.to_owned()
    };
    let path = folder.join(program);
    anyhow::ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

/// Which core does what, so that neither side of a measurement takes the other's time.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// For what answers.
    pub server: Option<usize>,
    /// For what asks.
    pub client: Option<usize>,
}

impl Cores {
    /// Returns two different cores that this process may use; none if there are not two.
    pub fn two() -> Self {
        let allowed = rustix::thread::sched_getaffinity(None).ok();
        let mut cores = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|core| allowed.is_some_and(|set| set.is_set(*core)));
        let (server, client) = (cores.next(), cores.next());
        Self {
            server: server.filter(|_| client.is_some()),
            client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_found_and_what_does_not_exist_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-of-anyone"), None);
    }

    #[test]
    fn the_two_sides_have_cores_of_their_own() {
        let cores = Cores::two();
        assert!(cores.client.is_none() || cores.client != cores.server);
    }
}
