//! The tasks of one service over the nodes, in the orders that rules ask for.
//!
//! Only the counts are kept from the start; each order is made when a request first needs it and
//! kept from then on, so that a service without rules costs nothing but its counts.

use std::collections::BTreeSet;

use ballast_model::NodeId;

use super::topology::{Topology, Value};
use crate::index::{At, BitSet, Index};
use crate::map::IdMap;

/// Nodes by [`Index::rank`], of one numbering.
#[derive(Debug, Default)]
struct Noted {
    numbering: u64,
    ranks: BitSet,
}

/// One service's tasks.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counts: IdMap<At, u32>,
    /// Nodes that have a task.
    present: Option<Noted>,
    /// Nodes that have as many as they may, and how many that is.
    full: Option<(u32, Noted)>,
    /// Nodes that have a task, fewest first.
    by_count: Option<BTreeSet<(u32, NodeId, At)>>,
    places: Vec<Places>,
}

/// Tasks by the values of one label.
#[derive(Debug)]
struct Places {
    topology: usize,
    counts: Vec<u32>,
    /// Fewest tasks first.
    order: BTreeSet<(u32, Value, u32)>,
}

impl Ledger {
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns how many tasks are on a node.
    pub(crate) fn count(&self, at: At) -> u32 {
        self.counts.get(at).copied().unwrap_or(0)
    }

    /// Counts a task more on a node.
    pub(crate) fn add(&mut self, at: At, index: &Index, topologies: &[Topology]) {
        let count = self.counts.entry_or(at, || 0);
        *count += 1;
        let count = *count;
        self.moved(at, index, topologies, count - 1, count);
    }

    /// Counts a task less.
    ///
    /// # Panics
    /// If none was there.
    pub(crate) fn sub(&mut self, at: At, index: &Index, topologies: &[Topology]) {
        let count = self
            .counts
            .get_mut(at)
            .expect("a task given back was counted");
        *count -= 1;
        let count = *count;
        if count == 0 {
            self.counts.remove(at);
        }
        self.moved(at, index, topologies, count + 1, count);
    }

    /// Forgets a node that is taken out.
    pub(crate) fn forget(&mut self, at: At) {
        if self.counts.remove(at).is_some() {
            self.forget_orders();
        }
    }

    /// Forgets the orders: a node's label changed, or its place is another's.
    pub(crate) fn forget_orders(&mut self) {
        (self.present, self.full, self.by_count) = (None, None, None);
        self.places.clear();
    }

    fn moved(&mut self, at: At, index: &Index, topologies: &[Topology], from: u32, to: u32) {
        if let Some(noted) = &mut self.present {
            if from == 0 {
                noted.ranks.insert(index.rank(at));
            } else if to == 0 {
                noted.ranks.remove(index.rank(at));
            }
        }
        if let Some((most, noted)) = &mut self.full {
            if to >= *most {
                noted.ranks.insert(index.rank(at));
            } else {
                noted.ranks.remove(index.rank(at));
            }
        }
        if let Some(by_count) = &mut self.by_count {
            let id = index.id(at);
            if from > 0 {
                by_count.remove(&(from, id, at));
            }
            if to > 0 {
                by_count.insert((to, id, at));
            }
        }
        for places in &mut self.places {
            let topology = &topologies[places.topology];
            if let Some(number) = topology.number(at) {
                places.change(topology, number, to.wrapping_sub(from).cast_signed());
            }
        }
    }

    /// Returns the nodes that have a task, as a set to leave out.
    pub(crate) fn present(&mut self, index: &Index) -> &BitSet {
        let counts = &self.counts;
        let noted = self.present.get_or_insert_default();
        noted.renew(index, counts, 1);
        &noted.ranks
    }

    /// Returns the nodes that have `most` tasks or more, as a set to leave out.
    pub(crate) fn full(&mut self, index: &Index, most: u32) -> &BitSet {
        let counts = &self.counts;
        if self.full.as_ref().is_some_and(|(known, _)| *known != most) {
            self.full = None;
        }
        let (_, noted) = self.full.get_or_insert_with(|| (most, Noted::default()));
        noted.renew(index, counts, most);
        &noted.ranks
    }

    /// Returns the nodes that have a task, fewest first.
    pub(crate) fn by_count(&mut self, index: &Index) -> &BTreeSet<(u32, NodeId, At)> {
        let counts = &self.counts;
        self.by_count.get_or_insert_with(|| {
            let mut order = BTreeSet::new();
            counts.each(|at, &count| {
                order.insert((count, index.id(at), at));
            });
            order
        })
    }

    /// Returns the values of a label by how many tasks are there, fewest first, with the number of
    /// each value.
    pub(crate) fn places(
        &mut self,
        number: usize,
        topologies: &[Topology],
    ) -> &BTreeSet<(u32, Value, u32)> {
        let topology = &topologies[number];
        let known = self
            .places
            .iter()
            .position(|places| places.topology == number);
        let known = known.unwrap_or_else(|| {
            let mut places = Places {
                topology: number,
                counts: Vec::new(),
                order: BTreeSet::new(),
            };
            places.extend(topology);
            self.counts.each(|at, &count| {
                if let Some(value) = topology.number(at) {
                    places.change(topology, value, count.cast_signed());
                }
            });
            self.places.push(places);
            self.places.len() - 1
        });
        self.places[known].extend(topology);
        &self.places[known].order
    }
}

impl Places {
    /// Takes in values that came since.
    fn extend(&mut self, topology: &Topology) {
        while self.counts.len() < topology.values().len() {
            let number = self.counts.len();
            self.counts.push(0);
            let value = topology.values()[number].clone();
            let number = u32::try_from(number).expect("fewer values than nodes");
            self.order.insert((0, value, number));
        }
    }

    fn change(&mut self, topology: &Topology, number: u32, by: i32) {
        self.extend(topology);
        let count = &mut self.counts[number as usize];
        let value = &topology.values()[number as usize];
        let mut entry = (*count, value.clone(), number);
        self.order.remove(&entry);
        *count = count.saturating_add_signed(by);
        entry.0 = *count;
        self.order.insert(entry);
    }
}

impl Noted {
    /// Notes anew under another numbering. Numberings begin with 1, so what was never noted is.
    fn renew(&mut self, index: &Index, counts: &IdMap<At, u32>, least: u32) {
        if self.numbering == index.numbering() {
            return;
        }
        self.numbering = index.numbering();
        self.ranks.clear();
        counts.each(|at, &count| {
            if count >= least {
                self.ranks.insert(index.rank(at));
            }
        });
    }
}
