//! CPU time for each request against nginx, closed loop, everything on, by turns.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Stage;
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load, Nginx};

const CASE: &str = "against nginx, 128 B, c=64";
const BODY_BYTES: usize = 128;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 10;
/// How long each generator runs in each round.
const RUN: Duration = Duration::from_secs(2);
/// Whom we are measured against, and the part of its cost that is the goal.
const GOALS: [(&str, f64); 2] = [("wrk", 0.80), ("oha", 0.55)];

/// What one generator used, round by round.
#[derive(Debug, Default)]
struct Series {
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
    mib: Vec<f64>,
}

pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let nginx = Nginx::answering(BODY_BYTES, stage.cores.server)?;
    let duration = stage.options.size(RUN, Duration::from_millis(200));
    let rounds = stage.options.runs.unwrap_or(stage.options.size(ROUNDS, 1));
    // Whoever does not start at all is left out and said, and the others go on.
    let mut subjects: Vec<&Generator> = stage.all().collect();
    if stage.options.tiny {
        subjects.retain(|it| it.is_ours() || it.name() == "wrk");
    }
    let load = Load::closed(
        format!("http://{}/", nginx.address()),
        CONNECTIONS,
        duration,
    );
    let mut series: BTreeMap<&str, Series> = BTreeMap::new();
    for round in 0..rounds {
        // Each begins a round in turn: who comes after whom must not matter.
        if round > 0 && !subjects.is_empty() {
            subjects.rotate_left(1);
        }
        let mut broken = Vec::new();
        for generator in &subjects {
            match once(generator, &load, &nginx, stage.cores.client) {
                Ok((cpu_us, rate, mib)) => {
                    let series = series.entry(generator.name()).or_default();
                    series.cpu_us.push(cpu_us);
                    series.rate.push(rate);
                    series.mib.push(mib);
                }
                Err(error) => {
                    bench.missing(format!("cost of {}: {error:#}", generator.name()));
                    broken.push(generator.name());
                }
            }
        }
        subjects.retain(|it| !broken.contains(&it.name()));
    }
    figures(stage, bench, &series);
    Ok(())
}

/// Returns CPU µs per request, requests a second, and resident MiB.
fn once(
    generator: &Generator,
    load: &Load,
    nginx: &Nginx,
    core: Option<usize>,
) -> Result<(f64, f64, f64)> {
    let before = nginx.requests()?;
    let (finished, _) = generator.run(load, core)?;
    // The question itself is a request.
    let requests = nginx.requests()?.saturating_sub(before + 1);
    anyhow::ensure!(requests > 0, "it made no request");
    let requests = requests as f64;
    Ok((
        finished.cpu.as_secs_f64() * 1e6 / requests,
        requests / finished.took.as_secs_f64(),
        finished.peak_mib(),
    ))
}

fn figures(stage: &Stage<'_>, bench: &mut Bench, series: &BTreeMap<&str, Series>) {
    for generator in stage.all() {
        let Some(own) = series.get(generator.name()) else {
            continue;
        };
        let of = (CASE, generator.name());
        let cpu = Figure::new(of, "CPU per request", "µs");
        bench.push(cpu.values(own.cpu_us.iter().copied()));
        let rate = Figure::new(of, "requests", "1/s");
        bench.push(rate.values(own.rate.iter().copied()));
        let memory = Figure::new(of, "resident memory", "MiB");
        bench.push(memory.values(own.mib.iter().copied()));
        if !generator.is_ours() {
            continue;
        }
        for (peer, goal) in GOALS {
            let Some(theirs) = series.get(peer) else {
                continue;
            };
            // Of one round: what disturbed one of them disturbed the other.
            let ratios = own.cpu_us.iter().zip(&theirs.cpu_us);
            let ratio = Figure::new(of, format!("CPU per request ÷ {peer}"), "×")
                .values(ratios.map(|(own, theirs)| own / theirs));
            bench.push(ratio.goal(Stat::P50, goal));
        }
    }
    let raw = series.iter().map(|(name, series)| {
        let series = json!({"cpu_us": series.cpu_us, "rate": series.rate, "mib": series.mib});
        ((*name).to_owned(), series)
    });
    bench.raw["cost"] = raw.collect();
}
