//! Tasks that end, nodes that are lost, drained or paused.

use ballast_model::{Availability, Desired, Health, NodeStatus, TaskState};

use super::spec_global;
use crate::fixture::{Cluster, changed, node_id, spec};
use crate::project::assignment_set;
use crate::views;

#[test]
fn local_restart_is_left_to_the_agent() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let first = cluster.occupants(web)[0].task.clone();
    cluster.fail(first.id, true);
    assert_eq!(cluster.settle(), 0, "the manager does nothing");
    assert_eq!(cluster.occupants(web).len(), 1, "the binding is held");
    let next = cluster.restart(first.id);
    assert_eq!(cluster.settle(), 0);
    let now = cluster.occupants(web)[0].task.clone();
    assert_eq!(now.id, next);
    let (old, new) = (first.binding.expect("bound"), now.binding.expect("bound"));
    assert_eq!(
        (old.assignment, old.node, &old.ports),
        (new.assignment, new.node, &new.ports)
    );
    assert_eq!(new.restarts, 1);
}

#[test]
fn used_up_restarts_leave_the_slot_failed_and_say_so() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let task = cluster.occupants(web)[0].task.id;
    cluster.report(
        task,
        TaskState::Failed,
        Health::Unhealthy,
        false,
        "gave up after 3 restarts",
    );
    cluster.run();
    assert!(cluster.occupants(web).is_empty());
    let entry = cluster.state.service(web).expect("known");
    let view = views::service_view(&cluster.state, entry);
    assert_eq!(view.problems, ["failed: gave up after 3 restarts"]);
    assert_eq!(cluster.reconciler.next_wake(), None);
    // A new spec is a new chance.
    cluster.update(web, changed(spec("web", 1), "2"));
    cluster.run();
    assert_eq!(cluster.healthy(web), 1);
}

#[test]
fn lost_node_is_replaced_elsewhere_at_once_and_fenced_when_it_returns() {
    let mut cluster = Cluster::new(3);
    let web = cluster.create(spec("web", 6));
    cluster.run();
    cluster.status(1, NodeStatus::Suspect);
    assert_eq!(cluster.settle(), 0, "a suspect node keeps its tasks");
    cluster.status(1, NodeStatus::Down);
    cluster.settle();
    assert_eq!(cluster.occupants(web).len(), 6);
    assert!(!cluster.nodes_of(web).contains(&node_id(1)));
    cluster.run();
    cluster.status(1, NodeStatus::Ready);
    cluster.run();
    assert_eq!(assignment_set(&cluster.state, node_id(1)).assignments, []);
    assert_eq!(cluster.healthy(web), 6);
}

#[test]
fn report_of_a_lost_task_changes_nothing() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let old = cluster.occupants(web)[0].task.clone();
    let nth = old.binding.as_ref().expect("bound").node.to_bits();
    cluster.status(nth, NodeStatus::Down);
    cluster.run();
    cluster.status(nth, NodeStatus::Ready);
    let ignored = cluster.state.ignored();
    cluster.report(old.id, TaskState::Running, Health::Healthy, false, "");
    assert_eq!(cluster.state.ignored(), ignored + 1);
    assert_eq!(
        cluster
            .state
            .task(old.id)
            .expect("kept")
            .task
            .observed
            .state,
        TaskState::Lost
    );
}

#[test]
fn drain_starts_the_replacement_before_it_stops_the_old_one() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let old = cluster.occupants(web)[0].task.clone();
    let nth = old.binding.as_ref().expect("bound").node.to_bits();
    cluster.availability(nth, Availability::Drain);
    cluster.settle();
    let tasks = cluster.in_slot(web, 1);
    assert_eq!(tasks.len(), 2);
    assert!(
        tasks
            .iter()
            .all(|entry| entry.task.desired == Desired::Running)
    );
    let new = tasks[1].task.id;
    cluster.report(new, TaskState::Running, Health::Unknown, false, "");
    cluster.settle();
    assert_eq!(
        cluster.state.task(old.id).expect("kept").task.desired,
        Desired::Running
    );
    cluster.report(new, TaskState::Running, Health::Healthy, false, "");
    cluster.settle();
    assert_eq!(
        cluster.state.task(old.id).expect("kept").task.desired,
        Desired::Shutdown
    );
    cluster.run();
    assert_ne!(cluster.nodes_of(web), [node_id(nth)]);
}

#[test]
fn drain_that_finds_no_other_node_leaves_the_old_task_running() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    cluster.availability(1, Availability::Drain);
    cluster.run();
    assert_eq!(cluster.healthy(web), 1);
    let pending = cluster.in_slot(web, 1)[1];
    assert!(
        pending.task.observed.message.contains("drained"),
        "{pending:?}"
    );
    cluster.availability(1, Availability::Active);
    cluster.run();
    assert_eq!(
        cluster.occupants(web).len(),
        1,
        "the replacement is withdrawn"
    );
    assert_eq!(cluster.healthy(web), 1);
}

#[test]
fn drained_and_paused_nodes_receive_no_task() {
    let mut cluster = Cluster::new(3);
    cluster.availability(1, Availability::Drain);
    cluster.availability(2, Availability::Pause);
    let web = cluster.create(spec("web", 4));
    let everywhere = cluster.create(spec_global("every"));
    cluster.run();
    assert_eq!(cluster.nodes_of(web), [node_id(3); 4]);
    assert_eq!(cluster.nodes_of(everywhere), [node_id(3)]);
}

#[test]
fn paused_node_keeps_its_tasks() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 2));
    let everywhere = cluster.create(spec_global("every"));
    cluster.run();
    cluster.availability(1, Availability::Pause);
    cluster.run();
    assert_eq!((cluster.healthy(web), cluster.healthy(everywhere)), (2, 1));
}
