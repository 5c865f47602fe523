//! Sums of what nodes have and tasks take.

use crate::trace::{Shape, TraceNode};

/// CPU, memory and GPUs, summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a GPU.
    pub gpu: u64,
}

impl Amounts {
    /// Returns what a node has.
    pub fn of_node(node: &TraceNode) -> Self {
        Self {
            cpu: node.cpu.0.into(),
            memory: node.memory.0,
            gpu: u64::from(node.gpus) * 1000,
        }
    }

    /// Returns what a task takes.
    pub fn of_task(shape: &Shape) -> Self {
        Self {
            cpu: shape.cpu.0.into(),
            memory: shape.memory.0,
            gpu: shape.gpu_total(),
        }
    }

    /// Adds, at the most that can be counted.
    pub fn add(&mut self, other: Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.gpu = self.gpu.saturating_add(other.gpu);
    }

    /// Takes back what was added.
    pub fn sub(&mut self, other: Self) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.gpu = self.gpu.saturating_sub(other.gpu);
    }

    /// Returns how much of `whole` this is, by dimension; 0 of what the whole has nothing of.
    pub fn shares(self, whole: Self) -> [f64; 3] {
        let share = |part: u64, whole: u64| match whole {
            0 => 0.0,
            whole => part as f64 / whole as f64,
        };
        [
            share(self.cpu, whole.cpu),
            share(self.memory, whole.memory),
            share(self.gpu, whole.gpu),
        ]
    }

    /// Returns the largest of [`Self::shares`].
    pub fn dominant(self, whole: Self) -> f64 {
        self.shares(whole).into_iter().fold(0.0, f64::max)
    }
}
