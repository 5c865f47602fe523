//! Whether what is reported under stalls is what was true, by an oracle on the server's side.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Stage;
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load};
use crate::target::truth::{Arrivals, STATISTICS, Truth, error_percent};
use crate::target::{Behaviour, Seen, Stall, Target};

const CONNECTIONS: usize = 64;
const BODY_BYTES: usize = 128;
/// Of the draws of arrival gaps: the generator's default.
const SEED: u64 = 1;
const RATES: [f64; 3] = [1_000.0, 20_000.0, 50_000.0];
const STALLS_MS: [u64; 3] = [50, 500, 2_000];
const ARRIVALS: [Arrivals; 3] = [
    Arrivals::Constant,
    Arrivals::Poisson { seed: SEED },
    Arrivals::Ramp,
];
/// Requests go on for this long beside the stall: as much before it as after it.
const BESIDE: Duration = Duration::from_secs(3);
/// By how much a report may be off, in percent.
const GOAL: f64 = 1.0;

/// What happens to a load.
#[derive(Debug, Clone, Copy)]
struct Scene {
    arrivals: Arrivals,
    rate: f64,
    stall: Duration,
    beside: Duration,
}

impl Scene {
    fn name(self) -> String {
        let (stall, rate) = (self.stall.as_millis(), self.rate);
        format!("stall {stall} ms, {rate}/s {}", self.arrivals.name())
    }

    fn duration(self) -> Duration {
        self.beside + self.stall
    }
}

pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let first = stage.ours.first().context("a generator of ours")?;
    for scene in scenes(stage) {
        judge(stage, bench, first, scene);
        if !matches!(scene.arrivals, Arrivals::Constant) || stage.options.tiny {
            continue;
        }
        // The other engines measure by the same clock and records: one rate shows it. Others know
        // no other arrivals, and at the highest rate some are the bottleneck themselves.
        let one_rate = (scene.rate - RATES[1]).abs() < 1.0;
        for generator in stage.ours.iter().skip(1).filter(|_| one_rate) {
            judge(stage, bench, generator, scene);
        }
        for name in ["wrk2", "oha", "k6"] {
            let Some(peer) = stage.other(name) else {
                continue;
            };
            judge(stage, bench, peer, scene);
            if let Some(correcting) = peer.correcting().filter(|_| one_rate) {
                judge(stage, bench, &correcting, scene);
            }
        }
    }
    Ok(())
}

fn scenes(stage: &Stage<'_>) -> Vec<Scene> {
    if stage.options.tiny {
        return ARRIVALS
            .map(|arrivals| Scene {
                arrivals,
                rate: 1_000.0,
                stall: Duration::from_millis(50),
                beside: Duration::from_millis(400),
            })
            .to_vec();
    }
    let mut scenes = Vec::new();
    for stall in STALLS_MS {
        for rate in RATES {
            scenes.extend(ARRIVALS.map(|arrivals| Scene {
                arrivals,
                rate,
                stall: Duration::from_millis(stall),
                beside: BESIDE,
            }));
        }
    }
    scenes
}

/// Measures one generator in one scene; what goes wrong is said, and the others go on.
fn judge(stage: &Stage<'_>, bench: &mut Bench, generator: &Generator, scene: Scene) {
    let of = (scene.name(), generator.name());
    match once(stage, generator, scene) {
        Ok((figures, raw)) => {
            bench.extend(figures);
            bench.raw["truth"][&of.0][of.1] = raw;
        }
        Err(error) => bench.missing(format!("truth of {}, {}: {error:#}", of.1, of.0)),
    }
}

fn once(stage: &Stage<'_>, generator: &Generator, scene: Scene) -> Result<(Vec<Figure>, Value)> {
    let target = Target::start(Behaviour {
        core: stage.cores.server,
        body_bytes: BODY_BYTES,
        stalls: vec![Stall {
            at: scene.beside / 2,
            lasts: scene.stall,
        }],
        records: true,
        ..Behaviour::default()
    })?;
    let url = format!("http://{}/", target.address());
    let mut load = Load::open(url, CONNECTIONS, scene.duration(), scene.rate);
    load.arrivals = Some(scene.arrivals.name());
    let (_, report) = generator.run(&load, stage.cores.client)?;
    let mut seen = target.stop()?;
    let due = due(generator, scene, &mut seen);
    let truth = Truth::of(&due, &seen)?;
    let of = (scene.name(), generator.name());
    let mut figures = Vec::new();
    let mut worst: f64 = 0.0;
    for (name, reported) in STATISTICS.into_iter().zip(report.latency_us) {
        let (Some(truly), Some(reported)) = (truth.statistic(name), reported) else {
            continue;
        };
        let error = error_percent(reported, truly);
        worst = worst.max(error.abs());
        figures.push(Figure::new(of.clone(), format!("error of {name}"), "%").values([error]));
    }
    let all = Figure::new(of, "largest error", "%").values([worst]);
    figures.push(if generator.is_ours() {
        all.goal(Stat::Max, GOAL)
    } else {
        all
    });
    let raw = json!({
        "true_us": STATISTICS.map(|name| truth.statistic(name)),
        "reported_us": report.latency_us,
        "requests": seen.len(),
        "invalid": report.invalid,
    });
    Ok((figures, raw))
}

/// Returns the due times of what was seen. Ours makes exactly the requests of its schedule; others
/// make one more or less, or give up those that are in flight at the end, so of them the schedule is
/// as long as what was seen, and what was not seen did not happen.
fn due(generator: &Generator, scene: Scene, seen: &mut [Seen]) -> Vec<Duration> {
    if generator.is_ours() {
        return scene.arrivals.due(scene.rate, scene.duration());
    }
    let gap = Duration::from_secs_f64(1.0 / scene.rate);
    seen.sort_by_key(|seen| seen.read_ns);
    (0..seen.len())
        .map(|number| gap.mul_f64(number as f64))
        .collect()
}
