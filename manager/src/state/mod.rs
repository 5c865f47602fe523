//! The replicated state: every manager has the same, as it is a function of the Raft log.
//!
//! [`State::apply`] takes one [`Command`] and gives an answer and the [`Changes`]. It reads no
//! clock, draws nothing, and walks ordered maps only, so that equal logs make equal bytes.
//! Whatever it is handed, it does not panic: what is out of date is ignored or refused, and what
//! an agent may not say is counted in [`State::ignored`].
//!
//! A *lane* is a place to fill: a slot, or for global services a node. Its *occupants* are tasks
//! that wait for a node and *bindings* (assignments). A binding holds its claim from placement to
//! the end of its last try: between two tries of a local restart it is still there.
//!
//! Indexes (lanes, bindings, nodes' bindings, names, ports, routes) are kept by the same steps that
//! change what they index; [`State::check_invariants`] computes them anew for tests.

mod affinity;
mod applied;
mod check;
mod entry;
mod events;
mod nodes;
mod pools;
mod report;
mod services;
mod snapshot;
mod stack;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ballast_model::{
    AssignmentId, Event, EventKind, Generation, IngressId, NodeId, Pool, ServiceId, Slot, TaskId,
    Timestamp,
};
use ballast_scheduler::Learnt;
use ballast_wire::join::JoinRole;
use ballast_wire::log::{ClusterInit, Command};
use serde::{Deserialize, Serialize};

pub use applied::{Applied, Changes, Rejection, RejectionKind, Response};
pub use entry::{
    AssignmentEntry, Ingress, Lane, LaneEntry, NodeEntry, PublishedPort, RouteKey, Service,
    TaskEntry, Template, Update,
};
pub use events::EventLog;
use nodes::NodeChange;
pub use pools::POOLS;
pub use snapshot::SnapshotError;

/// Ingresses in a cluster: each agent keeps a connection to every one.
pub const INGRESSES: usize = 256;

/// Everything the managers agree on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    version: Generation,
    cluster: Option<ClusterInit>,
    services: BTreeMap<ServiceId, Service>,
    names: BTreeMap<String, ServiceId>,
    published: BTreeMap<PublishedPort, ServiceId>,
    routes: BTreeMap<RouteKey, ServiceId>,
    nodes: BTreeMap<NodeId, NodeEntry>,
    node_names: BTreeMap<String, NodeId>,
    ingresses: BTreeMap<IngressId, Ingress>,
    pools: BTreeMap<String, Pool>,
    /// In boxes: making room in the tree for one that is made or goes moves its neighbours.
    tasks: BTreeMap<TaskId, Box<TaskEntry>>,
    lanes: BTreeMap<Lane, LaneEntry>,
    assignments: BTreeMap<AssignmentId, AssignmentEntry>,
    templates: BTreeMap<(ServiceId, Generation), Template>,
    events: EventLog,
    /// What has been asked for lately: leaders pack by it, and so alike.
    learnt: Learnt,
    ignored: u64,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, Default)]
struct About {
    service: Option<ServiceId>,
    task: Option<TaskId>,
    node: Option<NodeId>,
}

impl State {
    /// Returns how many commands were applied: it orders everything that is pushed.
    pub fn version(&self) -> Generation {
        self.version
    }

    /// Returns what the cluster was founded on; none before that.
    pub fn cluster(&self) -> Option<&ClusterInit> {
        self.cluster.as_ref()
    }

    /// Returns every service, also those that are being removed.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Returns a service.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id)
    }

    /// Returns the service with this name; of one that is being removed until it is gone or
    /// another takes the name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.get(self.names.get(name)?)
    }

    /// Returns which service publishes a port.
    pub fn publisher(&self, port: PublishedPort) -> Option<ServiceId> {
        self.published.get(&port).copied()
    }

    /// Returns which service a route leads to.
    pub fn route_owner(&self, route: &RouteKey) -> Option<ServiceId> {
        self.routes.get(route).copied()
    }

    /// Returns every node.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeEntry> {
        self.nodes.values()
    }

    /// Returns a node.
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&id)
    }

    /// Returns the node with this name.
    pub fn node_named(&self, name: &str) -> Option<&NodeEntry> {
        self.nodes.get(self.node_names.get(name)?)
    }

    /// Returns every ingress.
    pub fn ingresses(&self) -> impl Iterator<Item = &Ingress> {
        self.ingresses.values()
    }

    /// Returns an ingress.
    pub fn ingress(&self, id: IngressId) -> Option<&Ingress> {
        self.ingresses.get(&id)
    }

    /// Returns every task that lives or is kept as history.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskEntry> {
        self.tasks.values().map(Box::as_ref)
    }

    /// Returns a task.
    pub fn task(&self, id: TaskId) -> Option<&TaskEntry> {
        self.tasks.get(&id).map(Box::as_ref)
    }

    /// Returns a binding.
    pub fn assignment(&self, id: AssignmentId) -> Option<&AssignmentEntry> {
        self.assignments.get(&id)
    }

    /// Returns the part of a spec that tasks of this generation are made from.
    pub fn template(&self, service: ServiceId, generation: Generation) -> Option<&Template> {
        self.templates.get(&(service, generation))
    }

    /// Returns a lane's tasks, oldest first.
    pub fn lane(&self, lane: Lane) -> impl DoubleEndedIterator<Item = &TaskEntry> {
        let entry = self.lanes.get(&lane);
        entry
            .map_or(&[][..], |entry| &entry.tasks)
            .iter()
            .filter_map(|id| self.task(*id))
    }

    /// Returns what is kept of a lane besides its tasks.
    pub fn lane_entry(&self, lane: Lane) -> Option<&LaneEntry> {
        self.lanes.get(&lane)
    }

    /// Returns the lanes of a service that have tasks, in order.
    pub fn lanes(&self, service: ServiceId) -> impl Iterator<Item = (Lane, &LaneEntry)> {
        let first = Lane {
            service,
            slot: Slot(0),
            pinned: None,
        };
        self.lanes
            .range(first..)
            .take_while(move |(lane, _)| lane.service == service)
            .map(|(lane, entry)| (*lane, entry))
    }

    /// Returns a service's tasks: by slot, oldest first.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &TaskEntry> {
        self.lanes(service)
            .flat_map(|(_, lane)| &lane.tasks)
            .filter_map(|id| self.task(*id))
    }

    /// Returns what happened.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Returns what the scheduler packs devices by: which tasks have been made lately.
    pub fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    /// Returns how many reports and commands were ignored as illegal or out of date.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Returns whether a task fills its lane: it waits for a node, runs, or is between two tries.
    pub fn occupies(&self, entry: &TaskEntry) -> bool {
        if !entry.task.observed.state.is_terminal() {
            return true;
        }
        let Some(binding) = &entry.task.binding else {
            return false;
        };
        self.assignments
            .get(&binding.assignment)
            .is_some_and(|assignment| assignment.task == entry.task.id)
    }

    /// Applies a whole log entry; its commands' answers come in their order.
    pub fn apply_batch(&mut self, batch: &[Command]) -> Vec<Applied> {
        batch.iter().map(|command| self.apply(command)).collect()
    }

    /// Changes the state by one command.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.version = self.version.next();
        let mut changes = Changes::default();
        let result = self.dispatch(command, &mut changes);
        for node in &changes.nodes {
            if let Some(entry) = self.nodes.get_mut(node) {
                entry.version = self.version;
            }
        }
        for service in &changes.services {
            if let Some(entry) = self.services.get_mut(service) {
                entry.table = self.version;
            }
        }
        Applied { result, changes }
    }

    fn dispatch(&mut self, command: &Command, out: &mut Changes) -> Result<Response, Rejection> {
        match command {
            Command::CreateService { .. }
            | Command::UpdateService { .. }
            | Command::RollbackService { .. }
            | Command::RemoveService { .. }
            | Command::CompleteUpdate { .. }
            | Command::PauseUpdate { .. } => return self.apply_service(command, out),
            Command::DeployStack {
                stack,
                services,
                time,
            } => return self.deploy_stack(stack, services, *time, out),
            Command::InitCluster(_)
            | Command::RotateJoinSecret { .. }
            | Command::RegisterNode { .. }
            | Command::UpdateNode { .. }
            | Command::SetNodeStatus { .. }
            | Command::RemoveNode { .. }
            | Command::RegisterIngress { .. }
            | Command::RemoveIngress { .. }
            | Command::SetPool { .. }
            | Command::RemovePool { .. } => return self.apply_fleet(command, out),
            Command::CreateTasks { tasks, time } => self.create_tasks(tasks, *time, out),
            Command::PlaceTasks { placements, time } => self.place_tasks(placements, *time, out),
            Command::SetDesired {
                tasks,
                desired,
                reason,
                time,
            } => self.set_desired(tasks, *desired, reason, *time, out),
            Command::SetPending { tasks, time } => self.set_pending(tasks, *time),
            Command::Report { node, tasks, time } => self.apply_report(*node, tasks, *time, out),
            Command::ForgetTasks { tasks, .. } => self.forget_tasks(tasks),
            Command::Note(event) => self.events.push(event.clone()),
        }
        Ok(Response::Done)
    }

    fn apply_fleet(&mut self, command: &Command, out: &mut Changes) -> Result<Response, Rejection> {
        match command {
            Command::InitCluster(init) => self.init_cluster(init)?,
            Command::RotateJoinSecret { role, secret, .. } => {
                let cluster = self.cluster.as_mut().ok_or_else(|| {
                    Rejection::new(RejectionKind::NotFound, "the cluster is not founded yet")
                })?;
                match role {
                    JoinRole::Agent => cluster.agent_secret = secret.clone(),
                    JoinRole::Ingress => cluster.ingress_secret = secret.clone(),
                }
            }
            Command::RegisterNode {
                node,
                incarnation,
                description,
                time,
            } => self.register_node(*node, *incarnation, description, *time, out)?,
            Command::UpdateNode {
                node,
                availability,
                labels,
                taints,
                untaint,
                time,
            } => {
                let change = NodeChange {
                    availability: *availability,
                    labels,
                    taints,
                    untaint,
                };
                self.update_node(*node, &change, *time, out)?;
            }
            Command::SetNodeStatus { node, status, time } => {
                self.set_node_status(*node, *status, *time, out)?;
            }
            Command::RemoveNode { node, time } => self.remove_node(*node, *time, out)?,
            Command::RegisterIngress {
                ingress,
                name,
                feed,
                ..
            } => self.register_ingress(*ingress, name, *feed, out)?,
            Command::RemoveIngress { ingress, .. } => {
                out.ingresses |= self.ingresses.remove(ingress).is_some();
            }
            Command::SetPool { pool, time } => self.set_pool(pool, *time, out)?,
            Command::RemovePool { name, time } => self.remove_pool(name, *time, out)?,
            _ => unreachable!("dispatch sends only the fleet's commands here"),
        }
        Ok(Response::Done)
    }

    fn init_cluster(&mut self, init: &ClusterInit) -> Result<(), Rejection> {
        if self.cluster.is_some() {
            let reason = "the cluster is already founded";
            return Err(Rejection::new(RejectionKind::Conflict, reason));
        }
        self.cluster = Some(init.clone());
        Ok(())
    }

    /// Appends an event; names are looked up now, as what they name may be gone later.
    fn note(&mut self, kind: EventKind, time: Timestamp, about: About, message: &str) {
        let name = |id| {
            self.services
                .get(&id)
                .map(|s: &Service| s.spec.name.clone())
        };
        let node_name = |id| {
            let entry: Option<&NodeEntry> = self.nodes.get(&id);
            entry.map(|n| n.node.description.name.clone())
        };
        self.events.push(Event {
            index: 0,
            time,
            kind,
            service: about.service,
            service_name: about.service.and_then(name),
            task: about.task,
            node: about.node,
            node_name: about.node.and_then(node_name),
            message: message.to_owned(),
        });
    }
}

/// Returns the text, cut to what a message may have, at a character's end.
fn cut(text: &str) -> String {
    let most = ballast_model::limits::MESSAGE_BYTES;
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
