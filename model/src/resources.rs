//! What a node has, what is taken, what a task wants, and the one predicate that judges it.
//!
//! The scheduler calls [`fits`] before it proposes a placement and `apply` calls it again when the
//! placement is committed: one function, so that the two can never disagree.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Bytes, Device, DeviceGrant, DeviceRequest, MilliCpu, Socket, SocketGrant};

/// What a task reserves.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Reserved CPU; 0 reserves nothing and sets no limit.
    #[schema(value_type = String, example = "0.5")]
    pub cpu: MilliCpu,
    /// Reserved memory; 0 reserves nothing and sets no limit.
    #[schema(value_type = u64, example = 67_108_864)]
    pub memory: Bytes,
    /// Reserved disk, rounded up to whole MiB when it is placed; nothing limits what is written.
    #[schema(value_type = u64, example = 0)]
    pub disk: Bytes,
    /// Devices, whole or a fraction of one.
    pub devices: DeviceRequest,
    /// Units of resources that the operator named, such as `license: 1`.
    pub custom: BTreeMap<String, u32>,
}

impl Resources {
    /// Returns a reservation of CPU and memory alone.
    pub const fn of(cpu: MilliCpu, memory: Bytes) -> Self {
        Self {
            cpu,
            memory,
            disk: Bytes(0),
            devices: DeviceRequest::NONE,
            custom: BTreeMap::new(),
        }
    }

    /// Returns whether nothing is reserved.
    pub fn is_empty(&self) -> bool {
        self.cpu.0 == 0
            && self.memory.0 == 0
            && self.disk.0 == 0
            && self.devices.count == 0
            && self.custom.values().all(|&units| units == 0)
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Schedulable CPU.
    pub cpu: MilliCpu,
    /// Schedulable memory.
    pub memory: Bytes,
    /// How many tasks may run at once.
    pub task_slots: u32,
    /// Where dynamic ports come from.
    pub ports: PortRange,
    /// Schedulable disk.
    pub disk: Bytes,
    /// Its devices; claims name them by their place here. At most
    /// [`crate::limits::DEVICES_PER_NODE`].
    pub devices: Vec<Device>,
    /// Units of resources that its operator named; at most
    /// [`crate::limits::CUSTOM_RESOURCES`] kinds.
    pub custom: BTreeMap<String, u32>,
    /// Its sockets (NUMA nodes), if it reported them; at most
    /// [`crate::limits::SOCKETS_PER_NODE`].
    pub sockets: Vec<Socket>,
}

impl Capacity {
    /// Returns CPU, memory and as many task slots as usual, dynamic ports from the usual range,
    /// and nothing else.
    pub const fn of(cpu: MilliCpu, memory: Bytes) -> Self {
        Self {
            cpu,
            memory,
            task_slots: crate::limits::DEFAULT_TASK_SLOTS,
            ports: PortRange::DEFAULT,
            disk: Bytes(0),
            devices: Vec::new(),
            custom: BTreeMap::new(),
            sockets: Vec::new(),
        }
    }
}

/// What one task takes on a node, its ports already chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// What it reserves.
    pub resources: Resources,
    /// Host ports, each on its own.
    pub ports: Vec<u16>,
    /// Which devices it was given, and how much of each.
    pub devices: Vec<DeviceGrant>,
    /// Which sockets it is pinned to, and what it takes of each; empty if it floats.
    pub sockets: Vec<SocketGrant>,
}

/// What is taken on a node: the sum of its claims.
///
/// Sums are wider than one node's capacity, so that they cannot overflow while it shrinks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allocation {
    /// Reserved CPU in thousandths of a core.
    pub cpu: u64,
    /// Reserved memory in bytes.
    pub memory: u64,
    /// Reserved disk in bytes.
    pub disk: u64,
    /// Tasks.
    pub tasks: u32,
    /// Host ports in use.
    pub ports: BTreeSet<u16>,
    /// Thousandths taken of each device, by its place; devices after the last are free.
    pub devices: Vec<u32>,
    /// Units taken of named resources; none is 0.
    pub custom: BTreeMap<String, u64>,
    /// Taken of each socket by tasks that are pinned to it; sockets after the last are free.
    pub sockets: Vec<SocketTaken>,
}

/// What pinned tasks take of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SocketTaken {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

impl Allocation {
    /// Adds a claim that [`fits`].
    ///
    /// # Panics
    /// If a port is claimed twice: a breach of an invariant, as `fits` was to be asked first.
    pub fn add(&mut self, claim: &Claim) {
        let wanted = &claim.resources;
        self.cpu += u64::from(wanted.cpu.0);
        self.memory += wanted.memory.0;
        self.disk += wanted.disk.0;
        self.tasks += 1;
        for &port in &claim.ports {
            assert!(
                self.ports.insert(port),
                "port {port} claimed twice on one node"
            );
        }
        for grant in &claim.devices {
            *place(&mut self.devices, grant.device) += u32::from(grant.milli);
        }
        for grant in &claim.sockets {
            let socket = place(&mut self.sockets, grant.socket);
            socket.cpu += u64::from(grant.cpu.0);
            socket.memory += grant.memory.0;
        }
        for (name, &units) in wanted.custom.iter().filter(|(_, units)| **units > 0) {
            *self.custom.entry(name.clone()).or_default() += u64::from(units);
        }
    }

    /// Takes a claim back.
    ///
    /// # Panics
    /// If it was never added: every reservation is released exactly once.
    pub fn remove(&mut self, claim: &Claim) {
        let wanted = &claim.resources;
        self.cpu = less(self.cpu, wanted.cpu.0.into());
        self.memory = less(self.memory, wanted.memory.0);
        self.disk = less(self.disk, wanted.disk.0);
        self.tasks = self.tasks.checked_sub(1).expect(RELEASED_ONCE);
        for port in &claim.ports {
            assert!(self.ports.remove(port), "{RELEASED_ONCE}: port {port}");
        }
        for grant in &claim.devices {
            let taken = place(&mut self.devices, grant.device);
            *taken = taken.checked_sub(grant.milli.into()).expect(RELEASED_ONCE);
        }
        for grant in &claim.sockets {
            let socket = place(&mut self.sockets, grant.socket);
            socket.cpu = less(socket.cpu, grant.cpu.0.into());
            socket.memory = less(socket.memory, grant.memory.0);
        }
        for (name, &units) in wanted.custom.iter().filter(|(_, units)| **units > 0) {
            let taken = self.custom.get_mut(name).expect(RELEASED_ONCE);
            *taken = less(*taken, units.into());
            if *taken == 0 {
                self.custom.remove(name);
            }
        }
        // What was never given and what was given back are equal.
        trim(&mut self.devices);
        trim(&mut self.sockets);
    }

    /// Returns the thousandths taken of a device.
    pub fn device(&self, place: usize) -> u32 {
        self.devices.get(place).copied().unwrap_or(0)
    }

    /// Returns what pinned tasks take of a socket.
    pub fn socket(&self, place: usize) -> SocketTaken {
        self.sockets.get(place).copied().unwrap_or_default()
    }
}

const RELEASED_ONCE: &str = "a claim is released once, and only if it was added";

fn less(taken: u64, back: u64) -> u64 {
    taken.checked_sub(back).expect(RELEASED_ONCE)
}

fn place<T: Default + Clone>(list: &mut Vec<T>, place: u8) -> &mut T {
    let place = usize::from(place);
    if list.len() <= place {
        list.resize(place + 1, T::default());
    }
    &mut list[place]
}

fn trim<T: Default + PartialEq>(list: &mut Vec<T>) {
    while list.last().is_some_and(|last| *last == T::default()) {
        list.pop();
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
    /// Not enough disk.
    #[error("lacks {0} of disk")]
    Disk(Bytes),
    /// Not enough free devices of this kind.
    #[error("lacks {lack} free {kind}")]
    Devices {
        /// Which kind.
        kind: String,
        /// How many devices with enough left are missing.
        lack: u8,
    },
    /// Not enough of a named resource.
    #[error("lacks {lack} of {name}")]
    Custom {
        /// Its name.
        name: String,
        /// How much.
        lack: u32,
    },
    /// No socket has room for what is to be within one.
    #[error("has no socket with enough left")]
    Socket,
}

/// Returns whether a node with this capacity and these claims can take one more.
///
/// # Errors
/// The first dimension that is short, in the order CPU, memory, slots, disk, named resources,
/// devices, sockets, ports.
pub fn fits(capacity: &Capacity, taken: &Allocation, claim: &Claim) -> Result<(), Shortage> {
    fits_amounts(capacity, taken, &claim.resources)?;
    fits_devices(capacity, taken, claim)?;
    fits_sockets(capacity, taken, claim)?;
    for (place, port) in claim.ports.iter().enumerate() {
        if taken.ports.contains(port) || claim.ports[..place].contains(port) {
            return Err(Shortage::Port(*port));
        }
    }
    Ok(())
}

/// Returns whether the plain amounts (CPU, memory, slots, disk, named resources) are there: the
/// part of [`fits`] that can be asked before devices, sockets and ports are chosen.
///
/// # Errors
/// The first that is short.
pub fn fits_amounts(
    capacity: &Capacity,
    taken: &Allocation,
    wanted: &Resources,
) -> Result<(), Shortage> {
    let cpu = lack(taken.cpu, wanted.cpu.0.into(), capacity.cpu.0.into());
    if cpu > 0 {
        return Err(Shortage::Cpu(MilliCpu(saturate(cpu))));
    }
    let memory = lack(taken.memory, wanted.memory.0, capacity.memory.0);
    if memory > 0 {
        return Err(Shortage::Memory(Bytes(memory)));
    }
    if taken.tasks >= capacity.task_slots {
        return Err(Shortage::Slots);
    }
    let disk = lack(taken.disk, wanted.disk.0, capacity.disk.0);
    if wanted.disk.0 > 0 && disk > 0 {
        return Err(Shortage::Disk(Bytes(disk)));
    }
    for (name, &units) in wanted.custom.iter().filter(|(_, units)| **units > 0) {
        let has = capacity.custom.get(name).copied().unwrap_or(0);
        let gave = taken.custom.get(name).copied().unwrap_or(0);
        let lack = lack(gave, units.into(), has.into());
        if lack > 0 {
            return Err(Shortage::Custom {
                name: name.clone(),
                lack: saturate(lack),
            });
        }
    }
    Ok(())
}

fn fits_devices(capacity: &Capacity, taken: &Allocation, claim: &Claim) -> Result<(), Shortage> {
    let wanted = &claim.resources.devices;
    let short = |lack: u8| {
        Err(Shortage::Devices {
            kind: wanted.kind.clone(),
            lack,
        })
    };
    let granted = u8::try_from(claim.devices.len()).unwrap_or(u8::MAX);
    if granted != wanted.count {
        return short(wanted.count.saturating_sub(granted).max(1));
    }
    for (nth, grant) in claim.devices.iter().enumerate() {
        let place = usize::from(grant.device);
        let is_there = capacity
            .devices
            .get(place)
            .is_some_and(|device| device.kind == wanted.kind);
        let twice = claim.devices[..nth]
            .iter()
            .any(|other| other.device == grant.device);
        let left = crate::device::WHOLE.saturating_sub(taken.device(place));
        if !is_there || twice || grant.milli != wanted.milli || u32::from(grant.milli) > left {
            return short(1);
        }
    }
    Ok(())
}

fn fits_sockets(capacity: &Capacity, taken: &Allocation, claim: &Claim) -> Result<(), Shortage> {
    for (nth, grant) in claim.sockets.iter().enumerate() {
        let place = usize::from(grant.socket);
        let Some(socket) = capacity.sockets.get(place) else {
            return Err(Shortage::Socket);
        };
        let twice = claim.sockets[..nth]
            .iter()
            .any(|other| other.socket == grant.socket);
        let gave = taken.socket(place);
        let cpu = lack(gave.cpu, grant.cpu.0.into(), socket.cpu.0.into());
        let memory = lack(gave.memory, grant.memory.0, socket.memory.0);
        if twice || cpu > 0 || memory > 0 {
            return Err(Shortage::Socket);
        }
    }
    Ok(())
}

/// Returns how much is missing to give `wanted` more.
fn lack(taken: u64, wanted: u64, has: u64) -> u64 {
    taken.saturating_add(wanted).saturating_sub(has)
}

fn saturate(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capacity() -> Capacity {
        Capacity {
            task_slots: 3,
            ports: PortRange { first: 1, last: 9 },
            disk: Bytes::from_mib(10),
            devices: vec![
                Device::of("gpu", "T4"),
                Device::of("gpu", "T4"),
                Device::of("fpga", "X"),
            ],
            custom: [("license".to_owned(), 2)].into(),
            sockets: vec![
                Socket {
                    cpu: MilliCpu(500),
                    memory: Bytes::from_mib(50)
                };
                2
            ],
            ..Capacity::of(MilliCpu(1000), Bytes::from_mib(100))
        }
    }

    fn claim(cpu: u32, mib: u64, ports: &[u16]) -> Claim {
        Claim {
            resources: Resources::of(MilliCpu(cpu), Bytes::from_mib(mib)),
            ports: ports.to_vec(),
            ..Claim::default()
        }
    }

    fn gpus(milli: u16, places: &[u8]) -> Claim {
        let mut claim = claim(1, 0, &[]);
        claim.resources.devices = DeviceRequest {
            kind: "gpu".to_owned(),
            count: u8::try_from(places.len()).unwrap(),
            milli,
        };
        let grant = |&device: &u8| DeviceGrant { device, milli };
        claim.devices = places.iter().map(grant).collect();
        claim
    }

    #[test]
    fn a_device_gives_no_more_than_it_has() {
        let mut taken = Allocation::default();
        let short = |lack| {
            Err(Shortage::Devices {
                kind: "gpu".to_owned(),
                lack,
            })
        };
        taken.add(&gpus(600, &[0]));
        let ask = |claim: Claim| fits(&capacity(), &taken, &claim);
        assert_eq!(ask(gpus(400, &[0])), Ok(()));
        assert_eq!(ask(gpus(401, &[0])), short(1));
        assert_eq!(ask(gpus(1000, &[1])), Ok(()));
        assert_eq!(ask(gpus(1000, &[0, 1])), short(1));
        assert_eq!(ask(gpus(1000, &[1, 1])), short(1), "one device counts once");
        assert_eq!(ask(gpus(500, &[2])), short(1), "of another kind");
        assert_eq!(ask(gpus(500, &[9])), short(1), "not there");
        let mut none = gpus(1000, &[0, 1]);
        none.devices.clear();
        assert_eq!(ask(none), short(2), "asked for and not given");
    }

    #[test]
    fn sockets_disk_and_named_resources_refuse_by_name() {
        let mut taken = Allocation::default();
        let mut first = claim(300, 10, &[]);
        first.sockets = vec![SocketGrant {
            socket: 1,
            cpu: MilliCpu(300),
            memory: Bytes::from_mib(10),
        }];
        first.resources.disk = Bytes::from_mib(6);
        first.resources.custom = [("license".to_owned(), 1)].into();
        taken.add(&first);
        let ask = |claim: &Claim| fits(&capacity(), &taken, claim);
        assert_eq!(ask(&first), Err(Shortage::Disk(Bytes::from_mib(2))));
        first.resources.disk = Bytes::from_mib(4);
        assert_eq!(ask(&first), Err(Shortage::Socket));
        first.sockets[0].socket = 0;
        assert_eq!(ask(&first), Ok(()));
        first.sockets[0].socket = 2;
        assert_eq!(ask(&first), Err(Shortage::Socket), "there is no third");
        first.sockets.clear();
        first.resources.custom = [("license".to_owned(), 3)].into();
        let lack = Err(Shortage::Custom {
            name: "license".to_owned(),
            lack: 2,
        });
        assert_eq!(ask(&first), lack);
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
            claims in prop::collection::vec(
                (0u32..700, 0u64..70, 1u16..12, 0u16..1001, 0u8..3), 0..20)
        ) {
            let capacity = capacity();
            let mut taken = Allocation::default();
            let mut held = Vec::new();
            for (cpu, mib, port, milli, device) in claims {
                let mut claim = claim(cpu, mib, &[port]);
                if milli > 0 {
                    let devices = gpus(milli, &[device]);
                    claim.resources.devices = devices.resources.devices;
                    claim.devices = devices.devices;
                }
                claim.resources.custom = [("license".to_owned(), u32::from(device))].into();
                claim.sockets = vec![SocketGrant {
                    socket: device,
                    cpu: claim.resources.cpu,
                    memory: claim.resources.memory,
                }];
                if fits(&capacity, &taken, &claim).is_ok() {
                    taken.add(&claim);
                    held.push(claim);
                }
                prop_assert!(taken.cpu <= u64::from(capacity.cpu.0));
                prop_assert!(taken.memory <= capacity.memory.0);
                prop_assert!(taken.tasks <= capacity.task_slots);
                prop_assert!(taken.devices.iter().all(|&taken| taken <= 1000));
                prop_assert!(taken.custom.values().all(|&units| units <= 2));
                prop_assert!(taken.sockets.iter().all(|socket| socket.cpu <= 500));
            }
            for claim in &held {
                taken.remove(claim);
            }
            prop_assert_eq!(taken, Allocation::default());
        }
    }
}
