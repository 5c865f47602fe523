//! How many tasks of each service are where: by node, and by the value of the labels in use.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Node, NodeId, ServiceId};

use crate::map::IdMap;

/// Tasks of one service by the value of one label; `None` stands for nodes without the label.
pub(crate) type ByValue = BTreeMap<Option<String>, u32>;

/// The tasks of one service.
#[derive(Debug, Clone, Default)]
struct Tally {
    total: u32,
    /// Nodes that have a task of it, fewest first.
    nodes: BTreeSet<(u32, NodeId)>,
    /// By the labels of [`Census::labels`], in their order.
    by_label: Vec<ByValue>,
}

/// The tasks of all services over the nodes, reserved and committed.
///
/// Labels are counted by once a rule has asked for them ([`Census::learn`]), so that a cluster
/// without such rules pays for none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census {
    services: IdMap<ServiceId, Tally>,
    /// Of each node the services that have tasks there, by id.
    on: IdMap<NodeId, Vec<(ServiceId, u32)>>,
    labels: Vec<String>,
}

fn value(node: &Node, label: &str) -> Option<String> {
    node.label(label).map(ToOwned::to_owned)
}

/// Returns the count of a value.
pub(crate) fn in_value(counts: &ByValue, value: Option<&str>) -> u32 {
    // Few values: a walk costs less than a key to look up with.
    let found = counts.iter().find(|(known, _)| known.as_deref() == value);
    found.map_or(0, |(_, &count)| count)
}

/// Adds to a count, and drops it at zero.
fn shift(counts: &mut ByValue, value: Option<String>, less: u32, more: u32) {
    let count = counts.entry(value.clone()).or_default();
    *count = count
        .checked_sub(less)
        .expect("what is taken back was counted")
        + more;
    if *count == 0 {
        counts.remove(&value);
    }
}

impl Census {
    /// Returns how many tasks a service has in all.
    pub(crate) fn total(&self, service: ServiceId) -> u32 {
        self.services.get(service).map_or(0, |tally| tally.total)
    }

    /// Returns how many tasks of a service are on a node.
    pub(crate) fn on_node(&self, service: ServiceId, node: NodeId) -> u32 {
        let services = self.on.get(node).map_or(&[][..], Vec::as_slice);
        let found = services.binary_search_by_key(&service, |(id, _)| *id);
        found.map_or(0, |place| services[place].1)
    }

    /// Returns the nodes that have a task of a service and how many, fewest first.
    pub(crate) fn nodes(
        &self,
        service: ServiceId,
    ) -> impl ExactSizeIterator<Item = (u32, NodeId)> + '_ {
        static NONE: BTreeSet<(u32, NodeId)> = BTreeSet::new();
        let tally = self.services.get(service);
        tally.map_or(&NONE, |tally| &tally.nodes).iter().copied()
    }

    /// Returns whether tasks are counted by this label.
    pub(crate) fn knows(&self, label: &str) -> bool {
        self.labels.iter().any(|known| known == label)
    }

    /// Returns how many tasks of a service are on nodes with this value of a label that was
    /// learnt.
    pub(crate) fn in_value(&self, service: ServiceId, label: &str, value: Option<&str>) -> u32 {
        let place = self.labels.iter().position(|known| known == label);
        let place = place.expect("asked for labels that were learnt");
        let tally = self.services.get(service);
        tally.map_or(0, |tally| in_value(&tally.by_label[place], value))
    }

    /// Returns the tasks of a service by the value of a label that nobody learnt.
    pub(crate) fn count<'a>(
        &self,
        service: ServiceId,
        label: &str,
        node: impl Fn(NodeId) -> Option<&'a Node>,
    ) -> ByValue {
        let mut counts = ByValue::new();
        for (count, id) in self.nodes(service) {
            let value = node(id).and_then(|node| value(node, label));
            shift(&mut counts, value, 0, count);
        }
        counts
    }

    /// Counts by this label from now on.
    pub(crate) fn learn<'a>(&mut self, label: &str, node: impl Fn(NodeId) -> Option<&'a Node>) {
        if self.knows(label) {
            return;
        }
        self.labels.push(label.to_owned());
        for service in self.services.sorted_keys() {
            let counts = self.count(service, label, &node);
            let tally = self.services.get_mut(service);
            tally.expect("just listed").by_label.push(counts);
        }
    }

    /// Counts a task.
    pub(crate) fn add(&mut self, service: ServiceId, node: &Node) {
        self.change(service, node, 0, 1);
    }

    /// Counts so many tasks.
    pub(crate) fn add_many(&mut self, service: ServiceId, node: &Node, count: u32) {
        self.change(service, node, 0, count);
    }

    /// Counts a task no more.
    ///
    /// # Panics
    /// If it was not counted.
    pub(crate) fn remove(&mut self, service: ServiceId, node: &Node) {
        self.change(service, node, 1, 0);
    }

    /// Takes over a change of a node's labels.
    pub(crate) fn relabel(&mut self, before: &Node, after: &Node) {
        let Some(services) = self.on.get(before.id) else {
            return;
        };
        for (place, label) in self.labels.iter().enumerate() {
            let (from, to) = (value(before, label), value(after, label));
            if from == to {
                continue;
            }
            for &(service, count) in services {
                let tally = self.services.get_mut(service).expect("counted on a node");
                shift(&mut tally.by_label[place], from.clone(), count, 0);
                shift(&mut tally.by_label[place], to.clone(), 0, count);
            }
        }
    }

    /// Forgets a node and all that was counted on it.
    pub(crate) fn forget(&mut self, node: &Node) {
        let services = self.on.get(node.id).cloned().unwrap_or_default();
        for (service, count) in services {
            self.change(service, node, count, 0);
        }
    }

    fn change(&mut self, service: ServiceId, node: &Node, less: u32, more: u32) {
        let on = self.on.entry_or(node.id, Vec::new);
        let found = on.binary_search_by_key(&service, |(id, _)| *id);
        let before = found.map_or(0, |place| on[place].1);
        let after = before
            .checked_sub(less)
            .expect("what is taken back was counted")
            + more;
        match (found, after) {
            (Ok(place), 0) => {
                on.remove(place);
                if on.is_empty() {
                    self.on.remove(node.id);
                }
            }
            (Ok(place), _) => on[place].1 = after,
            (Err(place), _) => on.insert(place, (service, after)),
        }
        let labels = &self.labels;
        let tally = self.services.entry_or(service, || Tally {
            by_label: vec![ByValue::new(); labels.len()],
            ..Tally::default()
        });
        tally.total = tally.total - less + more;
        if before > 0 {
            tally.nodes.remove(&(before, node.id));
        }
        if after > 0 {
            tally.nodes.insert((after, node.id));
        }
        for (counts, label) in tally.by_label.iter_mut().zip(labels) {
            shift(counts, value(node, label), less, more);
        }
        if tally.total == 0 {
            self.services.remove(service);
        }
    }
}
