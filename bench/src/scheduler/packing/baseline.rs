//! What other schedulers do, on nodes and tasks alone.

use std::collections::BTreeMap;
use std::fmt;

use ballast_simulate::trace::{Shape, TraceTask};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::machine::{Machine, WHOLE};
use super::published::Published;

/// A scheduler's way to choose among the nodes that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// kube-scheduler's `NodeResourcesFit` with `MostAllocated`: CPU and memory, whole percents,
    /// ties by chance.
    MostAllocated,
    /// Nomad's `binpack`: 20 − 10^free CPU − 10^free memory, best of log2(n) nodes by chance.
    NomadBinpack,
    /// Swarm's spread: the fewest tasks of the service, then the fewest tasks, ties by chance.
    SwarmSpread,
    /// The least left of CPU, memory and GPUs after the task, as shares of the largest node.
    BestFit,
    /// The first node of the file.
    FirstFit,
    /// Fragmentation gradient descent, as published, with the whole list known beforehand.
    Published,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::MostAllocated,
        Self::NomadBinpack,
        Self::SwarmSpread,
        Self::BestFit,
        Self::FirstFit,
        Self::Published,
    ];

    pub(super) fn placer(self, tasks: &[TraceTask], seed: u64) -> Placer<'_> {
        Placer {
            baseline: self,
            chance: StdRng::seed_from_u64(!seed),
            of_service: BTreeMap::new(),
            published: (self == Self::Published).then(|| Published::new(tasks)),
        }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MostAllocated => "kubernetes MostAllocated",
            Self::NomadBinpack => "nomad binpack",
            Self::SwarmSpread => "swarm spread",
            Self::BestFit => "best fit, L1",
            Self::FirstFit => "first fit, file order",
            Self::Published => "FGD, list known",
        })
    }
}

/// A baseline in one run.
pub(super) struct Placer<'a> {
    baseline: Baseline,
    chance: StdRng,
    /// Tasks of each shape on each node.
    of_service: BTreeMap<(Shape, usize), u32>,
    published: Option<Published<'a>>,
}

impl Placer<'_> {
    /// Returns the node, and which of its GPUs if the task wants part of one.
    pub(super) fn place(
        &mut self,
        machines: &[Machine],
        task: &Shape,
    ) -> Option<(usize, Option<usize>)> {
        if let Some(published) = &mut self.published {
            return published.place(machines, task);
        }
        let mut fitting = (0..machines.len()).filter(|&at| machines[at].fits(task));
        let at = match self.baseline {
            Baseline::FirstFit | Baseline::Published => fitting.next(),
            Baseline::BestFit => least(fitting, |at| remainder(&machines[at], task)),
            Baseline::MostAllocated => {
                let fitting: Vec<usize> = fitting.collect();
                self.by_chance(&fitting, |at| -most_allocated(&machines[at], task))
            }
            Baseline::NomadBinpack => {
                let mut fitting: Vec<usize> = fitting.collect();
                let limit = machines.len().ilog2().max(2) as usize;
                for place in 0..limit.min(fitting.len()) {
                    let other = self.chance.random_range(place..fitting.len());
                    fitting.swap(place, other);
                }
                fitting.truncate(limit);
                least(fitting.into_iter(), |at| nomad(&machines[at], task))
            }
            Baseline::SwarmSpread => {
                let fitting: Vec<usize> = fitting.collect();
                let services: Vec<u32> = fitting
                    .iter()
                    .map(|&at| {
                        self.of_service
                            .get(&(task.clone(), at))
                            .copied()
                            .unwrap_or(0)
                    })
                    .collect();
                let fewest = services.iter().min().copied();
                let fitting: Vec<usize> = fitting
                    .iter()
                    .zip(&services)
                    .filter(|(_, count)| Some(**count) == fewest)
                    .map(|(&at, _)| at)
                    .collect();
                self.by_chance(&fitting, |at| i64::from(machines[at].tasks))
            }
        }?;
        if self.baseline == Baseline::SwarmSpread {
            *self.of_service.entry((task.clone(), at)).or_default() += 1;
        }
        let is_part = task.gpus == 1 && task.gpu_milli < WHOLE;
        let gpu = is_part.then(|| machines[at].tightest(task.gpu_milli));
        Some((at, gpu.flatten()))
    }

    /// Returns one of those with the least score.
    fn by_chance(&mut self, nodes: &[usize], score: impl Fn(usize) -> i64) -> Option<usize> {
        let scores: Vec<i64> = nodes.iter().map(|&at| score(at)).collect();
        let least = scores.iter().min().copied()?;
        let best: Vec<usize> = nodes
            .iter()
            .zip(&scores)
            .filter(|(_, score)| **score == least)
            .map(|(&at, _)| at)
            .collect();
        Some(best[self.chance.random_range(0..best.len())])
    }
}

/// Returns the first of those with the least score.
fn least(nodes: impl Iterator<Item = usize>, score: impl Fn(usize) -> f64) -> Option<usize> {
    let scored = nodes.map(|at| (score(at), at));
    let best = scored.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    best.map(|(_, at)| at)
}

#[expect(clippy::cast_precision_loss, reason = "shares")]
fn remainder(machine: &Machine, task: &Shape) -> f64 {
    const CPU: f64 = 128_000.0;
    const MEMORY: f64 = (1u64 << 40) as f64;
    const GPU: f64 = 8000.0;
    (machine.cpu - u64::from(task.cpu.0)) as f64 / CPU
        + (machine.memory - task.memory.0) as f64 / MEMORY
        + (f64::from(machine.gpu_free()) - task.gpu_total() as f64) / GPU
}

/// Returns the score of `MostAllocated`, 0 to 100.
fn most_allocated(machine: &Machine, task: &Shape) -> i64 {
    let percent = |has: u64, free: u64, wanted: u64| {
        i64::try_from((has - free + wanted) * 100 / has.max(1)).unwrap_or(100)
    };
    let cpu = percent(machine.cpu_has, machine.cpu, task.cpu.0.into());
    let memory = percent(
        machine.memory_has >> 20,
        machine.memory >> 20,
        task.memory.0 >> 20,
    );
    i64::midpoint(cpu, memory)
}

/// Returns what Nomad's score lacks of 20, bounded as there.
#[expect(clippy::cast_precision_loss, reason = "shares")]
fn nomad(machine: &Machine, task: &Shape) -> f64 {
    let cpu = (machine.cpu - u64::from(task.cpu.0)) as f64 / machine.cpu_has as f64;
    let memory = (machine.memory - task.memory.0) as f64 / machine.memory_has as f64;
    (10f64.powf(cpu) + 10f64.powf(memory)).max(2.0)
}
