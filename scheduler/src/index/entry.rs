//! One node in the index.

use std::collections::BTreeMap;

use ballast_model::{
    Allocation, Availability, Bytes, Claim, MilliCpu, Node, NodeStatus, Resources, ServiceId,
    Shortage, fits, fits_amounts,
};

use super::grid::{At, Cell, Rank};
use crate::devices;
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
        let capacity = &self.node.offered;
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
        let capacity = &self.node.offered;
        let wanted = request.resources;
        // Asked first without devices and ports, as choosing them costs more than the answer.
        fits_amounts(capacity, &self.taken, wanted)?;
        let devices = devices::choose(capacity, &self.taken, &wanted.devices)?;
        let sockets = request.placement.sockets;
        let sockets = devices::choose_sockets(capacity, &self.taken, wanted, sockets)?;
        let chosen = self
            .ports
            .choose(capacity.ports, &self.taken, request.ports)?;
        let claim = Claim {
            resources: wanted.clone(),
            ports: chosen.numbers,
            devices,
            sockets,
        };
        fits(capacity, &self.taken, &claim)?;
        Ok(Offer {
            claim,
            bindings: chosen.bindings,
        })
    }

    /// Returns all that this node lacks for the request, each dimension asked on its own.
    pub(crate) fn shortages(&self, request: &Request<'_>) -> Vec<Shortage> {
        let capacity = &self.node.offered;
        let wanted = request.resources;
        let mut alone: Vec<Resources> = vec![
            Resources::of(wanted.cpu, Bytes(0)),
            Resources::of(MilliCpu(0), wanted.memory),
            Resources {
                disk: wanted.disk,
                ..Resources::default()
            },
        ];
        alone.extend(wanted.custom.iter().map(|(name, &units)| Resources {
            custom: [(name.clone(), units)].into(),
            ..Resources::default()
        }));
        let mut lacks: Vec<Shortage> = Vec::new();
        for alone in &alone {
            // An over-committed node is short of CPU even for nothing: that is told once.
            let lack = fits_amounts(capacity, &self.taken, alone).err();
            lacks.extend(lack.filter(|lack| match lack {
                Shortage::Cpu(_) => lacks.is_empty(),
                lack => !lacks.contains(lack),
            }));
        }
        lacks.extend(devices::choose(capacity, &self.taken, &wanted.devices).err());
        let sockets = request.placement.sockets;
        lacks.extend(devices::choose_sockets(capacity, &self.taken, wanted, sockets).err());
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
