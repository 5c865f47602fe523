//! Certificates from an ACME server (RFC 8555), such as Let's Encrypt.
//!
//! One certificate for each host: what fails for one leaves the others alone. The account and the
//! certificates are kept in a folder, so that a restart asks for nothing that is there.
//!
//! * `challenges`: what proves over HTTP that a host is ours
//! * `order`: one certificate, from the order to the chain, by the library
//! * `client`: the library's way to the server
//! * `keep`: what is kept, when it is due, and how long a failure waits
//!
//! Deliberately absent: DNS-01, and with it wildcards: it needs a driver for each DNS provider.
//! See docs/adr/0021.

mod challenges;
mod client;
mod keep;
mod order;

use std::path::PathBuf;

pub use challenges::{CHALLENGE_PATH, Challenges};
pub use keep::keep;

/// Hosts with certificates of their own at most: the usual servers issue 50 a week for a domain.
pub const HOSTS_MAX: usize = 100;

/// How a host is proved to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// By a file on port 80 (HTTP-01).
    #[default]
    Http,
    /// By a certificate on port 443 (TLS-ALPN-01, RFC 8737).
    TlsAlpn,
}

/// An account that the server's operator has given out, to which ours is bound.
#[derive(Clone, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub id: String,
    /// Its key, decoded.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("External")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What is asked of which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The URL of the server's directory.
    pub directory: String,
    /// Who is told of problems: `mailto:` URLs.
    pub contact: Vec<String>,
    /// How hosts are proved to be ours.
    pub proof: Proof,
    /// PEM: who may have signed the server's own certificate; the system's authorities if none.
    pub authority: Option<PathBuf>,
    /// Where the account and the certificates are kept.
    pub dir: PathBuf,
    /// The hosts.
    pub hosts: Vec<String>,
    /// The account given out by the operator, if the server wants one.
    pub external: Option<External>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The server refused, or could not be understood.
    #[error("the ACME server did not issue a certificate")]
    Server(#[from] instant_acme::Error),
    /// The server wants a proof of another kind.
    #[error("the ACME server does not offer this kind of challenge")]
    NoChallenge,
    /// It was not convinced.
    #[error("the ACME server was not convinced: {0}")]
    NotConvinced(String),
    /// A certificate for the proof could not be made.
    #[error("no certificate for the challenge")]
    Challenge(#[from] rcgen::Error),
    /// What was issued, or kept, cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The folder.
    #[error("cannot use {path}")]
    Kept {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kept account.
    #[error("cannot read {path}")]
    Account {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}
