//! What a change would do: asked for with [`PlanRequest`], answered with [`PlanView`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::view::PendingView;
use crate::{Generation, ServiceSpec, Slot};

/// The body of `POST /v1/plan`: a change that is tried on a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PlanRequest {
    /// A stack is deployed: exactly these services; none removes it.
    Stack {
        /// The stack's name.
        name: String,
        /// Every service it shall have.
        services: Vec<ServiceSpec>,
    },
    /// A service is made, or its spec replaced if there is one of this name.
    Service(Box<ServiceSpec>),
    /// A replicated service is scaled.
    Scale {
        /// Its name.
        service: String,
        /// Wanted replicas.
        replicas: u32,
    },
    /// A service is removed.
    RemoveService {
        /// Its name.
        service: String,
    },
    /// A node is drained.
    Drain {
        /// Its name or id.
        node: String,
    },
    /// Tasks are moved although nothing is wrong with them.
    Rebalance(Rebalance),
}

/// The body of `POST /v1/rebalance`: what tasks are moved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rebalance {
    /// To empty whole nodes; otherwise to even services out that spread.
    pub defragment: bool,
}

/// What a change would do to tasks, if every program that is started answers and every one that is
/// told to end does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// The state's version that it was planned on.
    #[schema(value_type = u64)]
    pub version: Generation,
    /// Whether no task of what is changed would be left without a node.
    pub fits: bool,
    /// Whether the end was reached; otherwise more follows than was looked at.
    pub complete: bool,
    /// Services that change, or whose tasks do, by name.
    pub services: Vec<ServicePlan>,
    /// Tasks that start, stop or move, by service and slot.
    pub changes: Vec<TaskChange>,
    /// Tasks that would find no node.
    pub pending: Vec<PlannedPending>,
}

/// What becomes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServicePlan {
    /// Its name.
    pub name: String,
    /// What happens to its spec.
    pub action: ServiceAction,
    /// Replicas wanted before.
    pub replicas_before: u32,
    /// Replicas wanted afterwards.
    pub replicas_after: u32,
    /// Tasks that start in places that were empty.
    pub start: u32,
    /// Tasks that stop and are not replaced.
    pub stop: u32,
    /// Tasks that are replaced by ones of a newer spec.
    pub replace: u32,
    /// Tasks that go to another node as they are.
    pub r#move: u32,
    /// Tasks that would find no node.
    pub pending: u32,
    /// Which nodes could take one of its tasks before any was placed; none if none is placed.
    pub nodes: Option<PendingView>,
}

/// What happens to a service's spec.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAction {
    /// It is made.
    Create,
    /// It changes so that its tasks are replaced.
    Update,
    /// It changes, and its running tasks stay as they are.
    Adjust,
    /// It is removed.
    Remove,
    /// Nothing; if it is listed, its tasks are affected by something else.
    Keep,
}

/// What becomes of one place of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskChange {
    /// The service's name.
    pub service: String,
    /// The slot; 0 for global services.
    #[schema(value_type = u32)]
    pub slot: Slot,
    /// What happens.
    pub action: TaskAction,
    /// Name of the node where a task stops.
    pub from: Option<String>,
    /// Name of the node where a task starts.
    pub to: Option<String>,
    /// Whether it begins at once.
    pub when: PlanWhen,
    /// Why.
    pub why: String,
}

/// What happens in one place of a service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskAction {
    /// A task starts where there was none.
    Start,
    /// A task stops and is not replaced.
    Stop,
    /// A task of a newer spec takes its place.
    Replace,
    /// It goes to another node as it is.
    Move,
}

/// When a change begins.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum PlanWhen {
    /// At once.
    Now,
    /// Once what is before it has started or ended.
    Later,
}

/// A task that would find no node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPending {
    /// The service's name.
    pub service: String,
    /// The slot; 0 for global services.
    #[schema(value_type = u32)]
    pub slot: Slot,
    /// Name of the node where the task that it was to replace stays.
    pub stays: Option<String>,
    /// Why no node takes it.
    pub why: String,
}
