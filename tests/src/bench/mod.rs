//! What `cargo xtask bench` measures on real processes: `failover` and `scale` on whole clusters,
//! `durable` and `fleet` on a manager and agents that run nothing.
//!
//! Faults are real signals to real processes under open-loop load; what an ingress does about them
//! is dated by its own log (microseconds) and seen from outside, by requests. Every figure stands
//! beside its goal, met or not.

mod durable;
mod failover;
mod fleet;
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
        "durable" => vec![durable::run()?],
        "fleet" => vec![fleet::run()?],
        "failover" => vec![failover::run()?],
        "scale" => vec![scale::run()?],
        "all" => vec![
            failover::run()?,
            scale::run()?,
            durable::run()?,
            fleet::run()?,
        ],
        _ => bail!("there is no bench `{name}`; there are durable, failover, fleet, scale, all"),
    })
}
