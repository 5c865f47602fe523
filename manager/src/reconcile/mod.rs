//! The leader's decisions: from the state to commands that bring what is to what is wanted.
//!
//! # Protocol
//!
//! One [`Reconciler`] lives in one leadership. Its owner calls
//! * [`Reconciler::rebuild`] when it gains the leadership, and whenever a batch could not be
//!   proposed or it is not known whether it was applied;
//! * [`Reconciler::observe`] with the changes of every applied command, its own and others', in the
//!   order of the log;
//! * [`Reconciler::step`] when there is something to do ([`Reconciler::next_wake`]), and only after
//!   all of the batch before was observed. So a decision is never made twice: what `step` reads
//!   holds the outcome of what it proposed last.
//!
//! Only what changed is looked at: lanes and services that `observe` marked, timers that are due,
//! and waiting tasks when there may be room for them. Idle costs nothing.

pub(crate) mod affinity;
mod lane;
mod moves;
pub(crate) mod placing;
mod plan;
mod preempting;
mod rebalance;
mod rollout;
mod share;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::view::PendingView;
use ballast_model::{
    AssignmentId, Mode, Node, NodeId, ServiceId, Slot, TaskId, TaskState, Timestamp,
    UpdateFailureAction, UpdateOrder,
};
use ballast_scheduler::{Reservation, Scheduler};
use ballast_wire::log::{Batch, Command, NewTask};
use rand::Rng;

use crate::state::{Changes, Lane, Service, State, Update};
use lane::{Fill, Verdict, judge};
use moves::Moves;
pub use moves::{Goal, MovePolicy};
use plan::Plan;
use rollout::Rollout;
use share::Share;

/// Tasks made, placed or stopped in one step; the rest follow in the next one. Bounds the size of a
/// log entry.
const LANES_PER_STEP: usize = 4096;

/// Lanes looked at in one step: bounds how long the leader thinks without listening. Twice
/// [`LANES_PER_STEP`], because those of the step before come again, to show that they are well.
const LOOKS_PER_STEP: usize = 2 * LANES_PER_STEP;

/// How long a port that a node found in use is not handed out there again.
const QUARANTINE: ballast_model::Millis = ballast_model::Millis::from_secs(30);

/// How often the reason why tasks wait is worded anew while capacity comes and goes.
const REASON_INTERVAL: ballast_model::Millis = ballast_model::Millis::from_secs(1);

/// Something to look at later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lane(Lane),
    Rollout(ServiceId),
    Retry,
    LiftQuarantine(NodeId, u16),
    Moves,
    Look(Goal),
}

/// Decides what the leader proposes.
#[derive(Debug, Default)]
pub struct Reconciler {
    scheduler: Scheduler,
    reservations: BTreeMap<AssignmentId, Reservation>,
    lanes: BTreeSet<Lane>,
    services: BTreeSet<ServiceId>,
    /// Services whose rollout or job queue may go on.
    turns: BTreeSet<ServiceId>,
    /// Tasks that no node took.
    waiting: BTreeSet<TaskId>,
    /// Tasks that wait for others to end.
    nominees: preempting::Nominees,
    /// Who keeps away from whom; none since a spec changed.
    affinities: Option<affinity::Affinities>,
    /// There may be room for waiting tasks.
    room: bool,
    reasons: BTreeMap<ServiceId, Timestamp>,
    /// Why tasks of a service wait, and what would help.
    explanations: BTreeMap<ServiceId, PendingView>,
    rollouts: BTreeMap<ServiceId, Rollout>,
    /// Lanes of jobs that wait for others to end.
    queues: BTreeMap<ServiceId, BTreeSet<Lane>>,
    timers: BTreeSet<(Timestamp, Timer)>,
    moves: Moves,
    share: Share,
    /// Lanes whose task may not stop yet, although it leaves its node.
    postponed: BTreeMap<ServiceId, BTreeSet<Lane>>,
    /// Of services that were asked about in this step: places that have no task that answers.
    disturbed: BTreeMap<ServiceId, u32>,
    /// The scheduler misses bindings: it is built anew as soon as no reservation is open.
    astray: bool,
}

impl Reconciler {
    /// Returns a reconciler that has looked at nothing yet and will look at everything.
    pub fn new(state: &State) -> Self {
        Self::with_policy(state, MovePolicy::default())
    }

    /// Returns the same with other settings for moves.
    pub fn with_policy(state: &State, policy: MovePolicy) -> Self {
        let mut reconciler = Self {
            moves: Moves::new(policy),
            ..Self::default()
        };
        reconciler.rebuild(state);
        reconciler
    }

    /// Forgets all it planned, and builds the scheduler's index from the state.
    pub fn rebuild(&mut self, state: &State) {
        *self = Self {
            scheduler: index(state),
            services: state.services().map(|service| service.id).collect(),
            moves: Moves::new(self.moves.policy),
            share: Share::of(state),
            ..Self::default()
        };
    }

    /// Takes note of what a command changed; `state` is one that holds it.
    pub fn observe(&mut self, state: &State, changes: &Changes) {
        for assignment in &changes.freed {
            self.scheduler.free(*assignment);
            self.room = true;
            self.moves.room_came();
        }
        for assignment in &changes.bound {
            match self.reservations.remove(assignment) {
                Some(reservation) => self.scheduler.commit(reservation, *assignment),
                None if self.scheduler.holds(*assignment) => {}
                // Of a batch that was given up for lost, by this leader or the one before.
                None => self.astray |= state.assignment(*assignment).is_some(),
            }
        }
        for assignment in &changes.refused {
            if let Some(reservation) = self.reservations.remove(assignment) {
                self.scheduler.release(reservation);
            }
        }
        for node in &changes.fleet {
            self.observe_node(state, *node);
        }
        if !changes.specs.is_empty() {
            self.affinities = None;
            // A service that others wait to be near to may be there now.
            self.room = true;
        }
        // So may a task of it.
        let waits = self.affinities.as_ref().is_some_and(|a| a.wait_for_others);
        self.room |= waits && !changes.bound.is_empty();
        self.lanes.extend(&changes.lanes);
        if !self.postponed.is_empty() {
            for lane in &changes.lanes {
                let again = self.postponed.remove(&lane.service);
                self.lanes.extend(again.into_iter().flatten());
            }
        }
        self.services.extend(&changes.specs);
        self.correct(state);
    }

    /// Builds the index anew if it misses bindings. Not while reservations are open: what was
    /// missed may hold the very ports that they do.
    fn correct(&mut self, state: &State) {
        if self.astray && self.reservations.is_empty() {
            self.astray = false;
            self.scheduler = index(state);
            self.room = true;
        }
    }

    fn observe_node(&mut self, state: &State, id: NodeId) {
        self.room = true;
        match state.node(id) {
            None => {
                self.scheduler.remove_node(id);
            }
            Some(entry) => {
                let known = self.scheduler.node(id);
                if entry.node.is_schedulable() && !known.is_some_and(Node::is_schedulable) {
                    self.moves.node_came();
                    self.share.node_came(&entry.node);
                }
                self.scheduler.upsert_node(&entry.node);
                let newest = |assignment: &AssignmentId| state.assignment(*assignment);
                for assignment in entry.assignments.iter().filter_map(newest) {
                    self.lanes.extend(
                        state
                            .task(assignment.task)
                            .map(crate::state::TaskEntry::lane),
                    );
                }
            }
        }
        let global = state
            .services()
            .filter(|service| matches!(service.spec.mode, Mode::Global {}));
        self.lanes.extend(global.map(|service| Lane {
            service: service.id,
            slot: Slot(0),
            pinned: Some(id),
        }));
    }

    /// Returns when `step` has something to do: a moment that has passed means at once, none means
    /// not before something is observed.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let work = !self.lanes.is_empty()
            || !self.services.is_empty()
            || !self.turns.is_empty()
            || self.room && !(self.waiting.is_empty() && self.postponed.is_empty())
            || self.moves.wants_step();
        if work {
            return Some(Timestamp(0));
        }
        self.timers.first().map(|(due, _)| *due)
    }

    /// Returns why tasks of services wait, and what would help.
    pub fn explanations(&self) -> &BTreeMap<ServiceId, PendingView> {
        &self.explanations
    }

    /// Returns the scheduler as it knows the fleet: for explanations and metrics.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Returns the commands that are due, as one batch to propose; empty if there are none.
    pub fn step(&mut self, state: &State, now: Timestamp, rng: &mut impl Rng) -> Batch {
        if !self.reservations.is_empty() {
            // The batch before has not been observed: what was placed is not in this state yet.
            return Batch::new();
        }
        self.correct(state);
        self.scheduler.teach(state.learnt());
        let mut plan = Plan::default();
        self.fire(now);
        self.disturbed.clear();
        if self.room {
            let again = std::mem::take(&mut self.postponed);
            self.lanes.extend(again.into_values().flatten());
        }
        self.move_tasks(state, now);
        self.expand(state);
        let mut lanes = std::mem::take(&mut self.lanes);
        for _ in 0..LOOKS_PER_STEP {
            if plan.len() >= LANES_PER_STEP {
                break;
            }
            let Some(lane) = lanes.pop_first() else {
                break;
            };
            self.visit(state, lane, now, rng, &mut plan);
        }
        self.lanes.append(&mut lanes);
        for service in std::mem::take(&mut self.turns) {
            self.take_turns(state, service, now, rng, &mut plan);
        }
        self.learn(state, &plan.create);
        self.place(state, now, rng, &mut plan);
        plan.into_batch(now)
    }

    /// Lets the scheduler know of the tasks that are about to be made, as applying the batch will.
    fn learn(&mut self, state: &State, tasks: &[NewTask]) {
        for task in tasks.iter().filter(|task| task.pinned.is_none()) {
            if let Some(service) = state.service(task.service) {
                let (task, placement) = (&service.spec.task, &service.spec.placement);
                self.scheduler.note(&task.resources, &placement.constraints);
            }
        }
    }

    fn fire(&mut self, now: Timestamp) {
        while let Some(&(due, timer)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Lane(lane) => {
                    self.lanes.insert(lane);
                }
                Timer::Rollout(service) => {
                    self.turns.insert(service);
                }
                Timer::Retry => self.room = true,
                Timer::LiftQuarantine(node, port) => {
                    self.scheduler.lift_quarantine(node, port);
                    self.room = true;
                }
                Timer::Moves => self.moves.take_turn(),
                Timer::Look(goal) => self.look(goal),
            }
        }
    }

    /// Marks every lane of services that changed as a whole.
    fn expand(&mut self, state: &State) {
        for id in std::mem::take(&mut self.services) {
            self.rollouts.remove(&id);
            self.queues.remove(&id);
            let Some(service) = state.service(id) else {
                self.reasons.remove(&id);
                self.explanations.remove(&id);
                continue;
            };
            if matches!(service.update, Update::Running { .. }) {
                self.rollouts.insert(id, Rollout::default());
            }
            self.turns.insert(id);
            self.lanes.extend(state.lanes(id).map(|(lane, _)| lane));
            let lane = |slot, pinned| Lane {
                service: id,
                slot,
                pinned,
            };
            if matches!(service.spec.mode, Mode::Global {}) {
                let nodes = state.nodes().map(|entry| entry.node.id);
                self.lanes
                    .extend(nodes.map(|node| lane(Slot(0), Some(node))));
            } else {
                self.lanes
                    .extend(service.slots.iter().map(|slot| lane(*slot, None)));
            }
        }
    }

    fn visit(
        &mut self,
        state: &State,
        lane: Lane,
        now: Timestamp,
        rng: &mut impl Rng,
        plan: &mut Plan,
    ) {
        let Some(service) = state.service(lane.service).filter(|s| !s.removing) else {
            return;
        };
        self.quarantine(state, lane);
        let moving = self.follow(state, service, lane, now);
        let mut verdict = judge(state, service, lane, moving, now);
        if !verdict.vacate.is_empty() && self.may_vacate(state, service, lane) {
            verdict.stop.append(&mut verdict.vacate);
        }
        for (task, reason) in &verdict.stop {
            plan.stop.entry((*reason).into()).or_default().push(*task);
            self.waiting.remove(task);
        }
        if let Some(task) = verdict.place {
            self.waiting.insert(task);
            self.room = true;
        }
        match verdict.fill {
            Fill::Not => {}
            Fill::At(due) => {
                self.timers.insert((due, Timer::Lane(lane)));
            }
            Fill::Now if service.is_job() => {
                self.queues.entry(service.id).or_default().insert(lane);
            }
            Fill::Now => create(service, lane, rng, plan),
        }
        if service.is_job() {
            self.turns.insert(service.id);
        }
        self.advance(service, lane, &verdict, now, plan);
    }

    /// Takes over what a lane means for a rolling update.
    fn advance(
        &mut self,
        service: &Service,
        lane: Lane,
        verdict: &Verdict,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        let Some(rollout) = self.rollouts.get_mut(&service.id) else {
            return;
        };
        let policy = &service.spec.update;
        rollout.stands(lane, &verdict.standing, policy, now);
        self.turns.insert(service.id);
        let Some(reason) = &verdict.failed else {
            return;
        };
        let rolled_back = matches!(service.update, Update::Running { rolled_back: true });
        let command = match policy.failure_action {
            UpdateFailureAction::Continue => return,
            UpdateFailureAction::Rollback if !rolled_back && service.previous.is_some() => {
                Command::RollbackService {
                    service: service.id,
                    expected: Some(service.generation),
                    automatic: Some(reason.clone()),
                    time: now,
                }
            }
            UpdateFailureAction::Rollback | UpdateFailureAction::Pause => Command::PauseUpdate {
                service: service.id,
                generation: service.template,
                reason: reason.clone(),
                time: now,
            },
        };
        plan.updates.push(command);
        // Its turn has ended: the command's outcome marks the service anew.
        self.rollouts.remove(&service.id);
    }

    /// Lets a rolling update and a job go on as far as they may.
    fn take_turns(
        &mut self,
        state: &State,
        id: ServiceId,
        now: Timestamp,
        rng: &mut impl Rng,
        plan: &mut Plan,
    ) {
        let Some(service) = state.service(id).filter(|service| !service.removing) else {
            return;
        };
        if let Mode::Job { parallelism, .. } = service.spec.mode
            && let Some(queue) = self.queues.get_mut(&id)
        {
            for _ in service.live..parallelism {
                let Some(lane) = queue.pop_first() else {
                    break;
                };
                create(service, lane, rng, plan);
            }
        }
        // A lane that is still to be looked at may have to be replaced, too.
        let first = Lane {
            service: id,
            slot: Slot(0),
            pinned: None,
        };
        let next = self.lanes.range(first..).next();
        if next.is_some_and(|lane| lane.service == id) {
            self.turns.insert(id);
            return;
        }
        let Some(rollout) = self.rollouts.get_mut(&id) else {
            return;
        };
        let turn = rollout.next(&service.spec.update, now);
        if let Some(due) = rollout.wake() {
            self.timers.insert((due, Timer::Rollout(id)));
        }
        if rollout.is_done() {
            self.rollouts.remove(&id);
            plan.updates.push(Command::CompleteUpdate {
                service: id,
                generation: service.template,
                time: now,
            });
        }
        for lane in turn {
            replace(state, service, lane, rng, plan);
        }
    }

    /// Keeps ports that a node found in use from being handed out there again at once.
    fn quarantine(&mut self, state: &State, lane: Lane) {
        let Some(newest) = state.lane(lane).next_back() else {
            return;
        };
        let (Some(binding), Some(ended)) = (&newest.task.binding, newest.ended) else {
            return;
        };
        if newest.task.observed.state != TaskState::Rejected {
            return;
        }
        let words = |c: char| !c.is_ascii_digit();
        let named: BTreeSet<&str> = newest.task.observed.message.split(words).collect();
        for &port in &binding.claim.ports {
            if named.contains(port.to_string().as_str()) {
                self.scheduler.quarantine_port(binding.node, port);
                let lift = Timer::LiftQuarantine(binding.node, port);
                self.timers.insert((ended.saturating_add(QUARANTINE), lift));
            }
        }
    }
}

/// Returns a scheduler that knows what is bound.
fn index(state: &State) -> Scheduler {
    let bindings = state.tasks().filter_map(|entry| {
        let binding = entry.task.binding.as_ref()?;
        let assignment = state.assignment(binding.assignment)?;
        (assignment.task == entry.task.id).then_some((entry.task.service, binding))
    });
    Scheduler::rebuild(state.nodes().map(|entry| &entry.node), bindings)
}

fn create(service: &Service, lane: Lane, rng: &mut impl Rng, plan: &mut Plan) {
    plan.create.push(NewTask {
        id: TaskId::from_bits(rng.next_u64()),
        service: service.id,
        generation: service.template,
        slot: lane.slot,
        pinned: lane.pinned,
    });
}

/// Begins to replace what runs in a lane whose turn it is.
fn replace(state: &State, service: &Service, lane: Lane, rng: &mut impl Rng, plan: &mut Plan) {
    let old: Vec<TaskId> = state
        .lane(lane)
        .filter(|entry| state.occupies(entry))
        .map(|entry| entry.task.id)
        .collect();
    // Pinned tasks with the same node have to share it, which start-first needs room for; it is
    // the user's choice, as stop-first leaves the node without the service for a moment.
    match service.order() {
        UpdateOrder::StopFirst if !old.is_empty() => {
            let reason = "replaced by a newer version";
            plan.stop.entry(reason.into()).or_default().extend(old);
        }
        _ => create(service, lane, rng, plan),
    }
}
