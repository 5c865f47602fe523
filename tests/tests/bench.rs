//! Every bench works, at its smallest size: what it measures here means nothing.
//!
//! That a figure is there and that nothing failed is asked for, never how large it is.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ballast_tests::bench::{Bench, Options};
use serde_json::Value;

fn tiny(only: Option<&str>) -> Options {
    Options {
        tiny: true,
        only: only.map(str::to_owned),
        ..Options::default()
    }
}

/// Returns the figures of a bench of which no case failed.
fn figures(bench: &Bench) -> Result<Vec<Value>> {
    ensure!(bench.failed.is_empty(), "failed: {:?}", bench.failed);
    let figures = bench.figures.to_json();
    ensure!(!figures.is_empty(), "no figure; {:?}", bench.missing);
    for figure in &figures {
        for name in ["case", "subject", "figure", "unit", "runs"] {
            ensure!(!figure[name].is_null(), "a figure has no {name}: {figure}");
        }
    }
    Ok(figures)
}

fn has(figures: &[Value], case: &str, name: &str) -> bool {
    figures.iter().any(|figure| {
        let text = |key: &str| figure[key].as_str().unwrap_or_default().to_owned();
        text("case").contains(case) && text("figure").contains(name) && figure["median"].is_f64()
    })
}

/// Lets benches of single programs find those that the cluster harness finds or builds.
fn built(program: &str) -> Result<PathBuf> {
    ballast_tests::cluster::program(program)
}

#[test]
fn cluster_bench_loadgen_measures_every_case() -> Result<()> {
    built("ballast-loadgen")?;
    let bench = ballast_bench::run("loadgen", &tiny(None))?;
    let figures = figures(&bench)?;
    eprintln!("not measured: {:?}", bench.missing);
    for (case, name) in [
        ("against nginx", "CPU per request"),
        ("a long run", "resident memory, most"),
        ("connections at", "errors"),
        ("pacing", "delivered rate off by"),
        ("constant", "largest error"),
        ("left alone", "says INVALID"),
        ("busy loops", "says INVALID"),
    ] {
        assert!(has(&figures, case, name), "{case}: {name}");
    }
    Ok(())
}

#[test]
fn cluster_bench_l7_measures_or_says_why_not() -> Result<()> {
    built("ballast-loadgen")?;
    built("ballast")?;
    let bench = ballast_bench::run("l7", &tiny(None))?;
    let figures = figures(&bench)?;
    eprintln!("not measured: {:?}", bench.missing);
    let (mut there, mut not) = (0, 0);
    for (case, name) in [
        ("c=64", "CPU per request"),
        ("c=256", "CPU per request"),
        ("c=1000", "CPU per request"),
        ("64 KiB", "CPU per request"),
        ("half of", "CPU per request"),
        ("h2c", "CPU per request"),
        ("TLS 1.3 kept alive", "CPU per request"),
        ("a connection for each request", "CPU per handshake"),
        ("idle connections", "own memory of one"),
        ("instructions", "in user space"),
        ("10,000 services", "CPU per request ÷"),
        ("attacks: slowloris", "others' failed requests"),
        ("attacks: h2 rapid reset", "others' failed requests"),
        ("reloads", "failed requests"),
        ("certificates swapped", "failed requests"),
        ("endpoints swapped", "failed requests"),
        ("binary upgraded", "failed requests"),
    ] {
        let group = case.split(':').next().unwrap_or(case);
        let case_is = |missing: &String| missing.contains(group);
        if has(&figures, case, name) {
            there += 1;
        } else if bench.missing.iter().any(case_is) {
            // Said aloud: a machine that is too busy is no fault of the bench.
            not += 1;
        } else {
            anyhow::bail!("{case}: no figure {name}, and nothing says why");
        }
    }
    ensure!(there > not, "most is missing: {:?}", bench.missing);
    Ok(())
}

#[test]
fn cluster_bench_failover_measures_every_fault() -> Result<()> {
    let bench = ballast_tests::bench::run("failover", &tiny(None))?;
    let figures = figures(&bench)?;
    for case in [
        "kill one of 5",
        "hang one of 5",
        "node lost",
        "manager away",
    ] {
        assert!(has(&figures, case, "failed GETs"), "{case}");
    }
    Ok(())
}

#[test]
fn cluster_bench_scale_durable_and_fleet_measure() -> Result<()> {
    for (name, case, figure) in [
        ("scale", "from nothing", "all answering"),
        ("durable", "durable", "placements durable and heard"),
        ("fleet", "nodes", "all connected"),
    ] {
        let bench = ballast_tests::bench::run(name, &tiny(None))?;
        let figures = figures(&bench).context(name)?;
        assert!(has(&figures, case, figure), "{name}: {figure}");
    }
    Ok(())
}

#[test]
fn bench_scheduler_measures_what_it_is_asked_for() -> Result<()> {
    let options = tiny(Some("place+release plain 1k"));
    let bench = ballast_bench::run("scheduler", &options)?;
    let figures = figures(&bench)?;
    assert!(has(&figures, "plain 1k", "latency p99"));
    Ok(())
}

#[test]
fn bench_that_does_not_exist_is_refused() {
    assert!(ballast_bench::run("speed", &tiny(None)).is_err());
    assert!(ballast_tests::bench::run("speed", &tiny(None)).is_err());
}
