//! Each rule of placement, and the words of each refusal.

mod common;

use ballast_model::{
    AssignmentId, Availability, Incarnation, NodeStatus, Placement, SpreadRule, Target, TopologyKey,
};
use ballast_scheduler::{Refusal, Request, Scheduler};
use common::{SERVICE, id, labelled, node, port, wants};

fn scheduler(nodes: impl IntoIterator<Item = ballast_model::Node>) -> Scheduler {
    let nodes: Vec<_> = nodes.into_iter().collect();
    Scheduler::rebuild(&nodes, [])
}

/// Places and commits; returns the node's number.
fn put(scheduler: &mut Scheduler, request: &Request<'_>) -> Result<u64, String> {
    let placed = scheduler
        .place(request)
        .map_err(|refusal| refusal.to_string())?;
    let assignment = AssignmentId::from_bits(scheduler.tally().opened);
    scheduler.commit(placed.reservation, assignment);
    Ok(placed.node.to_bits())
}

fn spread(over: TopologyKey) -> Placement {
    Placement {
        spread: vec![SpreadRule { over, max_skew: 0 }],
        ..Placement::default()
    }
}

#[test]
fn fullest_node_that_fits_is_chosen() {
    let mut scheduler = scheduler([
        node(1, 4000, 4000),
        node(2, 1000, 1000),
        node(3, 2000, 2000),
    ]);
    assert_eq!(put(&mut scheduler, &wants(600, 600)), Ok(2));
    assert_eq!(put(&mut scheduler, &wants(600, 600)), Ok(3));
    assert_eq!(put(&mut scheduler, &wants(400, 400)), Ok(2));
    assert_eq!(put(&mut scheduler, &wants(2000, 10)), Ok(1));
}

#[test]
fn tasks_that_reserve_nothing_go_where_the_fewest_tasks_are() {
    let mut scheduler = scheduler((1..=3).map(|n| node(n, 1000 * u32::try_from(n).unwrap(), 100)));
    let nodes: Vec<_> = (0..6).map(|_| put(&mut scheduler, &wants(0, 0))).collect();
    assert_eq!(nodes, [1, 2, 3, 1, 2, 3].map(Ok));
}

#[test]
fn ties_go_to_the_lower_id() {
    let mut scheduler = scheduler((1..=3).rev().map(|n| node(n, 1000, 1000)));
    // Too little to leave the quantised step, so the cell stays the same.
    let nodes: Vec<_> = (0..4).map(|_| put(&mut scheduler, &wants(1, 1))).collect();
    assert_eq!(
        nodes,
        [1, 1, 1, 1].map(Ok),
        "a node is filled before the next"
    );
    let nodes: Vec<_> = (0..2).map(|_| put(&mut scheduler, &wants(1, 1))).collect();
    assert_eq!(nodes, [2, 2].map(Ok), "four slots are all it has");
}

#[test]
fn constraints_hold_on_the_node_chosen() {
    let mut scheduler = scheduler([labelled(1, "zone", "a"), labelled(2, "zone", "b")]);
    let placement = Placement {
        constraints: vec!["node.labels.zone==b".parse().unwrap()],
        ..Placement::default()
    };
    let request = Request {
        placement: &placement,
        ..wants(1, 1)
    };
    assert_eq!(put(&mut scheduler, &request), Ok(2));
    let by_name = Placement {
        constraints: vec!["node.name!=n1".parse().unwrap()],
        ..Placement::default()
    };
    let request = Request {
        placement: &by_name,
        ..wants(1, 1)
    };
    assert_eq!(put(&mut scheduler, &request), Ok(2));
    let mut moved = labelled(1, "zone", "b");
    moved.description.name = "other".to_owned();
    scheduler.upsert_node(&moved);
    assert_eq!(
        put(&mut scheduler, &request),
        Ok(1),
        "the class follows the label"
    );
}

#[test]
fn node_spread_takes_the_node_with_the_fewest_tasks_of_the_service() {
    let mut scheduler = scheduler([
        node(1, 1000, 1000),
        node(2, 4000, 4000),
        node(3, 2000, 2000),
    ]);
    let placement = spread(TopologyKey::Node);
    let request = Request {
        placement: &placement,
        ..wants(100, 100)
    };
    let nodes: Vec<_> = (0..5).map(|_| put(&mut scheduler, &request)).collect();
    assert_eq!(nodes, [1, 2, 3, 1, 2].map(Ok));
}

#[test]
fn label_spread_evens_out_the_values_then_the_nodes() {
    let nodes = [
        labelled(1, "zone", "a"),
        labelled(2, "zone", "a"),
        labelled(3, "zone", "a"),
        labelled(4, "zone", "b"),
    ];
    let mut scheduler = scheduler(nodes);
    let placement = spread(TopologyKey::Label("zone".to_owned()));
    let request = Request {
        placement: &placement,
        ..wants(10, 10)
    };
    let nodes: Vec<_> = (0..6).map(|_| put(&mut scheduler, &request)).collect();
    assert_eq!(nodes, [1, 4, 2, 4, 3, 4].map(Ok));
}

#[test]
fn full_label_value_does_not_stop_the_others() {
    let mut small = labelled(1, "zone", "a");
    small.offered.task_slots = 1;
    let mut scheduler = scheduler([small, labelled(2, "zone", "b")]);
    let placement = spread(TopologyKey::Label("zone".to_owned()));
    let request = Request {
        placement: &placement,
        ..wants(10, 10)
    };
    let nodes: Vec<_> = (0..3).map(|_| put(&mut scheduler, &request)).collect();
    assert_eq!(nodes, [1, 2, 2].map(Ok));
}

#[test]
fn node_takes_at_most_the_allowed_replicas() {
    let mut scheduler = scheduler([node(1, 1000, 1000), node(2, 1000, 1000)]);
    let placement = Placement {
        max_replicas_per_node: 1,
        ..Placement::default()
    };
    let request = Request {
        placement: &placement,
        ..wants(10, 10)
    };
    assert_eq!(put(&mut scheduler, &request), Ok(1));
    assert_eq!(put(&mut scheduler, &request), Ok(2));
    assert_eq!(
        put(&mut scheduler, &request).unwrap_err(),
        "none of 2 nodes fits: 2 have 1 of this service, the most allowed; \
         nearest: n1 has 1 of this service, the most allowed"
    );
    let other = Request {
        service: ballast_model::ServiceId::from_bits(2),
        ..request
    };
    assert!(put(&mut scheduler, &other).is_ok());
}

#[test]
fn avoided_node_is_the_last_resort() {
    let mut scheduler = scheduler([node(1, 1000, 1000), node(2, 1000, 1000)]);
    let avoid = [id(1)];
    assert_eq!(put(&mut scheduler, &wants(600, 1).avoiding(&avoid)), Ok(2));
    assert_eq!(put(&mut scheduler, &wants(600, 1).avoiding(&avoid)), Ok(1));
}

#[test]
fn task_for_one_node_goes_there_or_nowhere() {
    let mut drained = node(2, 1000, 1000);
    drained.availability = Availability::Drain;
    let mut scheduler = scheduler([node(1, 9000, 9000), drained, node(3, 9000, 9000)]);
    assert_eq!(put(&mut scheduler, &wants(1, 1).on(id(3))), Ok(3));
    let refused =
        |scheduler: &mut Scheduler, node| put(scheduler, &wants(1, 1).on(id(node))).unwrap_err();
    assert_eq!(
        refused(&mut scheduler, 2),
        "the only node does not fit: 1 is drained"
    );
    assert_eq!(
        refused(&mut scheduler, 9),
        "the only node does not fit: 1 is not known"
    );
}

#[test]
fn dynamic_ports_go_round_and_skip_what_is_taken() {
    let mut scheduler = scheduler([node(1, 1000, 1000)]);
    let ports = [port("a", Target::Dynamic), port("b", Target::Fixed(1001))];
    let request = Request {
        ports: &ports,
        ..wants(0, 0)
    };
    let first = scheduler.place(&request).unwrap();
    let numbers: Vec<_> = first
        .ports
        .iter()
        .map(|p| (p.name.as_str(), p.port))
        .collect();
    assert_eq!(numbers, [("a", 1000), ("b", 1001)]);
    scheduler.release(first.reservation);
    let dynamic = Request {
        ports: &ports[..1],
        ..wants(0, 0)
    };
    scheduler.quarantine_port(id(1), 1002);
    let mut taken = Vec::new();
    let mut held = Vec::new();
    while let Ok(placed) = scheduler.place(&dynamic) {
        taken.push(placed.ports[0].port);
        held.push(placed.reservation);
    }
    assert_eq!(
        taken,
        [1001, 1003, 1000],
        "freed 1000 comes last, 1002 never"
    );
    assert_eq!(
        scheduler.place(&dynamic).unwrap_err().to_string(),
        "the only node does not fit: 1 has too few free ports"
    );
    scheduler.lift_quarantine(id(1), 1002);
    let placed = scheduler.place(&dynamic).expect("the port is back");
    assert_eq!(placed.claim.ports, [1002]);
    held.push(placed.reservation);
    for reservation in held {
        scheduler.release(reservation);
    }
    assert_eq!(scheduler.tally().open, 0);
}

#[test]
fn fixed_port_is_taken_once_per_node_and_by_two_protocols_at_once() {
    let mut scheduler = scheduler([node(1, 1000, 1000), node(2, 1000, 1000)]);
    let ports = [
        port("dns-t", Target::Fixed(53)),
        port("dns-u", Target::Fixed(53)),
    ];
    let request = Request {
        ports: &ports,
        ..wants(0, 0)
    };
    let placed = scheduler.place(&request).unwrap();
    assert_eq!(placed.claim.ports, [53]);
    assert_eq!(placed.ports.len(), 2);
    scheduler.commit(placed.reservation, AssignmentId::from_bits(1));
    scheduler.quarantine_port(id(2), 53);
    assert_eq!(
        scheduler.place(&request).unwrap_err().to_string(),
        "none of 2 nodes fits: 2 have port 53 taken; nearest: n1 has port 53 taken"
    );
    let mut reborn = node(2, 1000, 1000);
    reborn.incarnation = Incarnation(2);
    scheduler.upsert_node(&reborn);
    let placed = scheduler
        .place(&request)
        .expect("a new life of the agent is asked anew");
    assert_eq!(placed.node, id(2));
    scheduler.release(placed.reservation);
}

#[test]
fn refusal_counts_every_reason_and_names_the_nearest_miss() {
    let mut down = node(1, 9000, 9000);
    down.status = NodeStatus::Down;
    let mut suspect = node(2, 9000, 9000);
    suspect.status = NodeStatus::Suspect;
    let mut drained = node(3, 9000, 9000);
    drained.availability = Availability::Drain;
    let mut paused = node(4, 9000, 9000);
    paused.availability = Availability::Pause;
    let mut full = node(5, 9000, 9000);
    full.offered.task_slots = 0;
    let others = [
        node(6, 9000, 100),
        node(7, 9000, 900),
        node(8, 9000, 872),
        node(9, 500, 9000),
        node(10, 400, 100),
        labelled(11, "zone", "b"),
        labelled(12, "zone", "b"),
    ];
    let mut scheduler = scheduler(
        [down, suspect, drained, paused, full]
            .into_iter()
            .chain(others),
    );
    let placement = Placement {
        constraints: vec!["node.labels.zone!=b".parse().unwrap()],
        ..Placement::default()
    };
    let request = Request {
        placement: &placement,
        ..wants(1000, 1000)
    };
    let refusal = scheduler.place(&request).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "none of 12 nodes fits: 3 lack 100 MiB of memory or more; \
         2 do not meet node.labels.zone!=b; 2 lack 0.5 CPU or more; 1 is down; 1 is suspect; \
         1 is drained; 1 is paused; 1 has no free task slot; \
         nearest: n7 lacks 100 MiB of memory"
    );
    let json = serde_json::to_string(&refusal).unwrap();
    assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal);
}

#[test]
fn nearest_miss_names_everything_it_lacks() {
    let mut scheduler = scheduler([node(1, 400, 900)]);
    assert_eq!(
        put(&mut scheduler, &wants(500, 1000)).unwrap_err(),
        "the only node does not fit: 1 lacks 0.1 CPU; \
         nearest: n1 lacks 0.1 CPU and lacks 100 MiB of memory"
    );
}

#[test]
fn without_nodes_the_refusal_says_so() {
    assert_eq!(
        put(&mut Scheduler::new(), &wants(1, 1)).unwrap_err(),
        "there is no node"
    );
}

#[test]
fn repeated_refusal_is_forgotten_when_room_appears() {
    let mut scheduler = scheduler([node(1, 1000, 1000)]);
    assert_eq!(put(&mut scheduler, &wants(800, 1)), Ok(1));
    let assignment = AssignmentId::from_bits(1);
    assert!(put(&mut scheduler, &wants(800, 1)).is_err());
    assert!(put(&mut scheduler, &wants(800, 1)).is_err());
    assert!(scheduler.free(assignment));
    assert!(!scheduler.free(assignment), "freed once");
    assert_eq!(put(&mut scheduler, &wants(800, 1)), Ok(1));
}

#[test]
fn shrunken_node_keeps_its_tasks_and_takes_no_more() {
    let mut scheduler = scheduler([node(1, 1000, 1000)]);
    assert_eq!(put(&mut scheduler, &wants(800, 800)), Ok(1));
    scheduler.upsert_node(&node(1, 500, 500));
    assert_eq!(
        put(&mut scheduler, &wants(100, 0)).unwrap_err(),
        "the only node does not fit: 1 lacks 0.4 CPU"
    );
    assert!(scheduler.free(AssignmentId::from_bits(1)));
    assert_eq!(put(&mut scheduler, &wants(100, 0)), Ok(1));
}

#[test]
fn reservation_outlives_its_node() {
    for back in [false, true] {
        let mut scheduler = scheduler([node(1, 1000, 1000)]);
        let first = scheduler.place(&wants(100, 1)).unwrap();
        let second = scheduler.place(&wants(100, 1)).unwrap();
        assert!(scheduler.remove_node(id(1)));
        if back {
            scheduler.upsert_node(&node(1, 1000, 1000));
        }
        scheduler.release(first.reservation);
        scheduler.commit(second.reservation, AssignmentId::from_bits(1));
        assert_eq!(scheduler.holds(AssignmentId::from_bits(1)), back);
        assert_eq!(scheduler.tally().open, 0);
    }
}

#[test]
fn explain_counts_what_fits_and_reserves_nothing() {
    let scheduler = scheduler([node(1, 1000, 1000), node(2, 10, 1000)]);
    let found = scheduler.explain(&wants(100, 100));
    assert_eq!(
        found.to_string(),
        "1 of 2 nodes fit: 1 lacks 0.09 CPU; nearest: n2 lacks 0.09 CPU"
    );
    assert_eq!(scheduler.tally().opened, 0);
    assert!(scheduler.allocation(id(1)).unwrap().cpu == 0);
    assert_eq!(SERVICE.to_bits(), 1);
}

#[test]
fn committed_claim_wins_over_a_reservation_of_its_port() {
    let ports = [port("a", Target::Fixed(80))];
    let request = Request {
        ports: &ports,
        ..wants(100, 1)
    };
    let mut scheduler = scheduler([node(1, 1000, 1000)]);
    let placed = scheduler.place(&request).unwrap();
    let late = AssignmentId::from_bits(7);
    assert!(scheduler.restore(late, SERVICE, id(1), &placed.claim));
    assert_eq!(scheduler.allocation(id(1)).unwrap().tasks, 1);
    scheduler.release(placed.reservation);
    assert_eq!(scheduler.allocation(id(1)).unwrap().tasks, 1);
    assert!(scheduler.free(late));
    assert_eq!(scheduler.allocation(id(1)).unwrap().tasks, 0);
}
