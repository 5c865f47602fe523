//! New leaders, lost batches, agents without memory, and many tasks.

use ballast_model::{Health, TaskState};

use crate::fixture::{Cluster, changed, description, spec};
use crate::state::Update;

#[test]
fn new_leader_takes_over_in_the_middle_of_an_update() {
    let mut cluster = Cluster::new(3);
    let web = cluster.create(spec("web", 4));
    cluster.run();
    cluster.update(web, changed(spec("web", 4), "2"));
    for _ in 0..60 {
        let state = &cluster.state;
        cluster.reconciler.rebuild(state);
        cluster.settle();
        assert!(cluster.healthy(web) == 4);
        cluster.agents();
    }
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
    assert_eq!(cluster.occupants(web).len(), 4);
}

#[test]
fn lost_batch_is_planned_again_after_a_rebuild() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 2));
    let lost = cluster
        .reconciler
        .step(&cluster.state, cluster.now, &mut cluster.rng);
    assert!(!lost.is_empty());
    let again = cluster
        .reconciler
        .step(&cluster.state, cluster.now, &mut cluster.rng);
    assert!(again.is_empty(), "nothing is proposed twice");
    cluster.reconciler.rebuild(&cluster.state);
    cluster.run();
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn batch_that_was_given_up_and_is_applied_after_all_does_no_harm() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 2));
    let late = cluster
        .reconciler
        .step(&cluster.state, cluster.now, &mut cluster.rng);
    cluster.reconciler.rebuild(&cluster.state);
    let again = cluster
        .reconciler
        .step(&cluster.state, cluster.now, &mut cluster.rng);
    for command in late.iter().chain(&again) {
        let _ = cluster.apply(command);
    }
    // Both batches chose the same ports: the second is refused, and the surplus withdrawn.
    cluster.run();
    assert_eq!(cluster.occupants(web).len(), 2);
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn agent_that_stops_its_tasks_is_not_asked_to_start_them_again() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let task = cluster.occupants(web)[0].task.clone();
    cluster.report(
        task.id,
        TaskState::Shutdown,
        Health::Unhealthy,
        false,
        "the agent stops",
    );
    cluster.settle();
    assert_ne!(cluster.nodes_of(web), [task.binding.expect("bound").node]);
    assert_eq!(cluster.occupants(web).len(), 1);
}

#[test]
fn agent_that_forgot_a_restart_gets_a_new_binding() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let task = cluster.occupants(web)[0].task.clone();
    cluster.fail(task.id, true);
    cluster.wait(1000);
    cluster.join(1, description(1));
    cluster.report(task.id, TaskState::Starting, Health::Unknown, false, "");
    cluster.run();
    assert_eq!(cluster.healthy(web), 1);
    let now = cluster.occupants(web)[0]
        .task
        .binding
        .clone()
        .expect("bound");
    assert_ne!(now.assignment, task.binding.expect("bound").assignment);
}

#[test]
fn history_of_a_crash_loop_is_bounded() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    for _ in 0..20 {
        let task = cluster.occupants(web)[0].task.id;
        cluster.fail(task, true);
        cluster.restart(task);
        cluster.run();
    }
    let kept = cluster.in_slot(web, 1).len();
    assert_eq!(kept, ballast_model::limits::TASK_HISTORY_PER_SLOT + 1);
    assert_eq!(
        cluster.occupants(web)[0]
            .task
            .binding
            .as_ref()
            .expect("bound")
            .restarts,
        20
    );
}

#[test]
fn thousand_replicas_come_to_run_in_little_time() {
    let mut cluster = Cluster::new(3);
    let web = cluster.create(spec("web", 1000));
    let start = std::time::Instant::now();
    loop {
        let batch = cluster
            .reconciler
            .step(&cluster.state, cluster.now, &mut cluster.rng);
        for command in &batch {
            let _ = cluster.apply(command);
        }
        if cluster.agents() == 0 && batch.is_empty() {
            break;
        }
    }
    let elapsed = start.elapsed();
    assert_eq!(cluster.healthy(web), 1000);
    println!("1,000 replicas: {elapsed:?}");
    // Ten times what it takes: the bound finds quadratic work, not a busy machine.
    assert!(elapsed.as_millis() < 1000, "{elapsed:?}");
}
