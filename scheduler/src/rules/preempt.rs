//! Which tasks of lower priority have to go so that a request fits.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{Allocation, AssignmentId, Claim, Node, NodeId, ServiceId, fits_amounts};

use super::Rules;
use crate::devices;
use crate::ports::Ports;
use crate::request::Request;

/// What a service has to give when others need room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its priority: only requests of a higher one take its place.
    pub priority: i32,
    /// How many of its tasks may be stopped now: what is left of its disruption budget.
    pub spare: u32,
}

/// A node that would take the request, once these have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// Which node.
    pub node: NodeId,
    /// Whose tasks are to be stopped, ascending; none if what is leaving already makes the room.
    pub victims: Vec<AssignmentId>,
}

/// A committed claim, as preemption sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occupant<'a> {
    pub assignment: AssignmentId,
    pub service: ServiceId,
    pub claim: &'a Claim,
}

/// What may be taken from whom.
pub(crate) struct Preemptor<'a> {
    pub request: &'a Request<'a>,
    pub rules: &'a Rules<'a>,
    pub standing: &'a BTreeMap<ServiceId, Standing>,
    /// Assignments that were told to end: their room is as good as free.
    pub leaving: &'a BTreeSet<AssignmentId>,
}

/// The cheaper, the less: the highest priority that suffers, how many, and how much they hold.
type Cost = (i32, usize, u64);

/// An occupant that may be stopped.
struct Candidate<'a> {
    occupant: Occupant<'a>,
    priority: i32,
    /// What it holds, in thousandths of the node in each dimension.
    size: u64,
}

impl Preemptor<'_> {
    /// Returns what has to go from this node, and what that costs; none if it would not help.
    pub(crate) fn judge(
        &self,
        node: &Node,
        taken: &Allocation,
        occupants: &[Occupant<'_>],
    ) -> Option<(Cost, Vec<AssignmentId>)> {
        self.rules.judge(node).ok()?;
        let mut taken = taken.clone();
        let is_leaving = |occupant: &&Occupant<'_>| self.leaving.contains(&occupant.assignment);
        for occupant in occupants.iter().filter(is_leaving) {
            taken.remove(occupant.claim);
        }
        let victims = self.affordable(node, occupants);
        for victim in &victims {
            taken.remove(victim.occupant.claim);
        }
        if !has_room(node, &taken, self.request) {
            return None;
        }
        let mut gone = Vec::new();
        // Whoever can stay stays, the highest priority first, then the smallest: so that the
        // fewest go.
        for victim in victims.iter().rev() {
            taken.add(victim.occupant.claim);
            if !has_room(node, &taken, self.request) {
                taken.remove(victim.occupant.claim);
                gone.push(victim);
            }
        }
        let highest = gone.iter().map(|victim| victim.priority).max();
        let size = gone.iter().map(|victim| victim.size).sum();
        let cost = (highest.unwrap_or(i32::MIN), gone.len(), size);
        let mut gone: Vec<AssignmentId> = gone.iter().map(|v| v.occupant.assignment).collect();
        gone.sort_unstable();
        Some((cost, gone))
    }

    /// Returns who may be stopped: of lower priority, and no more of a service than its budget
    /// spares; the lowest priority first, then the largest.
    fn affordable<'o>(&self, node: &Node, occupants: &[Occupant<'o>]) -> Vec<Candidate<'o>> {
        let own = self.request.placement.priority;
        let mut candidates: Vec<Candidate<'o>> = occupants
            .iter()
            .filter(|occupant| !self.leaving.contains(&occupant.assignment))
            .filter(|occupant| !self.request.needs(occupant.service))
            .filter_map(|&occupant| {
                let standing = self.standing.get(&occupant.service)?;
                (standing.priority < own && standing.spare > 0).then(|| Candidate {
                    occupant,
                    priority: standing.priority,
                    size: size(node, occupant.claim),
                })
            })
            .collect();
        candidates.sort_by_key(|c| (c.priority, u64::MAX - c.size, c.occupant.assignment));
        let mut spent: BTreeMap<ServiceId, u32> = BTreeMap::new();
        candidates.retain(|candidate| {
            let spent = spent.entry(candidate.occupant.service).or_default();
            *spent += 1;
            *spent <= self.standing[&candidate.occupant.service].spare
        });
        candidates
    }
}

/// Returns whether the request fits into what is left of a node.
fn has_room(node: &Node, taken: &Allocation, request: &Request<'_>) -> bool {
    let capacity = &node.offered;
    let wanted = request.resources;
    let sockets = request.placement.sockets;
    fits_amounts(capacity, taken, wanted).is_ok()
        && devices::choose(capacity, taken, &wanted.devices).is_ok()
        && devices::choose_sockets(capacity, taken, wanted, sockets).is_ok()
        && Ports::default()
            .choose(capacity.ports, taken, request.ports)
            .is_ok()
}

/// Returns what a claim holds, in thousandths of the node in each dimension.
fn size(node: &Node, claim: &Claim) -> u64 {
    let share = |part: u64, whole: u64| part.saturating_mul(1000) / whole.max(1);
    let capacity = &node.offered;
    let devices: u64 = claim
        .devices
        .iter()
        .map(|grant| u64::from(grant.milli))
        .sum();
    share(claim.resources.cpu.0.into(), capacity.cpu.0.into())
        .saturating_add(share(claim.resources.memory.0, capacity.memory.0))
        .saturating_add(share(claim.resources.disk.0, capacity.disk.0))
        .saturating_add(devices)
}
