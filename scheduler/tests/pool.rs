//! The pool: several threads on one fleet, and one thread against the plainest model.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use ballast_model::{
    Allocation, Bytes, Claim, Device, DeviceRequest, MilliCpu, Node, NodeId, Placement, PortSpec,
    Resources, ServiceId, Target, fits, fits_amounts,
};
use ballast_scheduler::{Pool, Taken, Wanted};
use common::{SERVICE, id, labelled, node, port};
use proptest::prelude::*;

/// A node with everything: two GPUs, three licenses, 100 MiB of disk, a zone.
fn rich(number: u64) -> Node {
    let mut node = labelled(
        number,
        "zone",
        if number.is_multiple_of(2) { "a" } else { "b" },
    );
    node.offered.devices = vec![Device::of("gpu", "T4"), Device::of("gpu", "T4")];
    node.offered.custom = BTreeMap::from([("license".to_owned(), 3)]);
    node.offered.disk = Bytes::from_mib(100);
    node.offered.task_slots = 6;
    node
}

fn resources(cpu: u32, mib: u64) -> Resources {
    Resources::of(MilliCpu(cpu), Bytes::from_mib(mib))
}

fn licenses(units: u32) -> Resources {
    Resources {
        custom: BTreeMap::from([("license".to_owned(), units)]),
        ..resources(1, 1)
    }
}

fn zone(value: &str) -> Placement {
    Placement {
        constraints: vec![
            format!("node.labels.zone=={value}")
                .parse()
                .expect("a constraint"),
        ],
        ..Placement::default()
    }
}

/// Made twice: the first time teaches the pool what is told apart.
fn wanted(pool: &mut Pool, all: &[(Resources, Vec<PortSpec>, Placement)]) -> Vec<Wanted> {
    let make = |pool: &mut Pool| -> Vec<Wanted> {
        let each = all.iter();
        each.map(|(resources, ports, placement)| pool.wanted(resources, ports, placement))
            .collect()
    };
    make(pool);
    make(pool)
}

/// Places and gives back at random, in the end everything; returns how much was placed.
fn churn(pool: &Pool, number: usize, wanted: &[Wanted], rounds: usize) -> usize {
    let mut worker = pool.worker(number);
    let mut held: Vec<(ServiceId, Taken)> = Vec::new();
    let mut random = 0x9e37_79b9_u64 + number as u64;
    let mut placed = 0;
    for _ in 0..rounds {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let draw = (random >> 33) as usize;
        let service = ServiceId::from_bits((draw % 3) as u64);
        if held.len() < 60 && !draw.is_multiple_of(3) {
            let taken = worker.place(service, &wanted[draw / 8 % wanted.len()]);
            placed += usize::from(taken.is_some());
            held.extend(taken.map(|taken| (service, taken)));
        } else if !held.is_empty() {
            let (service, taken) = held.swap_remove(draw / 8 % held.len());
            worker.release(service, taken);
        }
    }
    for (service, taken) in held {
        worker.release(service, taken);
    }
    placed
}

#[test]
fn every_unit_that_threads_take_is_counted_in_and_out() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 4000;
    let nodes: Vec<Node> = (1..=40).map(rich).collect();
    let mut pool = Pool::new(&nodes, THREADS);
    let gpus = |count, milli| {
        let kind = "gpu".to_owned();
        let devices = DeviceRequest { kind, count, milli };
        Resources {
            devices,
            ..resources(10, 10)
        }
    };
    let spread = Placement {
        max_replicas_per_node: 1,
        ..Placement::default()
    };
    let kinds = [
        (resources(300, 100), vec![], Placement::default()),
        (resources(100, 300), vec![], zone("a")),
        (gpus(1, 300), vec![], Placement::default()),
        (gpus(2, 1000), vec![], Placement::default()),
        (licenses(2), vec![], zone("b")),
        (
            resources(1, 1),
            vec![port("a", Target::Dynamic)],
            Placement::default(),
        ),
        (resources(1, 1), vec![port("a", Target::Fixed(80))], spread),
    ];
    let wanted = wanted(&mut pool, &kinds);
    let before = pool.free();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (pool, wanted) = (&pool, &wanted);
                scope.spawn(move || churn(pool, number, wanted, ROUNDS))
            })
            .collect();
        let looker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (node, free) in pool.free() {
                    assert!(free.iter().all(|&free| free >= 0), "{node}: {free:?}");
                }
            }
        });
        let placed: Vec<usize> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        looker.join().unwrap();
        assert!(
            placed.iter().all(|&placed| placed > ROUNDS / 10),
            "{placed:?}"
        );
    });
    assert_eq!(pool.free(), before);
    // Devices, named resources and ports are back, too: all of them can be taken at once.
    let mut worker = pool.worker(0);
    for nth in [3, 6] {
        for _ in 0..nodes.len() {
            let taken = worker.place(ServiceId::from_bits(9), &wanted[nth]);
            let _ = taken.expect("every node has it all again").node();
        }
    }
}

#[test]
fn nobody_fails_while_a_node_has_room_for_it_throughout() {
    const ROUNDS: usize = 20_000;
    // Node 1 has two slots: one for whoever has the license, one for us. Who wants the license
    // and does not get it takes a slot for a moment. The others are full and change hands.
    let mut lonely = rich(1);
    lonely.offered.task_slots = 2;
    lonely.offered.custom.insert("license".to_owned(), 1);
    let crowd = (1..=20).map(|number| {
        let mut node = rich(2 * number);
        node.offered.task_slots = 1;
        node
    });
    let nodes: Vec<Node> = crowd.chain([lonely]).collect();
    let mut pool = Pool::new(&nodes, 4);
    let kinds = [
        (resources(1, 1), vec![], Placement::default()),
        (licenses(1), vec![], zone("b")),
        (resources(1, 1), vec![], zone("a")),
    ];
    let wanted = wanted(&mut pool, &kinds);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, kind, most) in [(1, 1, 1), (2, 1, 1), (3, 2, 20)] {
            let (pool, wanted, done) = (&pool, &wanted, &done);
            scope.spawn(move || {
                let mut worker = pool.worker(number);
                let mut held = std::collections::VecDeque::new();
                while !done.load(Ordering::Relaxed) {
                    held.extend(worker.place(SERVICE, &wanted[kind]));
                    if held.len() >= most {
                        worker.release(SERVICE, held.pop_front().unwrap());
                    }
                }
            });
        }
        let mut worker = pool.worker(0);
        for round in 0..ROUNDS {
            let taken = worker.place(SERVICE, &wanted[0]);
            if taken.is_none() {
                done.store(true, Ordering::Relaxed);
            }
            worker.release(
                SERVICE,
                taken.unwrap_or_else(|| panic!("refused in round {round}")),
            );
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Place(usize, u32, u64, u64),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..7, 0u32..400, 0u64..400, 0u64..40).prop_map(|(k, c, m, d)| Step::Place(k, c, m, d)),
        2 => any::<usize>().prop_map(Step::Release),
    ]
}

/// What is asked for: resources, ports, placement.
fn kind(nth: usize, cpu: u32, mib: u64, disk: u64) -> (Resources, Vec<PortSpec>, Placement) {
    let mut wants = resources(cpu, mib);
    wants.disk = Bytes::from_mib(disk);
    let gpu = |count, milli| DeviceRequest {
        kind: "gpu".to_owned(),
        count,
        milli,
    };
    let mut ports = vec![];
    let mut placement = Placement::default();
    match nth {
        1 => wants.devices = gpu(1, 400),
        2 => wants.devices = gpu(2, 1000),
        3 => wants.custom = BTreeMap::from([("license".to_owned(), 2)]),
        4 => ports = vec![port("a", Target::Dynamic), port("b", Target::Dynamic)],
        5 => ports = vec![port("a", Target::Fixed(80)), port("b", Target::Fixed(1001))],
        6 => placement = zone("a"),
        _ => {}
    }
    (wants, ports, placement)
}

/// Whether the node would take it, by the one predicate.
fn would_take(
    node: &Node,
    taken: &Allocation,
    kind: &(Resources, Vec<PortSpec>, Placement),
) -> bool {
    let (wants, ports, placement) = kind;
    let whole = |place: usize| 1000 - taken.device(place);
    let enough = (0..2).filter(|&place| whole(place) >= u32::from(wants.devices.milli));
    let fixed = |port: &PortSpec| match port.target {
        Target::Fixed(port) => Some(port),
        Target::Dynamic => None,
    };
    let fixed: Vec<u16> = ports.iter().filter_map(fixed).collect();
    let range = node.offered.ports;
    let free = (range.first..=range.last)
        .filter(|port| !taken.ports.contains(port) && !fixed.contains(port));
    placement.constraints.iter().all(|c| node.meets(c))
        && fits_amounts(&node.offered, taken, wants).is_ok()
        && enough.count() >= usize::from(wants.devices.count)
        && !fixed.iter().any(|port| taken.ports.contains(port))
        && free.count() >= ports.len() - fixed.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn prop_pool_takes_what_fits_and_refuses_what_fits_nowhere(
        steps in prop::collection::vec(step(), 1..80), workers in 1usize..4
    ) {
        let nodes: BTreeMap<NodeId, Node> = (1..=4).map(|n| (id(n), rich(n))).collect();
        let mut pool = Pool::new(nodes.values(), workers);
        let mut taken: BTreeMap<NodeId, Allocation> = BTreeMap::new();
        let mut held: Vec<(Taken, Claim)> = Vec::new();
        pool.wanted(&resources(1, 1), &[], &zone("a"));
        for (nth, step) in steps.into_iter().enumerate() {
            match step {
                Step::Place(kind_of, cpu, mib, disk) => {
                    let kind = kind(kind_of, cpu, mib, disk);
                    let wanted = pool.wanted(&kind.0, &kind.1, &kind.2);
                    let found = pool.worker(nth).place(SERVICE, &wanted);
                    let Some(found) = found else {
                        for (id, node) in &nodes {
                            let on = taken.entry(*id).or_default();
                            prop_assert!(!would_take(node, on, &kind), "{id} has room");
                        }
                        continue;
                    };
                    let node = &nodes[&found.node()];
                    let on = taken.entry(node.id).or_default();
                    let claim = Claim {
                        resources: kind.0.clone(),
                        ports: found.ports().to_vec(),
                        devices: found.devices(),
                        sockets: vec![],
                    };
                    prop_assert_eq!(fits(&node.offered, on, &claim), Ok(()));
                    prop_assert!(kind.2.constraints.iter().all(|c| node.meets(c)));
                    on.add(&claim);
                    held.push((found, claim));
                }
                Step::Release(place) if !held.is_empty() => {
                    let (found, claim) = held.swap_remove(place % held.len());
                    taken.get_mut(&found.node()).unwrap().remove(&claim);
                    pool.worker(nth).release(SERVICE, found);
                }
                Step::Release(_) => {}
            }
        }
    }
}

#[test]
fn quarantined_port_is_not_handed_out() {
    let nodes = [node(1, 1000, 1000)];
    let mut pool = Pool::new(&nodes, 1);
    let dynamic = [port("a", Target::Dynamic)];
    let wanted = pool.wanted(&resources(0, 0), &dynamic, &Placement::default());
    pool.quarantine_port(id(1), 1000, true);
    let mut worker = pool.worker(0);
    let taken: Vec<Taken> = std::iter::from_fn(|| worker.place(SERVICE, &wanted)).collect();
    let ports: Vec<u16> = taken
        .iter()
        .flat_map(|taken| taken.ports().to_vec())
        .collect();
    assert_eq!(ports, [1001, 1002, 1003]);
    pool.quarantine_port(id(1), 1000, false);
    assert_eq!(worker.place(SERVICE, &wanted).unwrap().ports(), [1000]);
    assert!(pool.is_current(&wanted));
}
