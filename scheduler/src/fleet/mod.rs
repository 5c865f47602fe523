//! The fleet: nodes around the index, their classes, and the tasks of each service.
//!
//! The [`Index`] knows amounts; the fleet knows whose they are. [`Fleet::entry`] gives a node with
//! all that is taken on it, [`Fleet::classes`] the equivalence classes and a specimen of each to
//! put rules to, [`Fleet::ledger_mut`] the tasks of a service by node and by label value.

mod changes;
mod class;
mod entry;
mod ledger;
mod topology;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ballast_model::{Bytes, Claim, MilliCpu, Node, NodeId, NodeKey, ServiceId};

pub(crate) use changes::Changes;
pub(crate) use class::ClassTable;
pub(crate) use entry::{Entry, Offer};
pub(crate) use ledger::Ledger;
pub(crate) use topology::Topology;

use crate::digest::Digest;
use crate::index::{Amounts, At, Custom, DEVICES, Extra, Fields, Index, PortMap, Stock};
use crate::map::IdMap;

/// Labels that are kept as topologies. A service that spreads over one more takes the place of the
/// one that was asked for first, which is made anew when it is asked for again.
const TOPOLOGIES: usize = 16;

/// Every node, by id, by class and by service.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub index: Index,
    pub changes: Changes,
    entries: Vec<Option<Entry>>,
    classes: ClassTable,
    topologies: Vec<Topology>,
    ledgers: IdMap<ServiceId, Ledger>,
    /// Kinds of devices, and how many nodes have some.
    kinds: BTreeMap<String, usize>,
    kinds_version: u64,
    /// For questions about all nodes; behind a lock, as asking brings it up to date.
    digest: Mutex<Digest>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Fleet {
    /// Returns a fleet without nodes that so many workers search.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            index: Index::new(shards),
            changes: Changes::default(),
            entries: Vec::new(),
            classes: ClassTable::default(),
            topologies: Vec::new(),
            ledgers: IdMap::default(),
            kinds: BTreeMap::new(),
            kinds_version: 0,
            digest: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.index.at(node).map(|at| self.entry(at))
    }

    pub(crate) fn entry(&self, at: At) -> &Entry {
        self.entries[at as usize].as_ref().expect("a known node")
    }

    fn entry_mut(&mut self, at: At) -> &mut Entry {
        self.entries[at as usize].as_mut().expect("a known node")
    }

    /// Returns every node in the order of ids.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.index.by_id().into_iter().map(|at| self.entry(at))
    }

    pub(crate) const fn classes(&self) -> &ClassTable {
        &self.classes
    }

    pub(crate) fn topologies(&self) -> &[Topology] {
        &self.topologies
    }

    /// Returns the nodes that have this many tasks of a service or more.
    pub(crate) fn nodes_with(&self, service: ServiceId, least: u32) -> Vec<At> {
        let ledger = self.ledgers.get(service);
        ledger.map_or_else(Vec::new, |ledger| ledger.nodes_with(least))
    }

    /// Returns a service's ledger to ask for orders of it, with what it needs for the answer.
    pub(crate) fn ledger_mut(
        &mut self,
        service: ServiceId,
    ) -> (
        &mut Ledger,
        &Index,
        &ClassTable,
        &[Topology],
        &[Option<Entry>],
    ) {
        (
            self.ledgers.entry_or(service, Ledger::default),
            &self.index,
            &self.classes,
            &self.topologies,
            &self.entries,
        )
    }

    /// Adds a node, or takes in what changed on it; its claims stay.
    pub(crate) fn upsert(&mut self, node: &Node) {
        let mut node = node.clone();
        curb(&mut node);
        let class = self.classes.class_of(&node);
        let id = node.id;
        let before = self.index.at(id).map(|at| &self.entry(at).node);
        if before.is_none_or(|before| before.offered.devices != node.offered.devices) {
            let before = before.cloned();
            self.count_kinds(&node, true);
            if let Some(before) = before {
                self.count_kinds(&before, false);
            }
        }
        if let Some(at) = self.index.at(id) {
            let entry = self.entry_mut(at);
            if entry.node.incarnation != node.incarnation {
                entry.ports.lift_all();
            }
            entry.node = node;
            let stock = stock(entry, class);
            self.index.upsert(id, stock);
        } else {
            let entry = Entry::new(node);
            let at = self.index.upsert(id, stock(&entry, class)) as usize;
            if at >= self.entries.len() {
                self.entries.resize_with(at + 1, || None);
            }
            self.entries[at] = Some(entry);
        }
        self.index.set_classes(self.classes.len());
        let at = self.index.at(id).expect("just added");
        self.touch(at);
        self.place_in_topologies(id);
    }

    /// Counts a node with the kinds of devices that it has.
    fn count_kinds(&mut self, node: &Node, comes: bool) {
        let mut kinds: Vec<&str> = node.offered.devices.iter().map(|d| &*d.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let nodes = self.kinds.get(kind).copied().unwrap_or(0);
            let now = if comes { nodes + 1 } else { nodes - 1 };
            if now == 0 {
                self.kinds.remove(kind);
            } else {
                self.kinds.insert(kind.to_owned(), now);
            }
            self.kinds_version += u64::from(nodes == 0 || now == 0);
        }
    }

    /// Returns the kinds of devices that nodes have, in order, and a number that is another one
    /// whenever they are.
    pub(crate) fn kinds(&self) -> (impl Iterator<Item = &str>, u64) {
        (self.kinds.keys().map(String::as_str), self.kinds_version)
    }

    fn place_in_topologies(&mut self, id: NodeId) {
        let at = self.index.at(id).expect("just added");
        let mut moved = false;
        for topology in &mut self.topologies {
            let node = &self.entries[at as usize]
                .as_ref()
                .expect("a known node")
                .node;
            moved |= topology.set(at, node, |other| self.index.id(other) < id);
        }
        if moved {
            self.ledgers.each_mut(|_, ledger| ledger.forget_orders());
        }
    }

    /// Takes a node out with all that is held on it; returns whether it was there.
    pub(crate) fn remove(&mut self, node: NodeId) -> bool {
        let Some(at) = self.index.remove(node) else {
            return false;
        };
        self.touch(at);
        self.changes.note_all();
        let entry = self.entries[at as usize].take().expect("a known node");
        self.count_kinds(&entry.node, false);
        for &(service, _) in entry.services() {
            let ledger = self.ledgers.get_mut(service).expect("a counted service");
            ledger.forget(at);
        }
        for topology in &mut self.topologies {
            topology.unset(at);
        }
        true
    }

    /// Holds a claim on a node whether it fits or not; returns whether the node is there.
    pub(crate) fn hold(&mut self, node: NodeId, service: ServiceId, claim: &Claim) -> bool {
        let Some(at) = self.index.at(node) else {
            return false;
        };
        self.note(at, service, claim);
        self.set_free(at);
        true
    }

    /// Takes a claim on the node that a search found, with the words that decide.
    pub(crate) fn note(&mut self, at: At, service: ServiceId, claim: &Claim) {
        let entry = self.entries[at as usize].as_mut().expect("a known node");
        entry.taken.add(claim);
        let range = entry.node.offered.ports;
        entry.ports.advance(range, &claim.ports);
        entry.count(service, true);
        self.touch(at);
        let ledger = self.ledgers.entry_or(service, Ledger::default);
        ledger.add(at, &self.index, &self.topologies);
    }

    /// Gives a claim back.
    ///
    /// # Panics
    /// If the claim is not held there: the claims of a node that was removed went with it.
    pub(crate) fn give_back(&mut self, node: NodeId, service: ServiceId, claim: &Claim) {
        let at = self.index.at(node);
        let at = at.expect("what is held is on a known node");
        let entry = self.entries[at as usize].as_mut().expect("a known node");
        entry.taken.remove(claim);
        entry.count(service, false);
        self.touch(at);
        let ledger = self.ledgers.get_mut(service).expect("a counted service");
        ledger.sub(at, &self.index, &self.topologies);
        self.set_free(at);
    }

    /// Stocks the index with what only a pool takes by its words: named resources, device kinds
    /// and ports. `names` numbers the kinds.
    pub(crate) fn stock_rest(&mut self, id: NodeId, names: &mut BTreeMap<String, u32>) {
        let at = self.index.at(id).expect("a known node");
        let entry = self.entries[at as usize].as_ref().expect("a known node");
        let offered = &entry.node.offered;
        let mut number = |name: &str| {
            let next = u32::try_from(names.len()).expect("few names");
            *names.entry(name.to_owned()).or_insert(next)
        };
        let mut kinds: Vec<(u32, u16)> = Vec::new();
        for (place, device) in offered.devices.iter().enumerate().take(DEVICES) {
            let kind = number(&device.kind);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, mask)) => *mask |= 1 << place,
                None => kinds.push((kind, 1 << place)),
            }
        }
        let custom = offered.custom.iter();
        let custom: Vec<(u32, i64)> = custom
            .map(|(name, &units)| (number(name), units.into()))
            .collect();
        *self.index.extra_mut(at) = Extra {
            kinds: kinds.into(),
            whole: entry.remains(),
            custom: Custom::of(custom),
            ports: PortMap::new(offered.ports),
        };
    }

    fn set_free(&mut self, at: At) {
        let entry = self.entries[at as usize].as_ref().expect("a known node");
        self.index.set(at, entry.free(), entry.remains());
    }

    pub(crate) fn ports_mut(&mut self, node: NodeId) -> Option<&mut crate::ports::Ports> {
        let at = self.index.at(node)?;
        self.touch(at);
        Some(&mut self.entry_mut(at).ports)
    }

    fn touch(&mut self, at: At) {
        self.changes.note(at, self.entries.len());
        let digest = self.digest.get_mut();
        digest.unwrap_or_else(PoisonError::into_inner).touch(at);
    }

    /// Asks a question about all nodes, of a digest that is up to date.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut Digest) -> T) -> T {
        let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        digest.renew(self.entries.len(), |at| {
            let entry = self.entries.get(at as usize)?.as_ref()?;
            Some((entry, self.index.line(at).class()))
        });
        question(&mut digest)
    }

    /// Makes classes tell nodes apart by this property, if they can.
    pub(crate) fn learn(&mut self, key: &NodeKey) {
        let nodes = self.entries.iter().flatten().map(|entry| &entry.node);
        if self.classes.learn(key, nodes) {
            let digest = self.digest.get_mut();
            digest.unwrap_or_else(PoisonError::into_inner).touch_all();
            let mut classes = vec![0; self.entries.len()];
            for at in self.index.by_id() {
                let node = &self.entries[at as usize]
                    .as_ref()
                    .expect("a known node")
                    .node;
                classes[at as usize] = self.classes.class_of(node);
            }
            self.index
                .reclassify(self.classes.len(), |at| classes[at as usize]);
        }
    }

    /// Returns the number of a label's topology, made if need be.
    pub(crate) fn topology(&mut self, label: &str) -> usize {
        let known = self
            .topologies
            .iter()
            .position(|known| known.label == label);
        if let Some(known) = known {
            return known;
        }
        self.learn(&NodeKey::Label(label.to_owned()));
        if self.topologies.len() == TOPOLOGIES {
            self.topologies.remove(0);
            self.ledgers.each_mut(|_, ledger| ledger.forget_orders());
        }
        let mut topology = Topology::new(label);
        for at in self.index.by_id() {
            let id = self.index.id(at);
            let node = &self.entries[at as usize]
                .as_ref()
                .expect("a known node")
                .node;
            topology.set(at, node, |other| self.index.id(other) < id);
        }
        self.topologies.push(topology);
        self.topologies.len() - 1
    }
}

/// Returns what the index is told about a node.
fn stock(entry: &Entry, class: u32) -> Stock {
    Stock {
        free: entry.free(),
        slots: u16::try_from(entry.node.offered.task_slots).unwrap_or(u16::MAX),
        devices: entry.remains(),
        class,
        open: entry.node.is_schedulable(),
    }
}

/// Cuts what a node offers to what the index can count, so that `fits` and the index agree.
fn curb(node: &mut Node) {
    let most = Amounts::of(Fields {
        cpu: i64::MAX,
        memory: i64::MAX,
        disk: i64::MAX,
        slots: i64::MAX,
    });
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let offered = &mut node.offered;
    let cpu = u32::try_from(most.cpu()).unwrap_or(u32::MAX);
    let slots = u32::try_from(most.slots()).unwrap_or(u32::MAX);
    offered.cpu = offered.cpu.min(MilliCpu(cpu));
    offered.memory = offered.memory.min(Bytes(unsigned(most.memory())));
    offered.disk = offered.disk.min(Bytes(unsigned(most.disk()) << 20));
    offered.task_slots = offered.task_slots.min(slots);
}
