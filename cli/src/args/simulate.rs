//! `ballast simulate`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The nodes: a CSV list (columns `cpu_milli`, `memory_mib`; `sn`, `gpu`, `model`), or
    /// identical ones as `uniform:COUNT:CPU_MILLI:MEMORY_MIB[:GPUS]`
    #[arg(long, value_name = "FILE|uniform:…")]
    pub nodes: String,
    /// The tasks: a CSV list (columns `cpu_milli`, `memory_mib`; `name`, `num_gpu`, `gpu_milli`,
    /// `gpu_spec`, `creation_time`, `deletion_time`), or made-up ones as
    /// `generated:COUNT[:SEED]`
    #[arg(long, value_name = "FILE|generated:…")]
    pub tasks: String,
    /// How nodes that fit are ranked
    #[arg(long, value_enum, default_value = "auto")]
    pub policy: PolicyArg,
    /// What arrives when
    #[arg(long, value_enum, default_value = "once")]
    pub protocol: ProtocolArg,
    /// How many runs, with the seeds 1 to this; 10 with `--protocol fgd`, else 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: Option<u64>,
    /// With `--protocol replay`: how many of the running tasks may be moved to empty nodes, percent
    /// per hour of the trace
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub migrate_percent_per_hour: f64,
    /// Draws nodes × utilisation over time (of the first seed) into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How many runs at a time; as many as this machine has cores
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Shows no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// How nodes that fit are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// What the scheduler picks by itself
    Auto,
    /// The fullest node
    Binpack,
    /// The node with the fewest tasks of the service
    Spread,
    /// The node whose devices are fragmented least by the task
    Fgd,
}

/// What arrives when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// Each task once, in the order of the list
    Once,
    /// Tasks drawn with replacement until they ask for 1.3 times the GPUs of the nodes
    Fgd,
    /// Each task from its `creation_time` to its `deletion_time`
    Replay,
}
