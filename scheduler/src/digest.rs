//! What a question about all nodes needs of each, side by side in memory.
//!
//! Why a task fits nowhere is asked of every node. Walked one by one, a hundred thousand of them
//! cost tens of milliseconds, nearly all of it waiting for memory. Here nodes that rules cannot
//! tell apart are one group, judged once; and what each has free lies in arrays that are compared
//! several at a time. A node that changes is only noted, and read again before the next question.

use std::collections::BTreeMap;

use ballast_model::{Availability, NodeId, NodeStatus};

use crate::fleet::Entry;
use crate::index::At;

/// Bytes of a page: memory is compared by pages and what is left of one, as both fit 32 bits.
const PAGE: i64 = 4096;
/// Changed nodes that are noted one by one; past it all are read again. Reading a hundred of them
/// costs about as much as the question itself.
const NOTED: usize = 16_384;

/// What nodes have in common that are judged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub class: u32,
    status: u8,
    availability: u8,
}

impl Kind {
    pub(crate) fn of(entry: &Entry, class: u32) -> Self {
        Self {
            class,
            status: match entry.node.status {
                NodeStatus::Ready => 0,
                NodeStatus::Suspect => 1,
                NodeStatus::Down => 2,
            },
            availability: match entry.node.availability {
                Availability::Active => 0,
                Availability::Pause => 1,
                Availability::Drain => 2,
            },
        }
    }
}

/// Free memory, or a need of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Memory {
    pub pages: i32,
    pub rest: i32,
}

impl Memory {
    pub(crate) fn of(bytes: i64) -> Self {
        let pages = bytes.div_euclid(PAGE);
        Self {
            pages: saturate(pages),
            rest: i32::try_from(bytes.rem_euclid(PAGE)).expect("below a page"),
        }
    }

    pub(crate) fn bytes(self) -> i64 {
        i64::from(self.pages) * PAGE + i64::from(self.rest)
    }
}

fn saturate(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

/// What one node has free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub cpu: i32,
    pub memory: Memory,
    pub slots: i32,
    pub ports: i32,
}

impl Facts {
    /// More than anybody asks for: of a node that is judged by itself.
    pub(crate) const ALL: Self = Self {
        cpu: i32::MAX,
        memory: Memory {
            pages: i32::MAX,
            rest: 0,
        },
        slots: i32::MAX,
        ports: i32::MAX,
    };

    pub(crate) fn of(entry: &Entry) -> Self {
        let (has, took) = (&entry.node.offered, &entry.taken);
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let free = entry.ports.free_dynamic(has.ports, took);
        Self {
            cpu: saturate(i64::from(has.cpu.0) - signed(took.cpu)),
            memory: Memory::of(signed(has.memory.0).saturating_sub(signed(took.memory))),
            slots: saturate(i64::from(has.task_slots) - i64::from(took.tasks)),
            ports: saturate(free.into()),
        }
    }
}

/// Nodes of one kind.
#[derive(Debug)]
pub(crate) struct Group {
    pub kind: Kind,
    pub ats: Vec<At>,
    pub ids: Vec<NodeId>,
    pub cpu: Vec<i32>,
    pub pages: Vec<i32>,
    pub rest: Vec<i32>,
    pub slots: Vec<i32>,
    pub ports: Vec<i32>,
}

impl Group {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            ats: Vec::new(),
            ids: Vec::new(),
            cpu: Vec::new(),
            pages: Vec::new(),
            rest: Vec::new(),
            slots: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Returns the node with the least id.
    pub(crate) fn first(&self) -> Option<At> {
        let least = self.ids.iter().min()?;
        let place = self.ids.iter().position(|id| id == least)?;
        Some(self.ats[place])
    }

    pub(crate) fn facts(&self, place: usize) -> Facts {
        Facts {
            cpu: self.cpu[place],
            memory: Memory {
                pages: self.pages[place],
                rest: self.rest[place],
            },
            slots: self.slots[place],
            ports: self.ports[place],
        }
    }

    pub(crate) fn set(&mut self, place: usize, facts: Facts) {
        self.cpu[place] = facts.cpu;
        self.pages[place] = facts.memory.pages;
        self.rest[place] = facts.memory.rest;
        self.slots[place] = facts.slots;
        self.ports[place] = facts.ports;
    }

    fn push(&mut self, at: At, id: NodeId, facts: Facts) -> usize {
        self.ats.push(at);
        self.ids.push(id);
        self.cpu.push(0);
        self.pages.push(0);
        self.rest.push(0);
        self.slots.push(0);
        self.ports.push(0);
        self.set(self.ats.len() - 1, facts);
        self.ats.len() - 1
    }

    /// Takes a node out; the last one takes its place.
    fn swap_remove(&mut self, place: usize) -> Option<At> {
        self.ats.swap_remove(place);
        self.ids.swap_remove(place);
        let columns = [
            &mut self.cpu,
            &mut self.pages,
            &mut self.rest,
            &mut self.slots,
            &mut self.ports,
        ];
        for column in columns {
            column.swap_remove(place);
        }
        self.ats.get(place).copied()
    }
}

/// Where a node is in the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub group: usize,
    pub place: usize,
}

/// All nodes, by what they have in common.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub groups: Vec<Group>,
    by_kind: BTreeMap<Kind, usize>,
    places: Vec<Option<Place>>,
    noted: Vec<At>,
    /// Every node is to be read again.
    stale: bool,
}

impl Digest {
    /// Notes that a node changed, came or went.
    pub(crate) fn touch(&mut self, at: At) {
        if self.stale {
            return;
        }
        if self.noted.len() >= NOTED {
            self.touch_all();
            return;
        }
        self.noted.push(at);
    }

    /// Notes that every node may have changed.
    pub(crate) fn touch_all(&mut self) {
        self.stale = true;
        self.noted.clear();
    }

    /// Reads what has changed.
    pub(crate) fn renew<'a>(
        &mut self,
        nodes: usize,
        entry: impl Fn(At) -> Option<(&'a Entry, u32)>,
    ) {
        if std::mem::take(&mut self.stale) {
            *self = Self::default();
            for at in 0..nodes {
                self.read(At::try_from(at).expect("fewer nodes than 2^32"), &entry);
            }
        }
        for at in std::mem::take(&mut self.noted) {
            self.read(at, &entry);
        }
    }

    fn read<'a>(&mut self, at: At, entry: &impl Fn(At) -> Option<(&'a Entry, u32)>) {
        let number = at as usize;
        if number >= self.places.len() {
            self.places.resize(number + 1, None);
        }
        let known = self.places[number];
        let Some((entry, class)) = entry(at) else {
            self.take_out(at);
            return;
        };
        let (kind, facts) = (Kind::of(entry, class), Facts::of(entry));
        if let Some(Place { group, place }) = known {
            let group = &mut self.groups[group];
            if group.kind == kind && group.ids[place] == entry.node.id {
                group.set(place, facts);
                return;
            }
            self.take_out(at);
        }
        let groups = &mut self.groups;
        let group = *self.by_kind.entry(kind).or_insert_with(|| {
            groups.push(Group::new(kind));
            groups.len() - 1
        });
        let place = self.groups[group].push(at, entry.node.id, facts);
        self.places[number] = Some(Place { group, place });
    }

    fn take_out(&mut self, at: At) {
        if let Some(Place { group, place }) = self.places[at as usize].take()
            && let Some(moved) = self.groups[group].swap_remove(place)
        {
            self.places[moved as usize] = Some(Place { group, place });
        }
    }

    /// Returns where a node is.
    pub(crate) fn place(&self, at: At) -> Option<Place> {
        self.places.get(at as usize).copied().flatten()
    }
}
