//! Nodes and loads for the cases: the same for everybody, from fixed seeds.

use std::collections::BTreeMap;

use ballast_model::{
    Availability, Bytes, Capacity, Incarnation, MilliCpu, Node, NodeDescription, NodeId,
    NodeStatus, Resources, Timestamp,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The seed of everything that is drawn.
pub const SEED: u64 = 0x00ba_11a5;
/// Zones of a fleet: label `zone`, `z0` to `z7`.
pub const ZONES: u64 = 8;

/// Returns a node of one of three sizes (8, 16 or 32 cores, 4 GiB each) in one of eight zones,
/// with a disk of 1 TiB.
pub fn node(rng: &mut StdRng, number: u64) -> Node {
    let scale = 1 << rng.random_range(0..3);
    let memory = Bytes::from_mib(32_768 * u64::from(scale));
    let capacity = Capacity {
        disk: Bytes::from_mib(1 << 20),
        ..Capacity::of(MilliCpu::from_cores(8 * scale), memory)
    };
    Node {
        id: NodeId::from_bits(rng.random()),
        description: NodeDescription {
            name: format!("n{number}"),
            address: [10, 0, 0, 1].into(),
            capacity: capacity.clone(),
            attributes: BTreeMap::new(),
            labels: BTreeMap::from([("zone".to_owned(), format!("z{}", number % ZONES))]),
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

/// Returns so many nodes.
pub fn nodes(count: u64) -> Vec<Node> {
    let mut rng = StdRng::seed_from_u64(SEED);
    (0..count).map(|number| node(&mut rng, number)).collect()
}

/// Returns so many kinds of tasks: 50 to 950 milli-cores, 64 to 2,496 MiB, up to 32 GiB of disk.
pub fn sizes(count: usize) -> Vec<Resources> {
    let mut rng = StdRng::seed_from_u64(SEED ^ 1);
    let mut size = || Resources {
        disk: Bytes::from_mib(1024 * rng.random_range(0..32)),
        ..Resources::of(
            MilliCpu(50 * rng.random_range(1..20)),
            Bytes::from_mib(64 * rng.random_range(1..40)),
        )
    };
    (0..count).map(|_| size()).collect()
}
