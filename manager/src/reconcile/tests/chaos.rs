//! Whatever happens, the cluster heals.

use ballast_model::{
    Availability, Health, Mode, NodeStatus, TaskState, UpdateFailureAction, UpdateOrder,
};

use super::spec_global;
use crate::fixture::{Cluster, changed, spec};
use crate::state::Update;
use crate::views;

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
