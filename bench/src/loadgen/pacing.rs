//! How well a rate is kept, seen by the target.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Stage;
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load};
use crate::target::truth::Arrivals;
use crate::target::{Behaviour, Seen, Target};

const RATE: f64 = 20_000.0;
const CONNECTIONS: usize = 64;
const BODY_BYTES: usize = 128;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_secs(3);
/// By how much the delivered rate may be off, in percent.
const GOAL_OFF: f64 = 0.1;
/// The median latency, µs.
const GOAL_P50_US: f64 = 250.0;

/// What was seen of one run.
struct Paced {
    /// By how much the rate was off, in percent.
    off: f64,
    /// From due to arrival, µs: median and p99; none of others, whose schedule nobody knows.
    late_us: Option<[f64; 2]>,
    p50_us: Option<f64>,
    cpu_us: f64,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a case may fail, this one says what did"
)]
pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let rounds = stage.options.runs.unwrap_or(stage.options.size(ROUNDS, 1));
    let mut subjects: Vec<&Generator> = stage.all().filter(|it| it.keeps_rates()).collect();
    if stage.options.tiny {
        subjects.retain(|it| it.is_ours());
    }
    let mut paced: BTreeMap<&str, Vec<Paced>> = BTreeMap::new();
    for _ in 0..rounds {
        for generator in &subjects {
            match once(stage, generator) {
                Ok(one) => paced.entry(generator.name()).or_default().push(one),
                Err(error) => {
                    bench.missing(format!("pacing of {}: {error:#}", generator.name()));
                }
            }
        }
    }
    for generator in &subjects {
        if let Some(own) = paced.get(generator.name()) {
            figures(stage, bench, generator, own, paced.get("wrk2"));
        }
    }
    Ok(())
}

fn once(stage: &Stage<'_>, generator: &Generator) -> Result<Paced> {
    let duration = stage.options.size(RUN, Duration::from_millis(300));
    let rate = stage.options.size(RATE, 1000.0);
    let target = Target::start(Behaviour {
        core: stage.cores.server,
        body_bytes: BODY_BYTES,
        records: true,
        ..Behaviour::default()
    })?;
    let url = format!("http://{}/", target.address());
    let load = Load::open(url, CONNECTIONS, duration, rate);
    let (finished, report) = generator.run(&load, stage.cores.client)?;
    let seen = target.stop()?;
    ensure!(seen.len() > 1, "it made no request");
    let due = Arrivals::Constant.due(rate, duration);
    Ok(Paced {
        off: (delivered(&seen) / rate - 1.0).abs() * 100.0,
        late_us: generator.is_ours().then(|| late(&seen, &due)),
        p50_us: report.latency_us[0],
        cpu_us: finished.cpu.as_secs_f64() * 1e6 / seen.len() as f64,
    })
}

/// Returns requests a second, from the first to the last.
fn delivered(seen: &[Seen]) -> f64 {
    let read = |seen: &Seen| seen.read_ns;
    let first = seen.iter().map(read).min().unwrap_or_default();
    let last = seen.iter().map(read).max().unwrap_or_default();
    (seen.len() - 1) as f64 * 1e9 / (last - first).max(1) as f64
}

/// Returns how much after they were due requests arrived, median and p99, beside the soonest
/// hundredth.
fn late(seen: &[Seen], due: &[Duration]) -> [f64; 2] {
    let mut read: Vec<u64> = seen.iter().map(|seen| seen.read_ns).collect();
    read.sort_unstable();
    let after = read.iter().zip(due);
    let mut late: Vec<f64> = after
        .map(|(read, due)| *read as f64 / 1e3 - due.as_secs_f64() * 1e6)
        .collect();
    late.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        late[(late.len() * percent).div_ceil(100).max(1) - 1] - late[late.len() / 100]
    };
    [at(50), at(99)]
}

fn figures(
    stage: &Stage<'_>,
    bench: &mut Bench,
    generator: &Generator,
    own: &[Paced],
    wrk2: Option<&Vec<Paced>>,
) {
    let rate = stage.options.size(RATE, 1000.0);
    let of = (format!("pacing at {rate}/s"), generator.name());
    let figure = |name, unit, of_one: &dyn Fn(&Paced) -> Option<f64>| {
        Figure::new(of.clone(), name, unit).values(own.iter().filter_map(of_one))
    };
    let off = figure("delivered rate off by", "%", &|one| Some(one.off));
    let p50 = figure("p50 latency, reported", "µs", &|one| one.p50_us);
    bench.push(figure("CPU per request", "µs", &|one| Some(one.cpu_us)));
    if !generator.is_ours() {
        bench.push(off);
        bench.push(p50);
        return;
    }
    bench.push(off.goal(Stat::P50, GOAL_OFF));
    bench.push(p50.goal(Stat::P50, GOAL_P50_US));
    for (index, name) in ["arrival after due, p50", "arrival after due, p99"]
        .into_iter()
        .enumerate()
    {
        bench.push(figure(name, "µs", &|one| Some(one.late_us?[index])));
    }
    if let Some(wrk2) = wrk2 {
        let ratios = own.iter().zip(wrk2);
        let ratio = Figure::new(of.clone(), "CPU per request ÷ wrk2", "×")
            .values(ratios.map(|(own, theirs)| own.cpu_us / theirs.cpu_us));
        bench.push(ratio.goal(Stat::P50, 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivered_rate_and_lateness_are_what_the_target_saw() {
        let due = Arrivals::Constant.due(1000.0, Duration::from_secs(1));
        let seen: Vec<Seen> = (0_u64..1000)
            .map(|number| Seen {
                // Each hundredth is a millisecond late.
                read_ns: number * 1_000_000 + if number % 50 == 49 { 999_000 } else { 0 },
                answered_ns: 0,
            })
            .collect();
        assert!((delivered(&seen) / 1000.0 - 1.0).abs() < 0.002);
        let [p50, p99] = late(&seen, &due);
        assert!(p50 < 1.0 && (p99 - 999.0).abs() < 1.0, "{p50} {p99}");
    }
}
