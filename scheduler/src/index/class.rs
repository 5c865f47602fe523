//! Equivalence classes: nodes that no constraint in use tells apart.

use std::collections::BTreeSet;

use ballast_model::{Node, NodeKey};

use super::grid::{Cell, Grid, Rank};

/// Properties by which nodes are told apart at once. Requests that refer to more have the rest
/// judged node by node.
pub(crate) const CLASS_KEYS: usize = 32;
/// A property that would make more classes than this (each node has its own value) is judged node
/// by node: a decision looks at every class.
pub(crate) const CLASSES: usize = 256;

/// The values of the properties in use, one for each key.
pub(crate) type Values = Vec<Option<String>>;

/// Nodes with the same values that may take tasks.
#[derive(Debug)]
pub(crate) struct Class {
    pub values: Values,
    pub grid: Grid,
    /// Fewest tasks first.
    pub by_tasks: BTreeSet<Rank>,
}

impl Class {
    pub(crate) fn new(values: Values) -> Self {
        Self {
            values,
            grid: Grid::default(),
            by_tasks: BTreeSet::new(),
        }
    }

    pub(crate) fn insert(&mut self, (cell, rank): (Cell, Rank)) {
        self.grid.insert(cell, rank);
        assert!(self.by_tasks.insert(rank), "a node is filed once");
    }

    pub(crate) fn remove(&mut self, (cell, rank): (Cell, Rank)) {
        self.grid.remove(cell, rank);
        assert!(self.by_tasks.remove(&rank), "a filed node is in its class");
    }
}

/// Returns whether nodes can be told apart by this property at once.
pub(crate) const fn is_shared(key: &NodeKey) -> bool {
    matches!(key, NodeKey::Label(_) | NodeKey::Attribute(_))
}

/// Returns a node's value of a property that [`is_shared`].
pub(crate) fn value<'a>(node: &'a Node, key: &NodeKey) -> Option<&'a str> {
    match key {
        NodeKey::Label(key) => node.label(key),
        NodeKey::Attribute(key) => node.description.attributes.get(key).map(String::as_str),
        NodeKey::Id | NodeKey::Name => None,
    }
}

/// Returns a node's values of these properties.
pub(crate) fn values(node: &Node, keys: &[NodeKey]) -> Values {
    keys.iter()
        .map(|key| value(node, key).map(ToOwned::to_owned))
        .collect()
}
