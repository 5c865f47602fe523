//! A trace's nodes as the scheduler's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ballast_model::node::DEFAULT_POOL;
use ballast_model::{
    Availability, Capacity, Device, Incarnation, Node, NodeDescription, NodeId, NodeStatus,
    Timestamp,
};

use crate::amounts::Amounts;
use crate::trace::TraceNode;

/// The kind of device that a trace's GPUs are.
pub const GPU: &str = "gpu";

/// Nodes that tasks are placed on.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// What each node has, by its number: the node's id in the scheduler.
    pub(crate) has: Vec<Amounts>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) total: Amounts,
}

impl Fleet {
    /// Returns the nodes of a list; their ids are in its order.
    pub fn new(list: &[TraceNode]) -> Self {
        let has: Vec<Amounts> = list.iter().map(Amounts::of_node).collect();
        let mut total = Amounts::default();
        for &node in &has {
            total.add(node);
        }
        Self {
            has,
            nodes: list
                .iter()
                .enumerate()
                .map(|(n, node)| model_node(n, node))
                .collect(),
            total,
        }
    }

    /// Returns how many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns all that the nodes have.
    pub fn total(&self) -> Amounts {
        self.total
    }

    /// Returns the nodes as the scheduler takes them.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns what every node has, if all have the same.
    pub fn host(&self) -> Option<Amounts> {
        let &first = self.has.first()?;
        self.has.iter().all(|&node| node == first).then_some(first)
    }
}

/// Returns the id of a node by its number in the fleet.
pub(crate) fn node_id(number: usize) -> NodeId {
    NodeId::from_bits(number as u64)
}

/// Returns a node's number in the fleet.
pub(crate) fn node_number(id: NodeId) -> usize {
    usize::try_from(id.to_bits()).expect("ids are made of numbers of nodes")
}

fn model_node(number: usize, node: &TraceNode) -> Node {
    let capacity = Capacity {
        devices: vec![Device::of(GPU, &node.model); usize::from(node.gpus)],
        ..Capacity::of(node.cpu, node.memory)
    };
    let mut made = blank_node(number, node.name.clone(), capacity);
    if node.gpus > 0 && !node.model.is_empty() {
        let attributes = &mut made.description.attributes;
        attributes.insert(format!("{GPU}.model"), node.model.clone());
    }
    made
}

/// Returns a ready node with this capacity and without labels, attributes and taints.
pub(crate) fn blank_node(number: usize, name: String, capacity: Capacity) -> Node {
    Node {
        id: node_id(number),
        description: NodeDescription {
            name,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            capacity: capacity.clone(),
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
            pool: DEFAULT_POOL.to_owned(),
        },
        availability: Availability::Active,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        offered: capacity,
        status: NodeStatus::Ready,
        incarnation: Incarnation(1),
        since: Timestamp(0),
    }
}
