//! Tasks that move although nothing is wrong with them: to even nodes out or to empty some.
//!
//! A move is a replacement that begins by itself: the task is marked as leaving, a new one is
//! started on the node that was chosen, and once that answers the old one stops. So a service has
//! never fewer replicas because of it. A service that asked for `stop-first` cannot run twice: its
//! task stops first, only while the place for it is free, and only as many at a time as its
//! disruption budget leaves ([`Reconciler::may_vacate`]); that holds for drains, too.
//!
//! | limit | |
//! | --- | --- |
//! | [`MOVES_AT_ONCE`] | moves under way in the cluster |
//! | [`MovePolicy::per_second`] | moves that begin in a second |
//! | `max_disrupted` | moves under way of one service, besides replicas that do not answer |
//! | [`MOVE_TIMEOUT`] | after it the move is given up, and the old task stays |
//!
//! What is under way is known to this leader alone. The next one finds two tasks in a lane, keeps
//! the one that answers, and begins anew.

use std::collections::{BTreeMap, VecDeque};

use ballast_model::{
    Desired, Health, Millis, Mode, NodeId, ServiceId, TaskId, TaskState, Timestamp,
};
use ballast_scheduler::Request;

use super::affinity::peers;
use super::rebalance::{self, Proposal};
use super::{Reconciler, Timer};
use crate::state::{Lane, Service, State, TaskEntry, Update};

/// Moves under way at a time: what they need twice is a small part of a cluster.
const MOVES_AT_ONCE: usize = 64;
/// How long the new task of a move may take to answer.
const MOVE_TIMEOUT: Millis = Millis::from_secs(300);
/// After a node came, so that others that come with it are seen together.
const SETTLE: Millis = Millis::from_secs(2);
/// Between two looks for an imbalance that nothing but ended tasks made.
const LOOK_INTERVAL: Millis = Millis::from_secs(60);

/// What moves are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Services that spread are spread evenly.
    Even,
    /// Whole nodes are empty.
    Defragment,
}

/// When and how fast tasks are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovePolicy {
    /// Whether services are evened out when nodes come or tasks end.
    pub automatic: bool,
    /// Moves that begin in a second; 0 means none.
    pub per_second: u32,
    /// How often nodes are emptied, if at all.
    pub defragment_every: Option<Millis>,
}

impl Default for MovePolicy {
    fn default() -> Self {
        Self {
            automatic: true,
            per_second: 10,
            defragment_every: None,
        }
    }
}

/// One task on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    /// The task that leaves.
    task: TaskId,
    /// Where its successor goes; anywhere once that did not work and the old one has stopped.
    to: Option<NodeId>,
    begun: Timestamp,
}

/// Moves that were proposed and moves under way.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub policy: MovePolicy,
    under_way: BTreeMap<Lane, Move>,
    queue: VecDeque<Proposal>,
    /// When the moves of the last second began.
    begun: VecDeque<Timestamp>,
    /// Something may have become uneven: when to look, none if the timer is set.
    uneven: Option<Millis>,
    /// A look that was asked for.
    asked: Option<Goal>,
    looked: Timestamp,
    /// A queued move may begin.
    turn: bool,
    defragments: bool,
}

impl Moves {
    pub fn new(policy: MovePolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Returns whether `step` has something to do for them.
    pub fn wants_step(&self) -> bool {
        self.asked.is_some()
            || self.turn
            || self.policy.automatic && self.uneven.is_some()
            || self.policy.defragment_every.is_some() && !self.defragments
    }

    /// Notes that a node may take tasks that could take none before.
    pub fn node_came(&mut self) {
        self.uneven = Some(SETTLE);
    }

    /// Notes that tasks ended, and left some nodes with less than others.
    pub fn room_came(&mut self) {
        self.uneven.get_or_insert(LOOK_INTERVAL);
    }

    /// Looks at once, or as soon as `step` is called.
    pub fn ask(&mut self, goal: Goal) {
        self.asked = Some(goal);
    }

    /// Lets queued moves begin.
    pub fn take_turn(&mut self) {
        self.turn = true;
    }

    /// Returns where the task that is made for a lane has to go, if it is on its way somewhere.
    pub fn target(&self, lane: Lane) -> Option<NodeId> {
        self.under_way.get(&lane)?.to
    }

    fn of_service(&self, service: ServiceId) -> usize {
        let lanes = self.under_way.keys();
        lanes.filter(|lane| lane.service == service).count()
    }
}

/// Whether a proposed move may begin.
enum Chance {
    Now,
    Later,
    Never,
}

impl Reconciler {
    /// Looks for moves, on request: `step` begins them.
    pub fn rebalance(&mut self, goal: Goal) {
        self.moves.ask(goal);
    }

    /// Looks for moves if it is time to, and begins as many as the limits leave.
    pub(super) fn move_tasks(&mut self, state: &State, now: Timestamp) {
        self.arm(state, now);
        if let Some(goal) = self.moves.asked.take() {
            self.moves.looked = now;
            let busy = |lane: Lane| self.moves.under_way.contains_key(&lane);
            let found = rebalance::propose(state, &mut self.scheduler, goal, busy);
            self.moves.queue = found.into();
            self.moves.turn = true;
        }
        if std::mem::take(&mut self.moves.turn) {
            self.begin_moves(state, now);
        }
    }

    /// Sets the timers of looks that are to come.
    fn arm(&mut self, state: &State, now: Timestamp) {
        if let Some(wait) = self.moves.uneven.take()
            && self.moves.policy.automatic
            && state.services().any(rebalance::spreads)
        {
            let due = match wait {
                SETTLE => now.saturating_add(SETTLE),
                wait => self.moves.looked.saturating_add(wait).max(now),
            };
            self.timers.insert((due, Timer::Look(Goal::Even)));
        }
        if let Some(every) = self.moves.policy.defragment_every
            && !std::mem::replace(&mut self.moves.defragments, true)
        {
            let due = now.saturating_add(every);
            self.timers.insert((due, Timer::Look(Goal::Defragment)));
        }
    }

    /// A timer for a look is due.
    pub(super) fn look(&mut self, goal: Goal) {
        if goal == Goal::Defragment {
            self.moves.defragments = false;
        }
        self.moves.ask(goal);
    }

    fn begin_moves(&mut self, state: &State, now: Timestamp) {
        let second = Millis::from_secs(1);
        let begun = &mut self.moves.begun;
        while begun
            .front()
            .is_some_and(|at| now >= at.saturating_add(second))
        {
            begun.pop_front();
        }
        if self.moves.policy.per_second == 0 {
            self.moves.queue.clear();
        }
        let mut later = VecDeque::new();
        while let Some(proposal) = self.moves.queue.pop_front() {
            if self.moves.under_way.len() >= MOVES_AT_ONCE {
                later.push_back(proposal);
                break;
            }
            if self.moves.begun.len() >= self.moves.policy.per_second as usize {
                if let Some(first) = self.moves.begun.front() {
                    let due = first.saturating_add(second);
                    self.timers.insert((due, Timer::Moves));
                }
                later.push_back(proposal);
                break;
            }
            match self.chance(state, &proposal) {
                Chance::Never => {}
                Chance::Later => later.push_back(proposal),
                Chance::Now => {
                    let begins = Move {
                        task: proposal.task,
                        to: Some(proposal.to),
                        begun: now,
                    };
                    self.moves.begun.push_back(now);
                    self.moves.under_way.insert(proposal.lane, begins);
                    self.lanes.insert(proposal.lane);
                    let due = now.saturating_add(MOVE_TIMEOUT);
                    self.timers.insert((due, Timer::Lane(proposal.lane)));
                }
            }
        }
        later.append(&mut self.moves.queue);
        self.moves.queue = later;
    }

    fn chance(&mut self, state: &State, proposal: &Proposal) -> Chance {
        let Some(service) = state.service(proposal.lane.service) else {
            return Chance::Never;
        };
        let sole = |entry: &TaskEntry| entry.task.id == proposal.task && is_ready(entry);
        let mut occupants = state
            .lane(proposal.lane)
            .filter(|entry| state.occupies(entry));
        let still = occupants.next().is_some_and(sole) && occupants.next().is_none();
        if !still || !may_move(service) || self.moves.under_way.contains_key(&proposal.lane) {
            return Chance::Never;
        }
        let under_way = self.moves.of_service(service.id);
        let disturbed = self.disturbed(state, service) as usize;
        if under_way.max(disturbed) < service.spec.placement.max_disrupted as usize {
            Chance::Now
        } else {
            Chance::Later
        }
    }

    /// Returns the task that is to leave a lane, if one is on its way; ends moves that have come
    /// to their end, or to nothing.
    pub(super) fn follow(
        &mut self,
        state: &State,
        service: &Service,
        lane: Lane,
        now: Timestamp,
    ) -> Option<TaskId> {
        let under_way = self.moves.under_way.get(&lane)?;
        let late = now >= under_way.begun.saturating_add(MOVE_TIMEOUT);
        let runs = |entry: &TaskEntry| {
            entry.task.desired == Desired::Running
                && entry.task.generation == service.template
                && !entry.task.observed.state.is_terminal()
        };
        let old = under_way.task;
        let leaves = state.task(old).is_some_and(runs);
        let newer =
            |entry: &&TaskEntry| entry.task.id != old && entry.task.created >= under_way.begun;
        let newest = state.lane(lane).next_back().filter(newer);
        let failed = newest.is_some_and(|entry| entry.task.observed.state.is_terminal());
        let arrived = newest.is_some_and(is_ready);
        // Told to stop before its successor began: that one is still to come.
        let gave_way = |entry: &TaskEntry| {
            entry.task.desired == Desired::Shutdown && entry.task.generation == service.template
        };
        let awaited = state.task(old).is_some_and(gave_way) && !arrived;
        if late || failed || !leaves && !awaited {
            self.moves.under_way.remove(&lane);
            self.moves.turn = true;
            return None;
        }
        leaves.then_some(old)
    }

    /// Gives a move up whose target took no task after all; what was made for it is stopped when
    /// its lane is looked at. Returns whether there was one.
    pub(super) fn abandon(&mut self, state: &State, lane: Lane) -> bool {
        let Some(under_way) = self.moves.under_way.get_mut(&lane) else {
            return false;
        };
        let old = state.task(under_way.task);
        self.lanes.insert(lane);
        if old.is_some_and(|entry| entry.task.desired == Desired::Running) {
            self.moves.under_way.remove(&lane);
            self.moves.turn = true;
            return true;
        }
        // The old one has stopped already: now anywhere.
        let had = under_way.to.take().is_some();
        self.room |= had;
        had
    }

    /// Returns whether a task may be stopped before its successor runs: there is a place for that
    /// one, and the service's disruption budget is not used up. Otherwise the lane is looked at
    /// again when either may be different.
    pub(super) fn may_vacate(&mut self, state: &State, service: &Service, lane: Lane) -> bool {
        let budget = service.spec.placement.max_disrupted;
        let peers = peers(state, service);
        let mut request = Request::of(service.id, &service.spec).among(&peers);
        request.node = self.moves.target(lane);
        let granted = self.disturbed(state, service) < budget
            && match self.scheduler.place(&request) {
                Ok(placed) => {
                    self.scheduler.release(placed.reservation);
                    true
                }
                Err(_) => false,
            };
        if granted {
            *self.disturbed.entry(service.id).or_default() += 1;
        } else {
            self.postponed.entry(service.id).or_default().insert(lane);
        }
        granted
    }

    /// Returns how many places of a service have no task that answers, or lose it in this step.
    fn disturbed(&mut self, state: &State, service: &Service) -> u32 {
        *self.disturbed.entry(service.id).or_insert_with(|| {
            let answers = |lane: Lane| {
                let mut tasks = state.lane(lane);
                tasks.any(|entry| is_ready(entry) && entry.task.desired == Desired::Running)
            };
            let lanes = service.slots.iter().map(|slot| Lane {
                service: service.id,
                slot: *slot,
                pinned: None,
            });
            let silent = lanes.filter(|lane| !answers(*lane)).count();
            u32::try_from(silent).unwrap_or(u32::MAX)
        })
    }
}

/// Returns whether tasks of this service may be moved although nothing is wrong with them.
pub(super) fn may_move(service: &Service) -> bool {
    service.spec.placement.rebalance
        && service.spec.placement.max_disrupted > 0
        && !service.removing
        && matches!(service.spec.mode, Mode::Replicated { .. })
        && matches!(service.update, Update::Completed)
}

/// Returns whether a task runs and answers.
pub(super) fn is_ready(entry: &TaskEntry) -> bool {
    let observed = &entry.task.observed;
    observed.state == TaskState::Running && observed.health == Health::Healthy
}
