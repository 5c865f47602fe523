//! Where a service settles that has to stay together.

mod common;

use ballast_model::{AssignmentId, NodeId, Placement, ServiceAffinity, TopologyKey};
use ballast_scheduler::{Request, Scheduler};
use common::{id, labelled, wants};

fn together(over: TopologyKey) -> Placement {
    Placement {
        services: vec![ServiceAffinity {
            service: String::new(),
            over,
            weight: 100,
            required: true,
        }],
        ..Placement::default()
    }
}

/// Rack `a` has one node and it is the fullest, rack `b` two empty ones.
fn racks() -> Scheduler {
    let mut scheduler = Scheduler::new();
    for (number, rack) in [(0, "a"), (1, "b"), (2, "b")] {
        scheduler.upsert_node(&labelled(number, "rack", rack));
    }
    let other = Request {
        service: ballast_model::ServiceId::from_bits(9),
        ..wants(300, 300)
    };
    let placed = scheduler.place(&other.on(id(0))).expect("fits");
    scheduler.commit(placed.reservation, AssignmentId::from_bits(99));
    scheduler
}

fn place(scheduler: &mut Scheduler, placement: &Placement, number: u64) -> NodeId {
    let request = Request {
        placement,
        ..wants(400, 400)
    };
    let placed = scheduler.place(&request).expect("fits");
    scheduler.commit(placed.reservation, AssignmentId::from_bits(number));
    placed.node
}

#[test]
fn first_task_goes_to_the_rack_with_the_most_room_and_the_rest_follow() {
    let mut scheduler = racks();
    let placement = together(TopologyKey::Label("rack".to_owned()));
    let nodes: Vec<_> = (0..4)
        .map(|n| place(&mut scheduler, &placement, n))
        .collect();
    assert_eq!(nodes, [id(1), id(1), id(2), id(2)]);
    // A fifth would fit in rack `a`, but not there.
    let request = Request {
        placement: &placement,
        ..wants(400, 400)
    };
    assert!(scheduler.place(&request).is_err());
}

#[test]
fn first_task_goes_to_the_node_with_the_most_room_if_all_must_share_one() {
    let mut scheduler = racks();
    let placement = together(TopologyKey::Node);
    let nodes: Vec<_> = (0..2)
        .map(|n| place(&mut scheduler, &placement, n))
        .collect();
    assert_eq!(nodes, [id(1), id(1)]);
}

#[test]
fn task_that_stands_alone_goes_to_the_fullest_node() {
    let mut scheduler = racks();
    assert_eq!(place(&mut scheduler, &Placement::default(), 0), id(0));
}
