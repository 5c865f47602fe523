//! What a node has, what is taken, what a task wants, and the one predicate that judges it.
//!
//! The scheduler calls [`fits`] before it proposes a placement and `apply` calls it again when the
//! placement is committed: one function, so that the two can never disagree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Bytes, MilliCpu};

/// CPU and memory, as a task reserves them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Reserved CPU; 0 reserves nothing and sets no limit.
    #[schema(value_type = String, example = "0.5")]
    pub cpu: MilliCpu,
    /// Reserved memory; 0 reserves nothing and sets no limit.
    #[schema(value_type = u64, example = 67_108_864)]
    pub memory: Bytes,
}

/// Ports from which a node's dynamic ports are taken, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Below Linux's own ephemeral ports (32768–60999), so that no outgoing connection holds one.
    pub const DEFAULT: Self = Self {
        first: 20_000,
        last: 29_999,
    };

    /// Returns whether the range holds this port.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Returns how many ports it holds.
    pub const fn len(self) -> u32 {
        if self.last < self.first {
            0
        } else {
            (self.last - self.first) as u32 + 1
        }
    }

    /// Returns whether it holds no port.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What a node has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Schedulable CPU.
    pub cpu: MilliCpu,
    /// Schedulable memory.
    pub memory: Bytes,
    /// How many tasks may run at once.
    pub task_slots: u32,
    /// Where dynamic ports come from.
    pub ports: PortRange,
}

/// What one task takes on a node, its ports already chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// CPU and memory.
    pub resources: Resources,
    /// Host ports, each on its own.
    pub ports: Vec<u16>,
}

/// What is taken on a node: the sum of its claims.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allocation {
    /// Reserved CPU. Wider than one node's, so that the sum cannot overflow while it shrinks.
    pub cpu: u64,
    /// Reserved memory in bytes.
    pub memory: u64,
    /// Tasks.
    pub tasks: u32,
    /// Host ports in use.
    pub ports: BTreeSet<u16>,
}

impl Allocation {
    /// Adds a claim that [`fits`].
    ///
    /// # Panics
    /// If a port is claimed twice: a breach of an invariant, as `fits` was to be asked first.
    pub fn add(&mut self, claim: &Claim) {
        self.cpu += u64::from(claim.resources.cpu.0);
        self.memory += claim.resources.memory.0;
        self.tasks += 1;
        for &port in &claim.ports {
            assert!(
                self.ports.insert(port),
                "port {port} claimed twice on one node"
            );
        }
    }

    /// Takes a claim back.
    ///
    /// # Panics
    /// If it was never added: every reservation is released exactly once.
    pub fn remove(&mut self, claim: &Claim) {
        let less = "a claim is released once, and only if it was added";
        self.cpu = self
            .cpu
            .checked_sub(u64::from(claim.resources.cpu.0))
            .expect(less);
        self.memory = self
            .memory
            .checked_sub(claim.resources.memory.0)
            .expect(less);
        self.tasks = self.tasks.checked_sub(1).expect(less);
        for port in &claim.ports {
            assert!(self.ports.remove(port), "{less}: port {port}");
        }
    }
}

/// The first dimension in which a claim does not fit, and by how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Shortage {
    /// Not enough CPU.
    #[error("lacks {0} CPU")]
    Cpu(MilliCpu),
    /// Not enough memory.
    #[error("lacks {0} of memory")]
    Memory(Bytes),
    /// As many tasks as the node may run.
    #[error("has no free task slot")]
    Slots,
    /// A port that another task holds.
    #[error("port {0} is taken")]
    Port(u16),
    /// Not enough free dynamic ports.
    #[error("has no free port left")]
    NoFreePort,
}

/// Returns whether a node with this capacity and these claims can take one more.
///
/// # Errors
/// The first dimension that is short, in the order CPU, memory, slots, ports.
pub fn fits(capacity: &Capacity, taken: &Allocation, claim: &Claim) -> Result<(), Shortage> {
    let cpu = taken.cpu.saturating_add(u64::from(claim.resources.cpu.0));
    if cpu > u64::from(capacity.cpu.0) {
        let lack = cpu - u64::from(capacity.cpu.0);
        return Err(Shortage::Cpu(MilliCpu(
            u32::try_from(lack).unwrap_or(u32::MAX),
        )));
    }
    let memory = taken.memory.saturating_add(claim.resources.memory.0);
    if memory > capacity.memory.0 {
        return Err(Shortage::Memory(Bytes(memory - capacity.memory.0)));
    }
    if taken.tasks >= capacity.task_slots {
        return Err(Shortage::Slots);
    }
    for (place, port) in claim.ports.iter().enumerate() {
        if taken.ports.contains(port) || claim.ports[..place].contains(port) {
            return Err(Shortage::Port(*port));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capacity() -> Capacity {
        Capacity {
            cpu: MilliCpu(1000),
            memory: Bytes::from_mib(100),
            task_slots: 3,
            ports: PortRange { first: 1, last: 9 },
        }
    }

    fn claim(cpu: u32, mib: u64, ports: &[u16]) -> Claim {
        let resources = Resources {
            cpu: MilliCpu(cpu),
            memory: Bytes::from_mib(mib),
        };
        Claim {
            resources,
            ports: ports.to_vec(),
        }
    }

    #[test]
    fn each_dimension_refuses_by_name() {
        let mut taken = Allocation::default();
        taken.add(&claim(600, 50, &[7]));
        let ask = |claim: Claim| fits(&capacity(), &taken, &claim);
        assert_eq!(ask(claim(400, 50, &[8])), Ok(()));
        assert_eq!(ask(claim(401, 0, &[])), Err(Shortage::Cpu(MilliCpu(1))));
        assert_eq!(
            ask(claim(0, 51, &[])),
            Err(Shortage::Memory(Bytes::from_mib(1)))
        );
        assert_eq!(ask(claim(0, 0, &[7])), Err(Shortage::Port(7)));
        assert_eq!(ask(claim(0, 0, &[5, 5])), Err(Shortage::Port(5)));
        taken.add(&claim(0, 0, &[]));
        taken.add(&claim(0, 0, &[]));
        assert_eq!(
            fits(&capacity(), &taken, &claim(0, 0, &[])),
            Err(Shortage::Slots)
        );
    }

    proptest! {
        #[test]
        fn prop_what_fits_never_exceeds_capacity(
            claims in prop::collection::vec((0u32..700, 0u64..70, 1u16..12), 0..20)
        ) {
            let capacity = capacity();
            let mut taken = Allocation::default();
            let mut held = Vec::new();
            for (cpu, mib, port) in claims {
                let claim = claim(cpu, mib, &[port]);
                if fits(&capacity, &taken, &claim).is_ok() {
                    taken.add(&claim);
                    held.push(claim);
                }
                prop_assert!(taken.cpu <= u64::from(capacity.cpu.0));
                prop_assert!(taken.memory <= capacity.memory.0);
                prop_assert!(taken.tasks <= capacity.task_slots);
            }
            for claim in &held {
                taken.remove(claim);
            }
            prop_assert_eq!(taken, Allocation::default());
        }
    }
}
