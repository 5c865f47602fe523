//! The figures of a simulation, as JSON has them.

use serde::Serialize;

/// All that a simulation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What placed the tasks.
    pub policy: String,
    /// What arrived when.
    pub protocol: String,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// Tasks of the list.
    pub tasks: usize,
    /// Rows of the list whose time is before that of the row above.
    pub clock_jumps: u64,
    /// One for each seed, in the order of the seeds.
    pub runs: Vec<Run>,
    /// Over the runs.
    pub mean: Mean,
    /// Decisions of the scheduler per second of its own time, over all runs.
    pub placements_per_second: f64,
}

/// What one seed gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What its random draws were made with.
    pub seed: u64,
    /// Tasks that were placed.
    pub placed: u64,
    /// Tasks that no node took.
    pub unplaced: u64,
    /// The most nodes that had a task at once.
    pub nodes_used_peak: u64,
    /// Nodes that had a task: over time in a replay, over arrivals otherwise.
    pub nodes_used_mean: f64,
    /// Of the fleet's GPUs; none if it has none.
    pub gpu_allocated_percent: Option<GpuAllocated>,
    /// Of the fleet's CPU: at the end, in a replay over time.
    pub cpu_allocated_percent: f64,
    /// Of the fleet's memory: at the end, in a replay over time.
    pub memory_allocated_percent: f64,
    /// Tasks that were moved to another node.
    pub moved: u64,
    /// In a replay on identical nodes: mean of the nodes used ÷ the nodes that the tasks would
    /// fill if they could be poured, in the dimension that needs most.
    pub nodes_to_volume_bound: Option<f64>,
    /// The same with the bound of each moment rounded up to whole nodes.
    pub nodes_to_whole_bound: Option<f64>,
}

/// Of the GPUs, how much was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GpuAllocated {
    /// When what arrived had come to ask for as many GPUs as there are; at the end if it never
    /// did. None in a replay, where what arrived is gone again.
    pub at_100: Option<f64>,
    /// The same for 1.3 times as many.
    pub at_130: Option<f64>,
    /// At the end, in a replay over time.
    pub overall: f64,
}

/// Means over runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mean {
    /// As in [`Run`].
    pub placed: f64,
    /// As in [`Run`].
    pub unplaced: f64,
    /// As in [`Run`].
    pub nodes_used_peak: f64,
    /// As in [`Run`].
    pub nodes_used_mean: f64,
    /// As in [`Run`].
    pub gpu_allocated_percent: Option<GpuAllocated>,
    /// As in [`Run`].
    pub cpu_allocated_percent: f64,
    /// As in [`Run`].
    pub memory_allocated_percent: f64,
    /// As in [`Run`].
    pub moved: f64,
    /// As in [`Run`].
    pub nodes_to_volume_bound: Option<f64>,
    /// As in [`Run`].
    pub nodes_to_whole_bound: Option<f64>,
}

impl Mean {
    /// Returns the means over these runs, which are at least one.
    pub(crate) fn of(runs: &[Run]) -> Self {
        let mean =
            |figure: &dyn Fn(&Run) -> f64| runs.iter().map(figure).sum::<f64>() / runs.len() as f64;
        let maybe = |figure: &dyn Fn(&Run) -> Option<f64>| {
            let figures: Option<Vec<f64>> = runs.iter().map(figure).collect();
            figures.map(|figures| figures.iter().sum::<f64>() / figures.len() as f64)
        };
        let gpu = |figure: fn(GpuAllocated) -> Option<f64>| {
            maybe(&|run| run.gpu_allocated_percent.and_then(figure))
        };
        let overall = gpu(|gpu| Some(gpu.overall));
        Self {
            placed: mean(&|run| run.placed as f64),
            unplaced: mean(&|run| run.unplaced as f64),
            nodes_used_peak: mean(&|run| run.nodes_used_peak as f64),
            nodes_used_mean: mean(&|run| run.nodes_used_mean),
            gpu_allocated_percent: overall.map(|overall| GpuAllocated {
                at_100: gpu(|gpu| gpu.at_100),
                at_130: gpu(|gpu| gpu.at_130),
                overall,
            }),
            cpu_allocated_percent: mean(&|run| run.cpu_allocated_percent),
            memory_allocated_percent: mean(&|run| run.memory_allocated_percent),
            moved: mean(&|run| run.moved as f64),
            nodes_to_volume_bound: maybe(&|run| run.nodes_to_volume_bound),
            nodes_to_whole_bound: maybe(&|run| run.nodes_to_whole_bound),
        }
    }
}
