//! Random events against the worker, with a model of the processes it has started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ballast_model::{
    AssignmentId, Claim, Desired, Exit, Generation, Health, IngressId, Millis, PortBinding,
    PortSpec, Sequence, ServiceId, Slot as SlotNumber, TaskId, TaskState, TaskTemplate, Timestamp,
};
use ballast_wire::agent::{AssignedTemplate, Assignment, AssignmentSet};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Effect, Event, Now, ProbeFailure, Process, Worker};

/// Long enough for every drain, grace and backoff of the templates used here.
const LONG: Duration = Duration::from_hours(1);

/// A node whose processes live in a table.
struct Model {
    worker: Worker,
    rng: StdRng,
    begun: Instant,
    elapsed: Duration,
    generation: u64,
    set: AssignmentSet,
    starting: Vec<(AssignmentId, TaskId)>,
    running: BTreeMap<(AssignmentId, TaskId), Process>,
    signalled: BTreeSet<TaskId>,
    killed: BTreeSet<TaskId>,
    probes: Vec<super::Probe>,
    sequences: BTreeMap<AssignmentId, Sequence>,
    pushed: Vec<(AssignmentId, Health)>,
    pids: u32,
}

fn template(service: u64) -> AssignedTemplate {
    AssignedTemplate {
        service: ServiceId::from_bits(service),
        name: format!("s{service}"),
        generation: Generation(1),
        task: TaskTemplate {
            command: vec!["program".to_owned()],
            ..TaskTemplate::default()
        },
        ports: vec![PortSpec {
            name: "http".to_owned(),
            target: ballast_model::Target::Dynamic,
            published: Some(80),
            protocol: ballast_model::Protocol::Http,
            balance: None,
            upstream: None,
        }],
        job: false,
    }
}

fn assignment(number: u64) -> Assignment {
    Assignment {
        assignment: AssignmentId::from_bits(number),
        task: TaskId::from_bits(number << 32),
        restarts: 0,
        service: ServiceId::from_bits(1),
        generation: Generation(1),
        slot: SlotNumber(u32::try_from(number).expect("small")),
        ports: vec![PortBinding {
            name: "http".to_owned(),
            port: 20_000 + u16::try_from(number).expect("small"),
        }],
        claim: Claim::default(),
        desired: Desired::Running,
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            worker: Worker::default(),
            rng: StdRng::seed_from_u64(seed),
            begun: Instant::now(),
            elapsed: Duration::ZERO,
            generation: 0,
            set: AssignmentSet {
                templates: vec![template(1)],
                ..AssignmentSet::default()
            },
            starting: Vec::new(),
            running: BTreeMap::new(),
            signalled: BTreeSet::new(),
            killed: BTreeSet::new(),
            probes: Vec::new(),
            sequences: BTreeMap::new(),
            pushed: Vec::new(),
            pids: 1,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: self.begun + self.elapsed,
            wall: Timestamp(u64::try_from(self.elapsed.as_micros()).expect("short")),
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.worker.step(event, self.now(), &mut self.rng);
        for effect in effects {
            self.take(effect);
        }
    }

    /// Runs an effect in the model, and checks what must hold for it.
    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Push(health) => {
                let before = self.sequences.insert(health.assignment, health.sequence);
                assert!(
                    before < Some(health.sequence),
                    "a sequence that does not grow"
                );
                self.pushed.push((health.assignment, health.health));
            }
            Effect::Start(start) => {
                let id = start.bound.assignment.assignment;
                let live = self
                    .running
                    .keys()
                    .chain(&self.starting)
                    .any(|(other, _)| *other == id);
                assert!(!live, "two live tries in one slot");
                self.starting.push((id, start.task));
            }
            Effect::Signal(task, ..) => {
                self.signalled.insert(task);
            }
            Effect::Kill(_, task, _) => {
                self.killed.insert(task);
            }
            Effect::Probe(probe) => self.probes.push(probe),
            Effect::Forget(id) => {
                let live = self
                    .running
                    .keys()
                    .chain(&self.starting)
                    .any(|(other, _)| *other == id);
                assert!(!live, "forgotten while it lives");
                self.sequences.remove(&id);
            }
            _ => {}
        }
    }

    fn send_set(&mut self) {
        self.generation += 1;
        self.set.generation = Generation(self.generation);
        self.step(Event::Assignments(self.set.clone()));
    }

    fn start_one(&mut self, pick: usize, works: bool) {
        if self.starting.is_empty() {
            return;
        }
        let (id, task) = self.starting.swap_remove(pick % self.starting.len());
        if works {
            self.pids += 1;
            let process = Process {
                pid: self.pids,
                start_time: 1,
            };
            self.running.insert((id, task), process);
            self.step(Event::Started(id, task, process));
        } else {
            self.step(Event::Rejected(id, task, "no".to_owned()));
        }
    }

    fn exit_one(&mut self, pick: usize, exit: Exit) {
        let Some(&key) = self.running.keys().nth(pick % self.running.len().max(1)) else {
            return;
        };
        self.step(Event::Exiting(key.0, key.1));
        self.running.remove(&key);
        self.step(Event::Exited(key.0, key.1, exit));
    }

    fn answer_probe(&mut self, pick: usize, works: bool) {
        if self.probes.is_empty() {
            return;
        }
        let probe = self.probes.swap_remove(pick % self.probes.len());
        let failure = ProbeFailure {
            reason: "no answer".to_owned(),
            refused: pick.is_multiple_of(2),
        };
        self.step(Event::Probed {
            assignment: probe.bound.assignment.assignment,
            task: probe.task,
            demand: probe.demand,
            result: if works { Ok(()) } else { Err(failure) },
        });
    }

    fn pass(&mut self, span: Duration) {
        self.elapsed += span;
        self.step(Event::Tick);
    }

    /// Lets time pass as the shell would, timer by timer.
    fn pass_long(&mut self) {
        let end = self.begun + self.elapsed + LONG;
        for _ in 0..10_000 {
            match self.worker.next_deadline() {
                Some(at) if at < end => {
                    self.elapsed = self.elapsed.max(at - self.begun);
                    self.step(Event::Tick);
                }
                _ => return,
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Move {
    Add(u64),
    Stop(usize),
    Withdraw(usize),
    Resend,
    Old,
    Start(usize, bool),
    Exit(usize, i32),
    Probe(usize, bool),
    Demand(usize),
    IngressUp(u64),
    IngressDown(u64),
    Drained(usize, u64, u32),
    Pass(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (1u64..6).prop_map(Move::Add),
        1 => any::<usize>().prop_map(Move::Stop),
        1 => any::<usize>().prop_map(Move::Withdraw),
        1 => Just(Move::Resend),
        1 => Just(Move::Old),
        4 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(p, w)| Move::Start(p, w)),
        3 => (any::<usize>(), 0i32..2).prop_map(|(p, code)| Move::Exit(p, code)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(p, w)| Move::Probe(p, w)),
        2 => any::<usize>().prop_map(Move::Demand),
        1 => (1u64..4).prop_map(Move::IngressUp),
        1 => (1u64..4).prop_map(Move::IngressDown),
        1 => (any::<usize>(), 1u64..4, 0u32..2).prop_map(|(p, i, n)| Move::Drained(p, i, n)),
        4 => (0u64..20_000).prop_map(Move::Pass),
    ];
    prop::collection::vec(one, 1..120)
}

fn play(model: &mut Model, moves: Vec<Move>) {
    for one in moves {
        let ids: Vec<_> = model.sequences.keys().copied().collect();
        let pick = |place: usize| ids.get(place % ids.len().max(1)).copied();
        match one {
            Move::Add(number) => {
                let new = assignment(number);
                if !model
                    .set
                    .assignments
                    .iter()
                    .any(|a| a.assignment == new.assignment)
                {
                    model.set.assignments.push(new);
                    model.send_set();
                }
            }
            Move::Stop(place) => {
                let count = model.set.assignments.len();
                if count > 0 {
                    model.set.assignments[place % count].desired = Desired::Shutdown;
                    model.send_set();
                }
            }
            Move::Withdraw(place) => {
                let count = model.set.assignments.len();
                if count > 0 {
                    model.set.assignments.swap_remove(place % count);
                    model.send_set();
                }
            }
            Move::Resend => model.send_set(),
            Move::Old => {
                let old = AssignmentSet {
                    generation: Generation(model.generation.saturating_sub(1)),
                    ..AssignmentSet::default()
                };
                if model.generation > 1 {
                    model.step(Event::Assignments(old));
                }
            }
            Move::Start(place, works) => model.start_one(place, works),
            Move::Exit(place, code) => model.exit_one(place, Exit::Code(code)),
            Move::Probe(place, works) => model.answer_probe(place, works),
            Move::Demand(place) => {
                if let Some(id) = pick(place) {
                    model.step(Event::ProbeRequested(id, Millis(20)));
                }
            }
            Move::IngressUp(id) => model.step(Event::IngressUp(IngressId::from_bits(id))),
            Move::IngressDown(id) => model.step(Event::IngressDown(IngressId::from_bits(id))),
            Move::Drained(place, ingress, in_flight) => {
                if let Some(assignment) = pick(place) {
                    let sequence = model.sequences[&assignment];
                    model.step(Event::Drained {
                        ingress: IngressId::from_bits(ingress),
                        assignment,
                        sequence,
                        in_flight,
                    });
                }
            }
            Move::Pass(millis) => model.pass(Duration::from_millis(millis)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The model's asserts hold in every step: never two live tries in one slot, sequences grow,
    /// nothing is forgotten while it lives.
    #[test]
    fn prop_one_live_try_per_slot_and_growing_sequences(seed: u64, moves in moves()) {
        play(&mut Model::new(seed), moves);
    }

    #[test]
    fn prop_every_stop_ends_in_an_exit_or_a_kill(seed: u64, moves in moves()) {
        let mut model = Model::new(seed);
        play(&mut model, moves);
        while !model.starting.is_empty() {
            model.start_one(0, true);
        }
        model.step(Event::StopAll);
        // Nobody drains, no process listens to its signal.
        model.pass_long();
        prop_assert!(model.starting.is_empty(), "nothing is started any more");
        for (_, task) in model.running.keys() {
            prop_assert!(model.killed.contains(task), "neither ended nor killed");
        }
        while !model.running.is_empty() {
            model.exit_one(0, Exit::Signal(9));
        }
        model.set.assignments.clear();
        model.send_set();
        prop_assert!(model.worker.reports().is_empty(), "everything is forgotten");
        prop_assert_eq!(model.worker.next_deadline(), None);
    }

    #[test]
    fn prop_older_set_changes_nothing(seed: u64, moves in moves()) {
        let mut model = Model::new(seed);
        play(&mut model, moves);
        model.send_set();
        let before = format!("{:?}", model.worker);
        let old = AssignmentSet { generation: Generation(model.generation - 1), ..AssignmentSet::default() };
        let effects = model.worker.step(Event::Assignments(old), model.now(), &mut model.rng);
        prop_assert!(effects.is_empty());
        prop_assert_eq!(format!("{:?}", model.worker), before);
    }
}

/// Returns a model with one healthy task.
fn healthy() -> Model {
    let mut model = Model::new(1);
    model.set.assignments.push(assignment(1));
    model.send_set();
    model.start_one(0, true);
    model.answer_probe(0, true);
    assert_eq!(
        model.pushed.last(),
        Some(&(AssignmentId::from_bits(1), Health::Healthy))
    );
    model
}

fn state(model: &Model) -> (TaskState, Health, String) {
    let report = model.worker.reports().pop().expect("has one");
    (
        report.observed.state,
        report.observed.health,
        report.observed.message,
    )
}

#[test]
fn death_is_pushed_before_anything_else_happens() {
    let mut model = healthy();
    let ((id, task), _) = model.running.pop_first().expect("runs");
    let effects = model
        .worker
        .step(Event::Exiting(id, task), model.now(), &mut model.rng);
    assert!(matches!(effects[..], [Effect::Push(push)] if push.health == Health::Unhealthy));
    model.sequences.clear();
    let effects = model.worker.step(
        Event::Exited(id, task, Exit::Signal(9)),
        model.now(),
        &mut model.rng,
    );
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start(_))),
        "restarted at once"
    );
}

#[test]
fn stop_waits_for_every_ingress_that_answers() {
    let mut model = healthy();
    for ingress in 1..=3 {
        model.step(Event::IngressUp(IngressId::from_bits(ingress)));
    }
    model.set.assignments[0].desired = Desired::Shutdown;
    model.send_set();
    let id = AssignmentId::from_bits(1);
    assert_eq!(model.pushed.last(), Some(&(id, Health::Draining)));
    let sequence = model.sequences[&id];
    let drained = |ingress, in_flight| Event::Drained {
        ingress: IngressId::from_bits(ingress),
        assignment: id,
        sequence,
        in_flight,
    };
    model.step(drained(1, 0));
    model.step(drained(2, 4));
    // The third says nothing: it does not route there.
    model.pass(Duration::from_secs(2));
    assert!(model.signalled.is_empty(), "four requests are in flight");
    model.step(drained(2, 0));
    assert_eq!(model.signalled.len(), 1);
    assert!(model.killed.is_empty());
    model.pass(Duration::from_secs(11));
    assert_eq!(model.killed.len(), 1);
}

#[test]
fn drain_ends_at_its_limit_and_with_a_lost_ingress() {
    let mut model = healthy();
    model.step(Event::IngressUp(IngressId::from_bits(1)));
    model.set.assignments[0].desired = Desired::Shutdown;
    model.send_set();
    let (assignment, sequence) = (
        AssignmentId::from_bits(1),
        model.sequences[&AssignmentId::from_bits(1)],
    );
    let ingress = IngressId::from_bits(1);
    model.step(Event::Drained {
        ingress,
        assignment,
        sequence,
        in_flight: 1,
    });
    model.pass(Duration::from_millis(9900));
    assert!(model.signalled.is_empty());
    model.pass(Duration::from_millis(200));
    assert_eq!(model.signalled.len(), 1);

    let mut model = healthy();
    model.step(Event::IngressUp(ingress));
    model.set.assignments[0].desired = Desired::Shutdown;
    model.send_set();
    assert!(model.signalled.is_empty());
    model.step(Event::IngressDown(ingress));
    assert_eq!(model.signalled.len(), 1);
}

#[test]
fn demanded_probe_confirms_a_refusal_and_believes_a_silence() {
    let mut model = healthy();
    let id = AssignmentId::from_bits(1);
    let fail = |model: &mut Model, refused| {
        let probe = model.probes.pop().expect("was asked");
        assert!(probe.demand);
        assert_eq!(probe.timeout, Millis(20));
        let reason = "no".to_owned();
        model.step(Event::Probed {
            assignment: id,
            task: probe.task,
            demand: true,
            result: Err(ProbeFailure { reason, refused }),
        });
    };
    model.step(Event::ProbeRequested(id, Millis(20)));
    model.step(Event::ProbeRequested(id, Millis(20)));
    assert_eq!(model.probes.len(), 1, "coalesced");
    fail(&mut model, true);
    assert_eq!(
        state(&model).1,
        Health::Healthy,
        "one refusal is confirmed first"
    );
    fail(&mut model, true);
    assert_eq!(state(&model).1, Health::Unhealthy);

    let mut model = healthy();
    model.step(Event::ProbeRequested(id, Millis(20)));
    fail(&mut model, false);
    assert_eq!(
        state(&model),
        (
            TaskState::Running,
            Health::Unhealthy,
            "unhealthy: no".to_owned()
        )
    );
    // It recovers within its patience: nobody is killed.
    model.pass(Duration::from_millis(50));
    model.answer_probe(0, true);
    assert_eq!(state(&model).1, Health::Healthy);
    assert!(model.killed.is_empty());
}

#[test]
fn task_that_stays_unhealthy_is_killed_and_tried_again() {
    let mut model = healthy();
    let id = AssignmentId::from_bits(1);
    model.step(Event::ProbeRequested(id, Millis(20)));
    for _ in 0..20 {
        while !model.probes.is_empty() {
            model.answer_probe(1, false);
        }
        model.pass(Duration::from_millis(200));
    }
    assert_eq!(model.killed.len(), 1, "after three timeouts of a second");
    model.exit_one(0, Exit::Signal(9));
    let report = model.worker.reports().pop().expect("has one");
    assert_eq!(
        (report.restarts, report.observed.state),
        (1, TaskState::Starting)
    );
    assert!(
        report.observed.message.contains("unhealthy for 3s"),
        "{report:?}"
    );
}

#[test]
fn next_life_keeps_the_health_of_an_adopted_task() {
    let mut model = healthy();
    let record = {
        let mut records = Vec::new();
        for effect in model
            .worker
            .step(Event::StopAll, model.now(), &mut model.rng)
        {
            if let Effect::Remember(record) = effect {
                records.push(record);
            }
        }
        records.pop().expect("remembers")
    };
    let record = super::Record {
        health: Health::Healthy,
        ..record
    };
    let mut worker = Worker::default();
    let now = model.now();
    let effects = worker.restore(
        model.set.clone(),
        vec![record],
        BTreeMap::new(),
        now,
        &mut model.rng,
    );
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Adopt(..)))
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Start(_)))
    );
    assert_eq!(worker.health(now)[0].health, Health::Healthy);
    assert!(
        worker.next_deadline().is_some_and(|at| at <= now.mono),
        "and is probed at once"
    );
}

#[test]
fn worker_that_ends_takes_nothing_on() {
    let mut model = healthy();
    model.step(Event::StopAll);
    model.pass_long();
    model.exit_one(0, Exit::Signal(15));
    // What a manager does that sees the task end: another binding for the same slot.
    model.set.assignments = vec![assignment(2)];
    model.send_set();
    model.pass_long();
    assert!(model.starting.is_empty() && model.running.is_empty());
}
