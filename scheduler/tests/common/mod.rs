//! Nodes and requests for tests.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ballast_model::{
    Availability, Bytes, Capacity, Incarnation, MilliCpu, Node, NodeDescription, NodeId,
    NodeStatus, Placement, PortRange, PortSpec, Protocol, Resources, ServiceId, Target, Timestamp,
};
use ballast_scheduler::Request;

pub const SERVICE: ServiceId = ServiceId::from_bits(1);
static ANYWHERE: LazyLock<Placement> = LazyLock::new(Placement::default);

pub fn id(number: u64) -> NodeId {
    NodeId::from_bits(number)
}

/// A ready node named `n<number>` with this many milli-cores and mebibytes, four task slots and
/// the ports 1000 to 1003.
pub fn node(number: u64, cpu: u32, mib: u64) -> Node {
    let capacity = Capacity {
        task_slots: 4,
        ports: PortRange {
            first: 1000,
            last: 1003,
        },
        ..Capacity::of(MilliCpu(cpu), Bytes::from_mib(mib))
    };
    Node {
        id: id(number),
        description: NodeDescription {
            name: format!("n{number}"),
            address: [127, 0, 0, 1].into(),
            capacity: capacity.clone(),
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
            pool: ballast_model::node::DEFAULT_POOL.to_owned(),
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

pub fn labelled(number: u64, key: &str, value: &str) -> Node {
    let mut node = node(number, 1000, 1000);
    node.labels.insert(key.to_owned(), value.to_owned());
    node
}

pub fn wants(cpu: u32, mib: u64) -> Request<'static> {
    Request {
        service: SERVICE,
        // Leaked: a test asks a handful of times.
        resources: Box::leak(Box::new(Resources::of(MilliCpu(cpu), Bytes::from_mib(mib)))),
        ports: &[],
        placement: &ANYWHERE,
        node: None,
        avoid: &[],
        kept: &[],
        peers: ballast_scheduler::Peers::none(),
    }
}

pub fn port(name: &str, target: Target) -> PortSpec {
    PortSpec {
        name: name.to_owned(),
        target,
        published: None,
        protocol: Protocol::Tcp,
        balance: None,
        upstream: None,
    }
}
