//! What a picture is drawn from: the cluster at moments evenly spaced over a run.

use crate::amounts::Amounts;

/// Moments of one run that are kept.
pub const SAMPLES: usize = 240;
/// Rows of nodes that are kept; in larger fleets a row is the mean of several nodes.
pub const ROWS: usize = 1024;

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// How far the run is: seconds of the trace in a replay, tasks that arrived otherwise.
    pub at: f64,
    /// Nodes with a task.
    pub nodes_used: usize,
    /// What is allocated of the fleet, 0 to 1: CPU, memory, GPUs.
    pub shares: [f64; 3],
    /// The dominant share of each row of nodes, 0 to 255.
    pub rows: Vec<u8>,
}

/// A run as a picture shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// What `at` counts.
    pub axis: Axis,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// Whether the fleet has GPUs.
    pub has_gpus: bool,
    /// In the order of `at`.
    pub samples: Vec<Sample>,
}

/// What the samples of a run are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Seconds of the trace.
    Seconds,
    /// Tasks that arrived.
    Arrivals,
}

impl Sample {
    /// Returns a sample of nodes with these capacities and allocations.
    pub(crate) fn take(
        at: f64,
        nodes_used: usize,
        total: Amounts,
        taken: Amounts,
        nodes: &[(Amounts, Amounts)],
    ) -> Self {
        let per_row = nodes.len().div_ceil(ROWS).max(1);
        let row = |nodes: &[(Amounts, Amounts)]| {
            let sum: f64 = nodes.iter().map(|(has, taken)| taken.dominant(*has)).sum();
            quantised(sum / nodes.len() as f64)
        };
        Self {
            at,
            nodes_used,
            shares: taken.shares(total),
            rows: nodes.chunks(per_row).map(row).collect(),
        }
    }
}

fn quantised(share: f64) -> u8 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0 to 255"
    )]
    let level = (share * 255.0).round().clamp(0.0, 255.0) as u8;
    level
}
