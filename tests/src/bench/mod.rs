//! What `cargo xtask bench failover` and `scale` measure, on clusters of real processes.
//!
//! Faults are real signals to real processes under open-loop load; what an ingress does about them
//! is dated by its own log (microseconds) and seen from outside, by requests. Every figure stands
//! beside its goal, met or not.

mod failover;
mod haproxy;
mod ingress_log;
mod proc;
mod rig;
mod scale;

use anyhow::{Result, bail};
pub use ballast_bench::{Bench, Figure, Figures, figures};

/// Runs the bench of that name, or all.
///
/// # Errors
/// If there is none, or a cluster cannot be started.
pub fn run(name: &str) -> Result<Vec<Bench>> {
    Ok(match name {
        "failover" => vec![failover::run()?],
        "scale" => vec![scale::run()?],
        "all" => vec![failover::run()?, scale::run()?],
        _ => bail!("there is no bench `{name}`; there are failover, scale, all"),
    })
}
