//! Moves over time: what they are good for, what they never do, and that they come to an end.

mod common;

use std::collections::BTreeMap;

use ballast_model::{
    AssignmentId, Claim, Device, DeviceRequest, MilliCpu, NodeId, Placement, Policy, Resources,
    ServiceId, SpreadRule, TopologyKey,
};
use ballast_scheduler::rebalance::{Move, MoveBudget, Why, defragment, rebalance};
use ballast_scheduler::{Peers, Request, Scheduler};
use common::{id, labelled, node};
use proptest::prelude::*;

/// What the services of a test ask for.
#[derive(Default)]
struct Services(BTreeMap<ServiceId, (Resources, Placement)>);

impl Services {
    fn with(mut self, service: u64, resources: Resources, placement: Placement) -> Self {
        let service = ServiceId::from_bits(service);
        self.0.insert(service, (resources, placement));
        self
    }

    fn request(&self, service: ServiceId) -> Option<Request<'_>> {
        let (resources, placement) = self.0.get(&service)?;
        Some(Request {
            service,
            resources,
            ports: &[],
            placement,
            node: None,
            avoid: &[],
            kept: &[],
            peers: Peers::none(),
        })
    }
}

fn cpu(milli: u32) -> Resources {
    Resources {
        cpu: MilliCpu(milli),
        ..Resources::default()
    }
}

fn disruptable(most: u32) -> Placement {
    Placement {
        max_disrupted: most,
        ..Placement::default()
    }
}

fn budget(moves: usize) -> MoveBudget {
    MoveBudget {
        moves,
        ..MoveBudget::default()
    }
}

/// Puts a task of a service on a node.
fn put(scheduler: &mut Scheduler, services: &Services, task: u64, service: u64, on: u64) {
    let request = services
        .request(ServiceId::from_bits(service))
        .expect("known");
    let placed = scheduler.place(&request.on(id(on))).expect("fits");
    scheduler.commit(placed.reservation, AssignmentId::from_bits(task));
}

/// Carries a move out as the caller does: there first, then away from here.
fn carry_out(scheduler: &mut Scheduler, services: &Services, step: &Move) {
    let request = services.request(step.service).expect("known");
    let placed = scheduler
        .place(&request.on(step.to))
        .expect("was found to fit");
    assert!(scheduler.free(step.assignment), "runs");
    scheduler.commit(placed.reservation, step.assignment);
}

fn used(scheduler: &Scheduler) -> Vec<NodeId> {
    let nodes = scheduler.nodes().filter(|(_, taken)| taken.tasks > 0);
    nodes.map(|(node, _)| node.id).collect()
}

fn routes(moves: &[Move]) -> Vec<(u64, NodeId, NodeId)> {
    moves
        .iter()
        .map(|m| (m.assignment.to_bits(), m.from, m.to))
        .collect()
}

fn fleet(nodes: u64) -> Scheduler {
    let mut scheduler = Scheduler::new();
    for number in 0..nodes {
        scheduler.upsert_node(&node(number, 1000, 1000));
    }
    scheduler
}

#[test]
fn node_with_the_fewest_tasks_is_emptied_into_fuller_ones() {
    let services = Services::default().with(1, cpu(300), disruptable(9));
    let mut scheduler = fleet(4);
    for (task, on) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
        put(&mut scheduler, &services, task, 1, on);
    }
    let moves = defragment(&mut scheduler, &|s| services.request(s), &budget(9));
    assert_eq!(moves.len(), 1);
    assert_eq!((moves[0].from, moves[0].why), (id(2), Why::EmptiesNode));
    assert_eq!(scheduler.tally().open, 0);
    carry_out(&mut scheduler, &services, &moves[0]);
    assert_eq!(used(&scheduler), [id(0), id(1)]);
    // Both have 600 and 900 of 1,000: nothing more can be emptied.
    assert_eq!(
        defragment(&mut scheduler, &|s| services.request(s), &budget(9)),
        []
    );
}

#[test]
fn node_that_cannot_be_emptied_is_left_alone_and_an_empty_one_is_no_target() {
    let services = Services::default().with(1, cpu(600), disruptable(9));
    let mut scheduler = fleet(3);
    put(&mut scheduler, &services, 1, 1, 0);
    put(&mut scheduler, &services, 2, 1, 1);
    assert_eq!(
        defragment(&mut scheduler, &|s| services.request(s), &budget(9)),
        []
    );
    assert_eq!(scheduler.tally().open, 0);
}

#[test]
fn tasks_that_may_not_move_hold_their_node() {
    let fixed = [
        Placement {
            rebalance: false,
            ..disruptable(9)
        },
        disruptable(0),
        Placement {
            policy: Policy::Spread,
            ..disruptable(9)
        },
    ];
    for placement in fixed {
        let services =
            Services::default()
                .with(1, cpu(300), placement)
                .with(2, cpu(300), disruptable(9));
        let mut scheduler = fleet(2);
        put(&mut scheduler, &services, 1, 1, 0);
        put(&mut scheduler, &services, 2, 2, 1);
        put(&mut scheduler, &services, 3, 2, 1);
        put(&mut scheduler, &services, 4, 2, 1);
        assert_eq!(
            defragment(&mut scheduler, &|s| services.request(s), &budget(9)),
            []
        );
        // A service that is not known stays, too.
        let known = |s: ServiceId| (s.to_bits() == 2).then(|| services.request(s)).flatten();
        assert_eq!(defragment(&mut scheduler, &known, &budget(9)), []);
    }
}

#[test]
fn budgets_of_the_call_and_of_the_service_hold() {
    let services = Services::default().with(1, cpu(100), disruptable(2));
    let mut scheduler = fleet(2);
    for (task, on) in [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1)] {
        scheduler.upsert_node(&{
            let mut node = node(on, 1000, 1000);
            node.offered.task_slots = 99;
            node.description.capacity.task_slots = 99;
            node
        });
        put(&mut scheduler, &services, task, 1, on);
    }
    let ask = |scheduler: &mut Scheduler, budget: &MoveBudget| {
        defragment(scheduler, &|s| services.request(s), budget).len()
    };
    assert_eq!(ask(&mut scheduler, &budget(9)), 2);
    assert_eq!(ask(&mut scheduler, &budget(1)), 1);
    assert_eq!(ask(&mut scheduler, &budget(0)), 0);
    let disrupted = BTreeMap::from([(ServiceId::from_bits(1), 1)]);
    let busy = MoveBudget {
        moves: 9,
        disrupted,
        ..MoveBudget::default()
    };
    assert_eq!(ask(&mut scheduler, &busy), 1);
    let paced = MoveBudget {
        paced: true,
        ..budget(9)
    };
    assert_eq!(ask(&mut scheduler, &paced), 3, "the whole of a node");
    let only = |tasks: std::ops::RangeInclusive<u64>| MoveBudget {
        paced: true,
        only: Some(tasks.map(AssignmentId::from_bits).collect()),
        ..budget(9)
    };
    assert_eq!(ask(&mut scheduler, &only(5..=7)), 3);
    assert_eq!(ask(&mut scheduler, &only(5..=6)), 0, "one has to stay");
}

#[test]
fn fraction_that_is_alone_on_a_device_moves_to_one_in_use() {
    let gpu = |milli| Resources {
        devices: DeviceRequest {
            kind: "gpu".to_owned(),
            count: 1,
            milli,
        },
        ..cpu(100)
    };
    let stays = Placement {
        rebalance: false,
        ..Placement::default()
    };
    let services = Services::default()
        .with(1, gpu(300), disruptable(9))
        .with(2, gpu(500), stays.clone())
        .with(3, cpu(100), stays);
    let mut scheduler = Scheduler::new();
    for number in 0..2 {
        let mut node = node(number, 1000, 1000);
        for capacity in [&mut node.offered, &mut node.description.capacity] {
            capacity.devices = vec![Device::of("gpu", "T4")];
        }
        scheduler.upsert_node(&node);
    }
    put(&mut scheduler, &services, 1, 1, 0);
    // So that the node cannot be emptied.
    put(&mut scheduler, &services, 2, 3, 0);
    put(&mut scheduler, &services, 3, 2, 1);
    let moves = defragment(&mut scheduler, &|s| services.request(s), &budget(9));
    assert_eq!(routes(&moves), [(1, id(0), id(1))]);
    assert_eq!(moves[0].why, Why::FreesDevice);
    carry_out(&mut scheduler, &services, &moves[0]);
    assert_eq!(
        defragment(&mut scheduler, &|s| services.request(s), &budget(9)),
        []
    );
}

#[test]
fn service_that_is_spread_is_evened_out_when_a_node_joins_and_a_packed_one_is_not() {
    let spread = Placement {
        policy: Policy::Spread,
        ..disruptable(1)
    };
    let services = Services::default()
        .with(1, cpu(100), spread)
        .with(2, cpu(100), disruptable(9));
    let mut scheduler = fleet(2);
    for (task, service, on) in [
        (1, 1, 0),
        (2, 1, 0),
        (3, 1, 1),
        (4, 1, 1),
        (5, 2, 0),
        (6, 2, 0),
    ] {
        put(&mut scheduler, &services, task, service, on);
    }
    assert_eq!(
        rebalance(&mut scheduler, &|s| services.request(s), &budget(9)),
        []
    );
    scheduler.upsert_node(&node(2, 1000, 1000));
    // One at a time, by the service's own budget.
    let moves = rebalance(&mut scheduler, &|s| services.request(s), &budget(9));
    assert_eq!(routes(&moves), [(2, id(0), id(2))]);
    assert_eq!(moves[0].why, Why::EvensOut);
    carry_out(&mut scheduler, &services, &moves[0]);
    assert_eq!(
        rebalance(&mut scheduler, &|s| services.request(s), &budget(9)),
        []
    );
    assert_eq!(scheduler.tally().open, 0);
}

#[test]
fn racks_are_evened_out_by_their_label() {
    let over = TopologyKey::Label("rack".to_owned());
    let spread = Placement {
        spread: vec![SpreadRule { over, max_skew: 0 }],
        ..disruptable(9)
    };
    let services = Services::default().with(1, cpu(100), spread);
    let mut scheduler = Scheduler::new();
    for (number, rack) in [(0, "a"), (1, "a"), (2, "b")] {
        scheduler.upsert_node(&labelled(number, "rack", rack));
    }
    for (task, on) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        put(&mut scheduler, &services, task, 1, on);
    }
    let moves = rebalance(&mut scheduler, &|s| services.request(s), &budget(9));
    assert_eq!(
        moves.iter().map(|m| m.to).collect::<Vec<_>>(),
        [id(2), id(2)]
    );
}

proptest! {
    #[test]
    fn prop_moves_can_be_carried_out_in_order_and_come_to_an_end(
        sizes in prop::collection::vec((10u32..500, 0u64..3), 1..5),
        tasks in prop::collection::vec((0usize..5, 0u64..6), 0..24),
        moves in 1usize..5,
    ) {
        let mut services = Services::default();
        for (number, &(milli, policy)) in sizes.iter().enumerate() {
            let policy = [Policy::Auto, Policy::Binpack, Policy::Spread][usize::try_from(policy).expect("few")];
            services = services.with(number as u64, cpu(milli), Placement { policy, ..disruptable(2) });
        }
        let mut scheduler = fleet(6);
        for (task, &(service, on)) in tasks.iter().enumerate() {
            let service = ServiceId::from_bits((service % sizes.len()) as u64);
            let request = services.request(service).expect("known");
            if let Ok(placed) = scheduler.place(&request.on(id(on))) {
                scheduler.commit(placed.reservation, AssignmentId::from_bits(task as u64));
            }
        }
        let held = |scheduler: &Scheduler| -> Vec<(AssignmentId, NodeId, Claim)> {
            scheduler.held().map(|(a, n, _, c)| (a, n, c.clone())).collect()
        };
        let mut rounds = 0;
        loop {
            let (before, nodes) = (held(&scheduler), used(&scheduler).len());
            let mut steps = defragment(&mut scheduler, &|s| services.request(s), &budget(moves));
            prop_assert!(steps.len() <= moves);
            prop_assert_eq!(&held(&scheduler), &before);
            prop_assert_eq!(scheduler.tally().open, 0);
            for step in &steps {
                carry_out(&mut scheduler, &services, step);
            }
            prop_assert!(used(&scheduler).len() <= nodes);
            let evening = rebalance(&mut scheduler, &|s| services.request(s), &budget(moves));
            for step in &evening {
                carry_out(&mut scheduler, &services, step);
            }
            steps.extend(evening);
            prop_assert_eq!(held(&scheduler).len(), before.len());
            if steps.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 200, "still moving: {:?}", steps);
        }
    }
}
