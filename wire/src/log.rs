//! The commands in the Raft log: everything that changes replicated state.
//!
//! Whoever proposes a command has drawn its ids and read its clock before, so that applying one is
//! a function of (state, command). One log entry is a [`Batch`]: its commands are applied in order,
//! each on its own; one that is refused does not undo the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ballast_model::{
    Availability, Binding, ClusterId, Desired, Event, Generation, Incarnation, IngressId,
    NodeDescription, NodeId, NodeStatus, Pool, ServiceId, ServiceSpec, Slot, Taint, TaskId,
    Timestamp, Toleration,
};
use serde::{Deserialize, Serialize};

use crate::agent::TaskReport;
use crate::join::JoinRole;

/// One log entry.
pub type Batch = Vec<Command>;

/// Commands in one entry at most; a proposer that has more makes several entries.
/// With a report of a few hundred bytes each, an entry stays far below [`crate::frame::MAX_FRAME`].
pub const BATCH_COMMANDS: usize = 4096;

/// One change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The cluster comes to be: refused if it already is.
    InitCluster(ClusterInit),
    /// A new join secret; the old one is worth nothing any more.
    RotateJoinSecret {
        /// Whose.
        role: JoinRole,
        /// The new one.
        secret: JoinSecret,
        /// When.
        time: Timestamp,
    },
    /// A service is made.
    CreateService {
        /// Its id, drawn by the proposer.
        service: ServiceId,
        /// What is wanted; validated.
        spec: ServiceSpec,
        /// When.
        time: Timestamp,
    },
    /// A service's spec is replaced.
    UpdateService {
        /// Which.
        service: ServiceId,
        /// The generation that the user saw; refused if there is a newer one.
        expected: Option<Generation>,
        /// What is wanted; validated, and with the same name.
        spec: ServiceSpec,
        /// When.
        time: Timestamp,
    },
    /// The spec before the last update comes back.
    RollbackService {
        /// Which.
        service: ServiceId,
        /// The generation to leave; refused if there is a newer one.
        expected: Option<Generation>,
        /// Why the manager does it by itself; none if a user asked.
        automatic: Option<String>,
        /// When.
        time: Timestamp,
    },
    /// A service and all its tasks end.
    RemoveService {
        /// Which.
        service: ServiceId,
        /// When.
        time: Timestamp,
    },
    /// A stack's services, whole: made, updated and removed in one step, or not at all.
    DeployStack {
        /// The stack's name.
        stack: String,
        /// Every service it shall have; none removes the stack.
        services: Vec<StackService>,
        /// When.
        time: Timestamp,
    },
    /// An agent said hello: a new node, or what is new about one.
    RegisterNode {
        /// Which; of its certificate.
        node: NodeId,
        /// This life of its agent.
        incarnation: Incarnation,
        /// Its machine.
        description: NodeDescription,
        /// When.
        time: Timestamp,
    },
    /// An operator changed what a node may take, its labels or its taints.
    UpdateNode {
        /// Which.
        node: NodeId,
        /// What may run there; stays if none.
        availability: Option<Availability>,
        /// Labels to set; none removes one.
        labels: BTreeMap<String, Option<String>>,
        /// Taints to put on; one of the same key and effect is replaced.
        taints: Vec<Taint>,
        /// Which taints to take off before: all that one of these bears.
        untaint: Vec<Toleration>,
        /// When.
        time: Timestamp,
    },
    /// The leader's lease of a node changed.
    SetNodeStatus {
        /// Which.
        node: NodeId,
        /// Whether it lives.
        status: NodeStatus,
        /// When.
        time: Timestamp,
    },
    /// A node will not come back; refused while it is ready.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// When.
        time: Timestamp,
    },
    /// An ingress said hello.
    RegisterIngress {
        /// Which; of its certificate.
        ingress: IngressId,
        /// For people.
        name: String,
        /// Where agents push health to.
        feed: SocketAddr,
        /// When.
        time: Timestamp,
    },
    /// An ingress is gone.
    RemoveIngress {
        /// Which.
        ingress: IngressId,
        /// When.
        time: Timestamp,
    },
    /// The reconciler makes tasks; they are pending.
    CreateTasks {
        /// Which.
        tasks: Vec<NewTask>,
        /// When.
        time: Timestamp,
    },
    /// The scheduler found nodes; each binding is checked again when applied.
    PlaceTasks {
        /// What goes where.
        placements: Vec<Placement>,
        /// When.
        time: Timestamp,
    },
    /// The reconciler wants tasks to end (or to run; that only before they have been told to end).
    SetDesired {
        /// Which.
        tasks: Vec<TaskId>,
        /// What is wanted of them.
        desired: Desired,
        /// Why, for `service ps`; empty if there is nothing to say.
        reason: String,
        /// When.
        time: Timestamp,
    },
    /// Why tasks are not placed.
    SetPending {
        /// Which, and why.
        tasks: Vec<(TaskId, String)>,
        /// When.
        time: Timestamp,
    },
    /// An agent reported.
    Report {
        /// The node of its certificate: what it says of other nodes' tasks is ignored.
        node: NodeId,
        /// What it saw.
        tasks: Vec<TaskReport>,
        /// When it arrived.
        time: Timestamp,
    },
    /// A rolling update is through.
    CompleteUpdate {
        /// Whose.
        service: ServiceId,
        /// Which version; ignored if there is a newer one.
        generation: Generation,
        /// When.
        time: Timestamp,
    },
    /// A rolling update stops until the user decides.
    PauseUpdate {
        /// Whose.
        service: ServiceId,
        /// Which version; ignored if there is a newer one.
        generation: Generation,
        /// Why.
        reason: String,
        /// When.
        time: Timestamp,
    },
    /// Ended tasks are forgotten.
    ForgetTasks {
        /// Which; those that have not ended stay.
        tasks: Vec<TaskId>,
        /// When.
        time: Timestamp,
    },
    /// A pool's shares.
    SetPool {
        /// Which, and how much of its nodes may be placed; validated.
        pool: Pool,
        /// When.
        time: Timestamp,
    },
    /// A pool offers all that its nodes have again.
    RemovePool {
        /// Which.
        name: String,
        /// When.
        time: Timestamp,
    },
    /// Something happened that is no change of state; its index is given when it is applied.
    Note(Event),
}

/// A secret that lets a machine join; kept out of debug output, which ends up in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinSecret(pub String);

impl std::fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

/// All that a cluster is founded on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInit {
    /// Its name in every certificate.
    pub cluster: ClusterId,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// The CA's key, PEM. Every manager needs it: each may have to sign.
    pub ca_key: String,
    /// What an agent joins with.
    pub agent_secret: JoinSecret,
    /// What an ingress joins with.
    pub ingress_secret: JoinSecret,
    /// When.
    pub time: Timestamp,
}

impl std::fmt::Debug for ClusterInit {
    /// Leaves key and secrets out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterInit")
            .field("cluster", &self.cluster)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// One service of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackService {
    /// Its id if it has to be made; drawn by the proposer.
    pub id: ServiceId,
    /// What is wanted; validated, and its `stack` is the stack's name.
    pub spec: ServiceSpec,
}

/// A task to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its id, drawn by the proposer.
    pub id: TaskId,
    /// Whose.
    pub service: ServiceId,
    /// The template it was planned with; ignored if there is a newer one.
    pub generation: Generation,
    /// Which slot it fills.
    pub slot: Slot,
    /// The node it is for: of a global service's tasks only.
    pub pinned: Option<NodeId>,
}

/// A task and the place that was found for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which task.
    pub task: TaskId,
    /// Node, ports and claim; its assignment was drawn by the proposer.
    pub binding: Binding,
}
