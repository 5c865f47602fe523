//! Over time: which few moves would empty nodes, free devices or even services out, and how many
//! starts a new node may take.
//!
//! The algorithms look at a scheduler and propose [`Move`]s; the caller carries them out as far as
//! it wants, by starting the task on the new node and then stopping it on the old one. So each
//! target is one that [`crate::Scheduler::place`] found while the task still runs where it is:
//! every rule holds at every moment, and no move needs another one to come first. What they
//! reserve to find out they release before they return.
//!
//! A move is proposed only where it makes the fleet better by a count that cannot go back and
//! forth: repeated calls come to an end.
//!
//! Deliberately absent: clocks and rates. How many moves there may be at a time is in
//! [`MoveBudget`]; when it is renewed the caller decides.
//!
//! * [`defragment`]: frees whole nodes, then whole devices
//! * [`rebalance`]: evens out services that are spread
//! * [`FairStarts`]: keeps a new node from being buried under every new task

mod defragment;
mod even;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ballast_model::{AssignmentId, Bytes, DeviceGrant, MilliCpu, NodeId, ServiceId};

use crate::{Placed, Request, Scheduler};

pub use defragment::defragment;
pub use even::rebalance;
pub use starts::FairStarts;

/// One task that should run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub assignment: AssignmentId,
    /// Whose.
    pub service: ServiceId,
    /// Where it runs.
    pub from: NodeId,
    /// Where it should; the scheduler takes it there: `place(&request.on(to))`.
    pub to: NodeId,
    /// What it is good for.
    pub why: Why,
}

/// What a move is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// With the others of its node it empties the node.
    EmptiesNode,
    /// It frees a whole device.
    FreesDevice,
    /// Its service has more tasks here than there.
    EvensOut,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EmptiesNode => "to empty its node",
            Self::FreesDevice => "to free a device",
            Self::EvensOut => "to even its service out",
        })
    }
}

/// How much may be moved at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MoveBudget {
    /// Moves at the most.
    pub moves: usize,
    /// Replicas of each service that are down or moving already: they count against its
    /// `max_disrupted`.
    pub disrupted: BTreeMap<ServiceId, u32>,
    /// Whether the caller begins the moves one by one and keeps to each service's `max_disrupted`
    /// as it does: then a call proposes more of a service than may be under way at a time.
    pub paced: bool,
    /// The tasks that may move, if not all: others do not answer yet, or are on their way already.
    pub only: Option<BTreeSet<AssignmentId>>,
}

impl MoveBudget {
    /// Returns whether a task may move, as far as it is not for its service to say.
    fn lets(&self, task: &Running) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.contains(&task.assignment))
    }
}

/// What is asked for a task of a service, as `place` would be asked now; none for a service that
/// is not known, whose tasks stay where they are.
pub type Requests<'a> = dyn Fn(ServiceId) -> Option<Request<'a>> + 'a;

/// A task that runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    assignment: AssignmentId,
    service: ServiceId,
    /// How hard it is to place: thousandths of devices, CPU, memory.
    size: (u32, MilliCpu, Bytes),
    /// Its device, if it has one.
    device: Option<DeviceGrant>,
}

/// What is left of a budget.
#[derive(Debug)]
struct Left<'a> {
    budget: &'a MoveBudget,
    moves: usize,
    by_service: BTreeMap<ServiceId, u32>,
}

impl<'a> Left<'a> {
    fn new(budget: &'a MoveBudget) -> Self {
        Self {
            budget,
            moves: budget.moves,
            by_service: BTreeMap::new(),
        }
    }

    /// Takes one move of this service if there is one.
    fn take(&mut self, request: &Request<'_>) -> bool {
        let service = request.service;
        let before = self.budget.disrupted.get(&service).copied().unwrap_or(0);
        let moving = self.by_service.entry(service).or_default();
        let used_up = before.saturating_add(*moving) >= request.placement.max_disrupted;
        if self.moves == 0 || used_up && !self.budget.paced {
            return false;
        }
        *moving += 1;
        self.moves -= 1;
        true
    }
}

/// Returns whether tasks of this service may be moved at all.
fn is_movable(request: &Request<'_>) -> bool {
    let placement = request.placement;
    // Tasks of global services and those with a fixed port belong where they are.
    placement.rebalance && placement.max_disrupted > 0 && request.node.is_none()
}

/// Returns what runs on each node.
fn running(scheduler: &Scheduler) -> BTreeMap<NodeId, Vec<Running>> {
    let mut nodes: BTreeMap<NodeId, Vec<Running>> = BTreeMap::new();
    for (assignment, node, service, claim) in scheduler.held() {
        let wanted = &claim.resources;
        nodes.entry(node).or_default().push(Running {
            assignment,
            service,
            size: (wanted.devices.total_milli(), wanted.cpu, wanted.memory),
            device: match claim.devices[..] {
                [grant] => Some(grant),
                _ => None,
            },
        });
    }
    nodes
}

/// Gives back what was reserved to find out.
fn release_all(scheduler: &mut Scheduler, placed: Vec<Placed>) {
    for one in placed.into_iter().rev() {
        scheduler.release(one.reservation);
    }
}
