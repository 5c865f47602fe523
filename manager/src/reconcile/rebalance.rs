//! Which tasks are to move where.

use std::collections::BTreeMap;

use ballast_model::{AssignmentId, NodeId, Policy, Resources, ServiceId, TaskId, TopologyKey};
use ballast_scheduler::rebalance::{MoveBudget, defragment};
use ballast_scheduler::{Peers, Request, Reservation, Scheduler};

use super::affinity::peers;
use super::moves::{Goal, is_ready, may_move};
use crate::state::{Lane, Service, State};

/// Moves that are proposed at a time; the next look finds the rest.
const PROPOSALS: usize = 1024;

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
    assignment: AssignmentId,
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

    /// Empties the nodes on which least runs, and frees devices that a part holds alone, by the
    /// scheduler's own search.
    fn defragment(&mut self, busy: &impl Fn(Lane) -> bool) {
        let state = self.state;
        let mut services: BTreeMap<ServiceId, (&Service, Peers)> = BTreeMap::new();
        let mut movable: BTreeMap<AssignmentId, Movable> = BTreeMap::new();
        for service in state.services().filter(|service| may_move(service)) {
            services.insert(service.id, (service, peers(state, service)));
            let tasks = self.movable(service, busy).into_iter();
            movable.extend(tasks.map(|task| (task.assignment, task)));
        }
        let requests = |id| {
            let (service, peers) = services.get(&id)?;
            Some(Request::of(service.id, &service.spec).among(peers))
        };
        let budget = MoveBudget {
            moves: PROPOSALS,
            // When each begins is for `Reconciler::begin_moves` to say.
            paced: true,
            only: Some(movable.keys().copied().collect()),
            ..MoveBudget::default()
        };
        let moves = defragment(self.scheduler, &requests, &budget);
        self.found.extend(moves.into_iter().map(|step| {
            let Movable { lane, task, .. } = movable[&step.assignment];
            Proposal {
                lane,
                task,
                to: step.to,
            }
        }));
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
                    assignment: binding.assignment,
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
