//! What the reconciler does, as facts about a small cluster.
//!
//! Size: every case plays in the same small cluster; apart, each would rebuild it.

use ballast_model::{
    Availability, Desired, Health, MilliCpu, Millis, Mode, NodeStatus, Slot, Target, TaskState,
    UpdateFailureAction, UpdateOrder,
};
use ballast_wire::log::Command;

use crate::fixture::{Cluster, changed, constraint, description, node_id, spec};
use crate::project::assignment_set;
use crate::state::Update;
use crate::views;

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

fn spec_global(name: &str) -> ballast_model::ServiceSpec {
    let mut spec = spec(name, 0);
    spec.mode = Mode::Global {};
    spec
}

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

#[test]
fn update_replaces_slot_by_slot_with_the_new_task_first() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 3));
    cluster.run();
    cluster.update(web, changed(spec("web", 3), "2"));
    let mut least = 3;
    for _ in 0..40 {
        cluster.settle();
        least = least.min(cluster.healthy(web));
        let new = cluster.occupants(web).len();
        assert!(new <= 5, "one new and one stopping at most, not {new}");
        cluster.agents();
    }
    assert_eq!(least, 3, "no capacity is lost");
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
    assert!(
        cluster
            .occupants(web)
            .iter()
            .all(|e| e.task.generation == entry.template)
    );
    assert_eq!(cluster.occupants(web).len(), 3);
}

#[test]
fn stop_first_update_never_runs_two_in_one_slot() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("web", 2);
    wanted.update.order = UpdateOrder::StopFirst;
    let web = cluster.create(wanted.clone());
    cluster.run();
    cluster.update(web, changed(wanted, "2"));
    for _ in 0..40 {
        cluster.settle();
        let mut slots = cluster.slots(web);
        slots.dedup();
        assert_eq!(slots.len(), cluster.occupants(web).len());
        assert!(cluster.healthy(web) >= 1);
        cluster.agents();
    }
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn fixed_port_is_updated_on_a_full_fleet() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("web", 2);
    wanted.ports[0].target = Target::Fixed(80);
    let web = cluster.create(wanted.clone());
    cluster.run();
    cluster.update(web, changed(wanted, "2"));
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn publishing_elsewhere_or_scaling_replaces_no_task() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let before: Vec<_> = cluster.occupants(web).iter().map(|e| e.task.id).collect();
    let mut wanted = spec("web", 2);
    wanted.ports[0].published = Some(8080);
    wanted.labels.insert("a".to_owned(), "b".to_owned());
    cluster.update(web, wanted);
    cluster.run();
    let after: Vec<_> = cluster.occupants(web).iter().map(|e| e.task.id).collect();
    assert_eq!(before, after);
}

#[test]
fn update_waits_between_batches_and_honours_parallelism() {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("web", 4);
    wanted.update.parallelism = 2;
    wanted.update.delay = Millis::from_secs(5);
    let web = cluster.create(wanted.clone());
    cluster.run();
    cluster.update(web, changed(wanted, "2"));
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    let new = |cluster: &Cluster| {
        let template = cluster.state.service(web).expect("known").template;
        let all = cluster.occupants(web);
        all.iter().filter(|e| e.task.generation == template).count()
    };
    assert!(matches!(entry.update, Update::Running { .. }));
    assert_eq!(new(&cluster), 2);
    cluster.wait(4_999);
    cluster.run();
    assert_eq!(new(&cluster), 2);
    cluster.wait(1);
    cluster.run();
    assert_eq!(new(&cluster), 4);
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
}

fn failing_update(action: UpdateFailureAction) -> (Cluster, ballast_model::ServiceId) {
    let mut cluster = Cluster::new(2);
    let mut wanted = spec("web", 3);
    wanted.update.failure_action = action;
    let web = cluster.create(wanted.clone());
    cluster.run();
    cluster.update(web, changed(wanted, "bad"));
    cluster.settle();
    let entry = cluster.state.service(web).expect("known");
    let (template, all) = (entry.template, cluster.occupants(web));
    let new = all.iter().find(|e| e.task.generation == template);
    let new = new.expect("the first new task").task.id;
    cluster.fail(new, true);
    (cluster, web)
}

#[test]
fn failed_update_pauses_and_the_rest_keep_the_old_version() {
    let (mut cluster, web) = failing_update(UpdateFailureAction::Pause);
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    assert!(matches!(&entry.update, Update::Paused { reason } if reason.contains("exit status 1")));
    assert_eq!(cluster.healthy(web), 3);
    let view = views::service_view(&cluster.state, entry);
    assert!(
        view.problems[0].starts_with("update paused"),
        "{:?}",
        view.problems
    );
}

#[test]
fn failed_update_rolls_back_by_itself_once() {
    let (mut cluster, web) = failing_update(UpdateFailureAction::Rollback);
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.spec.task.command, ["serve"]);
    assert_eq!(entry.update, Update::Completed);
    assert_eq!(cluster.healthy(web), 3);
}

#[test]
fn failed_update_that_shall_continue_does() {
    let (mut cluster, web) = failing_update(UpdateFailureAction::Continue);
    let failed = cluster
        .state
        .tasks_of(web)
        .find(|e| e.task.observed.state == TaskState::Failed);
    let failed = failed.expect("just failed").task.id;
    cluster.run();
    cluster.restart(failed);
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.update, Update::Completed);
    assert!(
        cluster
            .occupants(web)
            .iter()
            .all(|e| e.task.generation == entry.template)
    );
}

#[test]
fn update_waits_for_the_new_task_to_be_healthy() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    cluster.sick.insert(web);
    cluster.update(web, changed(spec("web", 2), "2"));
    cluster.settle();
    let template = cluster.state.service(web).expect("known").template;
    let new = cluster
        .occupants(web)
        .into_iter()
        .filter(|e| e.task.generation == template)
        .count();
    assert_eq!(new, 1);
    assert_eq!(cluster.healthy(web), 2);
}

#[test]
fn rollback_restores_the_program_and_keeps_the_scale() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    cluster.update(web, changed(spec("web", 1), "2"));
    cluster.run();
    cluster.scale(web, 3);
    cluster.run();
    let time = cluster.now;
    let rollback = Command::RollbackService {
        service: web,
        expected: None,
        automatic: None,
        time,
    };
    cluster.apply(&rollback).expect("there is a version before");
    cluster.run();
    let entry = cluster.state.service(web).expect("known");
    assert_eq!(entry.spec.task.command, ["serve"]);
    assert_eq!(cluster.healthy(web), 3);
    assert_eq!(
        entry.slots.iter().copied().collect::<Vec<_>>(),
        [1, 2, 3].map(Slot)
    );
}

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

/// One thing that happens to a cluster, of small numbers.
fn happen(
    cluster: &mut Cluster,
    services: &[ballast_model::ServiceId],
    (kind, a, b): (u8, u8, u8),
) {
    let nth = 1 + u64::from(a % 4);
    let service = services[usize::from(b) % services.len()];
    let tasks: Vec<_> = cluster
        .occupants(service)
        .iter()
        .filter(|entry| entry.task.binding.is_some())
        .map(|entry| (entry.task.id, entry.task.observed.state))
        .collect();
    let task = tasks.get(usize::from(a) % tasks.len().max(1)).copied();
    match (kind % 12, task) {
        (0, _) => cluster.status(nth, NodeStatus::Down),
        (1, _) => cluster.status(nth, NodeStatus::Ready),
        (2, _) => cluster.availability(nth, Availability::Drain),
        (3, _) => cluster.availability(nth, Availability::Active),
        (4, _) if !cluster.state.service(service).expect("known").is_job() => {
            let spec = cluster.state.service(service).expect("known").spec.clone();
            if let Mode::Replicated { .. } = spec.mode {
                cluster.scale(service, u32::from(a % 6));
            }
        }
        (5, _) => {
            let spec = cluster.state.service(service).expect("known").spec.clone();
            cluster.update(service, changed(spec, &format!("v{a}")));
        }
        (6, Some((task, state))) if !state.is_terminal() => cluster.fail(task, a % 3 != 0),
        (7, Some((task, state))) if state.is_terminal() => {
            cluster.restart(task);
        }
        (8, Some((task, state))) if state < TaskState::Running => {
            cluster.report(task, TaskState::Rejected, Health::Unhealthy, false, "no");
        }
        (9, _) => cluster.reconciler.rebuild(&cluster.state),
        (10, _) => {
            cluster.agents();
        }
        _ => cluster.wait(50),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

    /// Whatever happens, each step keeps the invariants and comes to rest; and once faults end,
    /// every service is what was asked for, with nothing left over.
    #[test]
    fn prop_cluster_heals_whatever_happened(
        events in proptest::collection::vec(proptest::prelude::any::<(u8, u8, u8)>(), 1..120),
        stop_first: bool,
        action in 0usize..3,
    ) {
        let mut cluster = Cluster::new(4);
        let mut web = spec("web", 3);
        if stop_first {
            web.update.order = UpdateOrder::StopFirst;
        }
        web.update.failure_action = [
            UpdateFailureAction::Pause,
            UpdateFailureAction::Rollback,
            UpdateFailureAction::Continue,
        ][action];
        let mut job = spec("job", 0);
        job.mode = Mode::Job { completions: 3, parallelism: 2 };
        let services = [cluster.create(web), cluster.create(spec_global("every")), cluster.create(job)];
        for event in events {
            happen(&mut cluster, &services, event);
            cluster.settle();
        }
        for nth in 1..=4 {
            cluster.status(nth, NodeStatus::Ready);
            cluster.availability(nth, Availability::Active);
        }
        for id in services {
            let spec = cluster.state.service(id).expect("known").spec.clone();
            cluster.update(id, changed(spec, "healed"));
        }
        // Tries that an agent was to make are made; backoffs pass.
        for _ in 0..8 {
            cluster.wait(60_000);
            let restarting: Vec<_> = services
                .iter()
                .flat_map(|id| cluster.occupants(*id))
                .filter(|entry| entry.task.observed.state.is_terminal())
                .map(|entry| entry.task.id)
                .collect();
            for task in restarting {
                cluster.restart(task);
            }
            cluster.run();
        }
        for id in &services[..2] {
            let entry = cluster.state.service(*id).expect("known");
            let replicas = views::replicas(&cluster.state, entry);
            proptest::prop_assert_eq!(replicas.healthy, replicas.desired, "{:?}", entry);
            proptest::prop_assert_eq!(&entry.update, &Update::Completed);
            proptest::prop_assert_eq!(cluster.occupants(*id).len(), replicas.desired as usize);
        }
        for id in services {
            cluster.remove(id);
        }
        cluster.run();
        proptest::prop_assert_eq!(cluster.state.tasks().count(), 0);
        proptest::prop_assert_eq!(cluster.state.services().count(), 0);
    }
}
