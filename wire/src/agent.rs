//! Agent ↔ manager: registration, assignments down, reports up, logs, certificates.

use ballast_model::view::LogStream;
use ballast_model::{
    AssignmentId, Claim, ClusterId, Desired, Generation, Incarnation, IngressId, Millis,
    NodeDescription, NodeId, Observed, PortBinding, PortSpec, ServiceId, Slot, TaskId,
    TaskTemplate,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What an agent says to the leader.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is said once on a connection, and messages are not kept"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentToManager {
    /// First on every connection.
    Hello(AgentHello),
    /// It lives; every [`ballast_model::limits::HEARTBEAT_INTERVAL`] unless
    /// [`ManagerToAgent::Beat`] says otherwise.
    Heartbeat,
    /// Tasks whose state, health or try changed since the last report.
    Report(Vec<TaskReport>),
    /// It has acted on this set: what it was told to start is starting.
    Applied(Generation),
    /// Lines that were asked for by [`ManagerToAgent::ReadLogs`].
    LogLines(LogLines),
    /// Wants a new certificate for the same node and role.
    Renew {
        /// PKCS #10, DER.
        csr: Vec<u8>,
    },
}

/// Who speaks, and all it knows: the manager's view is corrected by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHello {
    /// Must be the node of its certificate.
    pub node: NodeId,
    /// This life of the agent.
    pub incarnation: Incarnation,
    /// The machine.
    pub description: NodeDescription,
    /// The set it last acted on; 0 if none.
    pub generation: Generation,
    /// The newest try of every assignment it knows, and tries that ended unreported.
    pub tasks: Vec<TaskReport>,
}

/// What an agent saw of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The try.
    pub task: TaskId,
    /// The binding it runs under.
    pub assignment: AssignmentId,
    /// Tries before this one within the binding. A report with a higher count than the manager
    /// knows is a local restart: it makes this task and ends the one before.
    pub restarts: u32,
    /// Whether, ended, it will be followed by another try on this node.
    pub will_restart: bool,
    /// What it is like.
    pub observed: Observed,
}

/// Lines of one task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// The request they answer.
    pub request: u64,
    /// Stream and line, without its end.
    pub lines: Vec<(LogStream, Vec<u8>)>,
    /// No more will follow; with the reason if there is one (no such task here).
    pub end: Option<String>,
}

/// What the leader says to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerToAgent {
    /// Answers [`AgentToManager::Hello`].
    Welcome {
        /// The cluster; must be that of the agent's certificate.
        cluster: ClusterId,
    },
    /// Everything the node shall run: what is not in it is to be stopped.
    Assignments(AssignmentSet),
    /// Every ingress to push health to.
    Ingresses(Vec<IngressAddress>),
    /// Send the last `tail` lines of this assignment's log, and what follows if asked.
    ReadLogs {
        /// Chosen by the manager; comes back with the lines.
        request: u64,
        /// Whose log.
        assignment: AssignmentId,
        /// Lines.
        tail: u32,
        /// Go on sending until cancelled.
        follow: bool,
    },
    /// Nobody reads this request's lines any more.
    CancelLogs {
        /// Which.
        request: u64,
    },
    /// Answers [`AgentToManager::Renew`]: leaf first, then the CA; DER.
    Certificate(Vec<Vec<u8>>),
    /// This manager does not lead: connect to that one.
    Redirect {
        /// The leader's address for links, if one is known.
        leader: Option<SocketAddr>,
    },
    /// The link will be closed; the reason is for the agent's log.
    Refused(String),
    /// What is different since the set before on this link; the first one on a link is whole.
    Changes(AssignmentChanges),
    /// Send [`AgentToManager::Heartbeat`] this often from now on.
    Beat(Millis),
}

/// All that one node shall run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AssignmentSet {
    /// Orders sets: an agent never acts on a lower one than it has seen from this cluster.
    pub generation: Generation,
    /// Each version of each service that `assignments` refers to, once; in order of both.
    pub templates: Vec<AssignedTemplate>,
    /// One for each binding on this node whose task has not ended; in order of their names.
    pub assignments: Vec<Assignment>,
}

impl AssignmentSet {
    /// Takes over what is different; returns whether it could be. It cannot if it is a change of
    /// another set: nothing was changed then, and the link is out of step and must be closed.
    #[must_use]
    pub fn patch(&mut self, changes: AssignmentChanges) -> bool {
        if changes.base != self.generation {
            return false;
        }
        self.generation = changes.generation;
        let mut orphans = false;
        for id in changes.removed {
            if let Ok(at) = self.find(id) {
                self.assignments.remove(at);
                orphans = true;
            }
        }
        for assignment in changes.assignments {
            match self.find(assignment.assignment) {
                Ok(at) => self.assignments[at] = assignment,
                Err(at) => self.assignments.insert(at, assignment),
            }
        }
        let key = |template: &AssignedTemplate| (template.service, template.generation);
        for template in changes.templates {
            match self.templates.binary_search_by_key(&key(&template), key) {
                Ok(at) => self.templates[at] = template,
                Err(at) => self.templates.insert(at, template),
            }
        }
        if orphans {
            let named = self.assignments.iter().map(|a| (a.service, a.generation));
            let named: BTreeSet<_> = named.collect();
            self.templates
                .retain(|template| named.contains(&key(template)));
        }
        true
    }

    fn find(&self, id: AssignmentId) -> Result<usize, usize> {
        self.assignments
            .binary_search_by_key(&id, |assignment| assignment.assignment)
    }
}

/// What is different in a node's set since the one before on the same link: a node with hundreds of
/// tasks is not told of all of them whenever one changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AssignmentChanges {
    /// The generation of the set that this changes.
    pub base: Generation,
    /// The generation of the set that it makes.
    pub generation: Generation,
    /// Each version of each service that `assignments` refers to, once.
    pub templates: Vec<AssignedTemplate>,
    /// New, or different from the one of the same name.
    pub assignments: Vec<Assignment>,
    /// No longer in the set.
    pub removed: Vec<AssignmentId>,
}

/// The part of a service's spec that running a task needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTemplate {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// The version of its spec.
    pub generation: Generation,
    /// What to run.
    pub task: TaskTemplate,
    /// The ports it serves.
    pub ports: Vec<PortSpec>,
    /// Whether it runs to completion: an exit with status 0 is never followed by another try.
    pub job: bool,
}

/// One binding of a slot to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its name.
    pub assignment: AssignmentId,
    /// The newest try that the manager knows; the agent uses it for its first.
    pub task: TaskId,
    /// Tries before that one.
    pub restarts: u32,
    /// Which template.
    pub service: ServiceId,
    /// Which version of it.
    pub generation: Generation,
    /// The slot.
    pub slot: Slot,
    /// Its ports on this node.
    pub ports: Vec<PortBinding>,
    /// What it may use.
    pub claim: Claim,
    /// Run, or deregister, drain and stop.
    pub desired: Desired,
}

/// Where an ingress listens for health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressAddress {
    /// Must be the ingress of its certificate.
    pub ingress: IngressId,
    /// Its feed listener.
    pub address: SocketAddr,
}
