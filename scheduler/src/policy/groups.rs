//! Nodes by what they have left: those that are alike are weighed once.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::NodeId;

use super::shape::Room;
use crate::index::At;

/// Groups that are remembered, empty ones included; with more, all are filed anew.
pub(crate) const GROUPS: usize = 1 << 16;

const NOWHERE: usize = usize::MAX;

/// Nodes of one class with the same room.
#[derive(Debug)]
pub(crate) struct Group {
    pub class: u32,
    /// For each kind of device that the class has: its place among the kinds, and the place of the
    /// room on each of its boards.
    pub states: Vec<(usize, [u32; 2])>,
    /// In the order of ids.
    pub nodes: BTreeSet<(NodeId, At)>,
    /// Where it is among those that have a node.
    place: usize,
}

/// All nodes that take tasks, by group.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The group of each node.
    of: Vec<usize>,
    groups: Vec<Group>,
    by_room: BTreeMap<(u32, Vec<(usize, Room)>), usize>,
    live: Vec<usize>,
}

impl Groups {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns whether no node was filed.
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Returns whether so many groups are remembered that they are to be forgotten.
    pub(crate) fn is_full(&self) -> bool {
        self.groups.len() >= GROUPS
    }

    /// Files a node, or takes it out; returns the group that it was in and the one that it is in.
    /// `states` places the rooms of a new group on the boards.
    pub(crate) fn file(
        &mut self,
        node: (NodeId, At),
        rooms: Option<(u32, Vec<(usize, Room)>)>,
        states: impl FnOnce(u32, &[(usize, Room)]) -> Vec<(usize, [u32; 2])>,
    ) -> (Option<usize>, Option<usize>) {
        let at = node.1 as usize;
        if at >= self.of.len() {
            self.of.resize(at + 1, NOWHERE);
        }
        let group = rooms.map_or(NOWHERE, |rooms| {
            let next = self.groups.len();
            let groups = &mut self.groups;
            *self
                .by_room
                .entry(rooms)
                .or_insert_with_key(|(class, rooms)| {
                    groups.push(Group {
                        class: *class,
                        states: states(*class, rooms),
                        nodes: BTreeSet::new(),
                        place: NOWHERE,
                    });
                    next
                })
        });
        let before = std::mem::replace(&mut self.of[at], group);
        let somewhere = |group| Some(group).filter(|group| *group != NOWHERE);
        let moved = (somewhere(before), somewhere(group));
        if before == group {
            return moved;
        }
        if let Some(before) = moved.0 {
            self.leave(before, node);
        }
        if let Some(group) = moved.1 {
            self.enter(group, node);
        }
        moved
    }

    fn enter(&mut self, group: usize, node: (NodeId, At)) {
        let entered = &mut self.groups[group];
        entered.nodes.insert(node);
        if entered.place == NOWHERE {
            entered.place = self.live.len();
            self.live.push(group);
        }
    }

    fn leave(&mut self, group: usize, node: (NodeId, At)) {
        let left = &mut self.groups[group];
        left.nodes.remove(&node);
        if !left.nodes.is_empty() {
            return;
        }
        let place = std::mem::replace(&mut left.place, NOWHERE);
        self.live.swap_remove(place);
        if let Some(&moved) = self.live.get(place) {
            self.groups[moved].place = place;
        }
    }

    /// Returns the groups that have a node, in no order that means anything.
    pub(crate) fn live(&self) -> impl Iterator<Item = (usize, &Group)> {
        self.live.iter().map(|&group| (group, &self.groups[group]))
    }

    pub(crate) fn get(&self, group: usize) -> &Group {
        &self.groups[group]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_every_node_is_in_the_group_of_its_room_and_no_other(
            moves in prop::collection::vec((0u32..12, prop::option::of((0u32..3, 0u32..4))), 0..200),
        ) {
            let mut groups = Groups::default();
            let mut naive: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
            for (at, to) in moves {
                let node = (NodeId::from_bits(u64::from(at)), at);
                let rooms = to.map(|(class, cpu)| (class, vec![(0, Room::new(cpu, 0, []))]));
                groups.file(node, rooms, |_, rooms| vec![(0, [rooms[0].1.cpu; 2])]);
                match to {
                    Some(to) => naive.insert(at, to),
                    None => naive.remove(&at),
                };
            }
            let mut filed = BTreeMap::new();
            for (number, group) in groups.live() {
                prop_assert!(!group.nodes.is_empty());
                prop_assert!(std::ptr::eq(groups.get(number), group));
                for &(_, at) in &group.nodes {
                    let room = (group.class, group.states[0].1[0]);
                    prop_assert_eq!(filed.insert(at, room), None);
                }
            }
            prop_assert_eq!(filed, naive);
        }
    }
}
