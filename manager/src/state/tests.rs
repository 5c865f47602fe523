//! What `apply` does, as facts; and what holds after any commands at all.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    AssignmentId, Availability, Binding, Bytes, Claim, Desired, EventKind, Generation, Health,
    Incarnation, IngressId, MilliCpu, Mode, NodeStatus, Observed, PortBinding, Resources,
    RouteSpec, Sequence, ServiceId, ServiceSpec, Slot, TaskId, TaskState, Timestamp,
};
use ballast_wire::agent::{AssignmentSet, TaskReport};
use ballast_wire::log::{Command, NewTask, Placement, StackService};
use proptest::prelude::*;

use super::*;
use crate::fixture::{Cluster, changed, description, node_id, spec};
use crate::project;

const TIME: Timestamp = Timestamp(5);

fn service_id(nth: u64) -> ServiceId {
    ServiceId::from_bits(nth)
}

fn create(nth: u64, spec: ServiceSpec) -> Command {
    Command::CreateService {
        service: service_id(nth),
        spec,
        time: TIME,
    }
}

fn published(name: &str, port: u16) -> ServiceSpec {
    let mut spec = spec(name, 1);
    spec.ports[0].published = Some(port);
    spec
}

fn refusal(applied: Applied) -> Rejection {
    assert!(
        applied.changes.is_empty(),
        "a refused command changes nothing"
    );
    applied.result.expect_err("refused")
}

#[test]
fn taken_name_is_refused_with_a_free_one() {
    let mut state = State::default();
    state
        .apply(&create(1, spec("web", 1)))
        .result
        .expect("free");
    let refusal = refusal(state.apply(&create(2, spec("web", 1))));
    assert_eq!(refusal.kind, RejectionKind::Conflict);
    assert_eq!(refusal.field.as_deref(), Some("name"));
    assert_eq!(refusal.nearest.as_deref(), Some("web-2"));
}

#[test]
fn taken_port_is_refused_with_the_next_free_one() {
    let mut state = State::default();
    for (nth, port) in [(1, 8080), (2, 8081), (3, u16::MAX)] {
        let command = create(nth, published(&format!("s{nth}"), port));
        state.apply(&command).result.expect("free");
    }
    let said = refusal(state.apply(&create(4, published("late", 8080))));
    assert_eq!(said.field.as_deref(), Some("ports[0].published"));
    assert_eq!(said.nearest.as_deref(), Some("8082"));
    assert!(said.reason.contains("`s1`"), "{said}");
    // 65534 is the nearest below the last; UDP is apart from TCP.
    let command = create(4, published("late", u16::MAX));
    assert_eq!(
        refusal(state.apply(&command)).nearest.as_deref(),
        Some("65534")
    );
    let mut udp = published("late", 8080);
    udp.ports[0].protocol = ballast_model::Protocol::Udp;
    state
        .apply(&create(4, udp))
        .result
        .expect("another protocol");
}

#[test]
fn route_leads_to_one_service_however_it_is_spelt() {
    let mut state = State::default();
    let route = |host: &str, path: &str| RouteSpec::new(Some(host.to_owned()), path);
    let mut first = spec("first", 1);
    first.routes = vec![route("a.test", "/api")];
    state.apply(&create(1, first)).result.expect("free");
    let mut second = spec("second", 1);
    second.routes = vec![route("A.test", "/api/")];
    let said = refusal(state.apply(&create(2, second)));
    assert_eq!(said.field.as_deref(), Some("routes[0]"));
}

#[test]
fn update_of_what_changed_meanwhile_is_stale() {
    let mut state = State::default();
    state
        .apply(&create(1, spec("web", 1)))
        .result
        .expect("free");
    let update = |expected| Command::UpdateService {
        service: service_id(1),
        expected: Some(Generation(expected)),
        spec: spec("web", 2),
        time: TIME,
    };
    let done = state.apply(&update(1)).result.expect("current");
    assert_eq!(
        done,
        Response::Service {
            service: service_id(1),
            generation: Generation(2)
        }
    );
    assert_eq!(refusal(state.apply(&update(1))).kind, RejectionKind::Stale);
}

#[test]
fn same_spec_again_changes_nothing() {
    let mut state = State::default();
    state
        .apply(&create(1, published("web", 80)))
        .result
        .expect("free");
    let command = Command::UpdateService {
        service: service_id(1),
        expected: None,
        spec: published("web", 80),
        time: TIME,
    };
    let applied = state.apply(&command);
    assert!(applied.changes.is_empty());
    assert_eq!(
        state.service(service_id(1)).expect("known").generation,
        Generation(1)
    );
}

#[test]
fn port_of_a_removed_service_is_free_at_once_and_its_name_too() {
    let mut cluster = Cluster::new(1);
    let old = cluster.create(published("web", 8080));
    cluster.run();
    cluster.remove(old);
    let new = cluster.create(published("web", 8080));
    let of = |cluster: &Cluster, id| project::service_table(&cluster.state, id);
    assert_eq!(of(&cluster, old), None, "the port leads to the new service");
    assert_eq!(
        of(&cluster, new).expect("routed").ports[0].published,
        Some(8080)
    );
    cluster.run();
    assert_eq!(
        cluster.state.service_named("web").expect("the new one").id,
        new
    );
}

#[test]
fn stack_is_deployed_whole_or_not_at_all() {
    let mut state = State::default();
    state
        .apply(&create(9, published("other", 9000)))
        .result
        .expect("free");
    let service = |nth: u64, name: &str, port: u16| {
        let mut spec = published(name, port);
        spec.stack = Some("shop".to_owned());
        StackService {
            id: service_id(nth),
            spec,
        }
    };
    let deploy = |services: Vec<StackService>| Command::DeployStack {
        stack: "shop".to_owned(),
        services,
        time: TIME,
    };
    let before = state.clone();
    let bad = deploy(vec![service(1, "a", 8001), service(2, "b", 9000)]);
    let said = refusal(state.apply(&bad));
    assert_eq!(
        said.field.as_deref(),
        Some("services[1].ports[0].published")
    );
    assert_eq!(state.services, before.services);
    let good = deploy(vec![service(1, "a", 8001), service(2, "b", 8002)]);
    let done = state.apply(&good).result.expect("deployed");
    assert!(matches!(&done, Response::Stack(result) if result.created == ["a", "b"]));
    // Ports may change hands in one step.
    let swap = deploy(vec![service(3, "a", 8002), service(4, "c", 8001)]);
    let Response::Stack(result) = state.apply(&swap).result.expect("deployed") else {
        panic!("a stack's answer");
    };
    assert_eq!(result.updated, ["a"]);
    assert_eq!(result.created, ["c"]);
    assert_eq!(result.removed, ["b"]);
    state.check_invariants().expect("invariants");
    let done = state.apply(&deploy(Vec::new())).result.expect("removed");
    assert!(matches!(&done, Response::Stack(result) if result.removed.len() == 2));
    assert_eq!(state.services().count(), 1);
    state.check_invariants().expect("invariants");
}

#[test]
fn agent_cannot_speak_for_tasks_of_another_node() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let task = cluster.occupants(web)[0].task.clone();
    let binding = task.binding.expect("bound");
    let other = if binding.node == node_id(1) {
        node_id(2)
    } else {
        node_id(1)
    };
    let report = TaskReport {
        task: task.id,
        assignment: binding.assignment,
        restarts: 0,
        will_restart: false,
        observed: Observed {
            state: TaskState::Failed,
            ..task.observed.clone()
        },
    };
    let ignored = cluster.state.ignored();
    cluster.send(other, report);
    assert_eq!(cluster.state.ignored(), ignored + 1);
    assert_eq!(
        cluster.state.task(task.id).expect("kept").task.observed,
        task.observed
    );
}

#[test]
fn late_report_moves_neither_state_nor_health_back() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    let task = cluster.occupants(web)[0].task.clone();
    let binding = task.binding.clone().expect("bound");
    for (state, health, sequence) in [
        (TaskState::Starting, Health::Unknown, 9),
        (TaskState::Running, Health::Unhealthy, 0),
    ] {
        let observed = Observed {
            state,
            health,
            sequence: Sequence(sequence),
            ..task.observed.clone()
        };
        let report = TaskReport {
            task: task.id,
            assignment: binding.assignment,
            restarts: 0,
            will_restart: false,
            observed,
        };
        cluster.send(binding.node, report);
    }
    assert_eq!(
        cluster.state.task(task.id).expect("kept").task.observed,
        task.observed
    );
}

#[test]
fn new_life_of_an_agent_counts_health_anew() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 1));
    cluster.run();
    for _ in 0..5 {
        let task = cluster.occupants(web)[0].task.id;
        cluster.report(task, TaskState::Running, Health::Healthy, false, "");
    }
    cluster.wait(1000);
    cluster.join(1, description(1));
    let task = cluster.occupants(web)[0].task.clone();
    assert_eq!(task.observed.sequence, Sequence(0));
    assert_eq!(cluster.healthy(web), 1, "its tasks are still its tasks");
}

#[test]
fn placement_that_does_not_fit_any_more_is_refused() {
    let mut cluster = Cluster::new(1);
    let mut half = spec("half", 2);
    half.task.resources.cpu = MilliCpu::from_cores(501);
    let half = cluster.create(half);
    cluster.run();
    let waits = cluster.occupants(half);
    let waits = waits
        .iter()
        .find(|e| e.task.binding.is_none())
        .expect("one waits");
    let placement = Placement {
        task: waits.task.id,
        binding: Binding {
            assignment: AssignmentId::from_bits(77),
            node: node_id(1),
            ports: Vec::new(),
            claim: Claim {
                resources: Resources::of(MilliCpu::from_cores(501), Bytes(0)),
                ..Claim::default()
            },
            restarts: 0,
        },
    };
    let applied = cluster.state.apply(&Command::PlaceTasks {
        placements: vec![placement],
        time: TIME,
    });
    assert_eq!(applied.changes.refused, [AssignmentId::from_bits(77)]);
    cluster.state.check_capacity().expect("capacity");
}

#[test]
fn node_that_lives_keeps_its_name_and_one_that_is_down_gives_it_up() {
    let mut cluster = Cluster::new(2);
    let mut thief = description(2);
    thief.name = "n1".to_owned();
    let join = |nth: u64| Command::RegisterNode {
        node: node_id(nth),
        incarnation: Incarnation(u64::MAX),
        description: thief.clone(),
        time: TIME,
    };
    let said = refusal(cluster.state.apply(&join(3)));
    assert_eq!(said.nearest.as_deref(), Some("n1-2"));
    cluster.status(1, NodeStatus::Down);
    cluster.apply(&join(3)).expect("the name is free");
    assert_eq!(
        cluster.state.node_named("n1").expect("known").node.id,
        node_id(3)
    );
}

#[test]
fn node_is_removed_only_when_it_is_down() {
    let mut cluster = Cluster::new(2);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let remove = Command::RemoveNode {
        node: node_id(1),
        time: TIME,
    };
    assert_eq!(
        refusal(cluster.state.apply(&remove)).kind,
        RejectionKind::Conflict
    );
    cluster.status(1, NodeStatus::Down);
    cluster.apply(&remove).expect("down");
    cluster.run();
    assert_eq!(cluster.healthy(web), 2);
    assert!(cluster.state.node(node_id(1)).is_none());
}

#[test]
fn table_names_bound_endpoints_of_ports_that_are_reached() {
    let mut cluster = Cluster::new(2);
    let mut wanted = published("web", 8080);
    wanted.mode = Mode::Replicated { replicas: 2 };
    wanted.ports.push(ballast_model::PortSpec {
        name: "admin".to_owned(),
        target: ballast_model::Target::Dynamic,
        published: None,
        protocol: ballast_model::Protocol::Http,
        balance: None,
        upstream: None,
    });
    let web = cluster.create(wanted);
    let plain = cluster.create(spec("plain", 1));
    let empty = project::service_table(&cluster.state, web).expect("published");
    assert!(empty.ports[0].endpoints.is_empty());
    cluster.run();
    let table = project::service_table(&cluster.state, web).expect("published");
    assert!(table.generation > empty.generation);
    assert_eq!(table.ports.len(), 1, "nobody reaches the other port");
    assert_eq!(table.ports[0].endpoints.len(), 2);
    assert!(
        table.ports[0]
            .endpoints
            .iter()
            .all(|e| e.health == Health::Healthy)
    );
    assert_eq!(project::service_table(&cluster.state, plain), None);
    // Health goes from agent to ingress: it moves no table.
    let task = cluster.occupants(web)[0].task.id;
    cluster.report(task, TaskState::Running, Health::Unhealthy, false, "");
    let after = project::service_table(&cluster.state, web).expect("published");
    assert_eq!(after.generation, table.generation);
}

#[test]
fn table_says_in_which_zone_its_endpoints_are() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(published("web", 8080));
    cluster.run();
    let before = project::service_table(&cluster.state, web).expect("published");
    assert_eq!(before.ports[0].endpoints[0].zone, Some("z1".to_owned()));
    let label = |key: &str| Command::UpdateNode {
        node: node_id(1),
        availability: None,
        labels: BTreeMap::from([(key.to_owned(), Some("b".to_owned()))]),
        taints: Vec::new(),
        untaint: Vec::new(),
        time: Timestamp(9),
    };
    cluster.apply(&label("disk")).expect("is taken");
    let same = project::service_table(&cluster.state, web).expect("published");
    assert_eq!(
        same.generation, before.generation,
        "no other label moves it"
    );
    cluster.apply(&label("zone")).expect("is taken");
    let after = project::service_table(&cluster.state, web).expect("published");
    assert!(after.generation > before.generation);
    assert_eq!(after.ports[0].endpoints[0].zone.as_deref(), Some("b"));
}

#[test]
fn endpoint_stays_in_the_table_until_its_task_has_ended() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(published("web", 8080));
    cluster.run();
    cluster.scale(web, 0);
    cluster.settle();
    let count = |cluster: &Cluster| {
        let table = project::service_table(&cluster.state, web).expect("published");
        table.ports[0].endpoints.len()
    };
    assert_eq!(count(&cluster), 1, "it drains");
    let set = project::assignment_set(&cluster.state, node_id(1));
    assert_eq!(set.assignments[0].desired, Desired::Shutdown);
    cluster.run();
    assert_eq!(count(&cluster), 0);
}

#[test]
fn set_carries_each_template_that_is_still_run() {
    let mut cluster = Cluster::new(1);
    let web = cluster.create(spec("web", 2));
    cluster.run();
    let before = project::assignment_set(&cluster.state, node_id(1));
    cluster.update(web, changed(spec("web", 2), "2"));
    cluster.settle();
    let set = project::assignment_set(&cluster.state, node_id(1));
    assert!(set.generation > before.generation);
    assert_eq!(set.templates.len(), 2);
    cluster.run();
    let set = project::assignment_set(&cluster.state, node_id(1));
    assert_eq!(set.templates.len(), 1);
    assert_eq!(set.templates[0].task.command, ["serve", "2"]);
}

#[test]
fn events_count_up_and_are_bounded() {
    let mut state = State::default();
    state
        .apply(&create(1, spec("web", 1)))
        .result
        .expect("free");
    let event = state.events().after(0).next().expect("one").clone();
    assert_eq!((event.index, event.kind), (1, EventKind::ServiceCreated));
    for _ in 0..ballast_model::limits::EVENTS {
        state
            .apply(&Command::Note(event.clone()))
            .result
            .expect("noted");
    }
    let first = state.events().after(0).next().expect("some").index;
    assert_eq!(first, 2);
    assert_eq!(state.events().after(state.events().last()).count(), 0);
    assert_eq!(state.events().after(state.events().last() - 3).count(), 3);
}

#[test]
fn damaged_snapshot_is_an_error() {
    let mut cluster = Cluster::new(2);
    cluster.create(published("web", 80));
    cluster.run();
    let mut bytes = cluster.state.to_snapshot().expect("encodes");
    assert_eq!(State::from_snapshot(&bytes).expect("reads"), cluster.state);
    assert!(State::from_snapshot(&bytes[..bytes.len() - 1]).is_err());
    bytes.push(0);
    assert!(matches!(
        State::from_snapshot(&bytes),
        Err(SnapshotError::Trailing(1))
    ));
    bytes[0] = 9;
    assert!(matches!(
        State::from_snapshot(&bytes),
        Err(SnapshotError::Version(9))
    ));
    assert!(matches!(
        State::from_snapshot(&[]),
        Err(SnapshotError::Empty)
    ));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let command = Command::InitCluster(ballast_wire::log::ClusterInit {
        cluster: ballast_model::ClusterId::from_bits(1),
        ca_certificate: "cert".to_owned(),
        ca_key: "private".to_owned(),
        agent_secret: ballast_wire::log::JoinSecret("hush".to_owned()),
        ingress_secret: ballast_wire::log::JoinSecret("hush".to_owned()),
        time: TIME,
    });
    let text = format!("{command:?}");
    assert!(
        !text.contains("private") && !text.contains("hush"),
        "{text}"
    );
    let mut state = State::default();
    state.apply(&command).result.expect("founded");
    assert_eq!(refusal(state.apply(&command)).kind, RejectionKind::Conflict);
}

/// Makes a command of small numbers: some are right for the state, many are not.
fn command(state: &State, (kind, a, b, c): (u8, u8, u8, u8)) -> Command {
    let time = Timestamp(state.version().0);
    let service = service_id(u64::from(a % 4));
    let node = node_id(1 + u64::from(b % 3));
    let task = nth_task(state, c);
    match kind % 14 {
        0 => create(u64::from(a % 4), random_spec(a, b, c)),
        1 => Command::UpdateService {
            service,
            expected: b.is_multiple_of(5).then(|| Generation(u64::from(c % 4))),
            spec: random_spec(a, b, c),
            time,
        },
        2 if a.is_multiple_of(2) => Command::RollbackService {
            service,
            expected: None,
            automatic: b.is_multiple_of(3).then(|| "it failed".to_owned()),
            time,
        },
        2 => Command::RemoveService { service, time },
        3 => Command::RegisterNode {
            node,
            incarnation: Incarnation(u64::from(c)),
            description: description(1 + u64::from(b % 3)),
            time,
        },
        4 if a.is_multiple_of(4) => Command::RemoveNode { node, time },
        4 => Command::SetNodeStatus {
            node,
            status: [NodeStatus::Ready, NodeStatus::Suspect, NodeStatus::Down][a as usize % 3],
            time,
        },
        5 => Command::UpdateNode {
            node,
            availability: [None, Some(Availability::Active), Some(Availability::Drain)]
                [a as usize % 3],
            labels: BTreeMap::from([("zone".to_owned(), (c % 2 == 0).then(|| "b".to_owned()))]),
            taints: Vec::new(),
            untaint: Vec::new(),
            time,
        },
        6 | 7 => create_command(state, service, (b, c), time),
        8 | 9 => place_command(task, node, (a, b, c), time),
        10 => Command::SetDesired {
            tasks: vec![task],
            desired: [Desired::Shutdown, Desired::Running][usize::from(a % 5 == 0)],
            reason: "it is told to".to_owned(),
            time,
        },
        11 if a.is_multiple_of(3) => Command::CompleteUpdate {
            service,
            generation: state.service(service).map_or(Generation(1), |s| s.template),
            time,
        },
        11 if a % 3 == 1 => Command::ForgetTasks {
            tasks: vec![task],
            time,
        },
        11 => Command::RegisterIngress {
            ingress: IngressId::from_bits(u64::from(b % 2)),
            name: "edge".to_owned(),
            feed: std::net::SocketAddr::from(([127, 0, 0, 1], u16::from(c))),
            time,
        },
        _ => report_command(state, task, (a, b, c), time),
    }
}

fn create_command(state: &State, service: ServiceId, (b, c): (u8, u8), time: Timestamp) -> Command {
    let entry = state.service(service);
    let global = entry.is_some_and(|entry| matches!(entry.spec.mode, Mode::Global {}));
    let task = NewTask {
        id: TaskId::from_bits(u64::from(c)),
        service,
        generation: entry.map_or(Generation(1), |entry| entry.template),
        slot: Slot(u32::from(b % 4)),
        pinned: global.then(|| node_id(1 + u64::from(b % 3))),
    };
    Command::CreateTasks {
        tasks: vec![task],
        time,
    }
}

fn nth_task(state: &State, nth: u8) -> TaskId {
    let count = state.tasks.len().max(1);
    let known = state.tasks.keys().nth(usize::from(nth) % count);
    known.copied().unwrap_or(TaskId::from_bits(u64::from(nth)))
}

fn random_spec(a: u8, b: u8, c: u8) -> ServiceSpec {
    let mut spec = spec(&format!("s{}", a % 4), u32::from(b % 4));
    if b.is_multiple_of(7) {
        spec.mode = Mode::Global {};
    }
    if b % 7 == 1 {
        spec.mode = Mode::Job {
            completions: 1 + u32::from(c % 3),
            parallelism: 1,
        };
    }
    if c.is_multiple_of(2) {
        spec.ports[0].published = Some(8080 + u16::from(c % 4));
    }
    spec.task.command.push(format!("v{}", c % 3));
    spec
}

fn place_command(
    task: TaskId,
    node: ballast_model::NodeId,
    (a, b, c): (u8, u8, u8),
    time: Timestamp,
) -> Command {
    let port = 20_000 + u16::from(b % 8);
    let claim = Claim {
        resources: Resources::of(MilliCpu::from_cores(u32::from(a) * 2), Bytes(0)),
        ports: vec![port],
        ..Claim::default()
    };
    let ports = vec![PortBinding {
        name: "http".to_owned(),
        port,
    }];
    let binding = Binding {
        assignment: AssignmentId::from_bits(u64::from(c)),
        node,
        ports,
        claim,
        restarts: 3,
    };
    Command::PlaceTasks {
        placements: vec![Placement { task, binding }],
        time,
    }
}

fn report_command(
    state: &State,
    task: TaskId,
    (a, b, c): (u8, u8, u8),
    time: Timestamp,
) -> Command {
    let binding = state
        .task(task)
        .and_then(|entry| entry.task.binding.clone());
    let (assignment, node, restarts) = binding
        .map_or((AssignmentId::from_bits(1), node_id(1), 0), |binding| {
            (binding.assignment, binding.node, binding.restarts)
        });
    let next = a.is_multiple_of(4);
    let report = TaskReport {
        task: if next {
            TaskId::from_bits(1000 + u64::from(c))
        } else {
            task
        },
        assignment,
        restarts: if next { restarts + 1 } else { restarts },
        will_restart: b.is_multiple_of(2),
        observed: Observed {
            state: TaskState::ALL[usize::from(b) % TaskState::ALL.len()],
            health: [Health::Unknown, Health::Healthy, Health::Unhealthy][usize::from(c) % 3],
            sequence: Sequence(u64::from(c % 8)),
            pid: None,
            exit: None,
            message: "ä".repeat(usize::from(c) * 4),
            since: time,
        },
    };
    Command::Report {
        node: if a == 3 { node_id(9) } else { node },
        tasks: vec![report],
        time,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_any_commands_keep_the_invariants_and_replicas_agree(
        draws in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..250),
        cut in 0usize..250,
    ) {
        let (mut first, mut second) = (State::default(), State::default());
        for (place, draw) in draws.into_iter().enumerate() {
            let command = command(&first, draw);
            let applied = first.apply(&command);
            // The log holds bytes, and a replica may start from a snapshot anywhere.
            let bytes = ballast_wire::to_bytes(&command).expect("encodes");
            let read: Command = ballast_wire::from_bytes(&bytes).expect("decodes");
            prop_assert_eq!(second.apply(&read), applied.clone());
            first.check_invariants().map_err(TestCaseError::fail)?;
            first.check_capacity().map_err(TestCaseError::fail)?;
            if place == cut {
                let snapshot = second.to_snapshot().expect("encodes");
                second = State::from_snapshot(&snapshot).expect("decodes");
            }
        }
        prop_assert_eq!(first.to_snapshot().expect("encodes"), second.to_snapshot().expect("encodes"));
    }

    /// What an agent holds that is told only what is different is what it would be told whole.
    #[test]
    fn prop_set_kept_by_changes_is_the_whole_set(
        draws in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..250),
    ) {
        let mut state = State::default();
        let mut held = BTreeMap::new();
        let mut noted: BTreeMap<NodeId, BTreeSet<AssignmentId>> = BTreeMap::new();
        for draw in draws {
            let command = command(&state, draw);
            let changes = state.apply(&command).changes;
            for (node, binding) in &changes.bindings {
                noted.entry(*node).or_default().insert(*binding);
            }
            for node in &changes.nodes {
                let bindings = noted.remove(node).unwrap_or_default();
                let named = changes.bindings.iter().any(|(of, _)| of == node);
                let whole = project::assignment_set(&state, *node);
                if let Some(set) = held.get_mut(node).filter(|_| named) {
                    let set: &mut AssignmentSet = set;
                    let base = set.generation;
                    let changes = project::assignment_changes(&state, *node, base, &bindings);
                    prop_assert!(set.patch(changes));
                    prop_assert_eq!(&*set, &whole);
                } else {
                    held.insert(*node, whole);
                }
            }
        }
    }
}
