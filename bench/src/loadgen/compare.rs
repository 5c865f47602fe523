//! Whether `ballast-loadgen compare` sees a shift that is there, and none that is not.
//!
//! Two targets hold each answer back, the second 3 % longer; runs against them alternate. A pair is
//! two sets of runs that were made at the same time: of the first target alone (A/A: any difference
//! is a false alarm) or of one target each (A/B: no difference is a miss). Pairs are drawn from one
//! pool of runs, so neighbouring pairs share some; who compares knows only files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::Stage;
use crate::Bench;
use crate::child;
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load};
use crate::target::{Behaviour, Target};

pub(super) const CASE: &str = "compare";
const PAIRS: usize = 200;
/// Runs of each target in the pool, and how many of them a pair takes for each side.
const POOL: usize = 100;
const SIDE: usize = 6;
const RUN: Duration = Duration::from_millis(300);
const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 64;
const DELAY: Duration = Duration::from_millis(4);
/// How much later than [`DELAY`] the second target answers.
const SHIFT: f64 = 0.03;
/// How much answers differ from each other, as a share of the delay.
const JITTER: f64 = 0.1;
/// The most false alarms, and the fewest shifts found, in percent.
const GOALS: (f64, f64) = (5.0, 95.0);
const SEED: u64 = 0x00ba_11a5;

pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let generator = stage.ours.first().context("a generator of ours")?;
    if !generator.compares()? {
        bench.missing("compare: this ballast-loadgen has no such command");
        return Ok(());
    }
    let folder = tempfile::tempdir().context("a folder")?;
    let pool = pool(stage, generator, folder.path())?;
    if pool.len() < 2 * SIDE {
        let few = pool.len();
        bench.missing(format!("compare: {few} pairs of runs were valid, too few"));
        return Ok(());
    }
    let pairs = stage.options.pairs.unwrap_or(stage.options.size(PAIRS, 4));
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut alarms, mut found) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let [first, second] = alike(&pool, &mut rng);
        alarms.push(differ(generator, &first, &second, folder.path())?);
        let [first, second] = shifted(&pool, &mut rng);
        found.push(differ(generator, &first, &second, folder.path())?);
    }
    let percent = |seen: &[Value]| {
        let count = seen.iter().filter(|it| it["differs"] == true).count();
        count as f64 * 100.0 / seen.len().max(1) as f64
    };
    let of = (CASE, generator.name());
    let figure = Figure::new(of, "false alarms, A/A", "% of pairs").values([percent(&alarms)]);
    bench.push(figure.goal(Stat::Max, GOALS.0));
    let figure = Figure::new(of, "shifts of 3 % found, A/B", "% of pairs");
    let figure = figure.values([percent(&found)]);
    bench.push(figure.goal_at_least(Stat::Min, GOALS.1));
    bench.raw[CASE] = json!({
        "pool": pool.len(), "side": SIDE, "pairs": pairs, "a_a": alarms, "a_b": found,
    });
    Ok(())
}

/// Returns the reports of alternating runs: of the one target and of the other. Those that say
/// themselves that they measured something else are left out and made again, as often at most as
/// runs are wanted.
fn pool(stage: &Stage<'_>, generator: &Generator, folder: &Path) -> Result<Vec<[PathBuf; 2]>> {
    let start = |delay| {
        Target::start(Behaviour {
            core: stage.cores.server,
            body_bytes: 128,
            delay,
            jitter: JITTER,
            ..Behaviour::default()
        })
    };
    let targets = [start(DELAY)?, start(DELAY.mul_f64(1.0 + SHIFT))?];
    let size = stage.options.size(POOL, 2 * SIDE);
    let duration = stage.options.size(RUN, Duration::from_millis(150));
    let mut pool = Vec::new();
    for number in 0..2 * size {
        if pool.len() == size {
            break;
        }
        let mut pair = Vec::new();
        for (target, side) in targets.iter().zip(["a", "b"]) {
            let folder = folder.join(format!("{side}-{number}"));
            std::fs::create_dir(&folder).context("a folder")?;
            let url = format!("http://{}/", target.address());
            let load = Load::open(url, CONNECTIONS, duration, RATE);
            let mut command = generator.command(&load, stage.cores.client, &folder)?;
            let finished = child::run(&mut command, Duration::from_mins(1))?;
            if generator.report(&finished, &folder)?.invalid.is_none() {
                pair.push(folder.join("report.json"));
            }
        }
        pool.extend(<[PathBuf; 2]>::try_from(pair).ok());
    }
    Ok(pool)
}

/// Returns two sets of runs of the first target, made at the same time.
fn alike(pool: &[[PathBuf; 2]], rng: &mut StdRng) -> [Vec<PathBuf>; 2] {
    let from = rng.random_range(0..=pool.len() - 2 * SIDE);
    let mut runs: Vec<PathBuf> = pool[from..from + 2 * SIDE]
        .iter()
        .map(|[first, _]| first.clone())
        .collect();
    runs.shuffle(rng);
    let second = runs.split_off(SIDE);
    [runs, second]
}

/// Returns a set of runs of each target, made at the same time.
fn shifted(pool: &[[PathBuf; 2]], rng: &mut StdRng) -> [Vec<PathBuf>; 2] {
    let from = rng.random_range(0..=pool.len() - SIDE);
    [0, 1].map(|side| {
        let runs = pool[from..from + SIDE].iter();
        runs.map(|run| run[side].clone()).collect()
    })
}

/// Returns whether the second set is told from the first, and what was said.
fn differ(
    generator: &Generator,
    first: &[PathBuf],
    second: &[PathBuf],
    folder: &Path,
) -> Result<Value> {
    let side = |runs: &[PathBuf]| {
        let names: Vec<_> = runs.iter().map(|run| run.to_string_lossy()).collect();
        names.join(",")
    };
    let file = folder.join("comparison.json");
    let mut command = child::command(generator.program(), None);
    command.args(["compare", "--json"]).arg(&file);
    command.args([side(first), side(second)]);
    let finished = child::run(&mut command, Duration::from_mins(1))?;
    let said = finished.errors.trim();
    ensure!(
        matches!(finished.status.code(), Some(0 | 1)),
        "compare ended with {}: {said}",
        finished.status
    );
    let text = std::fs::read_to_string(&file).context("what compare wrote")?;
    let json: Value = serde_json::from_str(&text).context("what compare wrote")?;
    // One comparison, or an array of those of several sides.
    let comparison = if json.is_array() { &json[0] } else { &json };
    let verdict = comparison["verdict"].as_str().context("a verdict")?;
    Ok(json!({"differs": verdict != "none", "verdict": verdict}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_a_pair_share_no_run_and_stem_from_the_same_time() {
        let path = |side: &str, number| PathBuf::from(format!("{side}-{number}"));
        let pool: Vec<_> = (0..30).map(|it| [path("a", it), path("b", it)]).collect();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let [first, second] = alike(&pool, &mut rng);
            assert_eq!((first.len(), second.len()), (SIDE, SIDE));
            assert!(first.iter().all(|run| !second.contains(run)));
            let [first, second] = shifted(&pool, &mut rng);
            let number = |path: &PathBuf| path.to_string_lossy()[2..].to_owned();
            let numbers = |runs: &[PathBuf]| runs.iter().map(number).collect::<Vec<_>>();
            assert_eq!(numbers(&first), numbers(&second));
            assert!(first[0].starts_with(path("a", numbers(&first)[0].parse().expect("a number"))));
        }
    }
}
