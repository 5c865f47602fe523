//! What is asked of the scheduler, what it answers, and the reservation that lies between.

use ballast_model::{
    Claim, NodeId, Placement, PortBinding, PortSpec, Resources, ServiceId, TopologyKey,
};

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
    /// Never taken: nodes kept for tasks of higher priority that wait for their victims to end.
    pub kept: &'a [NodeId],
    /// Which services the placement's names mean.
    pub peers: &'a Peers,
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
            kept: &[],
            peers: Peers::none(),
        }
    }

    /// Returns the same request, with the names in its placement resolved.
    #[must_use]
    pub fn among(self, peers: &'a Peers) -> Self {
        Self { peers, ..self }
    }

    /// Returns the same request that never takes these nodes.
    #[must_use]
    pub fn keeping(self, kept: &'a [NodeId]) -> Self {
        Self { kept, ..self }
    }

    /// Returns which service the affinity at this place of the placement is to, if it exists.
    pub(crate) fn peer(&self, place: usize) -> Option<ServiceId> {
        if self.placement.services[place].is_own() {
            return Some(self.service);
        }
        self.peers.services.get(place).copied().flatten()
    }

    /// Returns whether it has to be near to this service.
    pub(crate) fn needs(&self, service: ServiceId) -> bool {
        let affinities = self.placement.services.iter().enumerate();
        affinities
            .filter(|(_, affinity)| affinity.required && affinity.weight > 0)
            .any(|(place, _)| self.peer(place) == Some(service))
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

/// Which services a placement's affinities mean, and which keep away from it: resolved by whoever
/// knows the names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers {
    /// For each of [`Placement::services`] the service of that name, if there is one.
    pub services: Vec<Option<ServiceId>>,
    /// Services that are required to keep away from this one: the rule holds both ways.
    pub repelling: Vec<Repelling>,
}

/// A service that keeps away from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repelling {
    /// Which.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// What counts as near.
    pub over: TopologyKey,
}

impl Peers {
    /// Returns peers without any: names mean nothing, but for the service itself.
    pub fn none() -> &'static Self {
        static NONE: Peers = Peers {
            services: Vec::new(),
            repelling: Vec::new(),
        };
        &NONE
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
