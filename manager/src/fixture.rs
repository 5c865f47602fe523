//! A cluster without processes for tests: state, reconciler, and agents that do what they are told.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{
    Availability, Bytes, Capacity, Constraint, Exit, Health, Incarnation, MilliCpu, Mode,
    NodeDescription, NodeId, NodeStatus, Observed, PortSpec, Resources, Sequence, ServiceId,
    ServiceSpec, TaskId, TaskState, TaskTemplate, Timestamp,
};
use ballast_wire::agent::TaskReport;
use ballast_wire::log::Command;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::project::assignment_set;
use crate::reconcile::Reconciler;
use crate::state::{Applied, Lane, Rejection, Response, State, TaskEntry};

/// Steps of the reconciler without anything from outside; more are a busy loop.
const MOST_STEPS: usize = 200;

pub(crate) struct Cluster {
    pub state: State,
    pub reconciler: Reconciler,
    pub rng: StdRng,
    pub now: Timestamp,
    /// Agents that do nothing.
    pub deaf: BTreeSet<NodeId>,
    /// Services whose programs start and never become healthy.
    pub sick: BTreeSet<ServiceId>,
    /// Commands applied, for counting.
    pub applied: usize,
}

pub(crate) fn node_id(nth: u64) -> NodeId {
    NodeId::from_bits(nth)
}

pub(crate) fn description(nth: u64) -> NodeDescription {
    NodeDescription {
        name: format!("n{nth}"),
        address: std::net::IpAddr::from([10, 0, 0, u8::try_from(nth).unwrap_or(250)]),
        capacity: Capacity::of(MilliCpu::from_cores(1000), Bytes::from_mib(1 << 20)),
        attributes: BTreeMap::new(),
        labels: BTreeMap::from([("zone".to_owned(), format!("z{nth}"))]),
        pool: ballast_model::node::DEFAULT_POOL.to_owned(),
    }
}

pub(crate) fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        stack: None,
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas },
        task: TaskTemplate {
            command: vec!["serve".to_owned()],
            resources: Resources::of(MilliCpu(100), Bytes::from_mib(16)),
            ..TaskTemplate::default()
        },
        placement: ballast_model::Placement::default(),
        ports: vec![PortSpec {
            name: "http".to_owned(),
            target: ballast_model::Target::Dynamic,
            published: None,
            protocol: ballast_model::Protocol::Http,
            balance: None,
            upstream: None,
        }],
        routes: Vec::new(),
        update: ballast_model::UpdatePolicy::default(),
    }
}

/// Returns the spec with another program: every task is stale.
pub(crate) fn changed(mut spec: ServiceSpec, version: &str) -> ServiceSpec {
    spec.task.command = vec!["serve".to_owned(), version.to_owned()];
    spec
}

impl Cluster {
    pub fn new(nodes: u64) -> Self {
        let state = State::default();
        let mut cluster = Self {
            reconciler: Reconciler::new(&state),
            state,
            rng: StdRng::seed_from_u64(7),
            now: Timestamp(1_000_000_000),
            deaf: BTreeSet::new(),
            sick: BTreeSet::new(),
            applied: 0,
        };
        for nth in 1..=nodes {
            cluster.join(nth, description(nth));
        }
        cluster
    }

    pub fn join(&mut self, nth: u64, description: NodeDescription) {
        let command = Command::RegisterNode {
            node: node_id(nth),
            incarnation: Incarnation(self.now.0),
            description,
            time: self.now,
        };
        self.apply(&command).expect("a node that can join");
    }

    pub fn apply(&mut self, command: &Command) -> Result<Response, Rejection> {
        let Applied { result, changes } = self.state.apply(command);
        self.reconciler.observe(&self.state, &changes);
        self.applied += 1;
        result
    }

    pub fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let service = ServiceId::from_bits(self.rng.next_u64());
        let command = Command::CreateService {
            service,
            spec,
            time: self.now,
        };
        self.apply(&command).expect("a service that can be made");
        service
    }

    pub fn update(&mut self, service: ServiceId, spec: ServiceSpec) {
        let command = Command::UpdateService {
            service,
            expected: None,
            spec,
            time: self.now,
        };
        self.apply(&command).expect("a spec that can be");
    }

    pub fn scale(&mut self, service: ServiceId, replicas: u32) {
        let mut spec = self.state.service(service).expect("known").spec.clone();
        spec.mode = Mode::Replicated { replicas };
        self.update(service, spec);
    }

    pub fn remove(&mut self, service: ServiceId) {
        let time = self.now;
        self.apply(&Command::RemoveService { service, time })
            .expect("known");
    }

    pub fn status(&mut self, nth: u64, status: NodeStatus) {
        let command = Command::SetNodeStatus {
            node: node_id(nth),
            status,
            time: self.now,
        };
        self.apply(&command).expect("known");
    }

    pub fn availability(&mut self, nth: u64, availability: Availability) {
        let command = Command::UpdateNode {
            node: node_id(nth),
            availability: Some(availability),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            untaint: Vec::new(),
            time: self.now,
        };
        self.apply(&command).expect("known");
    }

    /// Lets the reconciler work until it has nothing to do; returns how many batches it made.
    pub fn settle(&mut self) -> usize {
        let mut batches = 0;
        for _ in 0..MOST_STEPS {
            let due = self.reconciler.next_wake();
            if due.is_none_or(|due| due > self.now) {
                self.check();
                return batches;
            }
            let batch = self.reconciler.step(&self.state, self.now, &mut self.rng);
            batches += usize::from(!batch.is_empty());
            for command in &batch {
                let _ = self.apply(command);
            }
        }
        panic!("the reconciler does not come to rest");
    }

    pub fn check(&self) {
        self.state.check_invariants().expect("invariants");
        self.state.check_capacity().expect("capacity");
        let fresh = Reconciler::new(&self.state);
        let difference = self.reconciler.scheduler().difference(fresh.scheduler());
        assert_eq!(difference, None, "the scheduler's index went astray");
    }

    /// Lets every living agent do what its set says, one step; returns how many reports it made.
    pub fn agents(&mut self) -> usize {
        let nodes: Vec<NodeId> = self
            .state
            .nodes()
            .filter(|entry| entry.node.status == NodeStatus::Ready)
            .map(|entry| entry.node.id)
            .filter(|id| !self.deaf.contains(id))
            .collect();
        let mut reports = 0;
        for node in nodes {
            for assignment in assignment_set(&self.state, node).assignments {
                let entry = self.state.task(assignment.task).expect("a set's task");
                let before = entry.task.observed.clone();
                let sick = self.sick.contains(&assignment.service);
                let (state, health) = match assignment.desired {
                    ballast_model::Desired::Shutdown => (TaskState::Shutdown, Health::Unhealthy),
                    ballast_model::Desired::Running if sick => {
                        (TaskState::Running, Health::Unknown)
                    }
                    ballast_model::Desired::Running => (TaskState::Running, Health::Healthy),
                };
                if before.state.is_terminal() || before.state == state && before.health == health {
                    continue;
                }
                reports += 1;
                self.report(assignment.task, state, health, false, "");
            }
        }
        reports
    }

    /// Lets reconciler and agents work until nothing changes any more.
    pub fn run(&mut self) {
        for _ in 0..MOST_STEPS {
            let batches = self.settle();
            if self.agents() + batches == 0 {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Reports of a task what its agent would.
    pub fn report(
        &mut self,
        task: TaskId,
        state: TaskState,
        health: Health,
        will_restart: bool,
        message: &str,
    ) {
        let entry = self.state.task(task).expect("known");
        let binding = entry.task.binding.clone().expect("bound");
        let report = TaskReport {
            task,
            assignment: binding.assignment,
            restarts: binding.restarts,
            will_restart,
            observed: self.observed(entry, state, health, message),
        };
        self.send(binding.node, report);
    }

    fn observed(
        &self,
        entry: &TaskEntry,
        state: TaskState,
        health: Health,
        message: &str,
    ) -> Observed {
        Observed {
            state,
            health,
            sequence: Sequence(entry.task.observed.sequence.0 + 1),
            pid: (state == TaskState::Running).then_some(42),
            exit: (state == TaskState::Failed).then_some(Exit::Code(1)),
            message: message.to_owned(),
            since: self.now,
        }
    }

    pub fn send(&mut self, node: NodeId, report: TaskReport) {
        let command = Command::Report {
            node,
            tasks: vec![report],
            time: self.now,
        };
        self.apply(&command).expect("reports are never refused");
    }

    /// Ends a task as if its program had: its agent may try again.
    pub fn fail(&mut self, task: TaskId, will_restart: bool) {
        self.report(
            task,
            TaskState::Failed,
            Health::Unhealthy,
            will_restart,
            "exit status 1",
        );
    }

    /// Starts the next try of a binding, as its agent would.
    pub fn restart(&mut self, task: TaskId) -> TaskId {
        let entry = self.state.task(task).expect("known");
        let binding = entry.task.binding.clone().expect("bound");
        let next = TaskId::from_bits(self.rng.next_u64());
        let report = TaskReport {
            task: next,
            assignment: binding.assignment,
            restarts: binding.restarts + 1,
            will_restart: false,
            observed: self.observed(
                self.state.task(task).expect("known"),
                TaskState::Running,
                Health::Healthy,
                "",
            ),
        };
        self.send(binding.node, report);
        next
    }

    /// Returns the tasks that fill a service's lanes, by slot.
    pub fn occupants(&self, service: ServiceId) -> Vec<&TaskEntry> {
        self.state
            .tasks_of(service)
            .filter(|entry| self.state.occupies(entry))
            .collect()
    }

    pub fn slots(&self, service: ServiceId) -> Vec<u32> {
        let slots = self.occupants(service);
        slots.iter().map(|entry| entry.task.slot.0).collect()
    }

    pub fn nodes_of(&self, service: ServiceId) -> Vec<NodeId> {
        let bound = self.occupants(service);
        let nodes = bound.iter().filter_map(|entry| entry.task.binding.as_ref());
        nodes.map(|binding| binding.node).collect()
    }

    pub fn in_slot(&self, service: ServiceId, slot: u32) -> Vec<&TaskEntry> {
        let lane = Lane {
            service,
            slot: ballast_model::Slot(slot),
            pinned: None,
        };
        self.state.lane(lane).collect()
    }

    pub fn healthy(&self, service: ServiceId) -> u32 {
        let entry = self.state.service(service).expect("known");
        crate::views::replicas(&self.state, entry).healthy
    }

    pub fn wait(&mut self, millis: u64) {
        self.now = self.now.saturating_add(ballast_model::Millis(millis));
    }
}

pub(crate) fn constraint(text: &str) -> Constraint {
    text.parse().expect("a constraint")
}
