//! What arrives when, and what is measured.
//!
//! | protocol | arrivals | random draws |
//! | --- | --- | --- |
//! | once | each task once, in the order of the list | none |
//! | fgd | tasks drawn from the list with replacement until they ask for 1.3 times the GPUs of the fleet | which |
//! | replay | each task at its `creation_time`, gone at its `deletion_time` | none |
//!
//! A task that no node takes when it arrives is counted as unplaced and does not come again.

mod arrivals;
mod replay;

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::report::{Mean, Report, Run};
use crate::timeline::Timeline;
use crate::workload::Workload;

/// Seeds of one simulation.
pub const SEEDS: u64 = 10_000;

/// What arrives when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Each task once.
    #[default]
    Once,
    /// That of Weng et al., "Beware of Fragmentation", USENIX ATC 2023.
    Fgd,
    /// Arrivals and departures at their times.
    Replay,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Once => "once",
            Self::Fgd => "fgd",
            Self::Replay => "replay",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "once" => Ok(Self::Once),
            "fgd" => Ok(Self::Fgd),
            "replay" => Ok(Self::Replay),
            _ => Err(format!("`{text}` is none of once, fgd, replay")),
        }
    }
}

/// How a simulation is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// What arrives when.
    pub protocol: Protocol,
    /// How many runs, with the seeds 1 to this. At least 1, at most [`SEEDS`].
    pub seeds: u64,
    /// How many runs at a time, each with its own scheduler.
    pub threads: usize,
    /// In a replay: how many of the running tasks may be moved per hour, percent.
    pub migrate_percent_per_hour: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            seeds: 1,
            threads: 1,
            migrate_percent_per_hour: 0.0,
        }
    }
}

/// How far a simulation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The run.
    pub seed: u64,
    /// How much of it is done, 0 to 1.
    pub done: f64,
}

/// A simulation's figures, and the first run as a picture shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// The figures.
    pub report: Report,
    /// The first seed's run.
    pub timeline: Timeline,
}

/// Why a simulation cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing to place on.
    #[error("there is no node")]
    NoNodes,
    /// Nothing to place.
    #[error("there is no task")]
    NoTasks,
    /// Too few or too many seeds.
    #[error("{0} seeds: the least is 1, the most is {SEEDS}")]
    Seeds(u64),
    /// The FGD protocol ends when the GPUs are asked for.
    #[error(
        "the protocol `fgd` draws tasks until they ask for 1.3 times the GPUs of the fleet, and no node has a GPU"
    )]
    NoGpuNodes,
    /// The FGD protocol would never end.
    #[error(
        "the protocol `fgd` draws tasks until they ask for 1.3 times the GPUs of the fleet, and no task asks for a GPU"
    )]
    NoGpuTasks,
    /// A replay goes by the times.
    #[error("line {line}: has no `creation_time`, which the protocol `replay` goes by")]
    NoTime {
        /// Of the first task without one.
        line: u64,
    },
    /// No budget.
    #[error("{0} percent of the tasks per hour: 0 to 10000 are possible")]
    Budget(String),
}

/// What one run gave.
pub(crate) struct Outcome {
    run: Run,
    timeline: Timeline,
    decisions: u64,
    spent: Duration,
}

/// Runs a protocol once for each seed. `progress` is called from several threads.
///
/// # Errors
/// Why this protocol cannot be run with these nodes and tasks.
pub fn simulate(
    fleet: &Fleet,
    workload: &Workload,
    options: Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Simulated, Error> {
    check(fleet, workload, options)?;
    // Without random draws every seed gives the same: one run is all.
    let different = match options.protocol {
        Protocol::Fgd => options.seeds,
        Protocol::Once | Protocol::Replay => 1,
    };
    let outcomes = run_all(fleet, workload, options, different, progress);
    let decisions: u64 = outcomes.iter().map(|outcome| outcome.decisions).sum();
    let spent: Duration = outcomes.iter().map(|outcome| outcome.spent).sum();
    let timeline = outcomes[0].timeline.clone();
    let runs: Vec<Run> = (0..options.seeds)
        .zip(outcomes.iter().cycle())
        .map(|(number, outcome)| Run {
            seed: number + 1,
            ..outcome.run.clone()
        })
        .collect();
    let report = Report {
        policy: workload.policy.to_string(),
        protocol: options.protocol.to_string(),
        nodes: fleet.len(),
        tasks: workload.len(),
        clock_jumps: workload.jumps.rows,
        mean: Mean::of(&runs),
        runs,
        placements_per_second: decisions as f64 / spent.as_secs_f64().max(1e-9),
    };
    Ok(Simulated { report, timeline })
}

fn check(fleet: &Fleet, workload: &Workload, options: Options) -> Result<(), Error> {
    if fleet.is_empty() {
        return Err(Error::NoNodes);
    }
    if workload.is_empty() {
        return Err(Error::NoTasks);
    }
    if !(1..=SEEDS).contains(&options.seeds) {
        return Err(Error::Seeds(options.seeds));
    }
    let percent = options.migrate_percent_per_hour;
    if !(0.0..=10_000.0).contains(&percent) {
        return Err(Error::Budget(percent.to_string()));
    }
    match options.protocol {
        Protocol::Fgd if fleet.total.gpu == 0 => Err(Error::NoGpuNodes),
        Protocol::Fgd
            if workload
                .services
                .iter()
                .all(|service| service.amounts.gpu == 0) =>
        {
            Err(Error::NoGpuTasks)
        }
        Protocol::Once | Protocol::Fgd => Ok(()),
        Protocol::Replay => match workload.tasks.iter().find(|task| task.created.is_none()) {
            Some(task) => Err(Error::NoTime { line: task.line }),
            None => Ok(()),
        },
    }
}

/// Runs seeds 1 to `count`, several at a time.
fn run_all(
    fleet: &Fleet,
    workload: &Workload,
    options: Options,
    count: u64,
    progress: &(dyn Fn(Progress) + Sync),
) -> Vec<Outcome> {
    let count = usize::try_from(count).expect("at most SEEDS");
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new((0..count).map(|_| None).collect());
    let work = || {
        loop {
            // Relaxed: only the number itself is shared.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let seed = number as u64 + 1;
            let report = |done| progress(Progress { seed, done });
            let outcome = match options.protocol {
                Protocol::Once => arrivals::once(fleet, workload, &report),
                Protocol::Fgd => arrivals::fgd(fleet, workload, seed, &report),
                Protocol::Replay => {
                    replay::replay(fleet, workload, options.migrate_percent_per_hour, &report)
                }
            };
            outcomes.lock().expect("no run panicked")[number] = Some(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.clamp(1, count) {
            scope.spawn(work);
        }
        work();
    });
    let outcomes = outcomes.into_inner().expect("no run panicked");
    outcomes
        .into_iter()
        .map(|outcome| outcome.expect("every seed was run"))
        .collect()
}
