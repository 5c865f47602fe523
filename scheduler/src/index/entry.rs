//! One node in the index.

use std::collections::BTreeMap;

use ballast_model::{
    Allocation, Availability, Bytes, Claim, MilliCpu, Node, NodeStatus, ServiceId, Shortage, fits,
};

use super::grid::{At, Cell, Rank};
use crate::ports::Ports;
use crate::refusal::Reason;
use crate::request::Request;

/// A node, what is taken on it, and where it is filed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub node: Node,
    pub taken: Allocation,
    /// Tasks of each service here.
    pub services: BTreeMap<ServiceId, u32>,
    pub ports: Ports,
    /// Its equivalence class.
    pub class: usize,
    /// Where it is filed in its class; none while nothing may be placed here.
    pub filed: Option<(Cell, Rank)>,
}

impl Entry {
    pub(crate) fn new(node: Node, class: usize) -> Self {
        Self {
            node,
            taken: Allocation::default(),
            services: BTreeMap::new(),
            ports: Ports::default(),
            class,
            filed: None,
        }
    }

    /// Returns how many tasks of this service are here.
    pub(crate) fn tasks_of(&self, service: ServiceId) -> u32 {
        self.services.get(&service).copied().unwrap_or(0)
    }

    /// Returns where the node belongs now, if anything may be placed here.
    pub(crate) fn place_in_grid(&self, at: At) -> Option<(Cell, Rank)> {
        if !self.node.is_schedulable() {
            return None;
        }
        let capacity = &self.node.description.capacity;
        let cpu = u64::from(capacity.cpu.0).saturating_sub(self.taken.cpu);
        let memory = capacity.memory.0.saturating_sub(self.taken.memory);
        let cell = Cell::of(
            MilliCpu(u32::try_from(cpu).unwrap_or(u32::MAX)),
            Bytes(memory),
        );
        let rank = Rank {
            tasks: self.taken.tasks,
            node: self.node.id,
            at,
        };
        Some((cell, rank))
    }

    /// Returns the claim that the request would make here, its ports chosen.
    ///
    /// # Errors
    /// The first rule that excludes this node, in the order of [`Reason`].
    pub(crate) fn judge(&self, request: &Request<'_>) -> Result<Offer, Reason> {
        match (self.node.status, self.node.availability) {
            (NodeStatus::Down, _) => return Err(Reason::Down),
            (NodeStatus::Suspect, _) => return Err(Reason::Suspect),
            (NodeStatus::Ready, Availability::Drain) => return Err(Reason::Drained),
            (NodeStatus::Ready, Availability::Pause) => return Err(Reason::Paused),
            (NodeStatus::Ready, Availability::Active) => {}
        }
        let constraints = &request.placement.constraints;
        if let Some(broken) = constraints.iter().find(|c| !self.node.meets(c)) {
            return Err(Reason::Constraint(broken.to_string()));
        }
        self.judge_room(request)
    }

    /// Returns the same as [`Self::judge`] for a node that may take tasks and meets the
    /// constraints.
    pub(crate) fn judge_room(&self, request: &Request<'_>) -> Result<Offer, Reason> {
        let most = request.placement.max_replicas_per_node;
        if most > 0 && self.tasks_of(request.service) >= most {
            return Err(Reason::MaxReplicas(most));
        }
        let capacity = &self.node.description.capacity;
        let mut claim = Claim {
            resources: request.resources,
            ports: Vec::new(),
        };
        // Asked first without ports, as choosing ports costs more than the answer.
        fits(capacity, &self.taken, &claim)?;
        let chosen = self
            .ports
            .choose(capacity.ports, &self.taken, request.ports)?;
        claim.ports = chosen.numbers;
        fits(capacity, &self.taken, &claim)?;
        Ok(Offer {
            claim,
            bindings: chosen.bindings,
        })
    }

    /// Returns all that this node lacks for the request, each dimension asked on its own.
    pub(crate) fn shortages(&self, request: &Request<'_>) -> Vec<Shortage> {
        let capacity = &self.node.description.capacity;
        let alone = |cpu, memory| Claim {
            resources: ballast_model::Resources { cpu, memory },
            ports: Vec::new(),
        };
        // An over-committed node is short of CPU even for nothing: that is told once.
        let cpu = fits(
            capacity,
            &self.taken,
            &alone(request.resources.cpu, Bytes(0)),
        )
        .err();
        let memory = alone(MilliCpu(0), request.resources.memory);
        let memory = fits(capacity, &self.taken, &memory).err();
        let mut lacks: Vec<Shortage> = cpu.into_iter().collect();
        lacks.extend(memory.filter(|lack| match lack {
            Shortage::Cpu(_) => lacks.is_empty(),
            lack => !lacks.contains(lack),
        }));
        let ports = self
            .ports
            .choose(capacity.ports, &self.taken, request.ports);
        lacks.extend(ports.err());
        lacks
    }
}

/// What a node would give.
#[derive(Debug)]
pub(crate) struct Offer {
    pub claim: Claim,
    pub bindings: Vec<ballast_model::PortBinding>,
}
