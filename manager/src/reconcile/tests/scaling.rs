//! Scaling and removal: which slots come, and which go.

use ballast_model::{Desired, Health, TaskState};

use crate::fixture::{Cluster, node_id, spec};

#[test]
fn replicas_come_to_be_on_nodes_that_fit() {
    let mut cluster = Cluster::new(3);
    let web = cluster.create(spec("web", 5));
    cluster.run();
    assert_eq!(cluster.slots(web), [1, 2, 3, 4, 5]);
    assert_eq!(cluster.healthy(web), 5);
}

#[test]
fn idle_cluster_makes_no_commands_and_sets_no_alarm() {
    let mut cluster = Cluster::new(2);
    cluster.create(spec("web", 3));
    cluster.run();
    assert_eq!(cluster.reconciler.next_wake(), None);
    let before = cluster.applied;
    cluster.wait(3_600_000);
    cluster.run();
    assert_eq!(cluster.applied, before);
}

#[test]
fn scaling_up_fills_the_lowest_free_slots_and_restarts_nothing() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let before: Vec<_> = cluster.occupants(web).iter().map(|e| e.task.id).collect();
    cluster.scale(web, 4);
    cluster.run();
    assert_eq!(cluster.slots(web), [1, 2, 3, 4]);
    let after: Vec<_> = cluster.occupants(web).iter().map(|e| e.task.id).collect();
    assert_eq!(&after[..2], &before);
}

#[test]
fn scaling_down_removes_unhealthy_slots_then_the_newest() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 5));
    cluster.run();
    let sick = cluster.in_slot(web, 2)[0].task.id;
    cluster.report(sick, TaskState::Running, Health::Unhealthy, false, "");
    cluster.scale(web, 3);
    cluster.deaf.insert(node_id(99));
    cluster.run();
    assert_eq!(cluster.slots(web), [1, 3, 4]);
    // No history of slots that are gone.
    assert_eq!(cluster.state.tasks_of(web).count(), 3);
}

#[test]
fn zero_replicas_keep_the_service_and_no_task() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    cluster.scale(web, 0);
    cluster.run();
    assert_eq!(cluster.state.tasks().count(), 0);
    assert!(cluster.state.service_named("web").is_some());
    assert_eq!(
        cluster
            .state
            .node(node_id(1))
            .expect("known")
            .allocation
            .tasks,
        0
    );
}

#[test]
fn removed_service_is_gone_when_its_tasks_have_ended() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 3));
    cluster.run();
    cluster.remove(web);
    cluster.settle();
    assert_eq!(cluster.occupants(web).len(), 3, "they still stop");
    assert!(
        cluster
            .occupants(web)
            .iter()
            .all(|e| e.task.desired == Desired::Shutdown)
    );
    cluster.run();
    assert!(cluster.state.service(web).is_none());
    assert!(cluster.state.service_named("web").is_none());
    assert_eq!(cluster.state.tasks().count(), 0);
}
