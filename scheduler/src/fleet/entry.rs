//! One node, as the scheduler knows it.

use ballast_model::{
    Allocation, Bytes, Claim, MilliCpu, Node, Resources, ServiceId, Shortage, fits, fits_amounts,
};

use crate::devices;
use crate::index::{Amounts, DEVICES, Fields, Lanes, Remains, WORDS};
use crate::ports::Ports;
use crate::refusal::Reason;
use crate::request::Request;

const MIB: u64 = 1 << 20;

const fn devices_whole() -> u32 {
    ballast_model::device::WHOLE
}

/// A node and what is taken on it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub node: Node,
    pub taken: Allocation,
    /// Tasks of each service here, by id.
    services: Vec<(ServiceId, u32)>,
    pub ports: Ports,
}

impl Entry {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            taken: Allocation::default(),
            services: Vec::new(),
            ports: Ports::default(),
        }
    }

    /// Returns how many tasks of this service are here.
    pub(crate) fn tasks_of(&self, service: ServiceId) -> u32 {
        let found = self.services.binary_search_by_key(&service, |(id, _)| *id);
        found.map_or(0, |place| self.services[place].1)
    }

    /// Returns the services that have tasks here, by id, and how many.
    pub(crate) fn services(&self) -> &[(ServiceId, u32)] {
        &self.services
    }

    /// Counts a task more, or less, of a service.
    ///
    /// # Panics
    /// If there is none to be less.
    pub(crate) fn count(&mut self, service: ServiceId, more: bool) {
        let found = self.services.binary_search_by_key(&service, |(id, _)| *id);
        match (found, more) {
            (Ok(place), true) => self.services[place].1 += 1,
            (Err(place), true) => self.services.insert(place, (service, 1)),
            (Ok(place), false) if self.services[place].1 > 1 => self.services[place].1 -= 1,
            (Ok(place), false) => {
                self.services.remove(place);
            }
            (Err(_), false) => panic!("a claim given back was held"),
        }
    }

    /// Returns what is free here, below zero where the capacity shrank under what is taken.
    pub(crate) fn free(&self) -> Amounts {
        let (has, took) = (&self.node.offered, &self.taken);
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        // The most that the word counts is the most there is, whatever a node says it has.
        let most = Amounts::of(Fields {
            cpu: has.cpu.0.into(),
            memory: signed(has.memory.0),
            disk: signed(has.disk.0 / MIB),
            slots: has.task_slots.into(),
        });
        Amounts::of(Fields {
            cpu: most.cpu() - signed(took.cpu),
            memory: most.memory() - signed(took.memory),
            disk: most.disk() - signed(took.disk.div_ceil(MIB)),
            slots: most.slots() - i64::from(took.tasks),
        })
    }

    /// Returns what each device has left.
    pub(crate) fn remains(&self) -> Remains {
        if self.node.offered.devices.is_empty() {
            return Remains::default();
        }
        let left = |place: usize| {
            let whole = u32::from(place < self.node.offered.devices.len()) * devices_whole();
            u16::try_from(whole.saturating_sub(self.taken.device(place))).unwrap_or(0)
        };
        let each: [u16; DEVICES] = std::array::from_fn(left);
        let per_word = DEVICES / WORDS;
        std::array::from_fn(|word| Lanes::of(each[word * per_word..][..per_word].iter().copied()))
    }

    /// Returns the claim that the request would make here, its devices, sockets and ports chosen.
    ///
    /// # Errors
    /// What is short first, or the most replicas that a node may have.
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
            resources: Resources {
                disk: Bytes(wanted.disk.0.next_multiple_of(MIB)),
                ..wanted.clone()
            },
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
