//! Agent ↔ ingress: health in one hop, leases, drains, and probes on demand.

use ballast_model::{AssignmentId, Health, Incarnation, Millis, NodeId, Sequence, Timestamp};
use serde::{Deserialize, Serialize};

/// What an agent pushes to every ingress. Each message renews the node's lease there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentToIngress {
    /// First on every connection.
    Hello {
        /// Must be the node of its certificate.
        node: NodeId,
        /// This life of the agent; a lower one than the ingress has seen is refused.
        incarnation: Incarnation,
    },
    /// Every assignment of this node: what the ingress knows of others of this node is stale.
    Sync(Vec<EndpointHealth>),
    /// One assignment changed.
    Change(EndpointHealth),
    /// It lives; every [`ballast_model::limits::HEARTBEAT_INTERVAL`].
    Heartbeat,
}

/// How one endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// Which: an ingress ignores those that are not bound to this node.
    pub assignment: AssignmentId,
    /// Highest (incarnation, sequence) wins.
    pub sequence: Sequence,
    /// How it is; `Draining` asks for [`IngressToAgent::Drained`].
    pub health: Health,
    /// When the agent saw it, by its own clock.
    pub seen: Timestamp,
}

/// What an ingress answers or asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngressToAgent {
    /// Answers [`AgentToIngress::Hello`].
    Welcome,
    /// The endpoint stalls here: requests are in flight, no bytes come, its peers answer. Probe it
    /// now.
    Probe {
        /// Which.
        assignment: AssignmentId,
        /// After which the probe has failed; derived from how fast its peers answer.
        timeout: Millis,
    },
    /// Answers a `Draining`: it gets no new requests any more. Sent when it has left the table,
    /// and again when the last request in flight has ended.
    Drained {
        /// Which.
        assignment: AssignmentId,
        /// The sequence number that asked.
        sequence: Sequence,
        /// Requests or connections still in flight here.
        in_flight: u32,
    },
}
