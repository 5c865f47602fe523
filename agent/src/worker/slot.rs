//! One assignment: its tries, one after the other, and how it is stopped.
//!
//! | phase | event | next |
//! | --- | --- | --- |
//! | starting | started | running; draining if it is to stop |
//! | starting | rejected | ended |
//! | running | stop | draining; stopping if it takes no traffic |
//! | running | hopeless health | killing, then another try |
//! | draining | drained by every ingress, or the limit | stopping |
//! | stopping | grace over | killing |
//! | any with a process | exited | ended if it is to stop; else starting, backoff or ended |
//! | backoff | its time has come | starting |
//! | backoff | stop | ended |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_model::{
    Exit, Health, IngressId, Millis, Observed, RestartCondition, Sequence, TaskId, TaskState,
    Timestamp, limits,
};
use ballast_wire::agent::TaskReport;
use ballast_wire::feed::EndpointHealth;

use super::prober::{Ask, Prober, Verdict};
use super::streak::{Next, Streak};
use super::{Bound, Context, Effect, Now, Probe, ProbeFailure, Process, Record, Start};

/// How long an ingress may take to say that it has taken an endpoint out. One that says nothing
/// does not route there.
const DRAIN_ANSWER: Duration = Duration::from_secs(1);
/// Between two SIGKILLs for a process that does not die (it hangs in the kernel).
const KILL_AGAIN: Duration = Duration::from_secs(5);
/// The spread of a backoff's delay: one in this many parts, so that tasks that fail together do
/// not restart together.
const BACKOFF_SPREAD: u64 = 10;

#[derive(Debug)]
enum Phase {
    Starting,
    Running,
    Draining {
        until: Instant,
        answer_by: Instant,
        /// Who still sends requests there; whether they have answered at all.
        waiting: BTreeMap<IngressId, bool>,
        sequence: Sequence,
    },
    Stopping {
        kill_at: Instant,
    },
    Killing {
        /// Why it may not go on, if it is not to stop anyway.
        why: Option<String>,
        again: Instant,
    },
    Backoff {
        until: Instant,
    },
    Ended,
}

#[derive(Debug)]
pub(super) struct Slot {
    bound: Arc<Bound>,
    task: TaskId,
    restarts: u32,
    phase: Phase,
    /// The manager wants it ended; never taken back.
    stop: bool,
    /// The newest set does not have it: forgotten once it has ended.
    withdrawn: bool,
    process: Option<Process>,
    prober: Option<Prober>,
    streak: Streak,
    began: Instant,
    state: TaskState,
    since: Timestamp,
    health: Health,
    sequence: Sequence,
    exit: Option<Exit>,
    message: String,
}

impl Slot {
    fn new(bound: Arc<Bound>, now: Now) -> Self {
        Self {
            task: bound.assignment.task,
            restarts: bound.assignment.restarts,
            bound,
            phase: Phase::Ended,
            stop: false,
            withdrawn: false,
            process: None,
            prober: None,
            streak: Streak::new(0, now.mono),
            began: now.mono,
            state: TaskState::Assigned,
            since: now.wall,
            health: Health::Unknown,
            sequence: Sequence(1),
            exit: None,
            message: String::new(),
        }
    }

    /// Takes on an assignment and starts its first try.
    pub(super) fn start(bound: Arc<Bound>, context: &mut Context<'_>) -> Self {
        let mut slot = Self::new(bound, context.now);
        slot.begin(context);
        slot
    }

    /// Takes on an assignment that is to stop before it ever ran here.
    pub(super) fn never_ran(bound: Arc<Bound>, now: Now) -> Self {
        let mut slot = Self::new(bound, now);
        slot.state = TaskState::Shutdown;
        slot.stop = true;
        "never ran here".clone_into(&mut slot.message);
        slot
    }

    /// Takes up a slot of an earlier life; a process in its record is alive.
    pub(super) fn restore(bound: Arc<Bound>, record: Record, context: &mut Context<'_>) -> Self {
        let mut slot = Self::new(bound, context.now);
        slot.task = record.task;
        slot.restarts = record.restarts;
        slot.streak.count = record.streak;
        slot.state = record.state;
        slot.since = record.since;
        slot.exit = record.exit;
        slot.message = record.message;
        if let Some(process) = record.process {
            slot.adopt(process, record.health, context);
        } else if record.will_restart {
            slot.retry(context);
        } else if !record.state.is_terminal() {
            slot.phase = Phase::Running;
            slot.exited(record.task, Exit::Unknown, context);
        }
        slot
    }

    /// Takes up a process whose record was lost.
    pub(super) fn adopt_stray(
        bound: Arc<Bound>,
        task: TaskId,
        process: Process,
        context: &mut Context<'_>,
    ) -> Self {
        let mut slot = Self::new(bound, context.now);
        slot.task = task;
        slot.adopt(process, Health::Unknown, context);
        slot
    }

    fn adopt(&mut self, process: Process, health: Health, context: &mut Context<'_>) {
        let answered = health == Health::Healthy;
        self.process = Some(process);
        self.phase = Phase::Running;
        self.prober = Some(Prober::new(
            self.bound.check.as_ref(),
            answered,
            context.now.mono,
        ));
        if answered || self.bound.check.is_none() {
            self.health = Health::Healthy;
        }
        self.enter(TaskState::Running, self.message.clone(), context);
        let adopt = Effect::Adopt(self.bound.clone(), self.task, process);
        context.effects.push(adopt);
    }

    // What others ask of it.

    pub(super) const fn state(&self) -> TaskState {
        self.state
    }

    pub(super) fn live(&self) -> Option<(&Arc<Bound>, TaskId, Process)> {
        self.process
            .map(|process| (&self.bound, self.task, process))
    }

    pub(super) fn is_starting(&self, task: TaskId) -> bool {
        self.task == task && matches!(self.phase, Phase::Starting)
    }

    pub(super) fn is_over(&self) -> bool {
        self.withdrawn && matches!(self.phase, Phase::Ended)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Starting | Phase::Ended => None,
            Phase::Running => self.prober.as_ref().and_then(Prober::deadline),
            Phase::Draining {
                until,
                answer_by,
                waiting,
                ..
            } if waiting.values().any(|answered| !answered) => Some(*until.min(answer_by)),
            Phase::Draining { until, .. } | Phase::Backoff { until } => Some(*until),
            Phase::Stopping { kill_at: at } | Phase::Killing { again: at, .. } => Some(*at),
        }
    }

    pub(super) fn endpoint(&self, now: Now) -> EndpointHealth {
        EndpointHealth {
            assignment: self.bound.assignment.assignment,
            sequence: self.sequence,
            health: self.health,
            seen: now.wall,
        }
    }

    pub(super) fn report(&self) -> TaskReport {
        TaskReport {
            task: self.task,
            assignment: self.bound.assignment.assignment,
            restarts: self.restarts,
            will_restart: matches!(self.phase, Phase::Backoff { .. }),
            observed: Observed {
                state: self.state,
                health: self.health,
                sequence: self.sequence,
                pid: self.process.map(|process| process.pid),
                exit: self.exit,
                message: self.message.clone(),
                since: self.since,
            },
        }
    }

    fn record(&self) -> Record {
        Record {
            assignment: self.bound.assignment.assignment,
            task: self.task,
            restarts: self.restarts,
            streak: self.streak.count,
            process: self.process,
            state: self.state,
            health: self.health,
            will_restart: matches!(self.phase, Phase::Backoff { .. }),
            exit: self.exit,
            message: self.message.clone(),
            since: self.since,
        }
    }

    // Events.

    pub(super) fn started(&mut self, process: Process, context: &mut Context<'_>) {
        self.process = Some(process);
        self.phase = Phase::Running;
        self.began = context.now.mono;
        let mut prober = Prober::new(self.bound.check.as_ref(), false, context.now.mono);
        let ask = prober.tick(context.now.mono);
        self.prober = Some(prober);
        if self.bound.check.is_none() {
            self.flip(Health::Healthy, context);
        }
        if let Some(ask) = ask.filter(|_| !self.stop) {
            self.ask(ask, context);
        }
        self.enter(TaskState::Running, self.message.clone(), context);
        if self.stop {
            self.begin_stop(context);
        }
    }

    pub(super) fn rejected(&mut self, task: TaskId, reason: String, context: &mut Context<'_>) {
        if !self.is_starting(task) {
            return;
        }
        self.flip(Health::Unhealthy, context);
        self.phase = Phase::Ended;
        let state = if self.stop {
            TaskState::Shutdown
        } else {
            TaskState::Rejected
        };
        self.enter(state, reason, context);
    }

    pub(super) fn exiting(&mut self, task: TaskId, context: &mut Context<'_>) {
        if self.task == task && self.process.is_some() {
            self.flip(Health::Unhealthy, context);
        }
    }

    pub(super) fn exited(&mut self, task: TaskId, exit: Exit, context: &mut Context<'_>) {
        let idle = matches!(
            self.phase,
            Phase::Starting | Phase::Backoff { .. } | Phase::Ended
        );
        if self.task != task || idle {
            return;
        }
        self.flip(Health::Unhealthy, context);
        self.process = None;
        self.prober = None;
        self.exit = Some(exit);
        let before = std::mem::replace(&mut self.phase, Phase::Ended);
        if self.stop {
            let message = match before {
                Phase::Killing { .. } => {
                    let StopPolicyText { signal, grace } = self.stop_policy();
                    format!("killed: still there {grace} after {signal}")
                }
                _ => String::new(),
            };
            self.enter(TaskState::Shutdown, message, context);
            return;
        }
        let why = match before {
            Phase::Killing { why, .. } => why,
            _ => None,
        };
        self.after_exit(exit, why, context);
    }

    pub(super) fn probed(
        &mut self,
        task: TaskId,
        demand: bool,
        result: Result<(), ProbeFailure>,
        context: &mut Context<'_>,
    ) {
        if self.task != task || !matches!(self.phase, Phase::Running) {
            return;
        }
        let Some(prober) = &mut self.prober else {
            return;
        };
        let now = context.now.mono;
        let (verdict, again) = prober.result(demand, result, self.health, now, context.rng);
        match verdict {
            Verdict::Same => {}
            Verdict::Healthy => {
                self.flip(Health::Healthy, context);
                let message = self.streak.note(now);
                self.note(message, context);
            }
            Verdict::Unhealthy(reason) => {
                self.flip(Health::Unhealthy, context);
                self.note(format!("unhealthy: {reason}"), context);
            }
            Verdict::Hopeless(reason) => {
                self.flip(Health::Unhealthy, context);
                self.kill(Some(reason), context);
            }
        }
        if let Some(ask) = again {
            self.ask(ask, context);
        }
    }

    pub(super) fn probe_requested(&mut self, timeout: Millis, context: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let (health, now) = (self.health, context.now.mono);
        let prober = self.prober.as_mut();
        if let Some(ask) = prober.and_then(|prober| prober.demand(timeout, health, now)) {
            self.ask(ask, context);
        }
    }

    pub(super) fn drained(
        &mut self,
        ingress: IngressId,
        asked: Sequence,
        in_flight: u32,
        context: &mut Context<'_>,
    ) {
        if let Phase::Draining {
            waiting, sequence, ..
        } = &mut self.phase
            && asked >= *sequence
        {
            if in_flight == 0 {
                waiting.remove(&ingress);
            } else if let Some(answered) = waiting.get_mut(&ingress) {
                *answered = true;
            }
            self.signal_if_drained(context);
        }
    }

    pub(super) fn ingress_down(&mut self, ingress: IngressId, context: &mut Context<'_>) {
        if let Phase::Draining { waiting, .. } = &mut self.phase {
            waiting.remove(&ingress);
            self.signal_if_drained(context);
        }
    }

    /// Marks it as gone from the newest set.
    pub(super) const fn withdraw(&mut self) {
        self.withdrawn = true;
    }

    pub(super) fn stop(&mut self, context: &mut Context<'_>) {
        if matches!(self.phase, Phase::Ended) {
            // The manager may have missed how it ended.
            if !self.withdrawn {
                context.effects.push(Effect::Report(self.report()));
            }
            self.stop = true;
            return;
        }
        if self.stop {
            return;
        }
        self.stop = true;
        match self.phase {
            Phase::Running => self.begin_stop(context),
            Phase::Backoff { .. } => {
                self.phase = Phase::Ended;
                let last = std::mem::take(&mut self.message);
                self.note(
                    format!("stopped while it waited for another try: {last}"),
                    context,
                );
            }
            _ => {}
        }
    }

    pub(super) fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        match &mut self.phase {
            Phase::Running => {
                let ask = self.prober.as_mut().and_then(|prober| prober.tick(now));
                if let Some(ask) = ask {
                    self.ask(ask, context);
                }
            }
            Phase::Draining {
                until,
                answer_by,
                waiting,
                ..
            } => {
                if now >= *until {
                    waiting.clear();
                } else if now >= *answer_by {
                    waiting.retain(|_, answered| *answered);
                }
                self.signal_if_drained(context);
            }
            Phase::Stopping { kill_at } if now >= *kill_at => self.kill(None, context),
            Phase::Killing { again, .. } if now >= *again => {
                *again = now + KILL_AGAIN;
                self.send_kill(context);
                self.note("does not die of SIGKILL".to_owned(), context);
            }
            Phase::Backoff { until } if now >= *until => self.retry(context),
            // Not due yet, or waits for no moment.
            _ => {}
        }
    }

    // Steps.

    fn begin(&mut self, context: &mut Context<'_>) {
        self.phase = Phase::Starting;
        self.exit = None;
        self.began = context.now.mono;
        context.effects.push(Effect::Start(Start {
            bound: self.bound.clone(),
            task: self.task,
        }));
        self.flip(Health::Unknown, context);
        let note = self.streak.note(context.now.mono);
        self.enter(TaskState::Starting, note, context);
    }

    fn retry(&mut self, context: &mut Context<'_>) {
        self.task = TaskId::from_bits(context.rng.next_u64());
        self.restarts = self.restarts.saturating_add(1);
        self.begin(context);
    }

    fn after_exit(&mut self, exit: Exit, why: Option<String>, context: &mut Context<'_>) {
        let now = context.now.mono;
        let success = exit.is_success() && why.is_none();
        let last = why.unwrap_or_else(|| exit.to_string());
        let state = if success {
            TaskState::Complete
        } else {
            TaskState::Failed
        };
        let policy = self.bound.template.task.restart;
        let again = match policy.condition {
            RestartCondition::Any => !(success && self.bound.template.job),
            RestartCondition::OnFailure => !success,
            RestartCondition::None => false,
        };
        if !again {
            self.enter(state, last, context);
            return;
        }
        let ran = now.duration_since(self.began).as_millis();
        let ran = Millis(u64::try_from(ran).unwrap_or(u64::MAX));
        match self.streak.ended(&policy, ran, last, now) {
            Next::GiveUp(message) => self.enter(state, message, context),
            Next::Retry(delay, message) => {
                let spread = delay.0 / BACKOFF_SPREAD;
                let jitter = match spread {
                    0 => 0,
                    _ => context.rng.next_u64() % spread,
                };
                let until = now + Duration::from_millis(delay.0.saturating_add(jitter));
                self.phase = Phase::Backoff { until };
                self.enter(state, message, context);
                if delay.0 == 0 {
                    self.retry(context);
                }
            }
        }
    }

    fn begin_stop(&mut self, context: &mut Context<'_>) {
        let takes_traffic = self.health == Health::Healthy;
        self.flip(Health::Draining, context);
        let waiting: BTreeMap<_, _> = if takes_traffic && !self.bound.assignment.ports.is_empty() {
            context
                .ingresses
                .iter()
                .map(|&ingress| (ingress, false))
                .collect()
        } else {
            BTreeMap::new()
        };
        let now = context.now.mono;
        let until = now + self.bound.template.task.stop.drain.to_duration();
        self.phase = Phase::Draining {
            until,
            answer_by: until.min(now + DRAIN_ANSWER),
            waiting,
            sequence: self.sequence,
        };
        self.note(String::new(), context);
        self.signal_if_drained(context);
    }

    fn signal_if_drained(&mut self, context: &mut Context<'_>) {
        let Phase::Draining { waiting, until, .. } = &self.phase else {
            return;
        };
        if !waiting.is_empty() && context.now.mono < *until {
            return;
        }
        let stop = &self.bound.template.task.stop;
        let kill_at = context.now.mono + stop.grace.to_duration();
        if let Some(process) = self.process {
            let signal = Effect::Signal(self.task, process, stop.signal.clone());
            context.effects.push(signal);
        }
        self.phase = Phase::Stopping { kill_at };
    }

    fn kill(&mut self, why: Option<String>, context: &mut Context<'_>) {
        let again = context.now.mono + KILL_AGAIN;
        if let Some(why) = &why {
            self.note(why.clone(), context);
        }
        self.phase = Phase::Killing { why, again };
        self.send_kill(context);
    }

    fn send_kill(&self, context: &mut Context<'_>) {
        if let Some(process) = self.process {
            let id = self.bound.assignment.assignment;
            context.effects.push(Effect::Kill(id, self.task, process));
        }
    }

    fn ask(&self, ask: Ask, context: &mut Context<'_>) {
        if let Some(process) = self.process {
            context.effects.push(Effect::Probe(Probe {
                bound: self.bound.clone(),
                task: self.task,
                process,
                timeout: ask.timeout,
                demand: ask.demand,
            }));
        }
    }

    /// Changes the health and tells the ingresses first.
    fn flip(&mut self, health: Health, context: &mut Context<'_>) {
        if self.health == health {
            return;
        }
        self.health = health;
        self.sequence = self.sequence.next();
        context
            .effects
            .push(Effect::Push(self.endpoint(context.now)));
    }

    fn enter(&mut self, state: TaskState, message: String, context: &mut Context<'_>) {
        if self.state != state {
            self.state = state;
            self.since = context.now.wall;
        }
        self.note(message, context);
    }

    /// Tells the manager and the next life how it is.
    fn note(&mut self, message: String, context: &mut Context<'_>) {
        self.message = cut(message);
        context.effects.push(Effect::Report(self.report()));
        context.effects.push(Effect::Remember(self.record()));
    }

    fn stop_policy(&self) -> StopPolicyText {
        let stop = &self.bound.template.task.stop;
        StopPolicyText {
            signal: stop.signal.clone(),
            grace: stop.grace.to_string(),
        }
    }
}

struct StopPolicyText {
    signal: String,
    grace: String,
}

/// Cuts a message to what may travel.
fn cut(mut message: String) -> String {
    let most = message.floor_char_boundary(limits::MESSAGE_BYTES);
    message.truncate(most);
    message
}
