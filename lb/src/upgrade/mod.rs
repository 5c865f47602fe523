//! One process takes over from another: no connection is refused, no request is lost.
//!
//! ```text
//!  successor                       predecessor
//!      │ ── Take ─────────────────────► │   over a Unix socket; only the same user or root
//!      │ ◄── Sockets + descriptors ──── │   every socket that listens
//!      │    (serves: both accept)       │
//!      │ ── Ready ────────────────────► │
//!      │ ◄── Done ───────────────────── │   gives the Unix socket's path up, and retires
//! ```
//!
//! The very sockets are passed on (`SCM_RIGHTS`), with the connections that wait in them: new
//! sockets at the same address would have queues of their own, and those of the old ones would be
//! reset. If the successor ends before it is ready, nothing has changed. A process that retires
//! accepts nothing more, answers each connection's next request with `Connection: close` (or
//! GOAWAY), and closes what is idle only after [`LINGER`]: a client may just be using it.
//! See docs/adr/0022.

mod channel;
mod predecessor;
mod sockets;
mod successor;

use std::path::PathBuf;
use std::time::Duration;

pub use predecessor::hand_over;
pub use sockets::{Kind, Sockets};
pub use successor::{Taken, take_over};

/// How long a process that retires keeps idle connections, for their clients to be told with an
/// answer that it ends. Long past what busy clients need; those that are silent for longer notice
/// the end before they use the connection again, nearly always.
pub const LINGER: Duration = Duration::from_secs(10);

/// How one process hands over to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// The Unix socket between the two.
    pub socket: PathBuf,
    /// How long connections may take to end in the process that retires.
    pub drain: Duration,
}
