//! What is asked of the scheduler, what it answers, and the reservation that lies between.

use ballast_model::{Claim, NodeId, Placement, PortBinding, PortSpec, Resources, ServiceId};

/// One task that wants a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whose task: spread and `max_replicas_per_node` count the tasks of this service.
    pub service: ServiceId,
    /// What it reserves.
    pub resources: &'a Resources,
    /// The ports it serves, each fixed or from the node's range.
    pub ports: &'a [PortSpec],
    /// Constraints, spread, and how many may share a node.
    pub placement: &'a Placement,
    /// This node or none: tasks of global services are made for a node.
    pub node: Option<NodeId>,
    /// Taken only if nothing else fits: nodes where the last tries failed.
    pub avoid: &'a [NodeId],
}

impl<'a> Request<'a> {
    /// Returns what a task of this service asks for, on any node.
    pub fn of(service: ServiceId, spec: &'a ballast_model::ServiceSpec) -> Self {
        Self {
            service,
            resources: &spec.task.resources,
            ports: &spec.ports,
            placement: &spec.placement,
            node: None,
            avoid: &[],
        }
    }

    /// Returns the same request for this node only.
    #[must_use]
    pub fn on(self, node: NodeId) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    /// Returns the same request that takes these nodes only if nothing else fits.
    #[must_use]
    pub fn avoiding(self, avoid: &'a [NodeId]) -> Self {
        Self { avoid, ..self }
    }
}

/// A node was found and its resources are reserved.
#[derive(Debug)]
#[must_use = "what was reserved is to be committed or released"]
pub struct Placed {
    /// To be handed to `commit` or `release`.
    pub reservation: Reservation,
    /// Where.
    pub node: NodeId,
    /// What it takes there, ports included.
    pub claim: Claim,
    /// The same ports by the names that the spec gives them.
    pub ports: Vec<PortBinding>,
}

/// Resources that are held for a placement which is not committed yet.
///
/// It can be neither copied nor made elsewhere, and `commit` and `release` take it by value, so
/// it is closed at most once; that it is closed at all shows in [`crate::Tally::open`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation is to be committed or released"]
pub struct Reservation(pub(crate) u64);
