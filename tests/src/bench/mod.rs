//! What `cargo xtask bench failover` and `scale` measure, on clusters of real processes.
//!
//! Faults are real signals to real processes under open-loop load; what an ingress does about them
//! is dated by its own log (microseconds) and seen from outside, by requests. Every figure stands
//! beside its goal, met or not.

mod failover;
mod figures;
mod haproxy;
mod ingress_log;
mod machine;
mod proc;
mod rig;
mod scale;

use anyhow::{Result, bail};
use serde_json::{Value, json};

pub use figures::{Figure, Figures};

/// What a bench found.
#[derive(Debug)]
pub struct Bench {
    /// Its name.
    pub name: &'static str,
    /// What it measured.
    pub figures: Figures,
    /// What the figures were made of.
    pub raw: Value,
    /// What it could not measure, and why.
    pub missing: Vec<String>,
}

impl Bench {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            figures: Figures::default(),
            raw: json!({}),
            missing: Vec::new(),
        }
    }

    /// Returns everything, with the machine and the commit, for `bench/runs/`.
    pub fn to_json(&self) -> Value {
        json!({
            "bench": self.name,
            "command": format!("cargo xtask bench {}", self.name),
            "commit": machine::commit(),
            "machine": machine::describe(),
            "figures": self.figures.to_json(),
            "not_measured": self.missing,
            "raw": self.raw,
        })
    }
}

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
