//! Comparing what many nodes have free with what is needed, a block at a time.
//!
//! Where the least and the most that the nodes of a block have agree on the answer, the block is
//! counted at once; else its nodes are looked at one by one.

use ballast_model::{Bytes, MilliCpu, NodeId, Target};

use crate::digest::{Block, Facts, Group, Mask, Memory};
use crate::index::At;
use crate::refusal::Reason;
use crate::request::Request;

/// A lack is rounded down for each of CPU and memory where it is told, and not where it is
/// searched for: what is this near to the least may be it.
const ROUNDING: f32 = 3.0;
/// Nodes that may be the nearest whose lack is worked out to the last; others are as near but for
/// rounding.
const CANDIDATES: usize = 256;
/// Near nodes that are kept in mind before the best are picked out.
const MANY: usize = 16 * CANDIDATES;

/// A group and those of its nodes that are not counted with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'g> {
    pub group: &'g Group,
    pub hidden: &'g Mask,
}

impl Part<'_> {
    /// Returns the nodes of a block that are counted.
    fn places(&self, block: &Block) -> impl Iterator<Item = usize> + '_ {
        let hidden = self.hidden;
        block.places.clone().filter(|place| !hidden.has(*place))
    }

    /// Returns whether a node of the block is counted.
    fn counts(&self, block: &Block) -> bool {
        self.hidden.count_in(block) < block.places.len()
    }

    /// Returns the nodes that are short of nothing.
    pub(super) fn fitting<'a>(&'a self, need: &'a Need) -> impl Iterator<Item = usize> + 'a {
        let blocks = self.group.blocks();
        let blocks = blocks.filter(|block| need.short(&block.most).is_none());
        let places = blocks.flat_map(|block| self.places(&block).collect::<Vec<_>>());
        places.filter(|place| need.short(&self.group.facts(*place)).is_none())
    }
}

/// What a node is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Cpu,
    Memory,
    Slots,
    Ports,
}

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
    fn first(&self, facts: &Facts) -> Option<Lack> {
        if facts.cpu < self.cpu {
            Some(Lack::Cpu)
        } else if facts.memory < self.memory {
            Some(Lack::Memory)
        } else if facts.slots < 1 {
            Some(Lack::Slots)
        } else {
            (facts.ports < self.ports).then_some(Lack::Ports)
        }
    }

    /// Returns the same in words.
    pub(super) fn short(&self, facts: &Facts) -> Option<Reason> {
        self.first(facts).map(|first| match first {
            Lack::Cpu => self.lacks_cpu(facts.cpu),
            Lack::Memory => self.lacks_memory(facts.memory),
            Lack::Slots => Reason::Slots,
            Lack::Ports => Reason::DynamicPorts,
        })
    }

    /// Returns what all nodes of a block are short of first, if it is the same for all: then even
    /// the most is short of it, and the least of nothing before.
    fn common(&self, block: &Block) -> Option<Lack> {
        let first = self.first(&block.most)?;
        (self.first(&block.least) == Some(first)).then_some(first)
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
    pub(super) fn add(&mut self, part: Part<'_>, need: &Need) {
        for block in part.group.blocks() {
            let hidden = part.hidden.count_in(&block);
            let nodes = block.places.len() - hidden;
            if nodes == 0 || need.short(&block.least).is_none() {
                continue;
            }
            match need.common(&block) {
                // What the most is of hidden nodes is not told.
                Some(common) if hidden == 0 => {
                    let nodes = u32::try_from(nodes).expect("few");
                    self.count(common, &block.most, nodes);
                }
                _ => {
                    for place in part.places(&block) {
                        let facts = part.group.facts(place);
                        if let Some(first) = need.first(&facts) {
                            self.count(first, &facts, 1);
                        }
                    }
                }
            }
        }
    }

    /// Counts nodes that are short of the same first, and have at most so much.
    fn count(&mut self, of: Lack, facts: &Facts, nodes: u32) {
        match of {
            Lack::Cpu => {
                self.cpu += nodes;
                self.most_cpu = self.most_cpu.max(facts.cpu);
            }
            Lack::Memory => {
                self.memory += nodes;
                self.most_memory = self.most_memory.max(facts.memory);
            }
            Lack::Slots => self.slots += nodes,
            Lack::Ports => self.ports += nodes,
        }
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
pub(super) fn nearest(parts: &[Part<'_>], need: &Need) -> Vec<(At, Reason)> {
    let mut blocks: Vec<(f32, Part<'_>, Block)> = Vec::new();
    for part in parts {
        let short = part.group.blocks().filter(|block| {
            let is_short = need.first(&block.least).is_some();
            is_short && part.counts(block)
        });
        // No node lacks less than one that has the most of each, and that may lack nothing.
        let bound = |block: &Block| match lack(need, &block.most) {
            lack if lack.is_finite() => lack,
            _ => 0.0,
        };
        blocks.extend(short.map(|block| (bound(&block), *part, block)));
    }
    blocks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut least = f32::INFINITY;
    let mut near: Vec<Near> = Vec::new();
    let mut last: Option<(Facts, Facts, NodeId)> = None;
    for (bound, part, block) in blocks {
        if bound > least + ROUNDING {
            break;
        }
        // Of blocks whose nodes all have the same, only the least id counts.
        let (group, only) = (part.group, (block.least, block.most, block.first));
        let alike = block.least == block.most && part.hidden.count_in(&block) == 0;
        if alike && last.is_some_and(|l| (l.0, l.1) == (only.0, only.1) && l.2 < only.2) {
            continue;
        }
        last = alike.then_some(only);
        if near.len() >= MANY {
            near = best(near, least);
        }
        for place in part.places(&block) {
            let facts = group.facts(place);
            let lacks = lack(need, &facts);
            if lacks.is_finite() && lacks <= least + ROUNDING {
                least = least.min(lacks);
                near.push((lacks, facts, group.ids[place], group.ats[place]));
            }
        }
    }
    let reason = |facts: &Facts| need.short(facts).expect("it lacks something");
    let near = best(near, least).into_iter();
    near.map(|(_, facts, _, at)| (at, reason(&facts))).collect()
}

/// How much a node lacks, roughly, what it has, and which it is.
type Near = (f32, Facts, NodeId, At);

/// Returns the nodes that lack least, one of those that have the same.
fn best(mut near: Vec<Near>, least: f32) -> Vec<Near> {
    near.retain(|(lacks, ..)| *lacks <= least + ROUNDING);
    let key = |facts: &Facts| {
        let Facts {
            cpu,
            memory,
            slots,
            ports,
        } = *facts;
        (cpu, memory, slots, ports)
    };
    near.sort_unstable_by(|a, b| {
        let by_lack = a.0.total_cmp(&b.0);
        by_lack.then_with(|| (key(&a.1), a.2).cmp(&(key(&b.1), b.2)))
    });
    near.dedup_by(|next, first| next.1 == first.1);
    near.truncate(CANDIDATES);
    near
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
