//! What a question about all nodes needs of each, side by side in memory.
//!
//! Why a task fits nowhere is asked of every node. Walked one by one, a hundred thousand of them
//! cost tens of milliseconds, nearly all of it waiting for memory. Here nodes that rules cannot
//! tell apart are one group, judged once; in it, nodes that have about the same free lie together
//! in blocks with the least and the most of each amount, so that all but a few blocks are decided
//! at once. A node that changes is only noted, and read again before the next question.

mod group;

use std::collections::BTreeMap;

use ballast_model::{Availability, NodeStatus, ServiceId};

use crate::fleet::Entry;
use crate::index::At;
pub(crate) use group::{Block, Group, Mask};

/// Bytes of a page: memory is compared by pages and what is left of one, as both fit 32 bits.
const PAGE: i64 = 4096;
/// Changed nodes that are noted one by one; past it all are read again. Reading a hundred of them
/// costs about as much as the question itself.
const NOTED: usize = 16_384;
/// Services whose full nodes are kept in mind; of more, the one asked for longest ago goes.
const WATCHED: usize = 4;

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
    /// Returns the lesser, or the greater, of each amount.
    fn each(
        &self,
        other: &Self,
        number: impl Fn(i32, i32) -> i32,
        memory: impl Fn(Memory, Memory) -> Memory,
    ) -> Self {
        Self {
            cpu: number(self.cpu, other.cpu),
            memory: memory(self.memory, other.memory),
            slots: number(self.slots, other.slots),
            ports: number(self.ports, other.ports),
        }
    }

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

/// Where a node is in the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub group: usize,
    pub place: usize,
}

/// A service whose tasks may only be so many on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watch {
    service: ServiceId,
    most: u32,
    /// The question that asked for it last.
    asked: u64,
}

impl Watch {
    fn is_full(&self, entry: &Entry) -> bool {
        entry.tasks_of(self.service) >= self.most
    }
}

/// All nodes, by what they have in common.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub groups: Vec<Group>,
    by_kind: BTreeMap<Kind, usize>,
    places: Vec<Option<Place>>,
    watched: [Option<Watch>; WATCHED],
    questions: u64,
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
        self.questions += 1;
        if std::mem::take(&mut self.stale) {
            *self = Self {
                watched: self.watched,
                questions: self.questions,
                ..Self::default()
            };
            for at in 0..nodes {
                self.read(At::try_from(at).expect("fewer nodes than 2^32"), &entry);
            }
        }
        for at in std::mem::take(&mut self.noted) {
            self.read(at, &entry);
        }
        for (number, group) in self.groups.iter_mut().enumerate() {
            if !group.settle() {
                continue;
            }
            for (place, &at) in group.ats.iter().enumerate() {
                let group = number;
                self.places[at as usize] = Some(Place { group, place });
            }
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
        let stays = known.filter(|known| {
            let group = &self.groups[known.group];
            group.kind == kind && group.ids[known.place] == entry.node.id
        });
        let Place { group, place } = stays.unwrap_or_else(|| {
            self.take_out(at);
            let groups = &mut self.groups;
            let group = *self.by_kind.entry(kind).or_insert_with(|| {
                groups.push(Group::new(kind, WATCHED));
                groups.len() - 1
            });
            let place = self.groups[group].push(at, entry.node.id);
            Place { group, place }
        });
        self.places[number] = Some(Place { group, place });
        let group = &mut self.groups[group];
        group.set(place, facts);
        for (mask, watch) in group.full.iter_mut().zip(&self.watched) {
            mask.put(place, watch.is_some_and(|watch| watch.is_full(entry)));
        }
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

    /// Returns which of the masks of each group tells the nodes with `most` tasks of a service or
    /// more; `full` lists them, and is asked once.
    pub(crate) fn full(
        &mut self,
        service: ServiceId,
        most: u32,
        full: impl FnOnce() -> Vec<At>,
    ) -> usize {
        let asked = self.questions;
        let of = |watch: &Option<Watch>| {
            watch.is_some_and(|watch| (watch.service, watch.most) == (service, most))
        };
        let known = self.watched.iter().position(of);
        let number = known.unwrap_or_else(|| {
            let ages = self.watched.iter().enumerate();
            let oldest = ages.min_by_key(|(_, watch)| watch.map(|watch| watch.asked));
            let number = oldest.map_or(0, |(number, _)| number);
            for group in &mut self.groups {
                group.full[number].clear(group.ats.len());
            }
            let places: Vec<_> = full().into_iter().filter_map(|at| self.place(at)).collect();
            for place in places {
                self.groups[place.group].full[number].put(place.place, true);
            }
            number
        });
        self.watched[number] = Some(Watch {
            service,
            most,
            asked,
        });
        number
    }
}
