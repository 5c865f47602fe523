//! A plan is what the leader then does.

use std::collections::BTreeMap;

use ballast_model::plan::{PlanView, PlanWhen, ServiceAction, TaskAction};
use ballast_model::{
    Availability, Bytes, Constraint, Device, DeviceGrant, DeviceRequest, MilliCpu, Mode, NodeId,
    Policy, ServiceId, ServiceSpec, Timestamp, UpdateOrder,
};
use ballast_wire::log::{Batch, Command, StackService};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{Ask, Future, plan};
use crate::fixture::{Cluster, changed, constraint, description, node_id, spec};
use crate::reconcile::Reconciler;
use crate::state::{Lane, State};

const NEVER: &dyn Fn() -> bool = &|| false;

/// Nodes that a handful of tasks fills.
fn small_cluster(nodes: u64) -> Cluster {
    let mut cluster = Cluster::new(0);
    for nth in 1..=nodes {
        let mut description = description(nth);
        description.capacity.cpu = MilliCpu::from_cores(2);
        description.capacity.memory = Bytes::from_mib(2048);
        cluster.join(nth, description);
    }
    cluster
}

/// Nodes that have devices of several models, of two kinds, or none.
fn varied_cluster() -> Cluster {
    let mut cluster = Cluster::new(0);
    for nth in 1..=8 {
        let mut description = description(nth);
        description.capacity.cpu = MilliCpu::from_cores(4);
        description.capacity.memory = Bytes::from_mib(4096);
        let (gpus, model) = match nth {
            1..=3 => (2, "T4"),
            4 | 5 => (4, "V100"),
            6 => (1, "A10"),
            _ => (0, ""),
        };
        let devices = &mut description.capacity.devices;
        *devices = vec![Device::of("gpu", model); gpus];
        devices.extend((nth >= 6).then(|| Device::of("fpga", "U250")));
        let attributes = &mut description.attributes;
        attributes.insert("gpu.model".to_owned(), model.to_owned());
        cluster.join(nth, description);
    }
    cluster
}

fn stacked(mut spec: ServiceSpec) -> ServiceSpec {
    spec.stack = Some("shop".to_owned());
    spec
}

fn deploy(specs: Vec<ServiceSpec>, ids: u64, time: Timestamp) -> Command {
    let services = specs.into_iter().zip(ids..);
    Command::DeployStack {
        stack: "shop".to_owned(),
        services: services
            .map(|(spec, id)| StackService {
                id: ServiceId::from_bits(id),
                spec: stacked(spec),
            })
            .collect(),
        time,
    }
}

fn plan_of(cluster: &Cluster, command: &Command) -> PlanView {
    plan(
        cluster.state.clone(),
        &Ask::Command(Box::new(command.clone())),
        1,
        cluster.now,
        NEVER,
    )
    .expect("can be applied")
}

fn counts(view: &PlanView) -> [usize; 5] {
    let of = |action| {
        view.changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    };
    [
        of(TaskAction::Start),
        of(TaskAction::Stop),
        of(TaskAction::Replace),
        of(TaskAction::Move),
        view.pending.len(),
    ]
}

#[test]
fn new_stack_starts_its_tasks_at_once() {
    let cluster = small_cluster(3);
    let command = deploy(vec![spec("web", 4), spec("api", 2)], 50, cluster.now);
    let view = plan_of(&cluster, &command);
    assert!(view.fits && view.complete, "{view:?}");
    assert_eq!(counts(&view), [6, 0, 0, 0, 0]);
    assert!(
        view.changes
            .iter()
            .all(|change| change.when == PlanWhen::Now)
    );
    let actions: Vec<_> = view
        .services
        .iter()
        .map(|s| (s.name.as_str(), s.action))
        .collect();
    assert_eq!(
        actions,
        [
            ("api", ServiceAction::Create),
            ("web", ServiceAction::Create)
        ]
    );
    assert_eq!(
        view.services[1].nodes.as_ref().map(|nodes| nodes.fit),
        Some(3)
    );
    assert_eq!(cluster.state.services().count(), 0, "nothing was done");
}

#[test]
fn rolling_update_shows_what_follows_the_first_batch() {
    let mut cluster = small_cluster(3);
    let web = cluster.create(spec("web", 4));
    cluster.run();
    let command = Command::UpdateService {
        service: web,
        expected: None,
        spec: changed(spec("web", 3), "v2"),
        time: cluster.now,
    };
    let view = plan_of(&cluster, &command);
    assert_eq!(counts(&view), [0, 1, 3, 0, 0]);
    let now = view
        .changes
        .iter()
        .filter(|change| change.when == PlanWhen::Now);
    let now: Vec<_> = now
        .map(|change| (change.slot.0, change.action, change.why.as_str()))
        .collect();
    assert_eq!(
        now,
        [
            (1, TaskAction::Replace, "replaced by a newer version"),
            (4, TaskAction::Stop, "no longer wanted"),
        ]
    );
}

#[test]
fn task_too_large_is_said_to_be_pending_with_the_reason() {
    let cluster = small_cluster(3);
    let mut huge = spec("huge", 2);
    huge.task.resources.memory = Bytes::from_mib(4096);
    let view = plan_of(&cluster, &deploy(vec![huge], 50, cluster.now));
    assert!(!view.fits);
    assert_eq!(counts(&view), [0, 0, 0, 0, 2]);
    assert!(view.pending[0].why.contains("2 GiB of memory"), "{view:?}");
}

#[test]
fn drain_says_where_tasks_go_and_which_stay() {
    let mut cluster = small_cluster(2);
    let mut big = spec("big", 2);
    big.task.resources.memory = Bytes::from_mib(1500);
    cluster.create(big);
    cluster.create(spec("web", 2));
    cluster.run();
    let drain = Command::UpdateNode {
        node: node_id(1),
        availability: Some(Availability::Drain),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        untaint: Vec::new(),
        time: cluster.now,
    };
    let view = plan_of(&cluster, &drain);
    assert!(!view.fits);
    assert_eq!(view.pending.len(), 1, "{view:?}");
    assert_eq!(view.pending[0].service, "big");
    assert_eq!(view.pending[0].stays.as_deref(), Some("n1"));
    for change in &view.changes {
        assert_eq!(change.action, TaskAction::Move, "{change:?}");
        assert_eq!(change.to.as_deref(), Some("n2"), "{change:?}");
        assert!(change.why.contains("drained"), "{change:?}");
    }
    let untouched = cluster.state.node(node_id(1)).expect("known");
    assert_eq!(untouched.node.availability, Availability::Active);
}

#[test]
fn stop_first_update_comes_to_its_end_on_a_full_cluster() {
    let mut cluster = small_cluster(1);
    let mut big = spec("big", 1);
    big.task.resources.memory = Bytes::from_mib(1500);
    big.update.order = UpdateOrder::StopFirst;
    let id = cluster.create(big.clone());
    cluster.run();
    let update = |spec| Command::UpdateService {
        service: id,
        expected: None,
        spec,
        time: cluster.now,
    };
    let view = plan_of(&cluster, &update(changed(big.clone(), "v2")));
    assert!(view.fits, "{view:?}");
    assert_eq!(counts(&view), [0, 0, 1, 0, 0]);
    let mut first = changed(big, "v2");
    first.update.order = UpdateOrder::StartFirst;
    let view = plan_of(&cluster, &update(first));
    assert!(!view.fits, "two do not fit side by side: {view:?}");
    assert_eq!(view.pending[0].stays.as_deref(), Some("n1"));
}

#[test]
fn what_would_be_refused_is_refused() {
    let mut cluster = small_cluster(1);
    let mut web = spec("web", 1);
    web.ports[0].published = Some(80);
    cluster.create(web.clone());
    web.name = "other".to_owned();
    let command = deploy(vec![web], 50, cluster.now);
    let refused = plan(
        cluster.state.clone(),
        &Ask::Command(Box::new(command)),
        1,
        cluster.now,
        NEVER,
    );
    let refused = refused.expect_err("the port is taken");
    assert_eq!(
        refused.field.as_deref(),
        Some("services[0].ports[0].published")
    );
}

#[test]
fn plan_that_is_given_up_says_so() {
    let cluster = small_cluster(1);
    let command = deploy(vec![spec("web", 1)], 50, cluster.now);
    let view = plan(
        cluster.state.clone(),
        &Ask::Command(Box::new(command)),
        1,
        cluster.now,
        &|| true,
    );
    assert!(!view.expect("can be applied").complete);
}

/// What a leader does: one that begins with this state, as `leader::reconcile` has it.
fn lead(state: &mut State, command: &Command, seed: u64, now: Timestamp) -> Vec<Batch> {
    let mut reconciler = Reconciler::new(state);
    let mut rng = StdRng::seed_from_u64(seed);
    let applied = state.apply(command);
    reconciler.observe(state, &applied.changes);
    let mut batches = Vec::new();
    while reconciler.next_wake().is_some_and(|due| due <= now) {
        let batch = reconciler.step(state, now, &mut rng);
        let applied = state.apply_batch(&batch);
        for outcome in &applied {
            reconciler.observe(state, &outcome.changes);
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        assert!(batches.len() < 1000, "comes to rest");
    }
    batches
}

/// A node, and what a task was granted of its devices.
type Place = Option<(NodeId, Vec<DeviceGrant>)>;

/// Returns where each lane's tasks are bound. Ports are not told: which ones were handed out lately
/// only the leader knows that did it.
fn places(state: &State) -> BTreeMap<Lane, Vec<Place>> {
    let mut places: BTreeMap<Lane, Vec<_>> = BTreeMap::new();
    for service in state.services() {
        for entry in state
            .tasks_of(service.id)
            .filter(|entry| state.occupies(entry))
        {
            let binding = entry.task.binding.as_ref();
            let place = binding.map(|bound| (bound.node, bound.claim.devices.clone()));
            places.entry(entry.lane()).or_default().push(place);
        }
    }
    places
}

/// Returns whole devices and parts of one, or none.
fn some_devices() -> impl Strategy<Value = DeviceRequest> {
    let gpus = prop_oneof![
        (1u8..4, Just(1000u16)),
        (Just(1), prop::sample::select(vec![150, 250, 400, 500, 750])),
    ];
    let kind = prop::sample::select(vec!["gpu", "gpu", "gpu", "fpga"]);
    let some = (kind, gpus).prop_map(|(kind, (count, milli))| DeviceRequest {
        kind: kind.to_owned(),
        count,
        milli,
    });
    prop_oneof![2 => Just(DeviceRequest::default()), 3 => some]
}

fn some_spec() -> impl Strategy<Value = ServiceSpec> {
    let names = prop::sample::select(vec!["web", "api", "db", "cron", "train", "infer"]);
    let amounts = (0u32..5, 0u64..8, some_devices(), 0u8..8);
    (names, 0u32..7, amounts, 0u8..4, 0u8..8).prop_map(
        |(name, replicas, (cpu, mem, devices, choice), version, flags)| {
            let mut spec = changed(spec(name, replicas), &format!("v{version}"));
            spec.task.resources.cpu = MilliCpu(cpu * 300);
            spec.task.resources.memory = Bytes::from_mib(mem * 100);
            spec.task.resources.devices = devices;
            let model = match choice {
                0 => Some("node.attributes.gpu.model==T4"),
                1 => Some("node.attributes.gpu.model in (T4,A10)"),
                2 => Some("node.attributes.gpu.model!=V100"),
                _ => None,
            };
            spec.placement.constraints.extend(model.map(constraint));
            if choice == 3 {
                spec.placement.policy = Policy::Fgd;
            }
            if flags & 1 > 0 {
                let zone: Constraint = constraint("node.labels.zone!=z2");
                spec.placement.constraints.push(zone);
            }
            if flags & 2 > 0 {
                spec.placement.max_replicas_per_node = 2;
            }
            if flags & 4 > 0 {
                spec.update.order = UpdateOrder::StopFirst;
            }
            if version == 3 {
                spec.mode = Mode::Global {};
            }
            spec
        },
    )
}

fn some_stack() -> impl Strategy<Value = Vec<ServiceSpec>> {
    prop::collection::vec(some_spec(), 0..6).prop_map(|mut specs| {
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        specs
    })
}

/// What came after a stack was deployed.
type Aftermath = u8;

/// Returns a cluster with a past: stacks that came and went, nodes that were drained, agents that
/// did some of what they were told, leaders that followed each other.
fn with_past(past: Vec<(Vec<ServiceSpec>, Aftermath)>) -> Cluster {
    let mut cluster = varied_cluster();
    for (specs, event) in past {
        let ids = rand::Rng::next_u64(&mut cluster.rng) >> 8;
        let command = deploy(specs, ids, cluster.now);
        let _ = cluster.apply(&command);
        cluster.settle();
        let nth = 1 + u64::from(event % 8);
        match event / 8 % 8 {
            0 => cluster.run(),
            1 => {
                cluster.agents();
            }
            2 => cluster.availability(nth, Availability::Drain),
            3 => cluster.availability(nth, Availability::Active),
            4 => cluster.status(nth, ballast_model::NodeStatus::Down),
            5 => cluster.status(nth, ballast_model::NodeStatus::Ready),
            6 => cluster.reconciler = Reconciler::new(&cluster.state),
            _ => cluster.reconciler.rebuild(&cluster.state),
        }
        cluster.wait(u64::from(event) * 37);
    }
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The same batches and the same bytes; and with other draws still the same places.
    #[test]
    fn prop_plan_is_what_apply_then_does(
        past in prop::collection::vec((some_stack(), 0u8..64), 0..6),
        stack in some_stack(),
        seed: u64,
        other: u64,
    ) {
        let cluster = with_past(past);
        let ids = 1 << 60;
        let command = deploy(stack, ids, cluster.now);
        let mut real = cluster.state.clone();
        let batches = lead(&mut real, &command, seed, cluster.now);

        let mut future = Future::new(cluster.state.clone(), seed, cluster.now);
        let _ = future.apply(std::slice::from_ref(&command));
        prop_assert_eq!(future.settle(NEVER).expect("comes to rest"), batches);
        let bytes = |state: &State| state.to_snapshot().expect("encodes");
        prop_assert_eq!(bytes(future.state()), bytes(&real));

        let mut drawn = Future::new(cluster.state.clone(), other, cluster.now);
        let _ = drawn.apply(std::slice::from_ref(&command));
        drawn.settle(NEVER).expect("comes to rest");
        prop_assert_eq!(places(drawn.state()), places(&real));

        prop_assert!(future.play_out(NEVER), "comes to an end");
        future.state().check_invariants().map_err(TestCaseError::fail)?;
    }

    /// The leader that has led all along does the same as the plan, which begins as a new one.
    #[test]
    fn prop_plan_is_what_the_leader_that_led_all_along_does(
        past in prop::collection::vec((some_stack(), 0u8..64), 0..6),
        stack in some_stack(),
    ) {
        let mut cluster = with_past(past);
        cluster.settle();
        let command = deploy(stack, 1 << 60, cluster.now);
        let mut future = Future::new(cluster.state.clone(), 1, cluster.now);
        let planned = future.apply(std::slice::from_ref(&command));
        future.settle(NEVER).expect("comes to rest");
        let done = cluster.apply(&command).map(drop);
        prop_assert_eq!(planned, done);
        cluster.settle();
        prop_assert_eq!(places(future.state()), places(&cluster.state));
    }
}
