//! Tasks that move although nothing is wrong with them, and drains.

use ballast_model::{
    Availability, Bytes, Device, DeviceRequest, Health, NodeStatus, Policy, Resources, ServiceId,
    ServiceSpec, Target, TaskState, UpdateOrder,
};

use crate::fixture::{Cluster, description, node_id, spec};
use crate::reconcile::Goal;

fn spreading(name: &str, replicas: u32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.placement.policy = Policy::Spread;
    spec
}

/// Lets all happen, time included, and returns the fewest healthy tasks on the way.
fn run_watched(cluster: &mut Cluster, service: ServiceId) -> u32 {
    let mut least = u32::MAX;
    for _ in 0..400 {
        let batches = cluster.settle();
        least = least.min(cluster.healthy(service));
        let reports = cluster.agents();
        least = least.min(cluster.healthy(service));
        if batches + reports == 0 {
            cluster.wait(500);
        }
    }
    least
}

fn on(cluster: &Cluster, service: ServiceId, nth: u64) -> usize {
    let nodes = cluster.nodes_of(service);
    nodes.iter().filter(|node| **node == node_id(nth)).count()
}

#[test]
fn node_that_joins_takes_its_part_and_nobody_misses_a_replica() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spreading("web", 6);
    wanted.placement.max_disrupted = 2;
    let web = cluster.create(wanted);
    let mut stays = spreading("stays", 6);
    stays.placement.rebalance = false;
    let stays = cluster.create(stays);
    let packed = cluster.create(spec("packed", 6));
    cluster.run();
    let places = (cluster.nodes_of(stays), cluster.nodes_of(packed));
    cluster.join(3, description(3));
    cluster.run();
    assert_eq!(on(&cluster, web, 3), 0, "not at once: more may come");
    assert_eq!(run_watched(&mut cluster, web), 6);
    assert_eq!([1, 2, 3].map(|nth| on(&cluster, web, nth)), [2, 2, 2]);
    assert_eq!((cluster.nodes_of(stays), cluster.nodes_of(packed)), places);
}

#[test]
fn node_that_returns_takes_its_part_again() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spreading("web", 4));
    cluster.run();
    cluster.status(2, NodeStatus::Down);
    cluster.run();
    assert_eq!(on(&cluster, web, 1), 4);
    cluster.status(2, NodeStatus::Ready);
    assert_eq!(run_watched(&mut cluster, web), 4);
    assert_eq!(on(&cluster, web, 1), 2);
}

#[test]
fn no_more_replicas_are_on_their_way_than_the_budget_allows() {
    let mut cluster = Cluster::new(1);
    let mut wanted = spreading("web", 8);
    wanted.placement.max_disrupted = 2;
    let web = cluster.create(wanted);
    cluster.run();
    cluster.join(2, description(2));
    cluster.settle();
    cluster.wait(2_000);
    cluster.settle();
    assert_eq!(cluster.occupants(web).len(), 10, "two are doubled");
    let new = cluster.occupants(web).into_iter().rev();
    let new = new.filter(|entry| entry.task.observed.state == TaskState::Assigned);
    let new: Vec<_> = new.map(|entry| entry.task.id).collect();
    cluster.report(new[0], TaskState::Running, Health::Healthy, false, "");
    cluster.settle();
    assert_eq!(
        cluster.occupants(web).len(),
        11,
        "one stops, another begins"
    );
}

#[test]
fn move_whose_new_task_fails_is_given_up() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spreading("web", 2));
    cluster.run();
    cluster.join(2, description(2));
    cluster.settle();
    cluster.wait(2_000);
    cluster.settle();
    let new = cluster.occupants(web);
    let new = new
        .iter()
        .find(|entry| entry.task.observed.state == TaskState::Assigned);
    let new = new.expect("a move has begun").task.id;
    cluster.fail(new, false);
    cluster.settle();
    assert_eq!(cluster.occupants(web).len(), 2);
    assert_eq!(on(&cluster, web, 1), 2);
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn defragmenting_empties_a_node_and_nobody_misses_a_replica() {
    let mut cluster = Cluster::new(3);
    let mut first = spec("first", 3);
    first.placement.max_replicas_per_node = 1;
    let first = cluster.create(first);
    cluster.run();
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let mut loose = cluster.state.service(first).expect("known").spec.clone();
    loose.placement.max_replicas_per_node = 0;
    loose.placement.max_disrupted = 3;
    cluster.update(first, loose);
    cluster.run();
    cluster.reconciler.rebalance(Goal::Defragment);
    assert_eq!(run_watched(&mut cluster, web), 2);
    let used = |nth: u64| on(&cluster, first, nth) + on(&cluster, web, nth) > 0;
    let used = [1, 2, 3].map(used);
    assert!(used.contains(&false), "{used:?}");
    assert_eq!(cluster.healthy(first), 3);
}

#[test]
fn defragmenting_frees_a_device_that_a_part_held_alone() {
    let mut cluster = Cluster::new(0);
    for nth in 1..=2 {
        let mut one = description(nth);
        one.capacity.devices = vec![Device::of("gpu", "T4")];
        cluster.join(nth, one);
    }
    // What stays on each node keeps it in use.
    let mut stays = spec("stays", 2);
    stays.placement.max_replicas_per_node = 1;
    stays.placement.rebalance = false;
    cluster.create(stays);
    cluster.run();
    let half = |name: &str| {
        let mut spec = spec(name, 1);
        spec.task.resources.devices = DeviceRequest {
            kind: "gpu".to_owned(),
            count: 1,
            milli: 500,
        };
        spec
    };
    let halves = ["a", "b", "c", "d"].map(|name| {
        let service = cluster.create(half(name));
        cluster.run();
        service
    });
    let place = |cluster: &Cluster, nth: usize| cluster.nodes_of(halves[nth])[0];
    assert_eq!(place(&cluster, 0), place(&cluster, 1), "a device is shared");
    assert_ne!(place(&cluster, 0), place(&cluster, 2));
    cluster.remove(halves[1]);
    cluster.remove(halves[3]);
    cluster.run();
    assert_ne!(place(&cluster, 0), place(&cluster, 2), "each has one alone");
    cluster.reconciler.rebalance(Goal::Defragment);
    assert_eq!(run_watched(&mut cluster, halves[0]), 1);
    assert_eq!(place(&cluster, 0), place(&cluster, 2), "a device is free");
    assert_eq!(cluster.healthy(halves[2]), 1);
}

#[test]
fn drained_stop_first_service_loses_no_more_at_once_than_its_budget() {
    let mut cluster = Cluster::new(2);
    let mut single = spec("single", 6);
    single.update.order = UpdateOrder::StopFirst;
    single.placement.max_disrupted = 2;
    let single = cluster.create(single);
    cluster.run();
    let nth = cluster.nodes_of(single)[0].to_bits();
    cluster.availability(nth, Availability::Drain);
    assert_eq!(run_watched(&mut cluster, single), 4);
    assert_eq!(on(&cluster, single, nth), 0);
    assert_eq!(cluster.healthy(single), 6);
}

#[test]
fn stop_first_task_that_fits_nowhere_stays_on_its_drained_node_until_it_does() {
    let mut cluster = Cluster::new(1);
    let mut single = spec("single", 1);
    single.update.order = UpdateOrder::StopFirst;
    let single = cluster.create(single);
    cluster.run();
    cluster.availability(1, Availability::Drain);
    assert_eq!(run_watched(&mut cluster, single), 1);
    cluster.join(2, description(2));
    run_watched(&mut cluster, single);
    assert_eq!((on(&cluster, single, 1), on(&cluster, single, 2)), (0, 1));
}

#[test]
fn fixed_port_is_no_reason_to_stop_first_when_a_node_is_drained() {
    let mut cluster = Cluster::new(2);
    let mut web = spec("web", 1);
    web.ports[0].target = Target::Fixed(8080);
    let web = cluster.create(web);
    cluster.run();
    let nth = cluster.nodes_of(web)[0].to_bits();
    cluster.availability(nth, Availability::Drain);
    assert_eq!(run_watched(&mut cluster, web), 1);
    assert_eq!(on(&cluster, web, nth), 0);
}

#[test]
fn new_node_takes_no_more_than_its_share_of_starts() {
    let mut cluster = Cluster::new(4);
    let mut wanted = spec("web", 40);
    wanted.task.resources = Resources::default();
    let web = cluster.create(wanted.clone());
    cluster.run();
    cluster.wait(60_000);
    cluster.run();
    cluster.join(5, description(5));
    wanted.name = "api".to_owned();
    wanted.placement.rebalance = false;
    let api = cluster.create(wanted);
    cluster.settle();
    let began = on(&cluster, api, 5);
    assert!(
        (8..=17).contains(&began),
        "{began} of 40 began on the new node"
    );
    assert_eq!(on(&cluster, web, 5), 0);
}

#[test]
fn share_of_starts_is_no_reason_to_wait() {
    let mut cluster = Cluster::new(0);
    for nth in 1..=3 {
        let mut small = description(nth);
        small.capacity.memory = Bytes::from_mib(16);
        cluster.join(nth, small);
    }
    cluster.wait(60_000);
    let mut big = description(4);
    big.capacity.memory = Bytes::from_mib(1024);
    cluster.join(4, big);
    let web = cluster.create(spreading("web", 20));
    cluster.settle();
    assert_eq!(cluster.nodes_of(web).len(), 20, "all are placed");
    assert_eq!(on(&cluster, web, 4), 17);
}

#[test]
fn moves_begin_no_faster_than_they_may() {
    let mut cluster = Cluster::new(1);
    let mut wanted = spreading("web", 60);
    wanted.placement.max_disrupted = 60;
    let web = cluster.create(wanted);
    cluster.run();
    cluster.join(2, description(2));
    cluster.settle();
    cluster.wait(2_000);
    for begun in [10, 20, 30] {
        cluster.settle();
        cluster.wait(500);
        cluster.settle();
        assert_eq!(cluster.occupants(web).len(), 60 + begun);
        cluster.wait(600);
    }
}
