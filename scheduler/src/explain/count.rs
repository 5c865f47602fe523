//! Comparing what many nodes have free with what is needed, several at a time.
//!
//! The loops have no branches and walk plain arrays, so that the compiler makes vector
//! instructions of them.

use ballast_model::{Bytes, MilliCpu, Target};

use crate::digest::{Facts, Group, Memory};
use crate::index::At;
use crate::refusal::Reason;
use crate::request::Request;

/// Nodes whose lack is compared at one time in the search for the least.
const LANES: usize = 16;
/// Nodes of one part: only parts that hold a near one are walked.
const PART: usize = 1024;
/// A lack is rounded down for each of CPU and memory where it is told, and not where it is
/// searched for: what is this near to the least may be it.
const ROUNDING: f32 = 3.0;
/// Nodes that may be the nearest whose lack is worked out to the last; others are as near but for
/// rounding.
const CANDIDATES: usize = 256;

/// What a task needs of a node, as far as the digest holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Need {
    cpu: i32,
    memory: Memory,
    ports: i32,
}

impl Need {
    /// Returns what a request needs; ports only if they are all that is left to be asked.
    pub(super) fn of(request: &Request<'_>, plain: bool) -> Self {
        let dynamic = |port: &&ballast_model::PortSpec| port.target == Target::Dynamic;
        let ports = request.ports.iter().filter(dynamic);
        let ports = if plain { ports.count() } else { 0 };
        let memory = i64::try_from(request.resources.memory.0).unwrap_or(i64::MAX);
        Self {
            cpu: i32::try_from(request.resources.cpu.0).unwrap_or(i32::MAX),
            memory: Memory::of(memory),
            ports: i32::try_from(ports).unwrap_or(i32::MAX),
        }
    }

    /// Returns the first that a node is short of, in the order in which rules are judged.
    pub(super) fn short(&self, facts: &Facts) -> Option<Reason> {
        if facts.cpu < self.cpu {
            return Some(self.lacks_cpu(facts.cpu));
        }
        if facts.memory < self.memory {
            return Some(self.lacks_memory(facts.memory));
        }
        if facts.slots < 1 {
            return Some(Reason::Slots);
        }
        (facts.ports < self.ports).then_some(Reason::DynamicPorts)
    }

    fn lacks_cpu(&self, free: i32) -> Reason {
        let lack = i64::from(self.cpu) - i64::from(free);
        Reason::Cpu(MilliCpu(u32::try_from(lack).unwrap_or(u32::MAX)))
    }

    fn lacks_memory(&self, free: Memory) -> Reason {
        let lack = self.memory.bytes() - free.bytes();
        Reason::Memory(Bytes(u64::try_from(lack).unwrap_or(0)))
    }
}

/// Returns all ones or none: what vector comparisons give.
const fn mask(holds: bool) -> i32 {
    -(holds as i32)
}

/// How many nodes are short of what, each counted under the first.
#[derive(Debug, Clone)]
pub(super) struct Short {
    cpu: u32,
    memory: u32,
    slots: u32,
    ports: u32,
    /// The most that one of those short of CPU has.
    most_cpu: i32,
    /// The most that one of those short of memory has.
    most_memory: Memory,
}

impl Default for Short {
    fn default() -> Self {
        Self {
            cpu: 0,
            memory: 0,
            slots: 0,
            ports: 0,
            most_cpu: i32::MIN,
            most_memory: Memory {
                pages: i32::MIN,
                rest: 0,
            },
        }
    }
}

impl Short {
    /// Counts the nodes of a group.
    pub(super) fn add(&mut self, group: &Group, need: &Need) {
        let len = group.ats.len();
        // All as long, so that no access in the loop is checked.
        let (cpus, pages) = (&group.cpu[..len], &group.pages[..len]);
        let (rests, free_slots) = (&group.rest[..len], &group.slots[..len]);
        let free_ports = &group.ports[..len];
        let (mut cpu, mut memory, mut slots, mut ports) = (0_i32, 0_i32, 0_i32, 0_i32);
        let (mut most_cpu, mut most_pages) = (i32::MIN, i32::MIN);
        for place in 0..len {
            let (free, page) = (cpus[place], pages[place]);
            let no_cpu = mask(free < need.cpu);
            let less = mask(page < need.memory.pages);
            let even = mask(page == need.memory.pages) & mask(rests[place] < need.memory.rest);
            let no_memory = !no_cpu & (less | even);
            let no_slot = !no_cpu & !no_memory & mask(free_slots[place] < 1);
            let no_port = !no_cpu & !no_memory & !no_slot & mask(free_ports[place] < need.ports);
            (cpu, memory) = (cpu - no_cpu, memory - no_memory);
            (slots, ports) = (slots - no_slot, ports - no_port);
            most_cpu = most_cpu.max(free & no_cpu | i32::MIN & !no_cpu);
            most_pages = most_pages.max(page & no_memory | i32::MIN & !no_memory);
        }
        let count = |sum: i32| u32::try_from(sum).expect("counted up");
        let (cpu, memory) = (count(cpu), count(memory));
        let (slots, ports) = (count(slots), count(ports));
        self.cpu += cpu;
        self.memory += memory;
        self.slots += slots;
        self.ports += ports;
        self.most_cpu = self.most_cpu.max(most_cpu);
        if memory > 0 && most_pages >= self.most_memory.pages {
            self.rest_of(group, need, most_pages);
        }
    }

    /// Finds the most memory to the last byte, the pages being known.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "without a branch the loop is worked on several nodes at a time"
    )]
    fn rest_of(&mut self, group: &Group, need: &Need, most: i32) {
        let columns = group.cpu.iter().zip(&group.pages).zip(&group.rest);
        let mut rest = 0;
        for ((&cpu, &pages), &left) in columns {
            let there = (cpu >= need.cpu)
                & (pages == most)
                & ((pages < need.memory.pages) | (left < need.memory.rest));
            rest = rest.max(if there { left } else { 0 });
        }
        let found = Memory { pages: most, rest };
        self.most_memory = self.most_memory.max(found);
    }

    /// Returns how many nodes were counted.
    pub(super) const fn nodes(&self) -> u32 {
        self.cpu + self.memory + self.slots + self.ports
    }

    /// Returns what was counted.
    pub(super) fn reasons(&self, need: &Need) -> Vec<(Reason, u32)> {
        let counted = [
            (need.lacks_cpu(self.most_cpu), self.cpu),
            (need.lacks_memory(self.most_memory), self.memory),
            (Reason::Slots, self.slots),
            (Reason::DynamicPorts, self.ports),
        ];
        let some = counted.into_iter().filter(|(_, nodes)| *nodes > 0);
        some.collect()
    }
}

/// Returns the nodes that lack least of what the digest holds, with the first that they are short
/// of; of nodes that have the same the one with the least id.
pub(super) fn nearest(groups: &[&Group], need: &Need) -> Vec<(At, Reason)> {
    let parts: Vec<Vec<f32>> = groups.iter().map(|group| least(group, need)).collect();
    let all = parts.iter().flatten().copied();
    let least = all.fold(f32::INFINITY, f32::min);
    let mut found: Vec<(Facts, At, ballast_model::NodeId)> = Vec::new();
    for (group, parts) in groups.iter().zip(&parts) {
        let near = parts.iter().enumerate();
        let near = near.filter(|(_, part)| **part <= least + ROUNDING);
        let places = near.flat_map(|(part, _)| part * PART..group.ats.len().min((part + 1) * PART));
        for place in places {
            let facts = group.facts(place);
            if lack(need, &facts) > least + ROUNDING || need.short(&facts).is_none() {
                continue;
            }
            let (at, id) = (group.ats[place], group.ids[place]);
            match found.iter().position(|(known, ..)| *known == facts) {
                Some(known) if id < found[known].2 => found[known] = (facts, at, id),
                None if found.len() < CANDIDATES => found.push((facts, at, id)),
                _ => {}
            }
        }
    }
    found.sort_unstable_by_key(|(_, _, id)| *id);
    let reason = |facts: &Facts| need.short(facts).expect("only such are kept");
    found
        .into_iter()
        .map(|(facts, at, _)| (at, reason(&facts)))
        .collect()
}

/// Returns how much of what is needed a node lacks, in thousandths, roughly; endless if nothing.
#[expect(
    clippy::cast_precision_loss,
    reason = "what is near is worked out exactly"
)]
fn lack(need: &Need, facts: &Facts) -> f32 {
    let part = |free: i32, need: i32| {
        let lack = (need as f32 - free as f32).max(0.0);
        lack * (1000.0 / (need as f32).max(1.0))
    };
    let missing = |short: bool| if short { 1000.0 } else { 0.0 };
    let pages = (facts.memory.pages, need.memory.pages);
    let no_memory =
        pages.0 < pages.1 || (pages.0 == pages.1 && facts.memory.rest < need.memory.rest);
    let (no_slot, no_port) = (facts.slots < 1, facts.ports < need.ports);
    let lacks =
        part(facts.cpu, need.cpu) + part(pages.0, pages.1) + missing(no_slot) + missing(no_port);
    if facts.cpu < need.cpu || no_memory || no_slot || no_port {
        lacks
    } else {
        f32::INFINITY
    }
}

/// Returns, for each part of a group, the least lack among its nodes that lack something.
fn least(group: &Group, need: &Need) -> Vec<f32> {
    let parts = (0..group.ats.len()).step_by(PART);
    parts.map(|first| least_of(group, need, first)).collect()
}

fn least_of(group: &Group, need: &Need, first: usize) -> f32 {
    let end = group.ats.len().min(first + PART);
    let whole = first + (end - first) / LANES * LANES;
    let mut least = [f32::INFINITY; LANES];
    for first in (first..whole).step_by(LANES) {
        let part = |column: &[i32]| -> [i32; LANES] {
            column[first..first + LANES].try_into().expect("as long")
        };
        let (cpu, pages, rest) = (part(&group.cpu), part(&group.pages), part(&group.rest));
        let (slots, ports) = (part(&group.slots), part(&group.ports));
        for lane in 0..LANES {
            let facts = Facts {
                cpu: cpu[lane],
                memory: Memory {
                    pages: pages[lane],
                    rest: rest[lane],
                },
                slots: slots[lane],
                ports: ports[lane],
            };
            let lack = lack(need, &facts);
            least[lane] = if lack < least[lane] {
                lack
            } else {
                least[lane]
            };
        }
    }
    let rest = (whole..end).map(|place| lack(need, &group.facts(place)));
    least.into_iter().chain(rest).fold(f32::INFINITY, f32::min)
}
