//! What `cargo xtask bench l7` measures: what the ingress alone costs for each request, beside
//! nginx and HAProxy.
//!
//! Each proxy is alone on one core; the sink and the generator share the other. Requests are
//! counted by the sink, CPU time by the kernel. When the proxy's core is saturated, what is left of
//! the other does not matter.

mod idle;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::figures::{Figure, Stat};
use crate::peers::{Cores, Generator, Load, Proxy};
use crate::target::{Behaviour, Target};
use crate::{Bench, Options};

const ROUNDS: usize = 5;
/// How long each proxy is driven in each round.
const RUN: Duration = Duration::from_secs(3);

/// A load that proxies are put under.
struct Case {
    name: &'static str,
    connections: usize,
    body_bytes: usize,
    /// Parts of our cost over nginx's and HAProxy's that are the goal.
    goals: [(&'static str, f64); 2],
}

const CASES: [Case; 3] = [
    Case {
        name: "saturated, 128 B, c=64",
        connections: 64,
        body_bytes: 128,
        goals: [("nginx", 0.80), ("haproxy", 0.85)],
    },
    Case {
        name: "saturated, 128 B, c=256",
        connections: 256,
        body_bytes: 128,
        goals: [("nginx", 0.80), ("haproxy", 0.85)],
    },
    Case {
        name: "saturated, 64 KiB, c=64",
        connections: 64,
        body_bytes: 64 << 10,
        goals: [("nginx", 0.55), ("haproxy", 0.85)],
    },
];

/// An open loop at half of what nginx takes of the first case.
const HALF: &str = "half of nginx's load, 128 B, c=64";
/// Goals there: cost over nginx's and HAProxy's.
const HALF_GOALS: [(&str, f64); 2] = [("nginx", 0.90), ("haproxy", 0.85)];

/// What one proxy used, round by round.
#[derive(Debug, Default)]
struct Series {
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
    p99_us: Vec<f64>,
}

/// One round of one proxy.
struct Once {
    cpu_us: f64,
    rate: f64,
    p99_us: Option<f64>,
}

/// Measures every case.
pub fn run(options: &Options) -> Bench {
    Bench::measure("l7", options, |bench| {
        let cores = Cores::two();
        if cores.client.is_none() {
            bench.missing("with a core for the proxy alone: this machine has only one");
        }
        let driver = driver()?;
        bench.raw["driver"] = json!(driver.name());
        for case in &CASES {
            bench.case(case.name, options, |bench| {
                saturated(bench, options, cores, &driver, case)
            });
        }
        bench.case(HALF, options, |bench| half(bench, options, cores, &driver));
        bench.case(idle::CASE, options, |bench| {
            idle::run(bench, options, cores)
        });
        Ok(())
    })
}

/// Returns what drives: ours once it has engines made for it, wrk until then.
fn driver() -> Result<Generator> {
    let ours = Generator::ours()?;
    if ours.len() > 1 {
        return ours.into_iter().next().context("a generator of ours");
    }
    let (others, _) = Generator::others();
    let wrk = others.into_iter().find(|it| it.name() == "wrk");
    wrk.or(ours.into_iter().next()).context("a generator")
}

fn stage(bench: &mut Bench, cores: Cores, body_bytes: usize) -> Result<(Target, Vec<Proxy>)> {
    let sink = Target::start(Behaviour {
        core: cores.client,
        body_bytes,
        ..Behaviour::default()
    })?;
    let (proxies, missing) = Proxy::all(sink.address(), cores.server);
    for missing in missing {
        bench.missing(missing);
    }
    ensure!(!proxies.is_empty(), "no proxy came up");
    Ok((sink, proxies))
}

fn saturated(
    bench: &mut Bench,
    options: &Options,
    cores: Cores,
    driver: &Generator,
    case: &Case,
) -> Result<()> {
    let (sink, proxies) = stage(bench, cores, case.body_bytes)?;
    let load = Load::closed(
        String::new(),
        case.connections,
        options.size(RUN, Duration::from_millis(200)),
    );
    let series = rounds(bench, options, &sink, &proxies, |proxy| {
        once(proxy, &sink, driver, &load, cores)
    });
    figures(bench, case.name, &series, &case.goals);
    Ok(())
}

fn half(bench: &mut Bench, options: &Options, cores: Cores, driver: &Generator) -> Result<()> {
    let full = bench.figures.find(CASES[0].name, "nginx", "requests");
    let full = full.context("what nginx takes was not measured")?.median();
    // Of a generator that keeps no rate there is nothing to learn here.
    let driver = if driver.keeps_rates() {
        driver.clone()
    } else {
        let ours = Generator::ours()?.into_iter().next();
        ours.context("a generator of ours")?
    };
    let (sink, proxies) = stage(bench, cores, CASES[0].body_bytes)?;
    let load = Load::open(
        String::new(),
        CASES[0].connections,
        options.size(RUN, Duration::from_millis(300)),
        (full / 2.0).floor().max(1.0),
    );
    let series = rounds(bench, options, &sink, &proxies, |proxy| {
        once(proxy, &sink, &driver, &load, cores)
    });
    figures(bench, HALF, &series, &HALF_GOALS);
    Ok(())
}

/// Lets proxies take turns; one that fails is left out from then on, and said.
fn rounds(
    bench: &mut Bench,
    options: &Options,
    sink: &Target,
    proxies: &[Proxy],
    once: impl Fn(&Proxy) -> Result<Once>,
) -> BTreeMap<&'static str, Series> {
    let mut series: BTreeMap<&'static str, Series> = BTreeMap::new();
    let mut left: Vec<&Proxy> = proxies.iter().collect();
    let rounds = options.runs.unwrap_or(options.size(ROUNDS, 1));
    for round in 0..rounds {
        if round > 0 && !left.is_empty() {
            left.rotate_left(1);
        }
        left.retain(|proxy| match once(proxy) {
            Ok(one) => {
                let series = series.entry(proxy.name()).or_default();
                series.cpu_us.push(one.cpu_us);
                series.rate.push(one.rate);
                series.p99_us.extend(one.p99_us);
                true
            }
            Err(error) => {
                bench.missing(format!("{}: {error:#}", proxy.name()));
                false
            }
        });
    }
    bench.raw["answered_by_the_sink"] = json!(sink.answered());
    series
}

fn once(
    proxy: &Proxy,
    sink: &Target,
    driver: &Generator,
    load: &Load,
    cores: Cores,
) -> Result<Once> {
    let load = Load {
        url: format!("http://{}/", proxy.address()),
        ..load.clone()
    };
    let (requests, cpu) = (sink.answered(), proxy.cpu()?);
    let (finished, report) = driver.run(&load, cores.client)?;
    let requests = sink.answered() - requests;
    ensure!(requests > 0, "no request reached the sink");
    let cpu = proxy.cpu()?.saturating_sub(cpu);
    Ok(Once {
        cpu_us: cpu.as_secs_f64() * 1e6 / requests as f64,
        rate: requests as f64 / finished.took.as_secs_f64(),
        p99_us: report.latency_us[1],
    })
}

fn figures(
    bench: &mut Bench,
    case: &'static str,
    series: &BTreeMap<&'static str, Series>,
    goals: &[(&'static str, f64)],
) {
    for (name, own) in series {
        let of = (case, *name);
        let figure = |figure, unit, values: &[f64]| {
            Figure::new(of, figure, unit).values(values.iter().copied())
        };
        bench.push(figure("CPU per request", "µs", &own.cpu_us));
        bench.push(figure("requests", "1/s", &own.rate));
        bench.push(figure("p99 latency", "µs", &own.p99_us));
    }
    let Some(own) = series.get("ballast") else {
        return;
    };
    for (peer, goal) in goals {
        let Some(theirs) = series.get(peer) else {
            continue;
        };
        let ratios = own.cpu_us.iter().zip(&theirs.cpu_us);
        let name = format!("CPU per request ÷ {peer}");
        let ratio = Figure::new((case, "ballast"), name, "×")
            .values(ratios.map(|(own, theirs)| own / theirs));
        bench.push(ratio.goal(Stat::P50, *goal));
    }
}
