//! What `cargo xtask bench scheduler` measures.
//!
//! Each module is a group of cases: a `run(&Options) -> Vec<Figure>` that leaves out the cases
//! which [`Options::wants`] does not. Add yours to [`GROUPS`].

pub mod fleet;
mod naive;
mod numa;
pub mod packing;
mod rebuild;
mod replay;
mod throughput;

use crate::{Bench, Figure, Options};

/// A group of cases: its name, and what measures it.
type Group = (&'static str, fn(&Options) -> Vec<Figure>);

/// The groups of cases, by name, in the order in which they run.
const GROUPS: [Group; 5] = [
    ("throughput", throughput::run),
    ("rebuild", rebuild::run),
    ("packing", packing::run),
    ("numa", numa::run),
    ("replay", replay::run),
];

/// Measures every group.
pub fn run(options: &Options) -> Bench {
    Bench::measure("scheduler", options, |bench| {
        for (name, group) in GROUPS {
            eprintln!("==> {name}");
            for figure in group(options) {
                bench.push(figure);
            }
        }
        Ok(())
    })
}
