//! Global services and jobs.

use ballast_model::{Availability, Health, Mode, NodeStatus, TaskState};

use super::spec_global;
use crate::fixture::{Cluster, constraint, description, node_id, spec};
use crate::views;

#[test]
fn global_service_has_one_task_on_each_node_that_meets_its_constraints() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec_global("every");
    wanted.placement.constraints = vec![constraint("node.labels.zone!=z3")];
    let every = cluster.create(wanted);
    cluster.run();
    assert_eq!(cluster.nodes_of(every), [node_id(1), node_id(2)]);
    cluster.join(3, description(3));
    cluster.join(4, description(4));
    cluster.run();
    assert_eq!(
        cluster.nodes_of(every),
        [node_id(1), node_id(2), node_id(4)]
    );
    cluster.availability(4, Availability::Drain);
    cluster.run();
    assert_eq!(cluster.nodes_of(every), [node_id(1), node_id(2)]);
    cluster.status(2, NodeStatus::Down);
    cluster.run();
    assert_eq!(cluster.nodes_of(every), [node_id(1)]);
    cluster.status(2, NodeStatus::Ready);
    cluster.run();
    assert_eq!(cluster.nodes_of(every), [node_id(1), node_id(2)]);
}

#[test]
fn job_runs_to_its_completions_with_bounded_parallelism() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("job", 0);
    wanted.mode = Mode::Job {
        completions: 5,
        parallelism: 2,
    };
    let job = cluster.create(wanted);
    for done in 0..5 {
        cluster.run();
        let running: Vec<_> = cluster.occupants(job).iter().map(|e| e.task.id).collect();
        assert_eq!(running.len(), 2.min(5 - done), "after {done}");
        cluster.report(
            running[0],
            TaskState::Complete,
            Health::Unhealthy,
            false,
            "",
        );
    }
    cluster.run();
    assert!(cluster.occupants(job).is_empty());
    let entry = cluster.state.service(job).expect("known");
    assert_eq!(views::replicas(&cluster.state, entry).complete, 5);
    assert_eq!(cluster.reconciler.next_wake(), None);
}

#[test]
fn job_task_that_is_lost_runs_again_and_one_that_completed_does_not() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("job", 0);
    wanted.mode = Mode::Job {
        completions: 2,
        parallelism: 2,
    };
    let job = cluster.create(wanted);
    cluster.run();
    let first = cluster.in_slot(job, 1)[0].task.clone();
    cluster.report(first.id, TaskState::Complete, Health::Unhealthy, false, "");
    for nth in 1..=2 {
        cluster.status(nth, NodeStatus::Down);
        cluster.status(nth, NodeStatus::Ready);
    }
    cluster.run();
    assert_eq!(cluster.slots(job), [2]);
    assert_eq!(cluster.in_slot(job, 1).len(), 1);
}
