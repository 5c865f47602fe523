//! Fair shares of starts: a new node is not buried under every new task.

use std::collections::BTreeMap;

use ballast_model::{Millis, NodeId, Timestamp};

/// How long a node counts as new after it joined or came back: its caches are cold, and all that
/// it is given starts at the same time.
pub const NEW_FOR: Millis = Millis::from_secs(60);
/// The span over which starts are counted.
pub const WINDOW: Millis = Millis::from_secs(1);
/// Starts that every node may take in a window, whatever the others take.
pub const LEAST_STARTS: u32 = 4;
/// How many times its even part of all starts a new node may take: it is emptier than the others,
/// so somewhat more is right.
pub const SHARE: u32 = 2;

/// Counts starts, and names the new nodes that have had their share.
///
/// The share of a new node is [`SHARE`] × all starts of the window ÷ nodes, and at least
/// [`LEAST_STARTS`]. Nodes that have had it belong into [`crate::Request::avoid`]: they are taken
/// if nothing else fits, so that no task waits for it. Where most nodes are new (a cluster that
/// just came up) there is nobody to share with, and no node is named.
#[derive(Debug, Clone, Default)]
pub struct FairStarts {
    /// When each new node came; those that are not new any more are forgotten.
    new: BTreeMap<NodeId, Timestamp>,
    began: Timestamp,
    all: u32,
    /// Starts of the window, on new nodes only.
    taken: BTreeMap<NodeId, u32>,
}

impl FairStarts {
    /// Returns books without any node or start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a node joined or came back.
    pub fn joined(&mut self, node: NodeId, now: Timestamp) {
        self.new.insert(node, now);
    }

    /// Notes that a node is gone.
    pub fn left(&mut self, node: NodeId) {
        self.new.remove(&node);
        self.taken.remove(&node);
    }

    /// Notes that a task is started on a node.
    pub fn started(&mut self, node: NodeId, now: Timestamp) {
        self.turn(now);
        self.all = self.all.saturating_add(1);
        if self.new.contains_key(&node) {
            *self.taken.entry(node).or_default() += 1;
        }
    }

    /// Returns the new nodes that have had their share of the starts of this window, in the order
    /// of ids; `ready` is the number of nodes that may take tasks.
    pub fn sated(&mut self, now: Timestamp, ready: usize) -> Vec<NodeId> {
        self.turn(now);
        if self.new.len() * 2 > ready {
            return Vec::new();
        }
        let ready = u32::try_from(ready).unwrap_or(u32::MAX).max(1);
        let share = SHARE
            .saturating_mul(self.all)
            .div_ceil(ready)
            .max(LEAST_STARTS);
        let full = self.taken.iter().filter(|(_, taken)| **taken >= share);
        full.map(|(&node, _)| node).collect()
    }

    /// Begins a new window if it is time, or if the clock went back.
    fn turn(&mut self, now: Timestamp) {
        if now < self.began || now.since(self.began) >= WINDOW {
            self.began = now;
            self.all = 0;
            self.taken.clear();
            self.new
                .retain(|_, came| *came <= now && now.since(*came) < NEW_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::from_bits(number)
    }

    fn second(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn new_node_takes_no_more_than_its_share_of_a_second() {
        let mut starts = FairStarts::new();
        starts.joined(node(9), second(100));
        for _ in 0..LEAST_STARTS {
            assert_eq!(starts.sated(second(100), 10), []);
            starts.started(node(9), second(100));
        }
        assert_eq!(starts.sated(second(100), 10), [node(9)]);
        // Others start, too: its share grows with theirs.
        for other in 0..30 {
            starts.started(node(other % 9), second(100));
        }
        assert_eq!(starts.sated(second(100), 10), []);
        starts.started(node(9), second(100));
        starts.started(node(9), second(100));
        starts.started(node(9), second(100));
        starts.started(node(9), second(100));
        assert_eq!(starts.sated(second(100), 10), [node(9)]);
        assert_eq!(starts.sated(second(101), 10), []);
    }

    #[test]
    fn old_nodes_and_nodes_of_a_cluster_that_just_came_up_are_never_sated() {
        let mut starts = FairStarts::new();
        starts.joined(node(1), second(0));
        for _ in 0..100 {
            starts.started(node(1), second(61));
        }
        assert_eq!(starts.sated(second(61), 10), []);
        starts.joined(node(1), second(70));
        starts.joined(node(2), second(70));
        for _ in 0..100 {
            starts.started(node(1), second(70));
        }
        assert_eq!(starts.sated(second(70), 3), []);
        assert_eq!(starts.sated(second(70), 4), [node(1)]);
        starts.left(node(1));
        assert_eq!(starts.sated(second(70), 4), []);
    }

    #[test]
    fn clock_that_goes_back_begins_anew() {
        let mut starts = FairStarts::new();
        starts.joined(node(1), second(100));
        for _ in 0..50 {
            starts.started(node(1), second(100));
        }
        assert_eq!(starts.sated(second(3), 10), []);
    }
}
