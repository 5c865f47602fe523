//! What a request costs, proxies taking turns: saturated, at half load, over TLS and HTTP/2.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Answering, BODY_BYTES, Rig, tried};
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Entry, Generator, Load, Proxy};

const ROUNDS: usize = 5;
/// How long each proxy is driven in each round.
const RUN: Duration = Duration::from_millis(1500);
/// The case that says what half of a load is, and whose.
const FULL: (&str, &str) = (CASES[0].name, "nginx");

/// Parts of the cost of others: of whom, against whom, and how large it may be, if there is a goal.
type Goals = &'static [(&'static str, &'static str, Option<f64>)];

/// A load that proxies are put under.
struct Case {
    name: &'static str,
    entry: Entry,
    connections: usize,
    body_bytes: usize,
    /// Half of what nginx takes of the first case, in an open loop.
    half: bool,
    /// More of the generator's flags.
    flags: &'static [&'static str],
    /// What the cost is for.
    each: &'static str,
    goals: Goals,
}

/// What most cases are.
const PLAIN: Case = Case {
    name: "",
    entry: Entry::Plain,
    connections: 64,
    body_bytes: BODY_BYTES,
    half: false,
    flags: &[],
    each: "request",
    goals: &[],
};

const SATURATED: Goals = &[
    ("ballast", "nginx", Some(0.80)),
    ("ballast", "haproxy", Some(0.85)),
    ("ballast uring", "nginx", Some(0.60)),
    ("ballast uring", "haproxy", Some(0.68)),
];
const TLS: Goals = &[
    ("ballast", "nginx", Some(1.0)),
    ("ballast", "haproxy", None),
    ("ballast uring", "nginx", None),
];

const CASES: [Case; 8] = [
    Case {
        name: "saturated, 128 B, c=64",
        goals: SATURATED,
        ..PLAIN
    },
    Case {
        name: "saturated, 128 B, c=256",
        connections: 256,
        goals: SATURATED,
        ..PLAIN
    },
    Case {
        name: "saturated, 128 B, c=1000",
        connections: 1000,
        goals: &[
            ("ballast", "nginx", Some(0.80)),
            ("ballast", "haproxy", Some(0.85)),
            ("ballast uring", "nginx", None),
            ("ballast uring", "haproxy", None),
        ],
        ..PLAIN
    },
    Case {
        name: "saturated, 64 KiB, c=64",
        body_bytes: 64 << 10,
        goals: &[
            ("ballast", "nginx", Some(0.55)),
            ("ballast", "haproxy", Some(0.85)),
            ("ballast uring", "nginx", Some(0.55)),
            ("ballast uring", "haproxy", Some(0.85)),
        ],
        ..PLAIN
    },
    Case {
        name: "half of nginx's load, 128 B, c=64",
        half: true,
        goals: &[
            ("ballast", "nginx", Some(0.90)),
            ("ballast", "haproxy", Some(0.85)),
            ("ballast uring", "nginx", Some(0.90)),
            ("ballast uring", "haproxy", Some(0.85)),
        ],
        ..PLAIN
    },
    Case {
        name: "h2c to HTTP/1.1, 128 B, c=8 of 8 streams",
        entry: Entry::H2c,
        connections: 8,
        flags: &["--http2", "--streams", "8"],
        goals: &[
            ("ballast", "nginx", Some(0.75)),
            ("ballast", "haproxy", None),
        ],
        ..PLAIN
    },
    Case {
        name: "TLS 1.3 kept alive, 128 B, c=64",
        entry: Entry::Tls,
        flags: &["--insecure"],
        goals: TLS,
        ..PLAIN
    },
    Case {
        name: "TLS 1.3, a connection for each request, c=32",
        entry: Entry::Tls,
        connections: 32,
        flags: &["--insecure", "--requests-per-connection", "1", "--reset"],
        each: "handshake",
        goals: TLS,
        ..PLAIN
    },
];

/// What one proxy used, round by round.
#[derive(Debug, Default)]
struct Series {
    rounds: Vec<usize>,
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
    busy: Vec<f64>,
    p99_us: Vec<f64>,
    errors: Vec<f64>,
}

/// One round of one proxy.
struct Once {
    cpu_us: f64,
    rate: f64,
    busy: f64,
    p99_us: Option<f64>,
    errors: u64,
}

/// Measures every case.
pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) {
    bench.raw["driver"] = json!([rig.hot.name(), rig.general.name()]);
    for case in &CASES {
        tried(bench, rig, case.name, |bench| measure(bench, rig, case));
    }
}

fn measure(bench: &mut Bench, rig: &Rig<'_>, case: &Case) -> Result<()> {
    let mut load = Load {
        flags: case.flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..Load::closed(
            String::new(),
            case.connections,
            rig.options.size(RUN, Duration::from_millis(200)),
        )
    };
    if case.half {
        let Some(rate) = half(bench, rig)? else {
            bench.missing(format!("{}: nginx's own load is not known", case.name));
            return Ok(());
        };
        load.rate = Some(rate);
    }
    let (sink, proxies) = rig.stage(bench, case.body_bytes, |_| true)?;
    let driver = if case.entry == Entry::Plain {
        &rig.hot
    } else {
        &rig.general
    };
    let series = rounds(bench, rig, &proxies, case.name, |proxy| {
        let load = Load {
            url: proxy.url(case.entry),
            ..load.clone()
        };
        once(proxy, &sink, driver, &load, rig)
    });
    figures(bench, case, &series);
    Ok(())
}

/// Returns half of the requests a second that nginx takes; measured now if that case was not
/// wanted. None if nginx is not there.
fn half(bench: &mut Bench, rig: &Rig<'_>) -> Result<Option<f64>> {
    let (case, peer) = FULL;
    let known = bench.figures.find(case, peer, "requests");
    let full = if let Some(known) = known {
        known.median()
    } else {
        let (sink, proxies) = rig.stage(bench, BODY_BYTES, |name| name == peer)?;
        let Some(nginx) = proxies.first() else {
            return Ok(None);
        };
        let length = rig.options.size(RUN, Duration::from_millis(200));
        let load = Load::closed(nginx.url(Entry::Plain), PLAIN.connections, length);
        once(nginx, &sink, &rig.hot, &load, rig)?.rate
    };
    Ok(Some((full / 2.0).floor().max(1.0)))
}

/// Lets proxies take turns; one that fails is left out from then on, and said.
fn rounds(
    bench: &mut Bench,
    rig: &Rig<'_>,
    proxies: &[Proxy],
    case: &str,
    once: impl Fn(&Proxy) -> Result<Once>,
) -> BTreeMap<&'static str, Series> {
    let mut series: BTreeMap<&'static str, Series> = BTreeMap::new();
    let mut left: Vec<&Proxy> = proxies.iter().collect();
    let rounds = rig.options.runs.unwrap_or(rig.options.size(ROUNDS, 1));
    for round in 0..rounds {
        if round > 0 && !left.is_empty() {
            left.rotate_left(1);
        }
        left.retain(|proxy| match once(proxy) {
            Ok(one) => {
                let series = series.entry(proxy.name()).or_default();
                series.rounds.push(round);
                series.cpu_us.push(one.cpu_us);
                series.rate.push(one.rate);
                series.busy.push(one.busy);
                series.p99_us.extend(one.p99_us);
                series.errors.push(one.errors as f64);
                true
            }
            Err(error) => {
                bench.missing(format!("{case}: {}: {error:#}", proxy.name()));
                false
            }
        });
    }
    series
}

fn once(
    proxy: &Proxy,
    sink: &Answering,
    driver: &Generator,
    load: &Load,
    rig: &Rig<'_>,
) -> Result<Once> {
    let (requests, cpu) = (sink.answered(), proxy.cpu()?);
    let (finished, report) = driver.run(load, rig.cores.client)?;
    let requests = sink.answered() - requests;
    ensure!(requests > 0, "no request reached the sink");
    let cpu = proxy.cpu()?.saturating_sub(cpu).as_secs_f64();
    let took = finished.took.as_secs_f64();
    Ok(Once {
        cpu_us: cpu * 1e6 / requests as f64,
        rate: requests as f64 / took,
        busy: cpu * 100.0 / took,
        p99_us: report.latency_us[1],
        errors: report.errors,
    })
}

fn figures(bench: &mut Bench, case: &Case, series: &BTreeMap<&'static str, Series>) {
    let cost = format!("CPU per {}", case.each);
    for (name, own) in series {
        let figure = |figure: &str, unit, values: &[f64]| {
            Figure::new((case.name, *name), figure, unit).values(values.iter().copied())
        };
        bench.push(figure(&cost, "µs", &own.cpu_us));
        bench.push(figure(&format!("{}s", case.each), "1/s", &own.rate));
        bench.push(figure("part of its core", "%", &own.busy));
        bench.push(figure("p99 latency", "µs", &own.p99_us));
        let failed = figure("failed requests", "1", &own.errors);
        bench.push(if name.starts_with("ballast") {
            failed.goal(Stat::Sum, 0.0)
        } else {
            failed
        });
    }
    for (subject, peer, goal) in case.goals {
        let (Some(own), Some(theirs)) = (series.get(subject), series.get(peer)) else {
            continue;
        };
        let ratio = |what: &str, pick: fn(&Series) -> &[f64], goal: Option<f64>| {
            let values = ratios(own, theirs, pick);
            let figure = Figure::new((case.name, *subject), format!("{what} ÷ {peer}"), "×");
            let figure = figure.values(values);
            match goal {
                Some(goal) => figure.goal(Stat::P50, goal),
                None => figure,
            }
        };
        bench.push(ratio(&cost, |series| &series.cpu_us, *goal));
        if case.half && *peer == "nginx" {
            bench.push(ratio("p99 latency", |series| &series.p99_us, Some(1.0)));
        }
    }
}

/// Returns ratios within rounds that both were in: what disturbed one of them disturbed the other.
fn ratios(own: &Series, theirs: &Series, pick: fn(&Series) -> &[f64]) -> Vec<f64> {
    let of = |series: &Series| -> BTreeMap<usize, f64> {
        let rounds = series.rounds.iter().copied();
        rounds.zip(pick(series).iter().copied()).collect()
    };
    let theirs = of(theirs);
    let both = of(own)
        .into_iter()
        .filter_map(|(round, own)| Some((own, *theirs.get(&round)?)));
    both.map(|(own, theirs)| own / theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_that_both_were_in() {
        let series = |rounds: &[usize], cpu: &[f64]| Series {
            rounds: rounds.to_vec(),
            cpu_us: cpu.to_vec(),
            ..Series::default()
        };
        let own = series(&[0, 2], &[10.0, 40.0]);
        let theirs = series(&[0, 1, 2], &[20.0, 1.0, 50.0]);
        let found = ratios(&own, &theirs, |series| &series.cpu_us);
        assert_eq!(found, [0.5, 0.8]);
    }
}
