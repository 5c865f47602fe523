//! The task: its lifecycle, its health, and the transition tables of both.
//!
//! # Lifecycle
//!
//! `new → pending → assigned → preparing → starting → running → complete | failed | shutdown |
//! rejected | lost`. A task may skip forward (a fast agent reports only the last state); it never
//! goes back and never leaves an end.
//!
//! | from \ to | later in the chain | complete, failed, shutdown | rejected | lost |
//! | --- | --- | --- | --- | --- |
//! | new, pending | yes | shutdown only | yes | no |
//! | assigned … running | yes | yes | until starting | yes |
//! | an end | no | no | no | no |
//!
//! A node that was thought lost and comes back does not revive its `lost` tasks: they are fenced,
//! and new ones have taken their slots.
//!
//! # Health
//!
//! `unknown`, `healthy`, `unhealthy`, `draining`: flips freely while a task is not ended; ordered
//! by (incarnation, sequence).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    AssignmentId, Claim, Generation, NodeId, Sequence, ServiceId, Slot, TaskId, Timestamp,
};

/// Where a task is in its life.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Made by the reconciler.
    New,
    /// Waits for a node that fits; the message says why.
    Pending,
    /// Bound to a node.
    Assigned,
    /// The agent makes its folder, ports and cgroup.
    Preparing,
    /// The program was started and has not been seen to run yet.
    Starting,
    /// The program runs.
    Running,
    /// It ended with status 0.
    Complete,
    /// It ended otherwise.
    Failed,
    /// It was told to end, and did.
    Shutdown,
    /// The node could not start it (no such program, a port in use).
    Rejected,
    /// Its node is down; nobody knows what became of it.
    Lost,
}

impl TaskState {
    /// Every state, in order.
    pub const ALL: [Self; 11] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Failed,
        Self::Shutdown,
        Self::Rejected,
        Self::Lost,
    ];

    /// Returns whether the task has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Complete | Self::Failed | Self::Shutdown | Self::Rejected | Self::Lost
        )
    }

    /// Returns the state after a report of `next`.
    ///
    /// # Errors
    /// [`IllegalTransition`] for a step that the table in the module's doc does not have; a
    /// repeated report of the same state is a step to itself.
    pub fn step(self, next: Self) -> Result<Self, IllegalTransition> {
        let legal = if self == next {
            true
        } else if self.is_terminal() {
            false
        } else {
            match next {
                Self::Complete | Self::Failed | Self::Lost => self >= Self::Assigned,
                Self::Shutdown => true,
                Self::Rejected => self <= Self::Starting,
                _ => next > self,
            }
        };
        if legal {
            Ok(next)
        } else {
            Err(IllegalTransition {
                from: self,
                to: next,
            })
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Shutdown => "shutdown",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        })
    }
}

/// A step that a lifecycle does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task does not go from {from} to {to}")]
pub struct IllegalTransition {
    /// Where it was.
    pub from: TaskState,
    /// Where it was said to be.
    pub to: TaskState,
}

/// What the manager wants of a task. Written only by the manager.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// To run, or for a job to have run.
    Running,
    /// To end: deregister, drain, signal, grace, kill.
    Shutdown,
}

/// Whether a task can take traffic. Written only by its agent.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not probed yet.
    #[default]
    Unknown,
    /// Answers.
    Healthy,
    /// Does not answer, or has ended.
    Unhealthy,
    /// Answers, and is to get no new requests: it is about to stop.
    Draining,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        })
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not known: it ended while no agent was its parent.
    Unknown,
}

impl Exit {
    /// Returns whether it ended with status 0.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// A named port and its number on the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PortBinding {
    /// The port's name in the service's spec.
    pub name: String,
    /// Its number on the node.
    pub port: u16,
}

/// What is known of a task that changes while it lives. Written only by its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Lifecycle.
    pub state: TaskState,
    /// Whether it can take traffic.
    pub health: Health,
    /// Orders health reports of one assignment.
    pub sequence: Sequence,
    /// Process id on its node, while it runs.
    pub pid: Option<u32>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Why, in words; empty if there is nothing to say. At most [`crate::limits::MESSAGE_BYTES`].
    pub message: String,
    /// When it came into this state, by its agent's clock.
    pub since: Timestamp,
}

/// A task as the manager stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// This try.
    pub id: TaskId,
    /// The service it belongs to.
    pub service: ServiceId,
    /// The version of the service's spec that it runs.
    pub generation: Generation,
    /// The slot it fills.
    pub slot: Slot,
    /// Its binding; none while it is pending.
    pub binding: Option<Binding>,
    /// What the manager wants of it.
    pub desired: Desired,
    /// What its agent last said of it.
    pub observed: Observed,
    /// When it was made.
    pub created: Timestamp,
}

/// The node, ports and resources that a task has; local restarts pass it on to the next try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Names this binding; an endpoint is named by it.
    pub assignment: AssignmentId,
    /// Where.
    pub node: NodeId,
    /// Named ports on that node.
    pub ports: Vec<PortBinding>,
    /// What it takes there.
    pub claim: Claim,
    /// Tries before this one within the binding.
    pub restarts: u32,
}

impl Task {
    /// Returns whether the task holds its claim: it is bound and has not ended.
    pub fn holds_claim(&self) -> bool {
        self.binding.is_some() && !self.observed.state.is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifecycle_never_goes_back_and_never_leaves_an_end() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                let step = from.step(to);
                if from == to {
                    assert_eq!(step, Ok(to));
                } else if from.is_terminal() || !to.is_terminal() && to < from {
                    assert!(step.is_err(), "{from} → {to}");
                }
            }
        }
    }

    #[test]
    fn pending_task_can_only_be_placed_withdrawn_or_rejected() {
        use TaskState::{Assigned, Complete, Failed, Lost, Pending, Rejected, Running, Shutdown};
        for (to, legal) in [
            (Assigned, true),
            (Shutdown, true),
            (Rejected, true),
            (Complete, false),
            (Failed, false),
            (Lost, false),
        ] {
            assert_eq!(Pending.step(to).is_ok(), legal, "pending → {to}");
        }
        assert!(Running.step(Rejected).is_err());
        assert!(Running.step(Lost).is_ok());
    }
}
