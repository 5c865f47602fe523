//! Why a link could not be made or has ended.

use std::io;
use std::net::SocketAddr;

use crate::{Identity, Role};

/// Why a link could not be made or has ended; says which side is wrong where that can be known.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens there, or the network is down.
    #[error("cannot connect to {address}")]
    Connect {
        /// Who was called.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS failed; the text says why.
    #[error("TLS: {}", describe(.0))]
    Tls(#[source] io::Error),
    /// The peer took longer than the limit.
    #[error("the peer did not answer within {0:?}")]
    Stalled(std::time::Duration),
    /// Reading or writing failed.
    #[error("the connection broke: {}", describe(.0))]
    Io(#[from] io::Error),
    /// The peer sent what is not a message: the link is out of step.
    #[error("the peer sent garbage: {0}")]
    Decode(#[from] ballast_wire::DecodeError),
    /// A message of ours is too long.
    #[error(transparent)]
    Encode(#[from] ballast_wire::EncodeError),
    /// The peer has no certificate and needs one.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Its certificate names nobody of a Ballast cluster.
    #[error("the peer's certificate is not one of a cluster member: {0}")]
    NotAMember(String),
    /// Of another cluster.
    #[error("the peer belongs to cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// Ours.
        ours: ballast_model::ClusterId,
        /// The peer's.
        theirs: ballast_model::ClusterId,
    },
    /// Somebody else than was called.
    #[error("the peer is {found}, expected {expected}")]
    WrongPeer {
        /// Who answered.
        found: Identity,
        /// Who was to answer: a role, and an id if one was known.
        expected: Expected,
    },
    /// Speaks none of the protocols that are spoken here.
    #[error("the peer asked for no protocol that is spoken on this port")]
    NoProtocol,
    /// The manager said no.
    #[error("the manager refused: {0}")]
    Refused(String),
    /// Stored credentials cannot be used.
    #[error("credentials in {path}: {reason}")]
    Credentials {
        /// The folder or file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key could not be made or read.
    #[error("certificate: {0}")]
    Certificate(String),
}

/// Who was to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// In this role.
    pub role: Role,
    /// And with this id, if one was known.
    pub id: Option<u64>,
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            None => write!(f, "a {}", self.role),
            Some(id) => {
                write!(f, "{} {}", self.role, ballast_model::NodeId::from_bits(id))
            }
        }
    }
}

/// Returns an error's text, with TLS alerts in words that say whose certificate is at fault.
fn describe(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError, Error};
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return error.to_string();
    };
    match tls {
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the peer refused our certificate: it has expired".to_owned()
        }
        Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            "the peer refused our certificate: it is not of its cluster's CA".to_owned()
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the peer wants a certificate and we have shown none".to_owned()
        }
        Error::AlertReceived(Alert::NoApplicationProtocol) => {
            "the peer does not speak this protocol: is it the right port?".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the peer's certificate has expired".to_owned(),
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the peer's certificate is of another CA, not of this cluster's".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the peer's certificate is for another role".to_owned(),
        other => other.to_string(),
    }
}
