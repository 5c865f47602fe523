//! What a change would do: the real state, reconciler and scheduler, run on a copy.
//!
//! A [`Future`] owns a copy of the state and a reconciler that was built from it as a new leader's
//! is. [`Future::settle`] is what the leader would do at once: the same steps, applied the same
//! way, so that with the same seed and the same time the copy's bytes become those of the real
//! state (`prop_plan_is_what_apply_then_does`). Which task goes to which node does not depend on
//! the seed: ids are drawn, and nothing is decided by them.
//!
//! [`Future::play_out`] goes on from there and plays the agents: every program that is started runs
//! and answers, every one that is told to end ends, and time passes as far as timers ask for it
//! (the delay between two batches of an update). So it says what follows *later*: the second
//! replica of a rolling update, the stop of what was replaced first. A job's tasks are taken to run
//! on: those that follow when others complete are not shown.
//!
//! Both are bounded in steps, and the caller may end them; what was found until then is shown as
//! incomplete.

mod diff;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ballast_model::plan::PlanView;
use ballast_model::{
    Desired, Health, Millis, NodeStatus, Observed, Sequence, TaskId, TaskState, Timestamp,
};
use ballast_wire::agent::TaskReport;
use ballast_wire::log::{Batch, Command};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::reconcile::{Goal, MovePolicy, Reconciler};
use crate::state::{Lane, Rejection, State};
use diff::Before;

/// Steps of the reconciler in one plan. A rolling update takes two for each batch of tasks; past
/// this the plan says that more follows.
pub const STEPS: usize = 20_000;
/// How far time passes in a plan: what waits for longer is not shown.
pub const HORIZON: Millis = Millis::from_secs(24 * 3600);

/// A copy of the cluster on which time passes.
#[derive(Debug)]
pub struct Future {
    state: State,
    reconciler: Reconciler,
    rng: StdRng,
    now: Timestamp,
    end: Timestamp,
    steps: usize,
    /// Lanes that something happened to.
    touched: BTreeSet<Lane>,
    /// Those of them whose tasks agents are yet to act on.
    acting: BTreeSet<Lane>,
    /// Why tasks were told to end.
    reasons: BTreeMap<TaskId, String>,
}

impl Future {
    /// Returns a future that begins with this state, at this time.
    pub fn new(state: State, seed: u64, now: Timestamp) -> Self {
        // What a leader does by itself later has nothing to do with what is asked.
        let policy = MovePolicy {
            automatic: false,
            ..MovePolicy::default()
        };
        Self {
            reconciler: Reconciler::with_policy(&state, policy),
            state,
            rng: StdRng::seed_from_u64(seed),
            now,
            end: now.saturating_add(HORIZON),
            steps: STEPS,
            touched: BTreeSet::new(),
            acting: BTreeSet::new(),
            reasons: BTreeMap::new(),
        }
    }

    /// Returns the copy as it is by now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies a batch as the leader does: all of it, then the reconciler is told what changed.
    ///
    /// # Errors
    /// The first refusal; the other commands are applied.
    pub fn apply(&mut self, batch: &[Command]) -> Result<(), Rejection> {
        let applied = self.state.apply_batch(batch);
        for outcome in &applied {
            self.reconciler.observe(&self.state, &outcome.changes);
            self.touched.extend(&outcome.changes.lanes);
            self.acting.extend(&outcome.changes.lanes);
        }
        for outcome in &applied {
            self.note_reasons(&outcome.changes.lanes);
        }
        applied
            .into_iter()
            .try_for_each(|outcome| outcome.result.map(drop))
    }

    /// Keeps why tasks are told to end: an agent's report overwrites it.
    fn note_reasons(&mut self, lanes: &BTreeSet<Lane>) {
        for lane in lanes {
            for entry in self.state.lane(*lane) {
                if entry.task.desired == Desired::Shutdown
                    && !self.reasons.contains_key(&entry.task.id)
                {
                    let reason = entry.task.observed.message.clone();
                    self.reasons.insert(entry.task.id, reason);
                }
            }
        }
    }

    /// Lets the reconciler do what it would do at once; returns the batches that it proposed, or
    /// none if there was no end to it.
    pub fn settle(&mut self, give_up: &dyn Fn() -> bool) -> Option<Vec<Batch>> {
        let mut batches = Vec::new();
        while self
            .reconciler
            .next_wake()
            .is_some_and(|due| due <= self.now)
        {
            if self.steps == 0 || give_up() {
                return None;
            }
            self.steps -= 1;
            let batch = self.reconciler.step(&self.state, self.now, &mut self.rng);
            if !batch.is_empty() {
                // What is refused is planned again, as it is by the leader.
                let _ = self.apply(&batch);
                batches.push(batch);
            }
        }
        Some(batches)
    }

    /// Lets agents act and time pass until nothing more happens; returns whether it came to that.
    pub fn play_out(&mut self, give_up: &dyn Fn() -> bool) -> bool {
        self.acting.extend(unsettled(&self.state));
        loop {
            let acted = self.act();
            let Some(batches) = self.settle(give_up) else {
                return false;
            };
            if acted || !batches.is_empty() {
                continue;
            }
            match self.reconciler.next_wake() {
                Some(due) if due <= self.end => self.now = self.now.max(due),
                _ => return true,
            }
        }
    }

    /// Lets agents do what they are told in lanes that changed; returns whether any did something.
    fn act(&mut self) -> bool {
        let mut reports: BTreeMap<_, Vec<TaskReport>> = BTreeMap::new();
        for lane in std::mem::take(&mut self.acting) {
            for entry in self
                .state
                .lane(lane)
                .filter(|entry| self.state.occupies(entry))
            {
                let Some(binding) = &entry.task.binding else {
                    continue;
                };
                let ready = |id| {
                    let node = self.state.node(id);
                    node.is_some_and(|node| node.node.status == NodeStatus::Ready)
                };
                if entry.task.observed.state.is_terminal() || !ready(binding.node) {
                    continue;
                }
                let observed = &entry.task.observed;
                let (state, health) = match entry.task.desired {
                    Desired::Shutdown => (TaskState::Shutdown, Health::Unhealthy),
                    Desired::Running => (TaskState::Running, Health::Healthy),
                };
                if (observed.state, observed.health) == (state, health) {
                    continue;
                }
                let report = TaskReport {
                    task: entry.task.id,
                    assignment: binding.assignment,
                    restarts: binding.restarts,
                    will_restart: false,
                    observed: Observed {
                        state,
                        health,
                        sequence: Sequence(observed.sequence.0 + 1),
                        pid: None,
                        exit: None,
                        message: String::new(),
                        since: self.now,
                    },
                };
                reports.entry(binding.node).or_default().push(report);
            }
        }
        let time = self.now;
        let batch: Batch = reports
            .into_iter()
            .map(|(node, tasks)| Command::Report { node, tasks, time })
            .collect();
        // Reports are never refused.
        let _ = self.apply(&batch);
        !batch.is_empty()
    }
}

/// Returns the lanes in which a task is about to run or to end.
fn unsettled(state: &State) -> BTreeSet<Lane> {
    let acts = |entry: &&crate::state::TaskEntry| {
        let observed = &entry.task.observed;
        let settled = observed.state == TaskState::Running
            && observed.health == Health::Healthy
            && entry.task.desired == Desired::Running;
        entry.task.binding.is_some() && !observed.state.is_terminal() && !settled
    };
    state
        .tasks()
        .filter(acts)
        .map(crate::state::TaskEntry::lane)
        .collect()
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A change of what is wanted.
    Command(Box<Command>),
    /// Moves towards a goal.
    Rebalance(Goal),
}

/// Returns what a change would do to a cluster in this state.
///
/// # Errors
/// What applying the command would be refused with.
///
/// # Complexity
/// A few passes over the tasks, and then what the reconciler does.
pub fn plan(
    state: State,
    ask: &Ask,
    seed: u64,
    now: Timestamp,
    give_up: &dyn Fn() -> bool,
) -> Result<PlanView, Rejection> {
    let before = Before::of(&state);
    let mut future = Future::new(state, seed, now);
    match ask {
        Ask::Command(command) => future.apply(std::slice::from_ref(&**command))?,
        Ask::Rebalance(goal) => future.reconciler.rebalance(*goal),
    }
    let nodes = before.asked(&future);
    let mut complete = future.settle(give_up).is_some();
    let at_once = diff::bindings(&future.state);
    if complete {
        complete = future.play_out(give_up);
    }
    Ok(before.view(&future, &at_once, nodes, complete))
}
