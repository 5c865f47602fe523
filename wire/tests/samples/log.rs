//! One command of each kind.

use std::collections::BTreeMap;

use ballast_model::{
    Availability, Bytes, Desired, Event, EventKind, Generation, Incarnation, MilliCpu, NodeStatus,
    Pool, Slot,
};
use ballast_wire::join::JoinRole;
use ballast_wire::log::{ClusterInit, Command, JoinSecret, NewTask, Placement, StackService};

use super::{
    ASSIGNMENT, CLUSTER, INGRESS, NODE, SERVICE, Sample, TASK, TIME, binding, description, report,
    spec,
};

super::named!(command -> Command: "command", COMMAND,
    InitCluster, RotateJoinSecret, CreateService, UpdateService, RollbackService, RemoveService,
    DeployStack, RegisterNode, UpdateNode, SetNodeStatus, RemoveNode, RegisterIngress,
    RemoveIngress, SetPool, RemovePool, CreateTasks, PlaceTasks, SetDesired, SetPending, Report, CompleteUpdate,
    PauseUpdate, ForgetTasks, Note);

pub fn commands() -> Vec<Sample<Command>> {
    let all = cluster_and_services()
        .into_iter()
        .chain(nodes())
        .chain(tasks());
    all.map(command).collect()
}

fn secret(text: &str) -> JoinSecret {
    JoinSecret(text.to_owned())
}

fn cluster_and_services() -> Vec<Command> {
    vec![
        Command::InitCluster(ClusterInit {
            cluster: CLUSTER,
            ca_certificate: "CERT".to_owned(),
            ca_key: "KEY".to_owned(),
            agent_secret: secret("a"),
            ingress_secret: secret("i"),
            time: TIME,
        }),
        Command::RotateJoinSecret {
            role: JoinRole::Ingress,
            secret: secret("j"),
            time: TIME,
        },
        Command::CreateService {
            service: SERVICE,
            spec: spec(),
            time: TIME,
        },
        Command::UpdateService {
            service: SERVICE,
            expected: Some(Generation(3)),
            spec: spec(),
            time: TIME,
        },
        Command::RollbackService {
            service: SERVICE,
            expected: None,
            automatic: Some("a new task failed".to_owned()),
            time: TIME,
        },
        Command::RemoveService {
            service: SERVICE,
            time: TIME,
        },
        Command::DeployStack {
            stack: "shop".to_owned(),
            services: vec![StackService {
                id: SERVICE,
                spec: spec(),
            }],
            time: TIME,
        },
    ]
}

fn nodes() -> Vec<Command> {
    vec![
        Command::RegisterNode {
            node: NODE,
            incarnation: Incarnation(1_800_000_000_000_000),
            description: description(),
            time: TIME,
        },
        Command::UpdateNode {
            node: NODE,
            availability: Some(Availability::Drain),
            labels: BTreeMap::from([
                ("rack".to_owned(), Some("r1".to_owned())),
                ("zone".to_owned(), None),
            ]),
            taints: vec!["gpu=yes:NoSchedule".parse().expect("a taint")],
            untaint: vec!["spot".parse().expect("a toleration")],
            time: TIME,
        },
        Command::SetNodeStatus {
            node: NODE,
            status: NodeStatus::Suspect,
            time: TIME,
        },
        Command::RemoveNode {
            node: NODE,
            time: TIME,
        },
        Command::SetPool {
            pool: Pool {
                name: "batch".to_owned(),
                overcommit_cpu_percent: 150,
                overcommit_memory_percent: 100,
                reserved_cpu: MilliCpu(500),
                reserved_memory: Bytes::from_mib(512),
            },
            time: TIME,
        },
        Command::RemovePool {
            name: "batch".to_owned(),
            time: TIME,
        },
        Command::RegisterIngress {
            ingress: INGRESS,
            name: "edge".to_owned(),
            feed: "10.0.0.9:7430".parse().expect("an address"),
            time: TIME,
        },
        Command::RemoveIngress {
            ingress: INGRESS,
            time: TIME,
        },
    ]
}

fn tasks() -> Vec<Command> {
    vec![
        Command::CreateTasks {
            tasks: vec![NewTask {
                id: TASK,
                service: SERVICE,
                generation: Generation(3),
                slot: Slot(4),
                pinned: Some(NODE),
            }],
            time: TIME,
        },
        Command::PlaceTasks {
            placements: vec![Placement {
                task: TASK,
                binding: binding(),
            }],
            time: TIME,
        },
        Command::SetDesired {
            tasks: vec![TASK],
            desired: Desired::Shutdown,
            reason: "scaled down".to_owned(),
            time: TIME,
        },
        Command::SetPending {
            tasks: vec![(TASK, "there is no node".to_owned())],
            time: TIME,
        },
        Command::Report {
            node: NODE,
            tasks: vec![report()],
            time: TIME,
        },
        Command::CompleteUpdate {
            service: SERVICE,
            generation: Generation(3),
            time: TIME,
        },
        Command::PauseUpdate {
            service: SERVICE,
            generation: Generation(3),
            reason: format!("assignment {ASSIGNMENT} failed"),
            time: TIME,
        },
        Command::ForgetTasks {
            tasks: vec![TASK],
            time: TIME,
        },
        Command::Note(Event {
            index: 0,
            time: TIME,
            kind: EventKind::LeaderElected,
            service: Some(SERVICE),
            service_name: Some("web".to_owned()),
            task: Some(TASK),
            node: Some(NODE),
            node_name: Some("n1".to_owned()),
            message: "term 2".to_owned(),
        }),
    ]
}
