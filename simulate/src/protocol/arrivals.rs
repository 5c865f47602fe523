//! Protocols in which nothing departs: `once` and `fgd`.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Outcome;
use crate::cluster::Cluster;
use crate::fleet::Fleet;
use crate::report::{GpuAllocated, Run};
use crate::timeline::{Axis, SAMPLES, Sample, Timeline};
use crate::workload::Workload;

/// How much of the fleet's GPUs the drawn tasks ask for in the end, percent.
const DEMAND_PERCENT: u64 = 130;

/// Places each task once, in the order of the list.
pub(super) fn once(fleet: &Fleet, workload: &Workload, progress: &dyn Fn(f64)) -> Outcome {
    let mut arrivals = Arrivals::new(fleet, workload);
    let count = workload.tasks.len();
    for (number, task) in workload.tasks.iter().enumerate() {
        let done = number as f64 / count as f64;
        arrivals.arrive(task.service, done, progress);
    }
    arrivals.finish()
}

/// Draws tasks with replacement and places them, until they ask for 1.3 times the fleet's GPUs.
///
/// # Source
/// Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 6.
pub(super) fn fgd(
    fleet: &Fleet,
    workload: &Workload,
    seed: u64,
    progress: &dyn Fn(f64),
) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut arrivals = Arrivals::new(fleet, workload);
    let end = fleet.total.gpu.saturating_mul(DEMAND_PERCENT) / 100;
    while arrivals.demand < end {
        let task = &workload.tasks[rng.random_range(0..workload.tasks.len())];
        let done = arrivals.demand as f64 / end as f64;
        arrivals.arrive(task.service, done, progress);
    }
    arrivals.finish()
}

/// Tasks arriving one by one.
struct Arrivals<'a> {
    cluster: Cluster<'a>,
    workload: &'a Workload,
    gpus: u64,
    has_gpus: bool,
    /// Thousandths of GPUs that what arrived asks for.
    demand: u64,
    arrived: u64,
    placed: u64,
    used_sum: u64,
    peak: usize,
    at_100: Option<f64>,
    at_130: Option<f64>,
    samples: Vec<Sample>,
}

impl<'a> Arrivals<'a> {
    fn new(fleet: &Fleet, workload: &'a Workload) -> Self {
        Self {
            cluster: Cluster::new(fleet, workload),
            workload,
            gpus: fleet.total.gpu,
            has_gpus: fleet.total.gpu > 0,
            demand: 0,
            arrived: 0,
            placed: 0,
            used_sum: 0,
            peak: 0,
            at_100: None,
            at_130: None,
            samples: Vec::with_capacity(SAMPLES + 1),
        }
    }

    /// Places one task, after `done` of the run.
    fn arrive(&mut self, service: usize, done: f64, progress: &dyn Fn(f64)) {
        if done * SAMPLES as f64 >= self.samples.len() as f64 {
            self.samples.push(self.cluster.sample(self.arrived as f64));
            progress(done);
        }
        self.placed += u64::from(self.cluster.place(service).is_some());
        self.arrived += 1;
        self.demand += self.workload.services[service].amounts.gpu;
        self.used_sum += self.cluster.used() as u64;
        self.peak = self.peak.max(self.cluster.used());
        let reached = |percent| u128::from(self.demand) * 100 >= u128::from(self.gpus) * percent;
        if self.at_100.is_none() && reached(100) {
            self.at_100 = Some(self.gpu_percent());
        }
        if self.at_130.is_none() && reached(130) {
            self.at_130 = Some(self.gpu_percent());
        }
    }

    fn gpu_percent(&self) -> f64 {
        self.cluster.shares()[2] * 100.0
    }

    fn finish(mut self) -> Outcome {
        self.samples.push(self.cluster.sample(self.arrived as f64));
        let last = self.gpu_percent();
        let [cpu, memory, _] = self.cluster.shares();
        let run = Run {
            seed: 0,
            placed: self.placed,
            unplaced: self.arrived - self.placed,
            nodes_used_peak: self.peak as u64,
            nodes_used_mean: self.used_sum as f64 / self.arrived.max(1) as f64,
            gpu_allocated_percent: self.has_gpus.then(|| GpuAllocated {
                at_100: Some(self.at_100.unwrap_or(last)),
                at_130: Some(self.at_130.unwrap_or(last)),
                overall: last,
            }),
            cpu_allocated_percent: cpu * 100.0,
            memory_allocated_percent: memory * 100.0,
            moved: 0,
            nodes_to_volume_bound: None,
            nodes_to_whole_bound: None,
        };
        Outcome {
            run,
            timeline: Timeline {
                axis: Axis::Arrivals,
                nodes: self.cluster.len(),
                has_gpus: self.has_gpus,
                samples: self.samples,
            },
            decisions: self.cluster.decisions,
            spent: self.cluster.spent,
        }
    }
}
