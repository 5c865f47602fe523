//! What happened, for `ballast events` and for people who ask why.

use serde::{Deserialize, Serialize};

use crate::{NodeId, ServiceId, TaskId, Timestamp};

/// Something that happened. Kept by the manager up to [`crate::limits::EVENTS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Counts up; a client that follows asks for what comes after the last it has.
    pub index: u64,
    /// When, by the clock of the manager that proposed it.
    #[schema(value_type = String, example = "2026-01-31T12:00:00.000000Z")]
    pub time: Timestamp,
    /// What: `service.created`, `task.running`, `node.down`, …
    pub kind: EventKind,
    /// The service it is about.
    #[schema(value_type = Option<String>)]
    pub service: Option<ServiceId>,
    /// That service's name.
    pub service_name: Option<String>,
    /// The task it is about.
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// The node it is about.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<String>,
    /// In words; may be empty.
    pub message: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What an event says.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            utoipa::ToSchema,
        )]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl std::fmt::Display for EventKind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

kinds! {
    /// A service was made.
    ServiceCreated = "service.created",
    /// Its spec changed.
    ServiceUpdated = "service.updated",
    /// It was removed; its tasks stop.
    ServiceRemoved = "service.removed",
    /// A rolling update is under way.
    UpdateStarted = "service.update_started",
    /// Every task runs the new spec.
    UpdateCompleted = "service.update_completed",
    /// It stopped because a new task failed.
    UpdatePaused = "service.update_paused",
    /// No node fits; the message says why.
    TaskPending = "task.pending",
    /// Bound to a node.
    TaskAssigned = "task.assigned",
    /// It runs.
    TaskRunning = "task.running",
    /// It answers.
    TaskHealthy = "task.healthy",
    /// It does not answer.
    TaskUnhealthy = "task.unhealthy",
    /// It ended with status 0.
    TaskComplete = "task.complete",
    /// It ended otherwise.
    TaskFailed = "task.failed",
    /// Its agent started the next try in the same slot.
    TaskRestarted = "task.restarted",
    /// It was stopped as wanted.
    TaskShutdown = "task.shutdown",
    /// Its node could not start it.
    TaskRejected = "task.rejected",
    /// Its node is down.
    TaskLost = "task.lost",
    /// An agent registered for the first time.
    NodeJoined = "node.joined",
    /// Its agent is heard again.
    NodeReady = "node.ready",
    /// It is silent.
    NodeSuspect = "node.suspect",
    /// It is silent for long.
    NodeDown = "node.down",
    /// Its operator changed what it may take, or its labels.
    NodeUpdated = "node.updated",
    /// It was removed.
    NodeRemoved = "node.removed",
    /// This manager leads.
    LeaderElected = "manager.leader_elected",
}
