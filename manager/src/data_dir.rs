//! The manager's folder: who holds it, and which version wrote it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Version of the folder's layout and of the state's encoding. A build reads its own and older ones.
pub const FORMAT: u32 = 1;

/// Bytes that must be free on the disk before a change is accepted: more than one entry of the log
/// and a snapshot need, so that a write that has begun can end.
pub const FREE_BYTES: u64 = 8 << 20;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another manager has it.
    #[error(
        "{path} is in use by the manager with process id {pid}; stop that one or give another --data-dir"
    )]
    Held {
        /// The folder.
        path: PathBuf,
        /// The holder, as it wrote itself down.
        pid: String,
    },
    /// A newer build wrote it.
    #[error(
        "{path} was written by a newer ballast (format {found}, this build reads up to {FORMAT}); install that version again, or give another --data-dir"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The version file holds something else.
    #[error("{path} is not a format version: `{text}`")]
    NotAVersion {
        /// The file.
        path: PathBuf,
        /// Its contents, cut.
        text: String,
    },
    /// The disk or the permissions.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A folder that this process holds until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock, which the kernel takes back when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Takes the folder, making it (mode 0700) if it is not there.
    ///
    /// # Errors
    /// [`DataDirError`]: held by another, newer, or not accessible.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io(path))?;
        let lock = take_lock(path)?;
        check_format(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the database's file.
    pub fn database(&self) -> PathBuf {
        self.path.join("manager.redb")
    }

    /// Writes a file whole (mode 0600): either the old or the new contents survive a crash.
    ///
    /// # Errors
    /// It was not written.
    pub fn write_secret(&self, name: &str, contents: &str) -> Result<(), DataDirError> {
        write_whole(&self.path, name, contents)
    }
}

/// Returns the bytes that are free for this user on a folder's disk.
pub(crate) fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataDirError + '_ {
    move |source| DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

fn take_lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(io(&file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Not worth failing for: the folder is held, whoever it is.
            let _ = lock.read_to_string(&mut pid);
            let pid = pid.trim().to_owned();
            return Err(DataDirError::Held {
                path: path.to_owned(),
                pid: if pid.is_empty() {
                    "(unknown)".to_owned()
                } else {
                    pid
                },
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(&file)(source)),
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(io(&file))?;
    Ok(lock)
}

fn check_format(path: &Path) -> Result<(), DataDirError> {
    let file = path.join("format-version");
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let found = text.trim().parse().map_err(|_| DataDirError::NotAVersion {
                path: file,
                text: text.chars().take(32).collect(),
            })?;
            if found > FORMAT {
                return Err(DataDirError::Newer {
                    path: path.to_owned(),
                    found,
                });
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_whole(path, "format-version", &format!("{FORMAT}\n"))
        }
        Err(source) => Err(io(&file)(source)),
    }
}

fn write_whole(dir: &Path, name: &str, contents: &str) -> Result<(), DataDirError> {
    let target = dir.join(name);
    let draft = dir.join(format!("{name}.new"));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &target)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io(&target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = DataDir::open(dir.path()).expect("opens");
        let error = DataDir::open(dir.path()).expect_err("is held").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        DataDir::open(dir.path()).expect("is free again");
    }

    #[test]
    fn newer_folder_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("format-version"), "2\n").expect("writes");
        let error = DataDir::open(dir.path()).expect_err("is newer");
        assert!(
            matches!(error, DataDirError::Newer { found: 2, .. }),
            "{error}"
        );
        assert!(!dir.path().join("manager.redb").exists());
        std::fs::write(dir.path().join("format-version"), "two").expect("writes");
        let error = DataDir::open(dir.path()).expect_err("is no version");
        assert!(matches!(error, DataDirError::NotAVersion { .. }), "{error}");
    }
}
