//! Ingress ↔ manager: route tables down, generations up, certificates.

use std::net::SocketAddr;

use ballast_model::{ClusterId, Generation, IngressId, ServiceId, ServiceTable};
use serde::{Deserialize, Serialize};

/// What an ingress says to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngressToManager {
    /// First on every connection.
    Hello {
        /// Must be the ingress of its certificate.
        ingress: IngressId,
        /// For people.
        name: String,
        /// Where agents connect to push health.
        feed: SocketAddr,
        /// What it has applied; 0 if nothing.
        generation: Generation,
    },
    /// It lives.
    Heartbeat,
    /// Its route table is at this generation.
    Applied(Generation),
    /// Ports that it could not listen on, with the reason; empty when all work.
    ListenFailures(Vec<(u16, String)>),
    /// Wants a new certificate for the same ingress.
    Renew {
        /// PKCS #10, DER.
        csr: Vec<u8>,
    },
}

/// What the leader says to an ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerToIngress {
    /// Answers [`IngressToManager::Hello`].
    Welcome {
        /// The cluster; must be that of the ingress's certificate.
        cluster: ClusterId,
    },
    /// Everything: services that are not in it are gone. First after `Welcome`.
    Snapshot {
        /// Orders snapshots and updates.
        generation: Generation,
        /// All services that have a published port or a route.
        services: Vec<ServiceTable>,
    },
    /// Services that changed, each whole.
    Update {
        /// Higher than that of the message before.
        generation: Generation,
        /// New or changed.
        changed: Vec<ServiceTable>,
        /// Gone.
        removed: Vec<ServiceId>,
    },
    /// Answers [`IngressToManager::Renew`]: leaf first, then the CA; DER.
    Certificate(Vec<Vec<u8>>),
    /// This manager does not lead: connect to that one.
    Redirect {
        /// The leader's address for links, if one is known.
        leader: Option<SocketAddr>,
    },
    /// The link will be closed; the reason is for the ingress's log.
    Refused(String),
}
