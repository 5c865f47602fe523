//! Tasks that find no place: rejections, quarantined ports, constraints.

use ballast_model::{Health, MilliCpu, TaskState};

use crate::fixture::{Cluster, constraint, description, node_id, spec};
use crate::state::Update;

#[test]
fn rejected_task_is_placed_on_another_node_at_once() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.settle();
    let task = cluster.occupants(web)[0].task.clone();
    let node = task.binding.as_ref().expect("bound").node;
    cluster.report(
        task.id,
        TaskState::Rejected,
        Health::Unhealthy,
        false,
        "no such program",
    );
    cluster.run();
    assert_eq!(cluster.healthy(web), 1);
    assert_ne!(cluster.nodes_of(web), [node]);
}

#[test]
fn port_in_use_is_not_handed_out_again() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.settle();
    let task = cluster.occupants(web)[0].task.clone();
    let port = task.binding.as_ref().expect("bound").ports[0].port;
    let message = format!("port {port} is in use");
    cluster.report(
        task.id,
        TaskState::Rejected,
        Health::Unhealthy,
        false,
        &message,
    );
    cluster.settle();
    let next = cluster.occupants(web)[0].task.clone();
    assert_ne!(next.binding.expect("bound").ports[0].port, port);
}

#[test]
fn task_that_every_node_rejects_backs_off() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    let mut waits = Vec::new();
    for _ in 0..6 {
        cluster.settle();
        while cluster.occupants(web).is_empty() {
            let due = cluster.reconciler.next_wake().expect("it is tried again");
            waits.push(due.since(cluster.now).0);
            cluster.now = due;
            cluster.settle();
        }
        let task = cluster.occupants(web)[0].task.id;
        cluster.report(
            task,
            TaskState::Rejected,
            Health::Unhealthy,
            false,
            "no such program",
        );
    }
    assert_eq!(waits, [100, 200, 400, 800]);
}

#[test]
fn task_that_fits_nowhere_says_why_and_goes_when_there_is_room() {
    let mut cluster = Cluster::new(1);
    let mut big = spec("big", 1);
    big.task.resources.cpu = MilliCpu::from_cores(1001);
    let big = cluster.create(big);
    cluster.run();
    let message = &cluster.occupants(big)[0].task.observed.message;
    assert!(message.contains("CPU"), "{message}");
    assert_eq!(cluster.reconciler.next_wake(), None, "no busy loop");
    let mut roomy = description(2);
    roomy.capacity.cpu = MilliCpu::from_cores(2000);
    cluster.join(2, roomy);
    cluster.run();
    assert_eq!(cluster.healthy(big), 1);
}

#[test]
fn waiting_task_goes_when_another_gives_back_its_claim() {
    let mut cluster = Cluster::new(1);
    let mut half = spec("half", 2);
    half.task.resources.cpu = MilliCpu::from_cores(500);
    let half = cluster.create(half);
    cluster.run();
    let mut next = spec("next", 1);
    next.task.resources.cpu = MilliCpu::from_cores(400);
    let next = cluster.create(next);
    cluster.run();
    assert_eq!(cluster.healthy(next), 0);
    cluster.scale(half, 1);
    cluster.run();
    assert_eq!(cluster.healthy(next), 1);
}

#[test]
fn constraint_is_met_and_a_fixed_spec_takes_pending_tasks_along() {
    let mut cluster = Cluster::new(3);
    let mut wanted = spec("web", 3);
    wanted.placement.constraints = vec![constraint("node.labels.zone==nowhere")];
    let web = cluster.create(wanted.clone());
    cluster.run();
    assert_eq!(cluster.healthy(web), 0);
    wanted.placement.constraints = vec![constraint("node.labels.zone==z2")];
    cluster.update(web, wanted);
    cluster.run();
    assert_eq!(cluster.nodes_of(web), [node_id(2); 3]);
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
}
