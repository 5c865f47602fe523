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
mod rig;
mod scale;

use anyhow::{Result, bail};
use ballast_bench::child as proc;
pub use ballast_bench::{Bench, Figure, Figures, Options, figures};

/// Runs the bench of that name.
///
/// # Errors
/// There is none.
pub fn run(name: &str, options: &Options) -> Result<Bench> {
    let (name, measure): (_, fn(&mut Bench, &Options) -> Result<()>) = match name {
        "durable" => ("durable", durable::run),
        "fleet" => ("fleet", fleet::run),
        "failover" => ("failover", failover::run),
        "scale" => ("scale", scale::run),
        _ => bail!("there is no bench `{name}` here; there are durable, failover, fleet, scale"),
    };
    Ok(Bench::measure(name, options, |bench| {
        measure(bench, options)
    }))
}
