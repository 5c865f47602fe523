//! Why a ring or a socket is not to be had.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

/// Why there is no ring.
#[derive(Debug, Error)]
pub enum RingError {
    /// The options contradict themselves or the kernel.
    #[error("options of the ring: {0}")]
    Options(&'static str),
    /// seccomp (Docker's default profile does), or `kernel.io_uring_disabled`, or an LSM.
    #[error("io_uring is forbidden here (seccomp or sysctl kernel.io_uring_disabled): {step}")]
    Forbidden {
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel has no io_uring, or it is older than Linux 6.1.
    #[error("the kernel is too old: {step} needs Linux {needs}")]
    Kernel {
        /// What it does not know.
        step: &'static str,
        /// From which version on it does.
        needs: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Memory, or the limit of locked memory (`ulimit -l`, 8 MiB are enough), is used up.
    #[error("not enough memory, or locked memory (ulimit -l): {step}")]
    Memory {
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The limit of descriptors is used up.
    #[error("no descriptor left: {step}")]
    Descriptors {
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot set up the ring: {step}")]
    Os {
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RingError {
    pub(crate) fn at(step: &'static str, source: io::Error) -> RingError {
        let needs = "6.1";
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => RingError::Forbidden { step, source },
            Some(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => RingError::Kernel {
                step,
                needs,
                source,
            },
            Some(Errno::NOMEM) => RingError::Memory { step, source },
            Some(Errno::MFILE | Errno::NFILE) => RingError::Descriptors { step, source },
            _ => RingError::Os { step, source },
        }
    }
}

/// Why a socket is not to be had.
#[derive(Debug, Error)]
pub enum IoError {
    /// Every slot is taken.
    #[error("all {limit} sockets of the ring are in use")]
    Full {
        /// `Options::sockets`.
        limit: u32,
    },
    /// The limit of descriptors, of the process or the system, is used up.
    #[error("no descriptor left")]
    Descriptors(#[source] io::Error),
    /// Every local port that could reach the address is in use.
    #[error("no local port left")]
    Ports(#[source] io::Error),
    /// Anything else: an unreachable network, an address that is not ours, a socket of another kind.
    #[error("cannot set up the socket")]
    Os(#[source] io::Error),
}

impl From<Errno> for IoError {
    fn from(errno: Errno) -> Self {
        let error = io::Error::from(errno);
        match errno {
            Errno::MFILE | Errno::NFILE => IoError::Descriptors(error),
            Errno::ADDRNOTAVAIL | Errno::AGAIN | Errno::ADDRINUSE => IoError::Ports(error),
            _ => IoError::Os(error),
        }
    }
}
