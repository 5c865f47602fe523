//! The node index: nodes in equivalence classes, each filed by quantised free capacity.
//!
//! Classes are told apart only by properties that some request has referred to, so that a cluster
//! without constraints has one. They make a decision fast and never change it: policies choose
//! the least node of a total order that knows nothing of classes.

mod class;
mod entry;
mod grid;

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Claim, Node, NodeId, NodeKey, Placement, ServiceId};

use crate::policy::Spread;

pub(crate) use class::Class;
pub(crate) use entry::{Entry, Offer};
pub(crate) use grid::{At, Cell, Rank};

/// The tasks of one service over the nodes.
#[derive(Debug, Default)]
pub(crate) struct ServiceCount {
    /// Nodes that have a task of it, fewest first.
    pub by_count: BTreeSet<(u32, NodeId, At)>,
}

/// Every node, by id, by class and by service.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Option<Entry>>,
    vacant: Vec<At>,
    by_id: BTreeMap<NodeId, At>,
    services: BTreeMap<ServiceId, ServiceCount>,
    keys: Vec<NodeKey>,
    /// Properties that would make too many classes.
    loose: Vec<NodeKey>,
    classes: Vec<Class>,
    by_values: BTreeMap<class::Values, usize>,
}

impl Index {
    pub(crate) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.by_id.get(&node).map(|&at| self.entry(at))
    }

    pub(crate) fn at(&self, node: NodeId) -> Option<At> {
        self.by_id.get(&node).copied()
    }

    pub(crate) fn entry(&self, at: At) -> &Entry {
        self.entries[at as usize].as_ref().expect("a filed entry")
    }

    /// Returns every node in the order of ids.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.by_id.values().map(|&at| self.entry(at))
    }

    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(crate) fn service(&self, service: ServiceId) -> Option<&ServiceCount> {
        self.services.get(&service)
    }

    /// Returns where a property's value is in [`Class::values`], if classes are told apart by it.
    pub(crate) fn key_place(&self, key: &NodeKey) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Adds a node, or takes in what changed on it; its claims stay.
    pub(crate) fn upsert(&mut self, node: &Node) {
        let class = self.class_of(node);
        let at = match self.by_id.get(&node.id) {
            Some(&at) => at,
            None => self.add(node.clone(), class),
        };
        self.refile(at, |entry| {
            if entry.node.incarnation != node.incarnation {
                entry.ports.lift_all();
            }
            entry.node.clone_from(node);
            entry.class = class;
        });
    }

    fn add(&mut self, node: Node, class: usize) -> At {
        let id = node.id;
        let entry = Some(Entry::new(node, class));
        let at = if let Some(at) = self.vacant.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            self.entries.push(entry);
            At::try_from(self.entries.len() - 1).expect("fewer nodes than 2^32")
        };
        self.by_id.insert(id, at);
        at
    }

    /// Takes a node out with all that is held on it; returns whether it was there.
    pub(crate) fn remove(&mut self, node: NodeId) -> bool {
        let Some(at) = self.by_id.remove(&node) else {
            return false;
        };
        let entry = self.entries[at as usize].take().expect("a filed entry");
        if let Some(filed) = entry.filed {
            self.classes[entry.class].remove(filed);
        }
        for (service, count) in entry.services {
            self.recount(service, node, at, count, 0);
        }
        self.vacant.push(at);
        true
    }

    /// Holds a claim on a node; returns whether the node is there.
    pub(crate) fn hold(&mut self, node: NodeId, service: ServiceId, claim: &Claim) -> bool {
        let Some(&at) = self.by_id.get(&node) else {
            return false;
        };
        let mut count = 0;
        self.refile(at, |entry| {
            entry.taken.add(claim);
            let range = entry.node.offered.ports;
            entry.ports.advance(range, &claim.ports);
            let tasks = entry.services.entry(service).or_default();
            count = *tasks;
            *tasks += 1;
        });
        self.recount(service, node, at, count, count + 1);
        true
    }

    /// Gives a claim back.
    ///
    /// # Panics
    /// If the claim is not held there: the claims of a node that was removed went with it.
    pub(crate) fn give_back(&mut self, node: NodeId, service: ServiceId, claim: &Claim) {
        let &at = self
            .by_id
            .get(&node)
            .expect("what is held is on a known node");
        let mut count = 0;
        self.refile(at, |entry| {
            entry.taken.remove(claim);
            count = entry.tasks_of(service);
            assert!(count > 0, "a claim given back was held");
            if count == 1 {
                entry.services.remove(&service);
            } else {
                entry.services.insert(service, count - 1);
            }
        });
        self.recount(service, node, at, count, count - 1);
    }

    pub(crate) fn ports_mut(&mut self, node: NodeId) -> Option<&mut crate::ports::Ports> {
        let at = *self.by_id.get(&node)?;
        let entry = self.entries[at as usize].as_mut().expect("a filed entry");
        Some(&mut entry.ports)
    }

    /// Makes classes tell nodes apart by what this placement refers to.
    pub(crate) fn learn(&mut self, placement: &Placement) {
        for constraint in &placement.constraints {
            let known = |keys: &[NodeKey]| keys.contains(&constraint.key);
            if !class::is_shared(&constraint.key) || known(&self.keys) || known(&self.loose) {
                continue;
            }
            let values: BTreeSet<_> = self
                .iter()
                .map(|entry| (entry.class, class::value(&entry.node, &constraint.key)))
                .collect();
            if self.keys.len() >= class::CLASS_KEYS {
                // Judged node by node; not remembered, so that `loose` has a bound.
            } else if values.len() > class::CLASSES {
                if self.loose.len() < class::CLASS_KEYS {
                    self.loose.push(constraint.key.clone());
                }
            } else {
                self.keys.push(constraint.key.clone());
                self.reclassify();
            }
        }
        // Whatever the number of its values: without classes a spread would have no groups.
        if let Spread::Label(label) = Spread::of(placement) {
            let key = NodeKey::Label(label.to_owned());
            if !self.keys.contains(&key) {
                self.loose.retain(|loose| *loose != key);
                self.keys.push(key);
                self.reclassify();
            }
        }
    }

    fn class_of(&mut self, node: &Node) -> usize {
        let values = class::values(node, &self.keys);
        *self.by_values.entry(values).or_insert_with_key(|values| {
            self.classes.push(Class::new(values.clone()));
            self.classes.len() - 1
        })
    }

    fn reclassify(&mut self) {
        self.classes.clear();
        self.by_values.clear();
        for at in self.by_id.values().copied().collect::<Vec<_>>() {
            let mut entry = self.entries[at as usize].take().expect("a filed entry");
            entry.class = self.class_of(&entry.node);
            if let Some(filed) = entry.filed {
                self.classes[entry.class].insert(filed);
            }
            self.entries[at as usize] = Some(entry);
        }
    }

    /// Changes an entry and files it anew.
    fn refile(&mut self, at: At, change: impl FnOnce(&mut Entry)) {
        let entry = self.entries[at as usize].as_mut().expect("a filed entry");
        let (class, filed) = (entry.class, entry.filed);
        change(entry);
        entry.filed = entry.place_in_grid(at);
        if (class, filed) == (entry.class, entry.filed) {
            return;
        }
        if let Some(filed) = filed {
            self.classes[class].remove(filed);
        }
        if let Some(filed) = entry.filed {
            self.classes[entry.class].insert(filed);
        }
    }

    fn recount(&mut self, service: ServiceId, node: NodeId, at: At, from: u32, to: u32) {
        let counts = self.services.entry(service).or_default();
        if from > 0 {
            let removed = counts.by_count.remove(&(from, node, at));
            assert!(removed, "a counted node is listed");
        }
        if to > 0 {
            counts.by_count.insert((to, node, at));
        }
        if counts.by_count.is_empty() {
            self.services.remove(&service);
        }
    }
}
