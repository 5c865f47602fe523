//! What applying a command gives: an answer for who asked, and what everybody else must look at.

use std::collections::BTreeSet;

use ballast_model::view::StackResult;
use ballast_model::{AssignmentId, Binding, Generation, NodeId, ServiceId};
use serde::{Deserialize, Serialize};

use super::Lane;

/// The outcome of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The answer.
    pub result: Result<Response, Rejection>,
    /// What is different now; empty if the command was refused.
    pub changes: Changes,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// What was asked, or nothing as there was nothing to do.
    Done,
    /// A service has this spec version now.
    Service {
        /// Which.
        service: ServiceId,
        /// Its newest generation.
        generation: Generation,
    },
    /// A stack was deployed.
    Stack(StackResult),
}

/// What kind of refusal it is; an API maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectionKind {
    /// There is no such thing.
    NotFound,
    /// Something else has this name, port or route, or stands in the way.
    Conflict,
    /// It changed since it was read; read it again.
    Stale,
    /// The value can never be accepted.
    Invalid,
    /// A limit of the cluster is reached.
    Limit,
}

/// Why a command was refused: what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}{reason}{}", field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default(),
    nearest.as_ref().map(|n| format!("; nearest valid: {n}")).unwrap_or_default())]
pub struct Rejection {
    /// What kind.
    pub kind: RejectionKind,
    /// Path of the field in the request's body, where there is one.
    pub field: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// The nearest value that would be accepted, where there is one.
    pub nearest: Option<String>,
}

impl Rejection {
    /// Says what is wrong.
    pub fn new(kind: RejectionKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            field: None,
            reason: reason.into(),
            nearest: None,
        }
    }

    /// Names the field that is wrong.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names what would be right.
    #[must_use]
    pub fn nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }
}

/// What a command changed, by who has to look at it. Changes of several commands add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// Dispatcher: nodes whose assignment set is different.
    pub nodes: BTreeSet<NodeId>,
    /// Dispatcher: the bindings that make the difference on a node in `nodes`; of one that has none
    /// here the whole set is. A node that is not in `nodes` need not be told.
    pub bindings: Vec<(NodeId, AssignmentId)>,
    /// Dispatcher: services whose table is different, or that have none any more.
    pub services: BTreeSet<ServiceId>,
    /// Dispatcher: the list of ingresses is different.
    pub ingresses: bool,
    /// Reconciler: lanes whose tasks are different.
    pub lanes: BTreeSet<Lane>,
    /// Reconciler: services whose spec, slots or update status are different, or that are gone.
    pub specs: BTreeSet<ServiceId>,
    /// Reconciler: nodes that are new or gone, or whose status, availability, labels or capacity
    /// are different.
    pub fleet: BTreeSet<NodeId>,
    /// Reconciler: placements that hold now.
    pub bound: Vec<AssignmentId>,
    /// Reconciler: placements that were refused: to be released and planned again.
    pub refused: Vec<AssignmentId>,
    /// Reconciler: bindings that ended and gave back their claims.
    pub freed: Vec<AssignmentId>,
}

impl Changes {
    /// Adds what another command changed.
    pub fn merge(&mut self, mut other: Self) {
        self.nodes.append(&mut other.nodes);
        self.bindings.append(&mut other.bindings);
        self.services.append(&mut other.services);
        self.ingresses |= other.ingresses;
        self.lanes.append(&mut other.lanes);
        self.specs.append(&mut other.specs);
        self.fleet.append(&mut other.fleet);
        self.bound.append(&mut other.bound);
        self.refused.append(&mut other.refused);
        self.freed.append(&mut other.freed);
    }

    /// Notes that a binding is new, gone or different, and that its node is to be told.
    pub(super) fn rebound(&mut self, binding: &Binding) {
        self.nodes.insert(binding.node);
        self.bindings.push((binding.node, binding.assignment));
    }

    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
