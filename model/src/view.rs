//! What the API answers: the JSON that `--output json` prints and tools are written against.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AssignmentId, Availability, Desired, Exit, Generation, Health, NodeId, NodeStatus, PortBinding,
    ServiceId, ServiceSpec, Slot, Taint, TaskId, TaskState, Timestamp, Toleration,
};

/// One task: a row of `service ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// The task.
    #[schema(value_type = String)]
    pub id: TaskId,
    /// Its service's name.
    pub service: String,
    /// Its slot.
    #[schema(value_type = u32)]
    pub slot: Slot,
    /// Its node's name; none while it is pending.
    pub node: Option<String>,
    /// Process id on its node.
    pub pid: Option<u32>,
    /// Lifecycle.
    pub state: TaskState,
    /// What the manager wants.
    pub desired: Desired,
    /// Whether it takes traffic.
    pub health: Health,
    /// `ip:port` of its first port.
    pub address: Option<String>,
    /// All its ports.
    pub ports: Vec<PortBinding>,
    /// The version of the spec that it runs.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Why it is in this state.
    pub message: String,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Tries before this one in the same place.
    pub restarts: u32,
    /// Its binding.
    #[schema(value_type = Option<String>)]
    pub assignment: Option<AssignmentId>,
    /// Since when it is in this state.
    #[schema(value_type = String)]
    pub since: Timestamp,
}

/// How many replicas are wanted, run and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Replicas {
    /// Wanted.
    pub desired: u32,
    /// In state `running`.
    pub running: u32,
    /// And healthy.
    pub healthy: u32,
    /// Of a job: ended with status 0.
    pub complete: u32,
}

/// One service: a row of `service ls` and the whole of `service inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// The service.
    #[schema(value_type = String)]
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// The version of its spec.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// What the user asked for.
    pub spec: ServiceSpec,
    /// How far it got.
    pub replicas: Replicas,
    /// Whether a rolling update is under way, paused or done.
    pub update: UpdateView,
    /// Why tasks are pending or fail, worst first; at most ten.
    pub problems: Vec<String>,
    /// Why its tasks are pending and what would help; none while none is, or if another manager
    /// leads.
    #[serde(default)]
    pub pending: Option<PendingView>,
    /// When it was made.
    #[schema(value_type = String)]
    pub created: Timestamp,
    /// When its spec last changed.
    #[schema(value_type = String)]
    pub updated: Timestamp,
}

/// How far a rolling update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateView {
    /// Every task runs the newest spec.
    #[default]
    Completed,
    /// Some still run an older one.
    Updating,
    /// A new task failed; nothing more is replaced until the spec changes.
    Paused,
}

/// CPU and memory as plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ResourcesView {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Tasks.
    pub tasks: u32,
}

/// Why no node takes a task, or which would.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PendingView {
    /// Nodes that were judged.
    pub nodes: u32,
    /// Those that fit; 0 if tasks are pending for want of a node.
    pub fit: u32,
    /// The others, each under the first rule that excludes it; the most frequent first.
    pub excluded: Vec<ExcludedView>,
    /// The node that came nearest.
    pub nearest: Option<NearestView>,
    /// Changes that would make it fit, the smallest first; at most eight.
    pub suggestions: Vec<SuggestionView>,
}

/// How many nodes one rule or one dimension excludes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExcludedView {
    /// The rule in words, as it is true of each of these nodes: `does not meet zone==b`.
    pub reason: String,
    /// How many.
    pub nodes: u32,
}

/// The node that came nearest to taking a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NearestView {
    /// Its name.
    pub node: String,
    /// All that it lacks: `lacks 128 MiB of memory`.
    pub lacks: Vec<String>,
}

/// A change that would make a pending task fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuggestionView {
    /// What to do: `lower --cpu from 4 to 3.5`.
    pub change: String,
    /// How many nodes would fit then.
    pub nodes: u32,
    /// Name of one of them.
    pub node: Option<String>,
}

/// One node: a row of `node ls` and the whole of `node inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// The node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it lives.
    pub status: NodeStatus,
    /// What its operator allows.
    pub availability: Availability,
    /// Where its tasks are reached.
    pub address: String,
    /// What it has.
    pub capacity: ResourcesView,
    /// What is reserved on it.
    pub allocated: ResourcesView,
    /// The operator's labels over the agent's.
    pub labels: BTreeMap<String, String>,
    /// What its agent found out.
    pub attributes: BTreeMap<String, String>,
    /// What keeps tasks away from it.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// The pool it belongs to.
    #[serde(default)]
    pub pool: String,
    /// What of its capacity its pool lets be placed.
    #[serde(default)]
    pub offered: ResourcesView,
    /// Since when it has this status.
    #[schema(value_type = String)]
    pub since: Timestamp,
}

/// A stack: a row of `stack ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StackView {
    /// Its name.
    pub name: String,
    /// Its services' names.
    pub services: Vec<String>,
}

/// The body of `PUT /v1/stacks/{name}`: the stack's services, whole; those it had and that are not
/// in it are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StackSpec {
    /// Their `stack` must be this stack's name.
    pub services: Vec<ServiceSpec>,
}

/// What `PUT /v1/stacks/{name}` did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct StackResult {
    /// Names of services that were made.
    pub created: Vec<String>,
    /// Whose spec changed.
    pub updated: Vec<String>,
    /// Whose spec was the same.
    pub unchanged: Vec<String>,
    /// That are no longer in the stack.
    pub removed: Vec<String>,
}

/// The body of `PATCH /v1/nodes/{id}`; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodePatch {
    /// What may run there.
    pub availability: Option<Availability>,
    /// Labels to set; a null value removes the label.
    pub labels: BTreeMap<String, Option<String>>,
    /// Taints to put on; one of the same key and effect is replaced.
    pub taints: Vec<Taint>,
    /// Which taints to take off before: all that one of these bears.
    pub untaint: Vec<Toleration>,
}

/// The body of `POST /v1/services/{name}/scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Wanted replicas.
    pub replicas: u32,
}

/// A join token and the command that uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// `agent` or `ingress`.
    pub role: String,
    /// The token.
    pub token: String,
    /// Where managers listen for joins.
    pub manager: String,
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:ballast:problem:invalid-field`, …
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// Path of the offending field in the body, where there is one.
    pub field: Option<String>,
    /// The nearest value that would be accepted, where there is one.
    pub nearest: Option<String>,
}

/// One line of a task's log, as `GET /v1/services/{name}/logs` streams them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Whose.
    #[schema(value_type = String)]
    pub task: TaskId,
    /// Its slot.
    #[schema(value_type = u32)]
    pub slot: Slot,
    /// Its node's name.
    pub node: String,
    /// `stdout` or `stderr`.
    pub stream: LogStream,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
