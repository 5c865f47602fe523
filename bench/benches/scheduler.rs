//! How fast the scheduler decides: place and free in a fleet that is already full of tasks.
//!
//! Seeds are fixed; each case prints a hash of the nodes that it chose for its first thousand
//! tasks, so that a change of the choices shows and the work cannot vanish.

use std::hint::black_box;

use ballast_model::{
    AssignmentId, Binding, Bytes, MilliCpu, Node, NodeId, Placement, PortSpec, Protocol, Resources,
    ServiceId, SpreadRule, Target, TopologyKey,
};
use ballast_scheduler::{Request, Scheduler};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const SEED: u64 = 0x00ba_11a5;
/// Services that the tasks of the fleet belong to.
const SERVICES: u64 = 500;
/// Nodes and the tasks on them before the measurement begins.
const FLEETS: [(u64, u64); 3] = [(1_000, 10_000), (10_000, 100_000), (50_000, 100_000)];

/// A stream of requests of one shape and random size.
struct Load {
    rng: StdRng,
    placement: Placement,
    ports: Vec<PortSpec>,
    next: u64,
}

impl Load {
    fn new(placement: Placement) -> Self {
        Self {
            rng: StdRng::seed_from_u64(SEED),
            placement,
            ports: vec![PortSpec {
                name: "http".to_owned(),
                target: Target::Dynamic,
                published: None,
                protocol: Protocol::Http,
                balance: None,
                upstream: None,
            }],
            next: 0,
        }
    }

    /// Places and commits one task; returns its assignment and node.
    fn place(&mut self, scheduler: &mut Scheduler) -> (AssignmentId, NodeId) {
        let resources = Resources::of(
            MilliCpu(50 * self.rng.random_range(1..20)),
            Bytes::from_mib(64 * self.rng.random_range(1..40)),
        );
        let request = Request {
            service: ServiceId::from_bits(self.rng.random_range(0..SERVICES)),
            resources: &resources,
            ports: &self.ports,
            placement: &self.placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: ballast_scheduler::Peers::none(),
        };
        let placed = scheduler.place(&request).expect("the fleet has room");
        let assignment = AssignmentId::from_bits(self.next);
        self.next += 1;
        scheduler.commit(placed.reservation, assignment);
        (assignment, placed.node)
    }
}

fn fleet(nodes: u64) -> (Vec<Node>, Scheduler) {
    let nodes = ballast_bench::scheduler::fleet::nodes(nodes);
    let scheduler = Scheduler::rebuild(&nodes, []);
    (nodes, scheduler)
}

/// FNV-1a over the bits of the chosen nodes.
fn hash(chosen: impl Iterator<Item = NodeId>) -> u64 {
    chosen
        .flat_map(|node| node.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

fn shapes() -> [(&'static str, Placement); 4] {
    let zone = Placement {
        constraints: vec!["node.labels.zone==z3".parse().expect("a constraint")],
        ..Placement::default()
    };
    let spread = |over| Placement {
        spread: vec![SpreadRule { over, max_skew: 0 }],
        ..Placement::default()
    };
    [
        ("place", Placement::default()),
        ("place-constrained", zone),
        ("place-spread-node", spread(TopologyKey::Node)),
        (
            "place-spread-label",
            spread(TopologyKey::Label("zone".to_owned())),
        ),
    ]
}

fn place(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.sample_size(20);
    for (operation, placement) in shapes() {
        for (nodes, tasks) in FLEETS {
            // A constrained load sees an eighth of the nodes.
            let tasks = if placement.constraints.is_empty() {
                tasks
            } else {
                tasks / 8
            };
            let (_, mut scheduler) = fleet(nodes);
            let mut load = Load::new(placement.clone());
            let mut held = std::collections::VecDeque::new();
            let mut chosen = Vec::new();
            for _ in 0..tasks {
                let (assignment, node) = load.place(&mut scheduler);
                held.push_back(assignment);
                chosen.push(node);
            }
            let hash = hash(chosen.into_iter().take(1000));
            eprintln!("scheduler/{operation}/{nodes}x{tasks}: choices {hash:016x}");
            let id = BenchmarkId::new(operation, format!("{nodes}x{tasks}"));
            group.bench_function(id, |b| {
                b.iter(|| {
                    let (assignment, node) = load.place(&mut scheduler);
                    held.push_back(assignment);
                    let oldest = held.pop_front().expect("never empty");
                    assert!(scheduler.free(oldest));
                    black_box(node)
                });
            });
        }
    }
    group.finish();
}

fn refuse(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.sample_size(20);
    let (_, scheduler) = fleet(10_000);
    let placement = Placement::default();
    let request = Request {
        service: ServiceId::from_bits(0),
        resources: &Resources::of(MilliCpu::from_cores(1000), Bytes(0)),
        ports: &[],
        placement: &placement,
        node: None,
        avoid: &[],
        kept: &[],
        peers: ballast_scheduler::Peers::none(),
    };
    group.bench_function(BenchmarkId::new("explain", "10000x0"), |b| {
        b.iter(|| black_box(scheduler.explain(&request).fit));
    });
    group.finish();
}

fn rebuild(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.sample_size(10);
    let (nodes, mut scheduler) = fleet(10_000);
    let placement = Placement::default();
    let mut bindings = Vec::new();
    for number in 0..100_000 {
        let request = Request {
            service: ServiceId::from_bits(number % SERVICES),
            resources: &Resources::of(MilliCpu(500), Bytes::from_mib(512)),
            ports: &[],
            placement: &placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: ballast_scheduler::Peers::none(),
        };
        let placed = scheduler.place(&request).expect("the fleet has room");
        let assignment = AssignmentId::from_bits(number);
        scheduler.commit(placed.reservation, assignment);
        let binding = Binding {
            assignment,
            node: placed.node,
            ports: placed.ports,
            claim: placed.claim,
            restarts: 0,
        };
        bindings.push((request.service, binding));
    }
    group.bench_function(BenchmarkId::new("rebuild", "10000x100000"), |b| {
        b.iter(|| {
            let bindings = bindings
                .iter()
                .map(|(service, binding)| (*service, binding));
            black_box(Scheduler::rebuild(&nodes, bindings).nodes().len())
        });
    });
    group.finish();
}

criterion_group!(benches, place, refuse, rebuild);
criterion_main!(benches);
