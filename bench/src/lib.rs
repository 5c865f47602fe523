//! Measurements that need no cluster, and what all measurements share: figures with their goals,
//! whether the machine was fit, where they come from, and how they are reported.
//!
//! `cargo xtask bench NAME` runs what [`run`] knows; benches of clusters of real processes live in
//! `tests/`, and report through the same [`Bench`].
//!
//! - [`Bench`], [`Figure`], [`Options`]: what was found, and how it was asked for
//! - [`fitness`]: whether the machine was fit to measure
//! - [`child`], [`peers`]: programs that are measured, and that we are measured against
//! - [`target`]: a server that is never the bottleneck, and the truth about latencies
//! - [`scheduler`], [`loadgen`], [`l7`], [`l4`]: the cases; [`absent`]: benches of parts that are not built

pub mod absent;
pub mod child;
pub mod figures;
pub mod fitness;
pub mod l4;
pub mod l7;
pub mod loadgen;
pub mod machine;
mod options;
pub mod peers;
mod report;
pub mod scheduler;
pub mod target;

use anyhow::{Result, bail};
pub use figures::{Figure, Figures};
pub use options::Options;
pub use report::Bench;

/// Measures what `name` names.
///
/// # Errors
/// There is no such bench here.
pub fn run(name: &str, options: &Options) -> Result<Bench> {
    Ok(match name {
        "scheduler" => scheduler::run(options),
        "loadgen" => loadgen::run(options),
        "l7" => l7::run(options),
        "l4" => l4::run(options),
        "autoscale" => absent::run(name, options),
        _ => bail!("there is no bench `{name}`"),
    })
}
