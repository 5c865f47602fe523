//! A node of a list, and what is free on it.

use ballast_simulate::trace::{Shape, TraceNode};

/// GPUs of one node in the lists.
pub(super) const GPUS: usize = 8;
/// All of a GPU, in thousandths.
pub(super) const WHOLE: u16 = 1000;

/// A node and what is free on it.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub model: String,
    pub cpu_has: u64,
    pub memory_has: u64,
    pub cpu: u64,
    pub memory: u64,
    pub gpus: [u16; GPUS],
    pub tasks: u32,
}

impl Machine {
    pub(super) fn new(node: &TraceNode) -> Self {
        let mut gpus = [0; GPUS];
        gpus[..usize::from(node.gpus)].fill(WHOLE);
        let (cpu, memory) = (u64::from(node.cpu.0), node.memory.0);
        Self {
            model: node.model.clone(),
            cpu_has: cpu,
            memory_has: memory,
            cpu,
            memory,
            gpus,
            tasks: 0,
        }
    }

    pub(super) fn gpu_free(&self) -> u32 {
        self.gpus.iter().map(|&left| u32::from(left)).sum()
    }

    fn untouched(&self) -> usize {
        self.gpus.iter().filter(|&&left| left == WHOLE).count()
    }

    pub(super) fn may(&self, task: &Shape) -> bool {
        task.models.is_empty() || task.models.binary_search(&self.model).is_ok()
    }

    pub(super) fn fits(&self, task: &Shape) -> bool {
        let gpus = match task.gpus {
            0 => true,
            1 if task.gpu_milli < WHOLE => self.tightest(task.gpu_milli).is_some(),
            count => self.untouched() >= usize::from(count),
        };
        self.cpu >= u64::from(task.cpu.0) && self.memory >= task.memory.0 && gpus && self.may(task)
    }

    /// Returns the GPU that has the least left, but enough.
    pub(super) fn tightest(&self, milli: u16) -> Option<usize> {
        let enough = (0..GPUS).filter(|&gpu| self.gpus[gpu] >= milli);
        enough.min_by_key(|&gpu| self.gpus[gpu])
    }

    /// Takes a task that fits; a fraction on this GPU, whole ones on those that are untouched.
    pub(super) fn take(&mut self, task: &Shape, gpu: Option<usize>) {
        self.cpu -= u64::from(task.cpu.0);
        self.memory -= task.memory.0;
        self.tasks += 1;
        if let Some(gpu) = gpu {
            self.gpus[gpu] -= task.gpu_milli;
            return;
        }
        let untouched = self.gpus.iter_mut().filter(|left| **left == WHOLE);
        for left in untouched.take(usize::from(task.gpus)) {
            *left = 0;
        }
    }
}
