//! A node that has just come is not buried: while it is new it takes no more than a fair share of
//! the tasks that start.
//!
//! An empty node is the first choice of every service that spreads. Hundreds of programs that
//! start there at once would all be slow to answer, while the nodes that have proven themselves
//! idle. Until [`NEW`] has passed, a node that has had its share of this second's starts is taken
//! only if nothing else fits.

use std::collections::BTreeMap;

use ballast_model::{Millis, Node, NodeId, Timestamp};

use crate::state::State;

/// How long a node is new.
const NEW: Millis = Millis::from_secs(30);
/// The span over which starts are counted.
const WINDOW: Millis = Millis::from_secs(1);
/// How many times the mean of all nodes a new one may take: it is to catch up.
const CATCH_UP: u32 = 2;

/// Counts the starts on new nodes.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// New nodes, and since when.
    new: BTreeMap<NodeId, Timestamp>,
    began: Timestamp,
    total: u32,
    starts: BTreeMap<NodeId, u32>,
    /// Nodes that take tasks; counted once for each window.
    all: Option<u32>,
}

impl Share {
    /// Returns a count that knows which nodes of a state may be new.
    pub fn of(state: &State) -> Self {
        let since = |node: &Node| (node.id, node.since);
        Self {
            new: state.nodes().map(|entry| since(&entry.node)).collect(),
            ..Self::default()
        }
    }

    /// Notes that a node may take tasks that could take none before.
    pub fn node_came(&mut self, node: &Node) {
        self.new.insert(node.id, node.since);
        self.all = None;
    }

    /// Returns the new nodes that have had their share of starts by now. None if most nodes are
    /// new: then there is nothing to protect them from.
    pub fn used_up(&mut self, state: &State, now: Timestamp) -> Vec<NodeId> {
        if self.new.is_empty() {
            return Vec::new();
        }
        if now >= self.began.saturating_add(WINDOW) {
            self.new.retain(|_, since| now < since.saturating_add(NEW));
            self.began = now;
            self.total = 0;
            self.starts.clear();
            self.all = None;
        }
        // Nothing was started on a new node: nobody had more than a share.
        if self.starts.is_empty() {
            return Vec::new();
        }
        let takes = |entry: &&crate::state::NodeEntry| entry.node.is_schedulable();
        let count = || u32::try_from(state.nodes().filter(takes).count()).unwrap_or(u32::MAX);
        let all = *self.all.get_or_insert_with(count);
        let new = u32::try_from(self.new.len()).unwrap_or(u32::MAX);
        if new.saturating_mul(2) > all {
            return Vec::new();
        }
        let share = (self.total + 1)
            .saturating_mul(CATCH_UP)
            .div_ceil(all.max(1));
        let had = |(_, starts): &(&NodeId, &u32)| **starts >= share;
        self.starts
            .iter()
            .filter(had)
            .map(|(node, _)| *node)
            .collect()
    }

    /// Counts a task that is placed.
    pub fn start(&mut self, node: NodeId, now: Timestamp) {
        self.total = self.total.saturating_add(1);
        let since = self.new.get(&node);
        if since.is_some_and(|since| now < since.saturating_add(NEW)) {
            *self.starts.entry(node).or_default() += 1;
        }
    }
}
