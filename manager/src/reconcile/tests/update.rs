//! Rolling updates and rollbacks.

use ballast_model::{Millis, Slot, Target, TaskState, UpdateFailureAction, UpdateOrder};
use ballast_wire::log::Command;

use crate::fixture::{Cluster, changed, spec};
use crate::state::Update;
use crate::views;

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
