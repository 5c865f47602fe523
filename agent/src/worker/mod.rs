//! The core of the agent: what to start, stop, probe, push and report, without doing any of it.
//!
//! [`Worker::step`] takes an event, the time and a source of random bits and returns effects; the
//! shell runs them in their order. Each assignment is one [`slot`] with a state machine of its own;
//! [`prober`] judges its health and [`streak`] its restarts.
//!
//! # Promises, each held by a property test
//! * Never two live tries in one slot: a try is started only when the one before has ended.
//! * The sequence number of an assignment's health only grows.
//! * Every stop ends in an exit or a kill, after drain and grace at the latest.
//! * An older set of assignments changes nothing.

mod prober;
mod slot;
mod streak;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ballast_model::{
    AssignmentId, Desired, Exit, Generation, Health, HealthCheck, IngressId, Millis, ProbeKind,
    Protocol, Sequence, ServiceId, TaskId, TaskState, Timestamp,
};
use ballast_wire::agent::{AssignedTemplate, Assignment, AssignmentSet, TaskReport};
use ballast_wire::feed::EndpointHealth;
use rand::Rng;
use serde::{Deserialize, Serialize};

use slot::Slot;

/// The time, by both clocks: one to measure with, one to stamp with. The latter may jump.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub mono: Instant,
    /// By the calendar.
    pub wall: Timestamp,
}

/// A process, named so that a recycled pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its id, also that of its session and process group.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// An assignment with all that is needed to run it.
#[derive(Debug, PartialEq, Eq)]
pub struct Bound {
    /// The binding.
    pub assignment: Assignment,
    /// What to run.
    pub template: Arc<AssignedTemplate>,
    /// How its health is judged; none if running is enough.
    pub check: Option<HealthCheck>,
}

impl Bound {
    fn new(assignment: Assignment, template: Arc<AssignedTemplate>) -> Self {
        let check = effective_check(&template);
        Self {
            assignment,
            template,
            check,
        }
    }

    /// Returns the number of a named port.
    pub fn port(&self, name: &str) -> Option<u16> {
        let mut ports = self.assignment.ports.iter();
        ports.find(|port| port.name == name).map(|port| port.port)
    }
}

/// Returns the template's check, or the default one: HTTP services must answer anything on their
/// first HTTP port, TCP services must accept on their first TCP port.
fn effective_check(template: &AssignedTemplate) -> Option<HealthCheck> {
    if let Some(check) = &template.task.health {
        return Some(check.clone());
    }
    let first = |protocol| {
        let mut ports = template.ports.iter();
        ports
            .find(|port| port.protocol == protocol)
            .map(|port| port.name.clone())
    };
    let probe = if let Some(port) = first(Protocol::Http) {
        ProbeKind::Http {
            port,
            path: "/".to_owned(),
            status: (100, 599),
        }
    } else {
        ProbeKind::Tcp {
            port: first(Protocol::Tcp)?,
        }
    };
    Some(HealthCheck::with_defaults(probe))
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure {
    /// In words.
    pub reason: String,
    /// At once, because nobody listened: worth a second question.
    pub refused: bool,
}

/// What the worker is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The manager's newest set.
    Assignments(AssignmentSet),
    /// A try's program runs.
    Started(AssignmentId, TaskId, Process),
    /// A try's program could not be started; why.
    Rejected(AssignmentId, TaskId, String),
    /// A try's process has ended; its status and its leftovers are still being seen to. Comes
    /// first so that the health push waits for nothing.
    Exiting(AssignmentId, TaskId),
    /// It has ended, and nothing of it is left.
    Exited(AssignmentId, TaskId, Exit),
    /// A probe was answered, or failed.
    Probed {
        /// Whose.
        assignment: AssignmentId,
        /// Which try.
        task: TaskId,
        /// Whether an ingress had asked for it.
        demand: bool,
        /// The outcome.
        result: Result<(), ProbeFailure>,
    },
    /// An ingress sees a stall; the probe shall fail after this long.
    ProbeRequested(AssignmentId, Millis),
    /// A feed to this ingress works.
    IngressUp(IngressId),
    /// It no longer does.
    IngressDown(IngressId),
    /// An ingress sends no new requests there; so many are still in flight.
    Drained {
        /// Who says so.
        ingress: IngressId,
        /// Of what.
        assignment: AssignmentId,
        /// The push that asked.
        sequence: Sequence,
        /// Requests in flight.
        in_flight: u32,
    },
    /// Time has passed.
    Tick,
    /// The agent ends and is to leave nothing running.
    StopAll,
}

/// A try to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// What, and under which binding.
    pub bound: Arc<Bound>,
    /// The try.
    pub task: TaskId,
}

/// A probe to make.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Of what; without a check only the state of the process is looked at.
    pub bound: Arc<Bound>,
    /// Which try.
    pub task: TaskId,
    /// Its process.
    pub process: Process,
    /// When it has failed.
    pub timeout: Millis,
    /// Whether an ingress asked for it.
    pub demand: bool,
}

/// What the shell is to do; nothing of it may block.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Tell every ingress.
    Push(EndpointHealth),
    /// Tell the manager.
    Report(TaskReport),
    /// Start a try; ends in `Started` or `Rejected`.
    Start(Start),
    /// Watch a try that an earlier life of the agent started.
    Adopt(Arc<Bound>, TaskId, Process),
    /// Send a signal, by name, to the try's process.
    Signal(TaskId, Process, String),
    /// SIGKILL everything the try has started.
    Kill(AssignmentId, TaskId, Process),
    /// Ask; ends in `Probed`.
    Probe(Probe),
    /// Keep for the next life of the agent.
    Remember(Record),
    /// The assignment is over: remove what was kept.
    Forget(AssignmentId),
    /// Tell the manager that this set is being acted on.
    Applied(Generation),
}

/// What one life of the agent leaves the next of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    pub assignment: AssignmentId,
    /// Its newest try.
    pub task: TaskId,
    /// Tries before that.
    pub restarts: u32,
    /// Restarts in a row.
    pub streak: u32,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// Its state.
    pub state: TaskState,
    /// Its health when last pushed: a task that answered before the agent restarted keeps its
    /// traffic until a probe fails.
    pub health: Health,
    /// Whether it will be tried again.
    pub will_restart: bool,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Why.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a step of one slot may use.
struct Context<'a> {
    now: Now,
    rng: &'a mut dyn Rng,
    ingresses: &'a BTreeSet<IngressId>,
    effects: &'a mut Vec<Effect>,
}

/// All assignments of this node.
#[derive(Debug, Default)]
pub struct Worker {
    generation: Generation,
    slots: BTreeMap<AssignmentId, Slot>,
    templates: BTreeMap<(ServiceId, Generation), Arc<AssignedTemplate>>,
    ingresses: BTreeSet<IngressId>,
    /// One entry per slot that waits for a moment.
    timers: BTreeSet<(Instant, AssignmentId)>,
    /// Processes of an earlier life whose records were lost, by the assignment they say they are.
    strays: BTreeMap<AssignmentId, (TaskId, Process)>,
    /// [`Event::StopAll`] has come: a manager that replaces what was stopped must not have it
    /// started here again.
    ending: bool,
}

impl Worker {
    /// Takes up the work of an earlier life: `records` whose process is set are alive.
    pub fn restore(
        &mut self,
        set: AssignmentSet,
        records: Vec<Record>,
        strays: BTreeMap<AssignmentId, (TaskId, Process)>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.strays = strays;
        let mut known: BTreeMap<_, _> = set.assignments.iter().map(|a| (a.assignment, a)).collect();
        self.learn_templates(&set);
        for record in records {
            let Some(assignment) = known.remove(&record.assignment) else {
                // It was withdrawn, and the agent ended before it had: nobody else knows of it.
                if let Some(process) = record.process {
                    effects.push(Effect::Kill(record.assignment, record.task, process));
                }
                effects.push(Effect::Forget(record.assignment));
                continue;
            };
            let Some(bound) = self.bind(assignment.clone()) else {
                continue;
            };
            let mut context = Context {
                now,
                rng: &mut *rng,
                ingresses: &self.ingresses,
                effects: &mut effects,
            };
            self.strays.remove(&record.assignment);
            let id = record.assignment;
            let slot = Slot::restore(bound, record, &mut context);
            self.slots.insert(id, slot);
            self.rearm(id, None);
        }
        effects.extend(self.step(Event::Assignments(set), now, rng));
        effects
    }

    /// Takes an event and returns what to do, in order.
    pub fn step(&mut self, event: Event, now: Now, rng: &mut dyn Rng) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Assignments(set) => self.assignments(set, now, rng, &mut effects),
            Event::Started(assignment, task, process) => {
                let stray = !self
                    .slots
                    .get(&assignment)
                    .is_some_and(|s| s.is_starting(task));
                if stray {
                    effects.push(Effect::Kill(assignment, task, process));
                } else {
                    self.with(assignment, now, rng, &mut effects, |slot, context| {
                        slot.started(process, context);
                    });
                }
            }
            Event::Rejected(assignment, task, reason) => {
                self.with(assignment, now, rng, &mut effects, |slot, context| {
                    slot.rejected(task, reason, context);
                });
            }
            Event::Exiting(assignment, task) => {
                self.with(assignment, now, rng, &mut effects, |slot, context| {
                    slot.exiting(task, context);
                });
            }
            Event::Exited(assignment, task, exit) => {
                self.with(assignment, now, rng, &mut effects, |slot, context| {
                    slot.exited(task, exit, context);
                });
            }
            Event::Probed {
                assignment,
                task,
                demand,
                result,
            } => self.with(assignment, now, rng, &mut effects, |slot, context| {
                slot.probed(task, demand, result, context);
            }),
            Event::ProbeRequested(assignment, timeout) => {
                self.with(assignment, now, rng, &mut effects, |slot, context| {
                    slot.probe_requested(timeout, context);
                });
            }
            Event::Drained {
                ingress,
                assignment,
                sequence,
                in_flight,
            } => self.with(assignment, now, rng, &mut effects, |slot, context| {
                slot.drained(ingress, sequence, in_flight, context);
            }),
            Event::IngressUp(ingress) => {
                self.ingresses.insert(ingress);
            }
            Event::IngressDown(ingress) => {
                self.ingresses.remove(&ingress);
                self.with_each(now, rng, &mut effects, |slot, context| {
                    slot.ingress_down(ingress, context);
                });
            }
            Event::Tick => self.tick(now, rng, &mut effects),
            Event::StopAll => {
                self.ending = true;
                self.with_each(now, rng, &mut effects, Slot::stop);
            }
        }
        effects
    }

    /// Returns when [`Event::Tick`] is next needed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Returns the set that was last acted on.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the newest try of every assignment, for a manager that is connected to anew.
    pub fn reports(&self) -> Vec<TaskReport> {
        self.slots.values().map(Slot::report).collect()
    }

    /// Returns the health of every assignment, for an ingress that is connected to anew.
    pub fn health(&self, now: Now) -> Vec<EndpointHealth> {
        self.slots.values().map(|slot| slot.endpoint(now)).collect()
    }

    /// Returns every live try, for metrics and for a clean end.
    pub fn live(&self) -> impl Iterator<Item = (&Arc<Bound>, TaskId, Process)> {
        self.slots.values().filter_map(Slot::live)
    }

    /// Returns how many assignments are in each state.
    pub fn count_by_state(&self) -> BTreeMap<TaskState, usize> {
        let mut counts = BTreeMap::new();
        for slot in self.slots.values() {
            *counts.entry(slot.state()).or_default() += 1;
        }
        counts
    }

    /// Returns every assignment that is not over.
    pub fn assignments_known(&self) -> impl Iterator<Item = AssignmentId> {
        self.slots.keys().copied()
    }

    /// Takes the processes of an earlier life that no assignment of a set has claimed.
    pub fn take_strays(&mut self) -> BTreeMap<AssignmentId, (TaskId, Process)> {
        std::mem::take(&mut self.strays)
    }

    fn learn_templates(&mut self, set: &AssignmentSet) {
        for template in &set.templates {
            self.templates
                .entry((template.service, template.generation))
                .or_insert_with(|| Arc::new(template.clone()));
        }
    }

    fn bind(&self, assignment: Assignment) -> Option<Arc<Bound>> {
        let key = (assignment.service, assignment.generation);
        let template = self.templates.get(&key)?.clone();
        Some(Arc::new(Bound::new(assignment, template)))
    }

    fn assignments(
        &mut self,
        set: AssignmentSet,
        now: Now,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) {
        if set.generation < self.generation {
            return;
        }
        self.generation = set.generation;
        self.learn_templates(&set);
        let mut present = BTreeSet::new();
        for assignment in set.assignments {
            let (id, desired) = (assignment.assignment, assignment.desired);
            present.insert(id);
            if !self.slots.contains_key(&id) && !self.ending {
                self.take_on(assignment, now, rng, effects);
            }
            if desired == Desired::Shutdown {
                self.with(id, now, rng, effects, Slot::stop);
            }
        }
        let absent: Vec<_> = self
            .slots
            .keys()
            .copied()
            .filter(|id| !present.contains(id))
            .collect();
        for id in absent {
            self.with(id, now, rng, effects, |slot, context| {
                slot.withdraw();
                slot.stop(context);
            });
        }
        self.templates
            .retain(|_, template| Arc::strong_count(template) > 1);
        effects.push(Effect::Applied(self.generation));
    }

    fn take_on(
        &mut self,
        assignment: Assignment,
        now: Now,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) {
        let id = assignment.assignment;
        let stray = self.strays.remove(&id);
        // A set names a template for each of its assignments; one that does not cannot be run, and
        // the next set will say what was meant.
        let Some(bound) = self.bind(assignment) else {
            return;
        };
        let mut context = Context {
            now,
            rng,
            ingresses: &self.ingresses,
            effects,
        };
        let slot = match stray {
            Some((task, process)) => Slot::adopt_stray(bound, task, process, &mut context),
            None if bound.assignment.desired == Desired::Shutdown => Slot::never_ran(bound, now),
            None => Slot::start(bound, &mut context),
        };
        self.slots.insert(id, slot);
        self.rearm(id, None);
    }

    fn tick(&mut self, now: Now, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now.mono {
                return;
            }
            self.timers.pop_first();
            self.with(id, now, rng, effects, Slot::tick);
        }
    }

    fn with_each(
        &mut self,
        now: Now,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
        mut step: impl FnMut(&mut Slot, &mut Context<'_>),
    ) {
        let ids: Vec<_> = self.slots.keys().copied().collect();
        for id in ids {
            self.with(id, now, rng, effects, &mut step);
        }
    }

    /// Steps one slot, then keeps its timer and forgets it if it is over.
    fn with(
        &mut self,
        id: AssignmentId,
        now: Now,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
        step: impl FnOnce(&mut Slot, &mut Context<'_>),
    ) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let before = slot.deadline();
        let mut context = Context {
            now,
            rng,
            ingresses: &self.ingresses,
            effects,
        };
        step(slot, &mut context);
        let over = slot.is_over();
        self.rearm(id, before);
        if over {
            if let Some(at) = self.slots.remove(&id).and_then(|slot| slot.deadline()) {
                self.timers.remove(&(at, id));
            }
            effects.push(Effect::Forget(id));
        }
    }

    fn rearm(&mut self, id: AssignmentId, before: Option<Instant>) {
        let after = self.slots.get(&id).and_then(Slot::deadline);
        if let Some(at) = before {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = after {
            self.timers.insert((at, id));
        }
    }
}
