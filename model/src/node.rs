//! The node: what its agent reports, what its operator sets, and whether it lives.
//!
//! # Status
//!
//! | from | event | to |
//! | --- | --- | --- |
//! | any | heartbeat | ready |
//! | ready | silent past the suspect limit | suspect |
//! | suspect | silent past the down limit | down |
//!
//! A suspect node gets no new tasks; a down node's tasks are lost and replaced elsewhere. What
//! comes back is fenced: it is sent its new, smaller set of assignments and stops the rest.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Capacity, Incarnation, NodeId, Taint, Timestamp};

/// What an operator allows on a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// New tasks and old ones.
    #[default]
    Active,
    /// Old tasks stay; no new ones.
    Pause,
    /// Old tasks move away; no new ones.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// Whether a node lives, as the leader sees it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// Heartbeats arrive.
    Ready,
    /// Silent for a moment.
    Suspect,
    /// Silent for long: its tasks are lost.
    #[default]
    Down,
}

/// What makes a node's status change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// Its agent was heard.
    Heard,
    /// Nothing for [`crate::limits::NODE_SUSPECT_AFTER`].
    Silent,
    /// Nothing for [`crate::limits::NODE_DOWN_AFTER`].
    Gone,
}

impl NodeStatus {
    /// Returns the status after an event; every event is legal in every status.
    #[must_use]
    pub const fn step(self, event: NodeEvent) -> Self {
        match (self, event) {
            (_, NodeEvent::Heard) => Self::Ready,
            (Self::Ready, NodeEvent::Silent) => Self::Suspect,
            (status, NodeEvent::Silent) => status,
            (_, NodeEvent::Gone) => Self::Down,
        }
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// What an agent says of its machine when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Unique in the cluster: one DNS label.
    pub name: String,
    /// Where its tasks are reached: an IP address that every ingress can connect to.
    pub address: std::net::IpAddr,
    /// What it has to give.
    pub capacity: Capacity,
    /// What the agent found out: `os`, `arch`, `kernel`, `version`.
    pub attributes: BTreeMap<String, String>,
    /// Labels set by the agent's configuration; an operator's label of the same key wins.
    pub labels: BTreeMap<String, String>,
    /// The pool it belongs to; [`DEFAULT_POOL`] unless its agent's configuration says otherwise.
    pub pool: String,
}

/// The pool of nodes that name none.
pub const DEFAULT_POOL: &str = "default";

/// A node as the manager stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id; its certificate is bound to it.
    pub id: NodeId,
    /// What its agent reported.
    pub description: NodeDescription,
    /// What its operator allows.
    pub availability: Availability,
    /// Labels set by the operator.
    pub labels: BTreeMap<String, String>,
    /// Taints set by the operator.
    pub taints: Vec<Taint>,
    /// What may be placed here: its capacity less what its pool reserves, times what its pool
    /// overcommits. [`crate::fits`] is asked with this.
    pub offered: Capacity,
    /// Whether it lives.
    pub status: NodeStatus,
    /// The agent's life that was last heard.
    pub incarnation: Incarnation,
    /// When its status last changed.
    pub since: Timestamp,
}

impl Node {
    /// Returns a label's value: the operator's, else the agent's.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .get(key)
            .or_else(|| self.description.labels.get(key))
            .map(String::as_str)
    }

    /// Returns whether new tasks may be placed here.
    pub fn is_schedulable(&self) -> bool {
        self.status == NodeStatus::Ready && self.availability == Availability::Active
    }

    /// Returns whether a constraint holds here.
    pub fn meets(&self, constraint: &crate::Constraint) -> bool {
        use crate::NodeKey;
        let id;
        let value = match &constraint.key {
            NodeKey::Id => {
                id = self.id.to_string();
                Some(id.as_str())
            }
            NodeKey::Name => Some(self.description.name.as_str()),
            NodeKey::Label(key) => self.label(key),
            NodeKey::Attribute(key) => self.description.attributes.get(key).map(String::as_str),
        };
        constraint.condition.holds(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_down_and_a_heartbeat_leads_back() {
        let status = NodeStatus::Ready.step(NodeEvent::Silent);
        assert_eq!(status, NodeStatus::Suspect);
        assert_eq!(status.step(NodeEvent::Gone), NodeStatus::Down);
        assert_eq!(NodeStatus::Down.step(NodeEvent::Silent), NodeStatus::Down);
        assert_eq!(NodeStatus::Down.step(NodeEvent::Heard), NodeStatus::Ready);
    }
}
