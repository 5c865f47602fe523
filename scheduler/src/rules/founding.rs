//! Where a service settles that has to stay together: the place with the most room for it.
//!
//! Its first task may go anywhere, and all that follow are bound to that choice. The fullest node
//! that fits, best for a task that stands alone, would be the worst: on the NUMA lists 133 and 201
//! of 4,998 requests then find their rack full, and 0 and 4 if the first looks at the racks.

use std::collections::BTreeMap;

use ballast_model::{Allocation, Capacity, Resources, TopologyKey, device};

use super::Census;
use crate::fleet::{Entry, Fleet};
use crate::request::Request;

/// Room for tasks like the first one, by place.
#[derive(Debug)]
pub(super) enum Founding<'n> {
    /// The service is settled, or need not stay together.
    No,
    /// It stays together on one node.
    Nodes,
    /// It stays together in one value of a label.
    Values(String, BTreeMap<Option<&'n str>, u64>),
}

impl<'n> Founding<'n> {
    /// Returns the room of every place if this request is the first of a service that has to stay
    /// together.
    ///
    /// # Complexity
    /// One pass over the nodes, for the first task of such a service.
    pub(super) fn of(fleet: &'n Fleet, census: &Census, request: &Request<'_>) -> Self {
        let mut own = request.placement.services.iter();
        let own =
            own.find(|affinity| affinity.is_own() && affinity.required && affinity.weight > 0);
        match own {
            Some(affinity) if census.total(request.service) == 0 => match &affinity.over {
                TopologyKey::Node => Self::Nodes,
                TopologyKey::Label(label) => {
                    let mut rooms = BTreeMap::new();
                    for entry in fleet.iter().filter(|entry| entry.node.is_schedulable()) {
                        *rooms.entry(entry.node.label(label)).or_default() += room(entry, request);
                    }
                    Self::Values(label.clone(), rooms)
                }
            },
            _ => Self::No,
        }
    }

    /// Returns the room of the place that a node is in; 0 where it does not matter.
    pub(super) fn room(&self, entry: &'n Entry, request: &Request<'_>) -> u64 {
        match self {
            Self::No => 0,
            Self::Nodes => room(entry, request),
            Self::Values(label, rooms) => rooms.get(&entry.node.label(label)).copied().unwrap_or(0),
        }
    }
}

/// Returns how many tasks like this one a node has room for, ports and named resources aside.
fn room(entry: &Entry, request: &Request<'_>) -> u64 {
    let (has, gave, wanted) = (&entry.node.offered, &entry.taken, request.resources);
    let amounts = [
        times(
            u64::from(has.cpu.0).saturating_sub(gave.cpu),
            wanted.cpu.0.into(),
        ),
        times(has.memory.0.saturating_sub(gave.memory), wanted.memory.0),
        times(has.disk.0.saturating_sub(gave.disk), wanted.disk.0),
        has.task_slots.saturating_sub(gave.tasks).into(),
        on_sockets(has, gave, wanted, request.placement.sockets),
        on_devices(has, gave, wanted),
    ];
    amounts.into_iter().min().unwrap_or(0)
}

/// Returns how often a part goes into what is free; of nothing any number does.
fn times(free: u64, part: u64) -> u64 {
    free.checked_div(part).unwrap_or(u64::MAX)
}

fn on_sockets(has: &Capacity, gave: &Allocation, wanted: &Resources, sockets: u8) -> u64 {
    if sockets == 0 {
        return u64::MAX;
    }
    let each = u64::from(sockets);
    let fit = has.sockets.iter().enumerate().map(|(place, socket)| {
        let took = gave.socket(place);
        let cpu = u64::from(socket.cpu.0).saturating_sub(took.cpu);
        let memory = socket.memory.0.saturating_sub(took.memory);
        let parts = |whole: u64| whole.div_ceil(each);
        times(cpu, parts(wanted.cpu.0.into())).min(times(memory, parts(wanted.memory.0)))
    });
    let mut fit: Vec<u64> = fit.collect();
    if sockets == 1 {
        return fit.iter().fold(0, |sum, some| sum.saturating_add(*some));
    }
    // The part that fits least often on the sockets that are taken decides.
    fit.sort_unstable_by(|a, b| b.cmp(a));
    fit.get(usize::from(sockets) - 1).copied().unwrap_or(0)
}

fn on_devices(has: &Capacity, gave: &Allocation, wanted: &Resources) -> u64 {
    let asked = &wanted.devices;
    if asked.count == 0 || asked.milli == 0 {
        return u64::MAX;
    }
    let places = has.devices.iter().enumerate();
    let of_kind = places.filter(|(_, device)| device.kind == asked.kind);
    let parts: u64 = of_kind
        .map(|(place, _)| device::WHOLE.saturating_sub(gave.device(place)))
        .map(|left| u64::from(left / u32::from(asked.milli)))
        .sum();
    parts / u64::from(asked.count)
}
