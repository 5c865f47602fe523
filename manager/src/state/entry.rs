//! What the replicated state holds of each thing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ballast_model::{
    Allocation, AssignmentId, Generation, IngressId, Mode, Node, NodeId, PortSpec, Protocol,
    ServiceId, ServiceSpec, Slot, Target, Task, TaskId, TaskTemplate, Timestamp, UpdateOrder,
};
use serde::{Deserialize, Serialize};

/// A place that a service wants filled: a slot, or for a global service a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// Whose.
    pub service: ServiceId,
    /// The slot; 0 for global services.
    pub slot: Slot,
    /// The node; of global services only.
    pub pinned: Option<NodeId>,
}

/// The tries at filling one lane, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneEntry {
    /// Those that live, and as many ended ones as history keeps.
    pub tasks: Vec<TaskId>,
    /// Tries in a row that a node could not start.
    pub rejections: u32,
}

/// A task and what only the manager knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEntry {
    /// The task.
    pub task: Task,
    /// The node it is for; of global services only.
    pub pinned: Option<NodeId>,
    /// It has been running and healthy.
    pub was_healthy: bool,
    /// It ended and nobody is to try again: it completed, or its restart policy is used up.
    pub finished: bool,
    /// When the manager heard of its end.
    pub ended: Option<Timestamp>,
}

impl TaskEntry {
    /// Returns the lane it fills.
    pub fn lane(&self) -> Lane {
        Lane {
            service: self.task.service,
            slot: self.task.slot,
            pinned: self.pinned,
        }
    }
}

/// A binding whose task lives, or will be followed by another try on the same node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentEntry {
    /// The newest try.
    pub task: TaskId,
    /// That try has ended and its agent will make the next.
    pub restarting: bool,
}

/// The part of a spec that tasks are made from, kept for as long as one lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The service's name.
    pub name: String,
    /// What is run.
    pub task: TaskTemplate,
    /// What it serves.
    pub ports: Vec<PortSpec>,
    /// Whether it runs to completion.
    pub job: bool,
    /// Bindings that use it.
    pub live: u32,
}

/// How far a rolling update is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Update {
    /// Every task runs the newest spec.
    #[default]
    Completed,
    /// Tasks are being replaced.
    Running {
        /// The manager went back by itself; it will not do so twice.
        rolled_back: bool,
    },
    /// A new task failed.
    Paused {
        /// Why.
        reason: String,
    },
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What a rollback brings back.
    pub previous: Option<ServiceSpec>,
    /// The version of its spec.
    pub generation: Generation,
    /// The version at which what a task is made from last changed; a task with a lower one is
    /// stale. Scaling does not change it.
    pub template: Generation,
    /// Slots that are wanted; none for a global service, which has a lane for each node.
    pub slots: BTreeSet<Slot>,
    /// How far its rolling update is.
    pub update: Update,
    /// It was removed; it is forgotten when its last task has ended.
    pub removing: bool,
    /// Lanes' occupants: tasks that wait for a node, and bindings.
    pub live: u32,
    /// The state's version at which its table last changed.
    pub table: Generation,
    /// When it was made.
    pub created: Timestamp,
    /// When its spec last changed.
    pub updated: Timestamp,
}

impl Service {
    /// Returns whether the spec wants this lane filled, as far as it knows without the nodes.
    pub fn wants(&self, lane: Lane) -> bool {
        !self.removing
            && match self.spec.mode {
                Mode::Global {} => lane.pinned.is_some(),
                _ => lane.pinned.is_none() && self.slots.contains(&lane.slot),
            }
    }

    /// Returns whether it runs to completion.
    pub fn is_job(&self) -> bool {
        matches!(self.spec.mode, Mode::Job { .. })
    }

    /// Returns whether ingresses are told of it.
    pub fn is_routed(&self) -> bool {
        !self.spec.routes.is_empty() || self.spec.ports.iter().any(|p| p.published.is_some())
    }

    /// Returns the order of replacement that can work: two tasks with one fixed port cannot run on
    /// one node, so with the new one first a full fleet would wait for ever.
    pub fn order(&self) -> UpdateOrder {
        let fixed = |port: &PortSpec| matches!(port.target, Target::Fixed(_));
        if self.spec.ports.iter().any(fixed) {
            UpdateOrder::StopFirst
        } else {
            self.spec.update.order
        }
    }
}

/// A node, what is taken there and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The node.
    pub node: Node,
    /// The sum of its bindings' claims.
    pub allocation: Allocation,
    /// Its bindings.
    pub assignments: BTreeSet<AssignmentId>,
    /// The state's version at which its assignment set last changed.
    pub version: Generation,
}

/// An ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Its id.
    pub id: IngressId,
    /// For people.
    pub name: String,
    /// Where agents push health to.
    pub feed: SocketAddr,
}

/// A port on every ingress. TCP and UDP ports are apart; HTTP is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Over UDP, not TCP.
    pub udp: bool,
    /// Its number.
    pub number: u16,
}

impl PublishedPort {
    /// Returns the port of a spec, if it is published.
    pub fn of(port: &PortSpec) -> Option<Self> {
        port.published.map(|number| Self {
            udp: port.protocol == Protocol::Udp,
            number,
        })
    }
}

/// What a route matches: leads to one service only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Lowercase host, `*.suffix`, or none for any.
    pub host: Option<String>,
    /// Path prefix without its last slash.
    pub path: String,
    /// What else a request must be like.
    pub when: ballast_model::RouteMatch,
}

impl RouteKey {
    /// Returns the key of a route: spellings that match the same requests have the same.
    pub fn of(route: &ballast_model::RouteSpec) -> Self {
        Self {
            host: route.host.as_ref().map(|host| host.to_ascii_lowercase()),
            path: route.path_prefix.trim_end_matches('/').to_owned(),
            when: route.when.clone(),
        }
    }
}
