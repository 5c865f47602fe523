//! The quick answer is the plain walk's.

use std::collections::BTreeMap;

use ballast_model::{
    AssignmentId, Availability, Bytes, Capacity, Device, DeviceRequest, Incarnation, MilliCpu,
    Node, NodeDescription, NodeId, NodeStatus, Placement, PortRange, PortSpec, Protocol, Resources,
    ServiceAffinity, ServiceId, SpreadRule, Target, Timestamp, TopologyKey,
};
use proptest::prelude::*;

use super::{explain, scan};
use crate::{Request, Scheduler};

fn node(id: u64, (cpu, mib, kind): (u32, u64, u8)) -> Node {
    let gpus = usize::from(kind % 3);
    let gpu = Device {
        kind: "gpu".to_owned(),
        model: "T4".to_owned(),
    };
    let capacity = Capacity {
        cpu: MilliCpu(cpu * 100),
        memory: Bytes(mib * 100 * 1024 * 1000),
        task_slots: 1 + u32::from(kind % 5),
        ports: PortRange {
            first: 20_000,
            last: 20_000 + u16::from(kind % 4),
        },
        disk: Bytes::from_mib(mib),
        devices: vec![gpu; gpus],
        custom: BTreeMap::new(),
        sockets: Vec::new(),
    };
    Node {
        id: NodeId::from_bits(id),
        description: NodeDescription {
            name: format!("n{id}"),
            address: [10, 0, 0, 1].into(),
            capacity: capacity.clone(),
            attributes: BTreeMap::new(),
            pool: "default".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), format!("z{}", kind % 3))]),
        },
        availability: match kind % 11 {
            0 => Availability::Pause,
            1 => Availability::Drain,
            _ => Availability::Active,
        },
        labels: BTreeMap::new(),
        status: match kind % 13 {
            0 => NodeStatus::Suspect,
            1 => NodeStatus::Down,
            _ => NodeStatus::Ready,
        },
        incarnation: Incarnation(1),
        since: Timestamp(1),
        taints: Vec::new(),
        offered: capacity,
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
struct Wanted {
    service: ServiceId,
    resources: Resources,
    ports: Vec<PortSpec>,
    placement: Placement,
}

impl Wanted {
    fn request(&self) -> Request<'_> {
        Request {
            service: self.service,
            resources: &self.resources,
            ports: &self.ports,
            placement: &self.placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: crate::Peers::none(),
        }
    }
}

fn port(name: &str, target: Target) -> PortSpec {
    PortSpec {
        name: name.to_owned(),
        target,
        published: None,
        protocol: Protocol::Http,
        balance: None,
        upstream: None,
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (1u64..4, 0u32..60, 0u64..60, any::<u16>()).prop_map(|(service, cpu, mib, flags)| {
        let on = |bit: u16| flags >> bit & 1 == 1;
        let mut wanted = Wanted {
            service: ServiceId::from_bits(service),
            resources: Resources::of(MilliCpu(cpu * 100), Bytes(mib * 100 * 1024 * 999)),
            ports: Vec::new(),
            placement: Placement::default(),
        };
        if on(0) && on(1) {
            let zone = "node.labels.zone==z1".parse().expect("a constraint");
            wanted.placement.constraints.push(zone);
        }
        if on(2) {
            wanted.ports.push(port("http", Target::Dynamic));
        }
        if on(3) && on(4) {
            wanted.ports.push(port("dns", Target::Fixed(20_001)));
        }
        if on(5) {
            wanted.placement.max_replicas_per_node = 1;
        }
        if on(6) && on(7) {
            wanted.resources.devices = DeviceRequest {
                kind: "gpu".to_owned(),
                count: 1,
                milli: 1000,
            };
        }
        if on(8) && on(9) {
            wanted.placement.spread.push(SpreadRule {
                over: TopologyKey::Node,
                max_skew: 1,
            });
        }
        if on(10) && on(11) {
            wanted.placement.services.push(ServiceAffinity {
                service: String::new(),
                over: TopologyKey::Node,
                weight: if on(12) { 1 } else { -1 },
                required: true,
            });
        }
        if on(13) && on(14) {
            wanted.resources.disk = Bytes::from_mib(mib);
        }
        wanted
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nodes come, change and go, tasks begin and end; whatever is asked in between is answered as
    /// a walk over all nodes answers it.
    #[test]
    fn prop_answer_is_the_one_of_a_walk_over_all_nodes(
        nodes in prop::collection::vec((1u32..60, 1u64..60, any::<u8>()), 1..40),
        steps in prop::collection::vec((wanted(), any::<u8>()), 1..40),
    ) {
        let mut scheduler = Scheduler::new();
        for (id, &kind) in (1..).zip(&nodes) {
            scheduler.upsert_node(&node(id, kind));
        }
        let mut bound = Vec::new();
        for (step, (wanted, event)) in (0..).zip(&steps) {
            let request = wanted.request();
            if let Ok(placed) = scheduler.place(&request) {
                let assignment = AssignmentId::from_bits(step);
                scheduler.commit(placed.reservation, assignment);
                bound.push(assignment);
            }
            let nth = 1 + u64::from(*event) % nodes.len() as u64;
            match event % 7 {
                0 if !bound.is_empty() => {
                    let one = bound.swap_remove(usize::from(*event) % bound.len());
                    scheduler.free(one);
                }
                1 => {
                    scheduler.remove_node(NodeId::from_bits(nth));
                }
                2 => {
                    let place = usize::try_from(nth - 1).expect("few");
                    scheduler.upsert_node(&node(nth, nodes[place]));
                }
                3 => scheduler.quarantine_port(NodeId::from_bits(nth), 20_001),
                _ => {}
            }
            let (fleet, census) = scheduler.parts(&request);
            let mut quick = explain(fleet, &census, &request);
            let mut plain = scan::scan(fleet, &census, &request);
            if !super::is_plain(&request) {
                // The nearest is then told by CPU, memory and slots alone.
                (quick.nearest, plain.nearest) = (None, None);
            }
            prop_assert_eq!(&quick, &plain, "{} and {}", quick, plain);
        }
    }
}

/// Returns nodes of many sizes; the same for the same seed.
fn many_nodes(seed: u64, count: u64) -> Vec<Node> {
    let mut state = seed | 1;
    let mut draw = |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % most
    };
    let mut sizes = |_| {
        let few = draw(3) == 0;
        let (cpus, mibs) = if few { (2, 2) } else { (60, 60) };
        let (cpu, mib) = (1 + draw(cpus), 1 + draw(mibs));
        (
            u32::try_from(cpu).expect("small"),
            mib,
            u8::try_from(draw(256)).expect("small"),
        )
    };
    let sizes: Vec<_> = (0..count).map(&mut sizes).collect();
    // Ids in no order that has to do with sizes.
    let id = |nth: u64| (nth * 7919) % 1_000_003;
    (1..)
        .zip(sizes)
        .map(|(nth, kind)| node(id(nth), kind))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same with so many nodes that they lie in blocks, which are sorted anew as they change.
    #[test]
    fn prop_answer_about_many_nodes_is_the_one_of_a_walk_over_all(
        seed: u64,
        count in 200u64..900,
        rounds in prop::collection::vec((wanted(), wanted(), 0usize..300, any::<u16>()), 1..8),
    ) {
        let nodes = many_nodes(seed, count);
        let mut scheduler = Scheduler::rebuild(&nodes, []);
        let mut bound = Vec::new();
        let mut next = 0;
        for (filler, wanted, fillers, event) in &rounds {
            for _ in 0..*fillers {
                let Ok(placed) = scheduler.place(&filler.request()) else {
                    break;
                };
                next += 1;
                scheduler.commit(placed.reservation, AssignmentId::from_bits(next));
                bound.push(AssignmentId::from_bits(next));
            }
            let some = usize::from(*event) % nodes.len();
            match event % 4 {
                0 => bound.retain(|one| one.to_bits() % 3 > 0 || !scheduler.free(*one)),
                1 => {
                    let gone = nodes[some..].iter().take(100);
                    gone.for_each(|node| { scheduler.remove_node(node.id); });
                }
                2 => nodes.iter().for_each(|node| scheduler.upsert_node(node)),
                _ => {}
            }
            let kept: Vec<NodeId> = nodes[some..].iter().take(5).map(|node| node.id).collect();
            for wanted in [filler, wanted] {
                for kept in [&[][..], &kept] {
                    let request = wanted.request().keeping(kept);
                    let (fleet, census) = scheduler.parts(&request);
                    let mut quick = explain(fleet, &census, &request);
                    let mut plain = scan::scan(fleet, &census, &request);
                    if !super::is_plain(&request) {
                        (quick.nearest, plain.nearest) = (None, None);
                    }
                    prop_assert_eq!(&quick, &plain, "{} and {}", quick, plain);
                }
            }
        }
    }
}

#[test]
fn task_that_fits_to_the_last_byte_is_placed_and_no_node_is_called_near() {
    let mut scheduler = Scheduler::new();
    scheduler.upsert_node(&node(5, (24, 2, 136)));
    let mut wanted = Wanted {
        service: ServiceId::from_bits(1),
        resources: Resources::of(MilliCpu(0), Bytes(204_800_000 - 1)),
        ports: Vec::new(),
        placement: Placement::default(),
    };
    wanted.resources.devices = DeviceRequest {
        kind: "gpu".to_owned(),
        count: 1,
        milli: 1000,
    };
    let placed = scheduler.place(&wanted.request()).expect("fits");
    scheduler.release(placed.reservation);
    let found = scheduler.explain(&wanted.request());
    assert_eq!((found.fit, found.nearest), (1, None));
}

/// Returns what is suggested for a request that is refused.
fn suggested(scheduler: &mut Scheduler, wanted: &Wanted) -> Vec<String> {
    let request = wanted.request();
    let refusal = scheduler.place(&request).expect_err("fits nowhere");
    let suggestions = scheduler.suggest(&request, &refusal);
    suggestions.iter().map(ToString::to_string).collect()
}

#[test]
fn smallest_change_that_makes_a_task_fit_is_suggested_first() {
    let mut scheduler = Scheduler::new();
    // Three nodes in z1 (one of them paused) and one with more in z2.
    for (id, kind) in [
        (1, (35, 10, 4)),
        (2, (30, 10, 7)),
        (3, (40, 10, 22)),
        (4, (90, 10, 5)),
    ] {
        scheduler.upsert_node(&node(id, kind));
    }
    let mut wanted = Wanted {
        service: ServiceId::from_bits(1),
        resources: Resources::of(MilliCpu(4000), Bytes(0)),
        ports: Vec::new(),
        placement: Placement::default(),
    };
    let zone = "node.labels.zone==z1".parse().expect("a constraint");
    wanted.placement.constraints.push(zone);
    assert_eq!(
        suggested(&mut scheduler, &wanted),
        [
            "activate node n3: n3 fits",
            "lower --cpu from 4 to 3.5: n1 fits",
            "remove the constraint node.labels.zone==z1: n4 fits",
        ]
    );
    wanted.placement.constraints.clear();
    wanted.resources = Resources::of(MilliCpu(0), Bytes(2 * 10 * 100 * 1024 * 1000));
    assert_eq!(
        suggested(&mut scheduler, &wanted),
        ["lower --memory from 1.9 GiB to 976.6 MiB: 3 nodes fit"]
    );
}
