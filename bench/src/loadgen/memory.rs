//! Resident memory: with 64 connections over a long run, and with 10,000.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::Stage;
use crate::Bench;
use crate::child::Finished;
use crate::figures::{Figure, Stat};
use crate::peers::{Generator, Load};
use crate::target::{Behaviour, Target};

const BODY_BYTES: usize = 128;
const CONNECTIONS: usize = 64;
/// The goal with that many.
const GOAL_MIB: f64 = 8.0;
/// Memory at the end of the long run ÷ at its beginning: pages come and go, but it must not grow.
const GOAL_GROWTH: f64 = 1.02;
/// How long the long run is, and into how many parts it is cut: the first is its beginning, the
/// last its end.
const LONG: Duration = Duration::from_secs(45);
const PARTS: usize = 6;
const MANY: usize = 10_000;
/// The rate with many connections: each of them is used.
const MANY_RATE: f64 = 20_000.0;
const MANY_RUN: Duration = Duration::from_secs(10);
/// Descriptors beside those of connections.
const SPARE: u64 = 200;

pub(super) fn run(stage: &Stage<'_>, bench: &mut Bench) -> Result<()> {
    let target = Target::start(Behaviour {
        core: stage.cores.server,
        body_bytes: BODY_BYTES,
        ..Behaviour::default()
    })?;
    let url = format!("http://{}/", target.address());
    for generator in &stage.ours {
        match long(stage, generator, &url) {
            Ok((figures, raw)) => {
                bench.extend(figures);
                bench.raw["memory"][generator.name()] = raw;
            }
            Err(error) => bench.missing(format!("memory of {}: {error:#}", generator.name())),
        }
    }
    let many = stage.options.size(MANY, 500);
    if let Err(error) = allow(many) {
        bench.missing(format!("{many} connections: {error:#}"));
        return Ok(());
    }
    for generator in &stage.ours {
        match with_many(stage, generator, &url, many) {
            Ok(figures) => bench.extend(figures),
            Err(error) => bench.missing(format!(
                "{} with {many} connections: {error:#}",
                generator.name()
            )),
        }
    }
    Ok(())
}

fn long(stage: &Stage<'_>, generator: &Generator, url: &str) -> Result<(Vec<Figure>, Value)> {
    let duration = stage.options.size(LONG, Duration::from_secs(1));
    let load = Load::closed(url.to_owned(), CONNECTIONS, duration);
    let (finished, _) = generator.run(&load, stage.cores.client)?;
    let of = ("64 connections, a long run", generator.name());
    let growth = growth(&finished).context("it was not seen for long enough")?;
    let figures = vec![
        Figure::new(of, "resident memory, most", "MiB")
            .values([finished.peak_mib()])
            .goal(Stat::Max, GOAL_MIB),
        Figure::new(of, "resident memory, end ÷ beginning", "×")
            .values([growth])
            .goal(Stat::Max, GOAL_GROWTH),
    ];
    let samples = finished.memory.iter();
    let samples: Vec<Value> = samples
        .map(|(at, bytes)| json!([at.as_secs_f64(), bytes]))
        .collect();
    Ok((figures, json!(samples)))
}

/// Returns the mean memory in the last part of a run ÷ the mean in the first, the start aside.
fn growth(finished: &Finished) -> Option<f64> {
    // What it asks for while it starts is not growth.
    let memory = finished.memory.get(1..)?;
    let part = memory.len().div_ceil(PARTS).max(1);
    let mean = |samples: &[(Duration, u64)]| {
        samples.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / samples.len() as f64
    };
    let (first, last) = (memory.get(..part)?, memory.get(memory.len() - part..)?);
    Some(mean(last) / mean(first))
}

fn with_many(
    stage: &Stage<'_>,
    generator: &Generator,
    url: &str,
    many: usize,
) -> Result<Vec<Figure>> {
    let duration = stage.options.size(MANY_RUN, Duration::from_secs(1));
    let rate = stage.options.size(MANY_RATE, 1000.0);
    let load = Load::open(url.to_owned(), many, duration, rate);
    let (finished, report) = generator.run(&load, stage.cores.client)?;
    let of = (format!("{many} connections at {rate}/s"), generator.name());
    let mib = finished.peak_mib();
    let memory = Figure::new(of.clone(), "resident memory, most", "MiB").values([mib]);
    let each = Figure::new(of.clone(), "resident memory per connection", "KiB");
    let errors = Figure::new(of.clone(), "errors", "requests").values([report.errors as f64]);
    let valid = f64::from(u8::from(report.invalid.is_none()));
    Ok(vec![
        memory,
        each.values([mib * 1024.0 / many as f64]),
        errors.goal(Stat::Sum, 0.0),
        Figure::new(of, "verdict is valid", "1").values([valid]),
    ])
}

/// Lets this process, and what it starts, have that many connections, both of their ends.
fn allow(connections: usize) -> Result<()> {
    let wanted = connections as u64 + SPARE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum,
        },
    )
    .with_context(|| format!("{wanted} descriptors"))?;
    ensure!(
        getrlimit(Resource::Nofile).current >= Some(wanted),
        "the system gives no more descriptors"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn growth_compares_the_ends_and_leaves_the_start_out() {
        let second = Duration::from_secs(1);
        let memory = [1_u64, 100, 100, 120, 150, 150, 200]
            .into_iter()
            .map(|bytes| (second, bytes));
        let finished = Finished {
            output: String::new(),
            errors: String::new(),
            status: ExitStatus::from_raw(0),
            cpu: second,
            took: second,
            memory: memory.collect(),
        };
        assert_eq!(growth(&finished), Some(2.0));
    }
}
