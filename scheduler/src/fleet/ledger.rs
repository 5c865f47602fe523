//! The tasks of one service over the nodes, in the orders that rules ask for.
//!
//! Only the counts are kept from the start; each order is made when a request first needs it and
//! kept from then on, so that a service without rules costs nothing but its counts.

use std::collections::BTreeSet;

use ballast_model::NodeId;

use super::topology::Topology;
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

/// Values up to which the one with the fewest tasks is looked for; more are kept in order.
const LOOKED_THROUGH: usize = 64;

/// Tasks by the values of one label.
#[derive(Debug)]
pub(crate) struct Places {
    topology: usize,
    /// By the values' places in their order.
    counts: Vec<u32>,
    /// Fewest tasks first, if there are many values.
    order: Option<BTreeSet<(u32, u32)>>,
}

impl Ledger {
    /// Returns how many tasks are on a node.
    pub(crate) fn count(&self, at: At) -> u32 {
        self.counts.get(at).copied().unwrap_or(0)
    }

    /// Returns the nodes that have this many tasks or more.
    pub(crate) fn nodes_with(&self, least: u32) -> Vec<At> {
        let mut nodes = Vec::new();
        self.counts.each(|at, &count| {
            if count >= least {
                nodes.push(at);
            }
        });
        nodes
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
            // A value that came since moved the places: made anew when it is asked for.
            if let (Some(position), true) = (topology.position(at), places.is_of(topology)) {
                places.change(position, to.wrapping_sub(from).cast_signed());
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

    /// Returns how many tasks are where by the values of a label.
    pub(crate) fn places(&mut self, number: usize, topologies: &[Topology]) -> &Places {
        let topology = &topologies[number];
        let known = self
            .places
            .iter()
            .position(|places| places.topology == number);
        let known = known.filter(|&known| self.places[known].is_of(topology));
        let known = known.unwrap_or_else(|| {
            self.places.retain(|places| places.topology != number);
            let mut counts = vec![0; topology.len()];
            self.counts.each(|at, &count| {
                if let Some(position) = topology.position(at) {
                    counts[position as usize] += count;
                }
            });
            self.places.push(Places::new(number, counts));
            self.places.len() - 1
        });
        &self.places[known]
    }
}

impl Places {
    fn new(topology: usize, counts: Vec<u32>) -> Self {
        let many = counts.len() > LOOKED_THROUGH;
        let order = many.then(|| counts.iter().copied().zip(0..).collect());
        Self {
            topology,
            counts,
            order,
        }
    }

    fn is_of(&self, topology: &Topology) -> bool {
        self.counts.len() == topology.len()
    }

    fn change(&mut self, position: u32, by: i32) {
        let count = &mut self.counts[position as usize];
        let before = *count;
        *count = count.saturating_add_signed(by);
        if let Some(order) = &mut self.order {
            order.remove(&(before, position));
            order.insert((*count, position));
        }
    }

    /// Returns the tasks and the place of the value that comes after `last`: fewest tasks first,
    /// then in the order of values.
    pub(crate) fn after(&self, last: Option<(u32, u32)>) -> Option<(u32, u32)> {
        if let Some(order) = &self.order {
            let Some(last) = last else {
                return order.first().copied();
            };
            let after = std::ops::Bound::Excluded(last);
            let mut rest = order.range((after, std::ops::Bound::Unbounded));
            return rest.next().copied();
        }
        let all = self.counts.iter().copied().zip(0..);
        all.filter(|&place| Some(place) > last).min()
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
