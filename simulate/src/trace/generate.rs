//! Made-up traces: arrivals by a Poisson process, sizes as clouds sell them, lifetimes by a
//! log-normal distribution, whose tail is as long as that of real ones.

use std::str::FromStr;

use ballast_model::{Bytes, MilliCpu, Millis};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::table::whole;
use super::{Problem, Shape, TraceTask, TraceTasks};

/// Tasks of one trace.
const TASKS: u64 = 5_000_000;
/// Tasks that run at a time, on average, once as many arrive as leave.
const CONCURRENT: f64 = 1500.0;
/// Half of the tasks live shorter.
const MEDIAN_SECONDS: f64 = 3600.0;
/// The standard deviation of the logarithm of the lifetime: the mean is 7.4 times the median, and
/// one of a hundred tasks lives 105 times as long.
const SIGMA: f64 = 2.0;
/// CPU in cores, memory in GiB, and how many of a hundred tasks are of this size: the ratios of
/// compute, general and memory flavours on hosts of 32 cores and 128 GiB.
const SIZES: [(u32, u64, u32); 9] = [
    (1, 4, 25),
    (2, 8, 25),
    (2, 4, 10),
    (4, 16, 15),
    (4, 32, 8),
    (8, 32, 8),
    (8, 16, 4),
    (16, 64, 4),
    (1, 16, 1),
];

/// A trace to be made up: `generated:COUNT[:SEED]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// How many tasks.
    pub count: u64,
    /// What the random draws are made with.
    pub seed: u64,
}

/// Why a text is no trace to be made up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeneratedError {
    /// Not the right number of parts.
    #[error("`{0}` is not `generated:COUNT[:SEED]`")]
    Shape(String),
    /// One part is no such number.
    #[error("{part} of `{text}`: {problem}")]
    Part {
        /// The whole.
        text: String,
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
}

impl Generated {
    /// Returns the tasks, in the order of their arrival. They ask for no GPUs; a fleet of hosts of
    /// 32 cores and 128 GiB suits them.
    pub fn tasks(&self) -> TraceTasks {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mean = MEDIAN_SECONDS * (SIGMA * SIGMA / 2.0).exp();
        let mut now = 0.0;
        let task = |number: u64| {
            now += -unit(&mut rng).ln() * mean / CONCURRENT;
            let life = MEDIAN_SECONDS * (SIGMA * normal(&mut rng)).exp();
            let (cores, gib) = size(&mut rng);
            TraceTask {
                name: format!("task-{number}"),
                line: number + 2,
                shape: Shape {
                    cpu: MilliCpu::from_cores(cores),
                    memory: Bytes::from_mib(gib << 10),
                    gpus: 0,
                    gpu_milli: 0,
                    models: Vec::new(),
                },
                created: Some(millis(now)),
                deleted: Some(millis(now + life.max(1.0))),
            }
        };
        let mut tasks: Vec<TraceTask> = (0..self.count).map(task).collect();
        // The trace ends with its last arrival: after it nothing is decided any more.
        let last = tasks.last().and_then(|task| task.created);
        for task in &mut tasks {
            task.deleted = task.deleted.filter(|deleted| Some(*deleted) <= last);
        }
        TraceTasks {
            tasks,
            jumps: super::Jumps::default(),
        }
    }
}

fn size(rng: &mut StdRng) -> (u32, u64) {
    let mut draw = rng.random_range(0..100);
    for (cores, gib, percent) in SIZES {
        if draw < percent {
            return (cores, gib);
        }
        draw -= percent;
    }
    (SIZES[0].0, SIZES[0].1)
}

/// Draws from 0 (excluded) to 1.
fn unit(rng: &mut StdRng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Draws from the standard normal distribution (Box and Muller).
fn normal(rng: &mut StdRng) -> f64 {
    let radius = (-2.0 * unit(rng).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

fn millis(seconds: f64) -> Millis {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and below the age of the universe"
    )]
    Millis((seconds * 1000.0).round() as u64)
}

impl FromStr for Generated {
    type Err = GeneratedError;

    fn from_str(text: &str) -> Result<Self, GeneratedError> {
        let quoted: String = text.chars().take(80).collect();
        let shape = || GeneratedError::Shape(quoted.clone());
        let rest = text.strip_prefix("generated:").ok_or_else(shape)?;
        let parts: Vec<&str> = rest.split(':').collect();
        let (count, seed) = match parts[..] {
            [count] => (count, "1"),
            [count, seed] => (count, seed),
            _ => return Err(shape()),
        };
        let part = |part, problem| GeneratedError::Part {
            text: quoted.clone(),
            part,
            problem,
        };
        let count = whole(count, TASKS, "tasks").map_err(|problem| part("COUNT", problem))?;
        if count == 0 {
            return Err(part("COUNT", Problem::TooSmall(1)));
        }
        Ok(Self {
            count,
            seed: whole(seed, u64::MAX, "as a seed").map_err(|problem| part("SEED", problem))?,
        })
    }
}
