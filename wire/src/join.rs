//! A new agent or ingress ↔ manager: a secret and a signing request for a certificate.

use ballast_model::{ClusterId, Generation};
use serde::{Deserialize, Serialize};

/// What a joiner may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinRole {
    /// A node.
    Agent,
    /// An ingress.
    Ingress,
}

/// Sent once the joiner has seen that the CA's digest is that of its token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// From the token.
    pub secret: String,
    /// From the token; the secret must be that of this role.
    pub role: JoinRole,
    /// The name it wants: unique among living nodes.
    pub name: String,
    /// PKCS #10, DER; the manager takes only the public key from it.
    pub csr: Vec<u8>,
}

impl std::fmt::Debug for JoinRequest {
    /// Leaves the secret out: debug output ends up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("role", &self.role)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The manager's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinResponse {
    /// Welcome.
    Accepted {
        /// The new `NodeId`'s or `IngressId`'s bits.
        id: u64,
        /// The cluster.
        cluster: ClusterId,
        /// Leaf first, then the CA; DER.
        chain: Vec<Vec<u8>>,
    },
    /// No; why (a wrong or rotated token, a name that is taken).
    Refused(String),
    /// Ask the leader.
    Redirect {
        /// Its address for links, if one is known.
        leader: Option<std::net::SocketAddr>,
        /// Of the cluster's configuration, to break loops.
        generation: Generation,
    },
}
