//! Where roles keep their data and sockets unless they are told otherwise.

use std::path::PathBuf;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the data folder of a role: `/var/lib/ballast/ROLE` for root, else below the user's
/// home folder.
pub fn data_dir(role: &str) -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home {
        Some(home) if !is_root() => PathBuf::from(home).join(".local/share/ballast").join(role),
        None if !is_root() => std::env::temp_dir()
            .join(format!("ballast-{}", uid()))
            .join(role),
        _ => PathBuf::from("/var/lib/ballast").join(role),
    }
}

/// Returns the API's Unix socket: `/run/ballast/ballast.sock` for root, else in the user's runtime
/// folder.
pub fn socket() -> PathBuf {
    if is_root() {
        return PathBuf::from("/run/ballast/ballast.sock");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("ballast.sock"),
        None => std::env::temp_dir().join(format!("ballast-{}.sock", uid())),
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
