//! How the end of a process is seen: its pidfd becomes readable, at once, whoever its parent is.

use std::io;

use ballast_model::Exit;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches one process.
#[derive(Debug)]
pub struct ExitWatch(AsyncFd<OwnedFd>);

impl ExitWatch {
    /// Watches the process of a descriptor.
    ///
    /// # Errors
    /// If the descriptor cannot be waited on.
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for descriptors that change under it; an OwnedFd does not"
    )]
    pub fn new(pidfd: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(pidfd, Interest::READABLE).map(Self)
    }

    /// Returns when the process has ended. A child of ours stays a zombie, so its pid and group
    /// still mean it until [`reap`](Self::reap).
    pub async fn ended(&self) {
        // An error of the runtime's poller would mean that it shuts down.
        let _ = self.0.readable().await;
    }

    /// Takes the exit status of a child; a process that is not our child leaves none.
    pub fn reap(&self) -> Exit {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.0.get_ref().as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            _ => Exit::Unknown,
        }
    }
}
