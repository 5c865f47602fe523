//! Fragmentation gradient descent as its authors published it.

use std::collections::{BTreeMap, BTreeSet};

use ballast_simulate::trace::{Shape, TraceTask};

use super::machine::{GPUS, Machine, WHOLE};

/// What fragmentation depends on: CPU, the GPUs in any order, and the model.
type Key<'m> = (u64, [u16; GPUS], &'m str);

/// The policy, given all tasks that may come.
///
/// # Source
/// Weng et al., USENIX ATC 2023; steps and ties of the score as in the authors' simulator
/// (hkust-adsl/kubernetes-scheduler-simulator, Apache-2.0): whole percents of a sigmoid, the first
/// node wins. Memory is no part of it.
pub(super) struct Published<'a> {
    /// Each kind of task and its share of all.
    typical: Vec<(&'a Shape, f64)>,
    known: BTreeMap<(u64, [u16; GPUS], String), f64>,
}

impl<'a> Published<'a> {
    #[expect(clippy::cast_precision_loss, reason = "thousands of tasks")]
    pub(super) fn new(tasks: &'a [TraceTask]) -> Self {
        let mut counts: BTreeMap<&Shape, usize> = BTreeMap::new();
        for task in tasks {
            *counts.entry(&task.shape).or_default() += 1;
        }
        let share = |(shape, count): (&'a Shape, usize)| (shape, count as f64 / tasks.len() as f64);
        Self {
            typical: counts.into_iter().map(share).collect(),
            known: BTreeMap::new(),
        }
    }

    pub(super) fn place(
        &mut self,
        machines: &[Machine],
        task: &Shape,
    ) -> Option<(usize, Option<usize>)> {
        let mut best: Option<(f64, usize, Option<usize>)> = None;
        // Nodes that are alike score alike, and the first of them wins.
        let mut seen: BTreeSet<Key<'_>> = BTreeSet::new();
        for (at, machine) in machines.iter().enumerate() {
            if !machine.fits(task) || !seen.insert(key(machine)) {
                continue;
            }
            let before = self.fragments(machine);
            let is_part = task.gpus == 1 && task.gpu_milli < WHOLE;
            let choices: Vec<Option<usize>> = if is_part {
                let enough = |&gpu: &usize| machine.gpus[gpu] >= task.gpu_milli;
                (0..GPUS).filter(enough).map(Some).collect()
            } else {
                vec![None]
            };
            for gpu in choices {
                let mut after = machine.clone();
                after.take(task, gpu);
                let score = score(before - self.fragments(&after));
                if best.is_none_or(|(most, ..)| score > most) {
                    best = Some((score, at, gpu));
                }
            }
        }
        best.map(|(_, at, gpu)| (at, gpu))
    }

    /// Returns the expected thousandths of GPUs that a task cannot use.
    fn fragments(&mut self, machine: &Machine) -> f64 {
        let (cpu, gpus, model) = key(machine);
        let known = (cpu, gpus, model.to_owned());
        if let Some(&fragments) = self.known.get(&known) {
            return fragments;
        }
        let free = f64::from(machine.gpu_free());
        let of = |(task, share): &(&Shape, f64)| {
            let enough = machine
                .gpus
                .iter()
                .filter(|&&left| left >= task.gpu_milli.max(1));
            let (count, usable) = enough.fold((0u8, 0.0), |(count, sum), &left| {
                (count + 1, sum + f64::from(left))
            });
            let takes = task.gpus > 0
                && count >= task.gpus
                && machine.cpu >= u64::from(task.cpu.0)
                && machine.may(task);
            share * if takes { free - usable } else { free }
        };
        let fragments = self.typical.iter().map(of).sum();
        self.known.insert(known, fragments);
        fragments
    }
}

fn key(machine: &Machine) -> Key<'_> {
    let mut gpus = machine.gpus;
    gpus.sort_unstable();
    (machine.cpu, gpus, &machine.model)
}

/// Returns the score of a node whose fragments decrease by so many thousandths: 0 to 100.
fn score(decrease: f64) -> f64 {
    (100.0 / (1.0 + (-decrease / 1000.0).exp())).floor()
}
