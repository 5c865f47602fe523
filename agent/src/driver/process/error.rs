//! Why a task could not be started.

use std::io;
use std::path::PathBuf;

use super::user::UserError;

/// Why a task could not be started; its text is what `service ps` shows.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something else holds one of its ports.
    #[error("port {port} is in use{}", holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortInUse {
        /// Which.
        port: u16,
        /// Who, as far as `/proc` shows.
        holder: Option<String>,
    },
    /// One of its ports cannot be bound for another reason.
    #[error("port {port} cannot be bound")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whom it shall run as is unknown.
    #[error(transparent)]
    User(#[from] UserError),
    /// It shall run as another user and the agent may not change users.
    #[error("the agent does not run as root, so it cannot start a task as another user")]
    NotRoot,
    /// Its folder or log files cannot be made.
    #[error("{path}: {source}")]
    Files {
        /// Which.
        path: PathBuf,
        /// Why: a full disk, for one.
        source: io::Error,
    },
    /// Its limits cannot be set.
    #[error("cannot set its CPU and memory limits: {0}")]
    Cgroup(#[source] io::Error),
    /// No process could be started.
    #[error("{}", describe_spawn(.0))]
    Spawn(#[source] io::Error),
    /// It ended up nowhere: the process that was to become it did not answer.
    #[error("starting it took longer than {0:?}")]
    Stalled(std::time::Duration),
    /// Its process was started and could not become the program; why.
    #[error("{0}")]
    Exec(String),
}

fn describe_spawn(error: &io::Error) -> String {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => "no process can be started: the limit of processes is reached".into(),
        Some(Errno::MFILE) => "no file descriptors are left to the agent".into(),
        Some(Errno::NFILE) => "no file descriptors are left on the machine".into(),
        Some(Errno::NOMEM) => "no memory is left to start a process".into(),
        _ => format!("no process can be started: {error}"),
    }
}
