//! Probes over the network: one cheap question to an endpoint, answered yes or with a reason.
//!
//! Used by the agent for its tasks and by an ingress for stand-alone endpoints. A probe is one
//! connection of its own: a pooled one would stay healthy while new ones are refused.
//!
//! Deliberately absent: when to probe and what a result means (the caller's state machine), and
//! command probes (they run inside the task's limits, so the agent's driver runs them).

mod http;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// What is asked, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// GET over HTTP/1.1; the status must be in the range, both ends included.
    Http {
        /// Whom.
        address: SocketAddr,
        /// Path and query.
        path: String,
        /// Lowest and highest status that count as success.
        status: (u16, u16),
    },
    /// Whether a TCP connection is accepted.
    Tcp {
        /// Whom.
        address: SocketAddr,
    },
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// An answer with another status.
    #[error("answered with status {0}")]
    Status(u16),
    /// What came is not HTTP.
    #[error("what it answered is not HTTP")]
    NotHttp,
    /// It accepted and hung up.
    #[error("closed the connection without an answer")]
    Closed,
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl ProbeError {
    /// Returns whether the failure came at once because nobody listens: a program that is just
    /// being replaced looks like that for a moment, so it is worth a second question.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused)
    }

    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Asks once.
///
/// # Errors
/// [`ProbeError`]; nothing is retried.
pub async fn ask(question: &Question, timeout: Duration) -> Result<(), ProbeError> {
    match tokio::time::timeout(timeout, ask_patiently(question)).await {
        Ok(result) => result,
        Err(_) => Err(ProbeError::Timeout(timeout)),
    }
}

async fn ask_patiently(question: &Question) -> Result<(), ProbeError> {
    match question {
        Question::Tcp { address } => TcpStream::connect(address)
            .await
            .map(drop)
            .map_err(ProbeError::from_io),
        Question::Http {
            address,
            path,
            status: (lowest, highest),
        } => {
            let status = http::get(*address, path).await?;
            if (*lowest..=*highest).contains(&status) {
                Ok(())
            } else {
                Err(ProbeError::Status(status))
            }
        }
    }
}
