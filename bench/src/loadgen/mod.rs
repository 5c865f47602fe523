//! What `cargo xtask bench loadgen` measures: what our generator costs beside others, and whether
//! it tells the truth.
//!
//! Requests are counted by whoever answers them, CPU time by the kernel: what a generator says of
//! itself is only believed where that is what is judged.

mod compare;
mod cost;
mod memory;
mod pacing;
mod starved;
mod truth;

use anyhow::Result;

use crate::peers::{Cores, Generator};
use crate::{Bench, Options};

/// Who measures whom, and where.
struct Stage<'a> {
    options: &'a Options,
    cores: Cores,
    ours: Vec<Generator>,
    others: Vec<Generator>,
}

/// A group of cases: its name, and what measures it.
type Case = (&'static str, fn(&Stage<'_>, &mut Bench) -> Result<()>);

/// In the order in which they run.
const CASES: [Case; 6] = [
    ("cost", cost::run),
    ("memory", memory::run),
    ("pacing", pacing::run),
    ("truth", truth::run),
    ("starved", starved::run),
    (compare::CASE, compare::run),
];

/// Measures every case.
pub fn run(options: &Options) -> Bench {
    Bench::measure("loadgen", options, |bench| {
        let (others, missing) = Generator::others();
        for missing in missing {
            bench.missing(missing);
        }
        let stage = Stage {
            options,
            cores: Cores::two(),
            ours: Generator::ours()?,
            others,
        };
        if stage.cores.client.is_none() {
            bench.missing("with a core for each side: this machine has only one");
        }
        for (name, case) in CASES {
            bench.case(name, options, |bench| case(&stage, bench));
        }
        Ok(())
    })
}

impl Stage<'_> {
    /// Returns every generator, ours first.
    fn all(&self) -> impl Iterator<Item = &Generator> {
        self.ours.iter().chain(&self.others)
    }

    /// Returns the generators of others by name.
    fn other(&self, name: &str) -> Option<&Generator> {
        self.others.iter().find(|it| it.name() == name)
    }
}
