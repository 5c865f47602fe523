//! Places that a service can be spread over: the values of one label, and the nodes of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_model::{Node, NodeKey};

use super::class::ClassTable;
use crate::index::{Allowed, At, Classes};

/// A label's value; nodes without the label are a place, too.
pub(crate) type Value = Option<Arc<str>>;

/// One label's values over the nodes.
#[derive(Debug)]
pub(crate) struct Topology {
    pub label: String,
    values: Vec<Value>,
    numbers: BTreeMap<Value, u32>,
    /// Of each value, by number, its place in the order of values; and the other way round.
    positions: Vec<u32>,
    by_position: Vec<u32>,
    /// The value of each node, by its place in the index.
    of: Vec<u32>,
    /// The nodes of each value, in the order of their ids.
    members: Vec<Vec<At>>,
}

impl Topology {
    pub(crate) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            values: Vec::new(),
            numbers: BTreeMap::new(),
            positions: Vec::new(),
            by_position: Vec::new(),
            of: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Takes in a node's value; `before` says whether `other` comes before the node by id. Returns
    /// whether it changed from another value.
    pub(crate) fn set(&mut self, at: At, node: &Node, before: impl Fn(At) -> bool) -> bool {
        let value: Value = node.label(&self.label).map(Arc::from);
        let next = u32::try_from(self.values.len()).expect("fewer values than nodes");
        let number = *self.numbers.entry(value.clone()).or_insert(next);
        if number == next {
            self.values.push(value);
            self.members.push(Vec::new());
            self.by_position = self.numbers.values().copied().collect();
            self.positions = vec![0; self.values.len()];
            for (position, &number) in (0..).zip(&self.by_position) {
                self.positions[number as usize] = position;
            }
        }
        let known = self.number(at);
        if known == Some(number) {
            return false;
        }
        self.unset(at);
        if self.of.len() <= at as usize {
            self.of.resize(at as usize + 1, u32::MAX);
        }
        self.of[at as usize] = number;
        let members = &mut self.members[number as usize];
        let place = members.partition_point(|&other| before(other));
        members.insert(place, at);
        known.is_some()
    }

    /// Takes a node out.
    pub(crate) fn unset(&mut self, at: At) {
        if let Some(number) = self.number(at) {
            self.members[number as usize].retain(|&other| other != at);
            self.of[at as usize] = u32::MAX;
        }
    }

    /// Returns the number of a node's value.
    fn number(&self, at: At) -> Option<u32> {
        let number = self.of.get(at as usize).copied();
        number.filter(|&number| number != u32::MAX)
    }

    /// Returns how many values some node has or had.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Returns the place of a node's value in the order of values; nodes without the label come
    /// first. Places move when a value comes that was not known.
    pub(crate) fn position(&self, at: At) -> Option<u32> {
        let number = self.number(at)?;
        Some(self.positions[number as usize])
    }

    /// Returns the number of the value at a place of the order.
    pub(crate) fn number_at(&self, position: u32) -> u32 {
        self.by_position[position as usize]
    }

    /// Returns the nodes of a value in the order of their ids.
    pub(crate) fn members(&self, number: u32) -> &[At] {
        &self.members[number as usize]
    }

    /// Returns for each value the classes that have it among those allowed, if classes are told
    /// apart by this label.
    pub(crate) fn classes(&self, table: &ClassTable, allowed: &Allowed) -> Option<Vec<Allowed>> {
        if !table.tells(&NodeKey::Label(self.label.clone())) {
            return None;
        }
        let mut classes: Vec<Vec<u32>> = vec![Vec::new(); self.values.len()];
        for class in 0..u32::try_from(table.len()).expect("few classes") {
            let value: Value = table.specimen(class).label(&self.label).map(Arc::from);
            if let (Some(&number), true) = (self.numbers.get(&value), allowed.contains(class)) {
                classes[number as usize].push(class);
            }
        }
        let some = |classes: Vec<u32>| Allowed::Some(classes.into_iter().collect::<Classes>());
        Some(classes.into_iter().map(some).collect())
    }
}
