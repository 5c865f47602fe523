//! Which tasks are to move where.

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::{NodeId, Policy, Resources, TaskId, TopologyKey};
use ballast_scheduler::{Request, Reservation, Scheduler};

use super::affinity::peers;
use super::moves::{Goal, is_ready, may_move};
use crate::state::{Lane, Service, State};

/// Moves that are proposed at a time; the next look finds the rest.
const PROPOSALS: usize = 1024;
/// Nodes that are emptied at a time.
const EMPTIED: usize = 16;

/// A task and where it would be better off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub lane: Lane,
    pub task: TaskId,
    pub to: NodeId,
}

/// A task that may move.
#[derive(Debug, Clone, Copy)]
struct Movable {
    lane: Lane,
    task: TaskId,
    node: NodeId,
}

/// Returns the moves that come nearer to a goal, in the order in which they are to begin.
///
/// Targets are found by the scheduler itself, one after the other with all before reserved, so
/// that they keep every rule and fit together. Nothing stays reserved.
pub(super) fn propose(
    state: &State,
    scheduler: &mut Scheduler,
    goal: Goal,
    busy: impl Fn(Lane) -> bool,
) -> Vec<Proposal> {
    let mut search = Search {
        state,
        scheduler,
        held: Vec::new(),
        found: Vec::new(),
    };
    match goal {
        Goal::Even => search.even(&busy),
        Goal::Defragment => search.defragment(&busy),
    }
    let Search {
        held,
        found,
        scheduler,
        ..
    } = search;
    for reservation in held {
        scheduler.release(reservation);
    }
    found
}

struct Search<'a> {
    state: &'a State,
    scheduler: &'a mut Scheduler,
    held: Vec<Reservation>,
    found: Vec<Proposal>,
}

impl Search<'_> {
    /// Moves tasks of services that spread from where there are most to where there are fewest.
    fn even(&mut self, busy: &impl Fn(Lane) -> bool) {
        for service in self.state.services().filter(|service| may_move(service)) {
            let Some(measure) = Measure::of(service) else {
                continue;
            };
            let mut by_node: BTreeMap<NodeId, Vec<Movable>> = BTreeMap::new();
            for movable in self.movable(service, busy) {
                by_node.entry(movable.node).or_default().push(movable);
            }
            let mut own: BTreeMap<NodeId, u32> = BTreeMap::new();
            for (node, tasks) in &by_node {
                own.insert(*node, u32::try_from(tasks.len()).unwrap_or(u32::MAX));
            }
            self.even_service(service, measure, &mut by_node, &mut own);
        }
    }

    fn even_service(
        &mut self,
        service: &Service,
        measure: Measure,
        by_node: &mut BTreeMap<NodeId, Vec<Movable>>,
        own: &mut BTreeMap<NodeId, u32>,
    ) {
        // What leaves is still held until its successor answers: counted here.
        let mut left: BTreeMap<NodeId, u32> = BTreeMap::new();
        while self.found.len() < PROPOSALS {
            let load =
                |scheduler: &Scheduler, own: &BTreeMap<NodeId, u32>, node: NodeId| match measure {
                    Measure::Own => own.get(&node).copied().unwrap_or(0),
                    Measure::All => scheduler.allocation(node).map_or(0, |taken| {
                        taken
                            .tasks
                            .saturating_sub(left.get(&node).copied().unwrap_or(0))
                    }),
                };
            let fullest = by_node
                .iter()
                .filter(|(_, tasks)| !tasks.is_empty())
                .map(|(node, _)| (load(self.scheduler, own, *node), *node))
                .max_by_key(|(load, node)| (*load, std::cmp::Reverse(*node)));
            let Some((most, from)) = fullest else {
                return;
            };
            let peers = peers(self.state, service);
            let request = Request::of(service.id, &service.spec).among(&peers);
            let Ok(placed) = self.scheduler.place(&request) else {
                return;
            };
            let to = placed.node;
            self.held.push(placed.reservation);
            // The reservation counts already where every task is counted.
            let there = match measure {
                Measure::Own => load(self.scheduler, own, to) + 1,
                Measure::All => load(self.scheduler, own, to),
            };
            if to == from || there >= most {
                return;
            }
            let Some(movable) = by_node.get_mut(&from).and_then(Vec::pop) else {
                return;
            };
            *own.entry(from).or_default() -= 1;
            *own.entry(to).or_default() += 1;
            *left.entry(from).or_default() += 1;
            self.found.push(Proposal {
                lane: movable.lane,
                task: movable.task,
                to,
            });
        }
    }

    /// Empties the nodes on which least runs, as long as all of it fits on others.
    fn defragment(&mut self, busy: &impl Fn(Lane) -> bool) {
        let mut by_node: BTreeMap<NodeId, Vec<Movable>> = BTreeMap::new();
        for service in self.state.services().filter(|service| may_move(service)) {
            for movable in self.movable(service, busy) {
                by_node.entry(movable.node).or_default().push(movable);
            }
        }
        let mut nodes: Vec<(u64, NodeId)> = self
            .state
            .nodes()
            .filter(|entry| entry.node.is_schedulable() && entry.allocation.tasks > 0)
            .map(|entry| (share(entry), entry.node.id))
            .collect();
        nodes.sort_unstable();
        let mut emptied: BTreeSet<NodeId> = BTreeSet::new();
        let mut filled: BTreeSet<NodeId> = BTreeSet::new();
        for (_, node) in nodes {
            if emptied.len() >= EMPTIED || self.found.len() >= PROPOSALS {
                return;
            }
            let tasks = by_node.remove(&node).unwrap_or_default();
            let all = self
                .state
                .node(node)
                .map_or(0, |entry| entry.assignments.len());
            // What stays keeps the node in use, and what was moved here is to stay here.
            if tasks.len() != all || filled.contains(&node) {
                continue;
            }
            emptied.insert(node);
            match self.rehouse(&tasks, &emptied) {
                Some(moves) => {
                    filled.extend(moves.iter().map(|proposal| proposal.to));
                    self.found.extend(moves);
                }
                None => drop(emptied.remove(&node)),
            }
        }
    }

    /// Finds other nodes for all of these tasks, or for none.
    fn rehouse(&mut self, tasks: &[Movable], closed: &BTreeSet<NodeId>) -> Option<Vec<Proposal>> {
        let mut moves = Vec::new();
        let mut held = Vec::new();
        let avoid: Vec<NodeId> = closed.iter().copied().collect();
        for movable in tasks {
            let service = self.state.service(movable.lane.service);
            let to = service.and_then(|service| {
                let peers = peers(self.state, service);
                let request = Request::of(service.id, &service.spec)
                    .avoiding(&avoid)
                    .among(&peers);
                let placed = self.scheduler.place(&request).ok()?;
                held.push(placed.reservation);
                Some(placed.node)
            });
            // An empty node instead of the one that is emptied is no gain.
            let used = |node| {
                self.state
                    .node(node)
                    .is_some_and(|entry| entry.allocation.tasks > 0)
            };
            let Some(to) = to.filter(|to| !closed.contains(to) && used(*to)) else {
                for reservation in held {
                    self.scheduler.release(reservation);
                }
                return None;
            };
            moves.push(Proposal {
                lane: movable.lane,
                task: movable.task,
                to,
            });
        }
        self.held.append(&mut held);
        Some(moves)
    }

    /// Returns the tasks of a service that fill their lanes alone and answer.
    fn movable(&self, service: &Service, busy: &impl Fn(Lane) -> bool) -> Vec<Movable> {
        let mut found = Vec::new();
        for (lane, _) in self.state.lanes(service.id) {
            let mut tasks = self
                .state
                .lane(lane)
                .filter(|entry| self.state.occupies(entry));
            let (Some(entry), None) = (tasks.next(), tasks.next()) else {
                continue;
            };
            if !is_ready(entry) || busy(lane) {
                continue;
            }
            if let Some(binding) = &entry.task.binding {
                found.push(Movable {
                    lane,
                    task: entry.task.id,
                    node: binding.node,
                });
            }
        }
        found
    }
}

/// By what a service is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Its own tasks on a node.
    Own,
    /// All tasks on a node: nothing is reserved that it could be packed by.
    All,
}

impl Measure {
    /// Returns by what a service is spread; none if it is packed, as full nodes are then what is
    /// wanted.
    fn of(service: &Service) -> Option<Self> {
        let placement = &service.spec.placement;
        let over_nodes = placement
            .spread
            .iter()
            .any(|rule| rule.over == TopologyKey::Node);
        match placement.policy {
            Policy::Spread => Some(Self::Own),
            _ if over_nodes => Some(Self::Own),
            Policy::Auto
                if placement.spread.is_empty()
                    && service.spec.task.resources == Resources::default() =>
            {
                Some(Self::All)
            }
            _ => None,
        }
    }
}

/// Returns whether a service's tasks are to be evened out.
pub(super) fn spreads(service: &Service) -> bool {
    may_move(service) && Measure::of(service).is_some()
}

/// Returns how full a node is, in thousandths of its fuller dimension.
fn share(entry: &crate::state::NodeEntry) -> u64 {
    let capacity = &entry.node.offered;
    let cpu = entry.allocation.cpu.saturating_mul(1000) / u64::from(capacity.cpu.0).max(1);
    let memory = entry.allocation.memory.saturating_mul(1000) / capacity.memory.0.max(1);
    cpu.max(memory)
}
