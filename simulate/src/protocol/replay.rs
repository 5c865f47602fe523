//! The protocol `replay`: arrivals and departures at their times.

use std::collections::BTreeMap;

use ballast_model::{AssignmentId, Millis};

use super::Outcome;
use crate::amounts::Amounts;
use crate::cluster::{Cluster, Running};
use crate::fleet::Fleet;
use crate::report::{GpuAllocated, Run};
use crate::timeline::{Axis, SAMPLES, Sample, Timeline};
use crate::workload::{Task, Workload};

/// What happens to a task, in the order in which it does at one moment: what ends makes room
/// first, but nothing ends before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    End,
    Begin,
    EndAtOnce,
}

/// Replays the times of the list. A task without an end runs to the end of the trace.
pub(super) fn replay(
    fleet: &Fleet,
    workload: &Workload,
    migrate_percent_per_hour: f64,
    progress: &dyn Fn(f64),
) -> Outcome {
    let events = events(&workload.tasks);
    let (first, last) = match (events.first(), events.last()) {
        (Some(first), Some(last)) => (first.0, last.0),
        _ => (Millis(0), Millis(0)),
    };
    let mut replay = Replay::new(fleet, workload, migrate_percent_per_hour, first);
    let length = (last.0 - first.0).max(1) as f64;
    for &(at, what, number) in &events {
        replay.sample_until(at, first, length, progress);
        replay.advance(at);
        match what {
            What::Begin => replay.begin(number),
            What::End | What::EndAtOnce => replay.end(number),
        }
    }
    replay.finish()
}

fn events(tasks: &[Task]) -> Vec<(Millis, What, usize)> {
    let mut events = Vec::with_capacity(tasks.len() * 2);
    for (number, task) in tasks.iter().enumerate() {
        let Some(created) = task.created else {
            continue;
        };
        events.push((created, What::Begin, number));
        if let Some(deleted) = task.deleted {
            let what = if deleted == created {
                What::EndAtOnce
            } else {
                What::End
            };
            events.push((deleted, what, number));
        }
    }
    events.sort_unstable();
    events
}

struct Replay<'a> {
    cluster: Cluster<'a>,
    workload: &'a Workload,
    has_gpus: bool,
    host: Option<Amounts>,
    running: BTreeMap<usize, Running>,
    by_assignment: BTreeMap<AssignmentId, usize>,
    now: Millis,
    integrals: Integrals,
    budget: Budget,
    next_tidy: Millis,
    placed: u64,
    unplaced: u64,
    moved: u64,
    peak: usize,
    samples: Vec<Sample>,
}

/// Sums over time, in milliseconds.
#[derive(Debug, Default)]
struct Integrals {
    time: f64,
    used: f64,
    bound: f64,
    whole_bound: f64,
    shares: [f64; 3],
}

/// Moves that may be made: they come with time and tasks, and are spent one by one.
#[derive(Debug)]
struct Budget {
    percent_per_hour: f64,
    saved: f64,
}

/// Moves that can be saved up: an hour's worth, and at least one.
const SAVED_HOURS: f64 = 1.0;
/// Between two looks at what could be moved: a manager does not look at every departure, either.
const TIDY_EVERY: Millis = Millis::from_secs(120);
const MILLIS_PER_HOUR: f64 = 3_600_000.0;

impl Budget {
    fn earn(&mut self, span: f64, tasks: usize) {
        let per_hour = self.percent_per_hour / 100.0 * tasks as f64;
        let most = (per_hour * SAVED_HOURS).max(1.0);
        self.saved = (self.saved + per_hour * span / MILLIS_PER_HOUR).min(most);
    }
}

impl<'a> Replay<'a> {
    fn new(fleet: &Fleet, workload: &'a Workload, percent_per_hour: f64, first: Millis) -> Self {
        Self {
            cluster: Cluster::new(fleet, workload),
            workload,
            has_gpus: fleet.total.gpu > 0,
            host: fleet.host(),
            running: BTreeMap::new(),
            by_assignment: BTreeMap::new(),
            now: first,
            integrals: Integrals::default(),
            budget: Budget {
                percent_per_hour,
                saved: 0.0,
            },
            next_tidy: first,
            placed: 0,
            unplaced: 0,
            moved: 0,
            peak: 0,
            samples: Vec::with_capacity(SAMPLES + 1),
        }
    }

    /// Lets time pass, with what runs as it is.
    fn advance(&mut self, to: Millis) {
        let span = (to.0 - self.now.0) as f64;
        self.now = to;
        if span <= 0.0 {
            return;
        }
        let sums = &mut self.integrals;
        sums.time += span;
        sums.used += self.cluster.used() as f64 * span;
        if let Some(host) = self.host {
            let bound = self.cluster.taken().dominant(host);
            sums.bound += bound * span;
            sums.whole_bound += bound.ceil() * span;
        }
        for (sum, share) in sums.shares.iter_mut().zip(self.cluster.shares()) {
            *sum += share * span;
        }
        self.budget.earn(span, self.running.len());
    }

    fn begin(&mut self, number: usize) {
        let Some(running) = self.cluster.place(self.workload.tasks[number].service) else {
            self.unplaced += 1;
            return;
        };
        self.placed += 1;
        self.by_assignment.insert(running.assignment, number);
        self.running.insert(number, running);
        self.peak = self.peak.max(self.cluster.used());
    }

    fn end(&mut self, number: usize) {
        if let Some(running) = self.running.remove(&number) {
            self.cluster.end(running);
            self.by_assignment.remove(&running.assignment);
            self.tidy();
        }
    }

    /// Spends the budget on what the scheduler proposes, now that there is room.
    fn tidy(&mut self) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and at most a hundredfold of the tasks"
        )]
        let moves = self.budget.saved as usize;
        if moves == 0 || self.now < self.next_tidy {
            return;
        }
        self.next_tidy = Millis(self.now.0.saturating_add(TIDY_EVERY.0));
        for step in self.cluster.defragment(moves) {
            let number = self.by_assignment[&step.assignment];
            let task = self.running.get_mut(&number).expect("what is moved runs");
            if self.cluster.shift(task, step.to) {
                self.budget.saved -= 1.0;
                self.moved += 1;
            }
        }
    }

    /// Takes the samples that are due before an event.
    fn sample_until(&mut self, at: Millis, first: Millis, length: f64, progress: &dyn Fn(f64)) {
        let done = (at.0 - first.0) as f64 / length;
        while self.samples.len() <= SAMPLES && self.samples.len() as f64 <= done * SAMPLES as f64 {
            let moment = self.samples.len() as f64 / SAMPLES as f64;
            self.samples
                .push(self.cluster.sample(moment * length / 1000.0));
            progress(done);
        }
    }

    fn finish(self) -> Outcome {
        let sums = &self.integrals;
        let mean = |sum: f64| {
            if sums.time > 0.0 {
                sum / sums.time
            } else {
                0.0
            }
        };
        let ratio = |bound: f64| (self.host.is_some() && bound > 0.0).then(|| sums.used / bound);
        let run = Run {
            seed: 0,
            placed: self.placed,
            unplaced: self.unplaced,
            nodes_used_peak: self.peak as u64,
            nodes_used_mean: mean(sums.used),
            gpu_allocated_percent: self.has_gpus.then(|| GpuAllocated {
                at_100: None,
                at_130: None,
                overall: mean(sums.shares[2]) * 100.0,
            }),
            cpu_allocated_percent: mean(sums.shares[0]) * 100.0,
            memory_allocated_percent: mean(sums.shares[1]) * 100.0,
            moved: self.moved,
            nodes_to_volume_bound: ratio(sums.bound),
            nodes_to_whole_bound: ratio(sums.whole_bound),
        };
        Outcome {
            run,
            timeline: Timeline {
                axis: Axis::Seconds,
                nodes: self.cluster.len(),
                has_gpus: self.has_gpus,
                samples: self.samples,
            },
            decisions: self.cluster.decisions,
            spent: self.cluster.spent,
        }
    }
}
