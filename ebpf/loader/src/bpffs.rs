//! The file system that maps and links outlive their process in.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::Error;

/// What `statfs` says of it.
const MAGIC: u64 = 0xcafe_4a11;
/// Where systems have one.
const SYSTEM: &str = "/sys/fs/bpf";
/// Where one is mounted otherwise.
const OWN: &str = "/run/ballast/bpf";
/// The folder in the system's.
const FOLDER: &str = "ballast";

/// Returns a folder to pin in, made if it is not there: `wanted`, or one of the system's, or one of
/// a file system that is mounted for it. (`ip netns exec` hides the system's.)
///
/// # Errors
/// [`Error::BpfFs`]: nothing can be mounted or made.
pub fn folder(wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::BpfFs { path, source }
    };
    let folder = match wanted {
        Some(wanted) => wanted.to_owned(),
        None if is_bpffs(Path::new(SYSTEM)) => Path::new(SYSTEM).join(FOLDER),
        None => PathBuf::from(OWN),
    };
    std::fs::create_dir_all(&folder).map_err(refused(&folder))?;
    if !is_bpffs(&folder) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &folder, "bpf", flags, c"mode=0700")
            .map_err(|error| refused(&folder)(io::Error::from(error)))?;
        tracing::info!(path = %folder.display(), "mounted a bpffs");
    }
    Ok(folder)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind == MAGIC))
}
