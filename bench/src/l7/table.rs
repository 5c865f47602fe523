//! What many services cost: memory, and whether requests become dearer.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Answering, BODY_BYTES, Rig};
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Entries, Entry, Load, Proxy};

pub(super) const CASE: &str = "10,000 services of 10 endpoints";
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 64;
/// Goal for the cost of a request beside that with one service.
const GOAL: f64 = 1.05;
/// For the ingress to have looked at each endpoint once.
const CALM_DEADLINE: Duration = Duration::from_mins(1);
/// How much of a core it uses that is calm.
const CALM: f64 = 0.05;

pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) -> Result<()> {
    let sink = rig.sink(BODY_BYTES)?;
    let many = rig.options.size(SERVICES, 100);
    let start = |services| {
        let config = |entries: &Entries| config(entries, sink.address(), services);
        Proxy::ballast(&rig.setup(sink.address()), config)
    };
    let (one, all) = (start(1)?, start(many)?);
    for proxy in [&one, &all] {
        await_calm(proxy, rig)?;
    }
    let bytes = all.own_bytes()?.saturating_sub(one.own_bytes()?);
    let figure = |name, unit| Figure::new((CASE, "ballast"), name, unit);
    let mib = bytes as f64 / f64::from(1 << 20);
    bench.push(figure("own memory, beyond that with one service", "MiB").values([mib]));
    let each = bytes as f64 / (many * ENDPOINTS) as f64;
    bench.push(figure("own memory for an endpoint", "B").values([each]));
    let (mut alone, mut among, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rig.options.runs.unwrap_or(rig.options.size(ROUNDS, 1)) {
        let few = cost(&one, &sink, rig)?;
        let most = cost(&all, &sink, rig)?;
        alone.push(few);
        among.push(most);
        ratios.push(most / few);
    }
    bench.push(figure("CPU per request, one service", "µs").values(alone));
    bench.push(figure("CPU per request", "µs").values(among));
    let ratio = figure("CPU per request ÷ with one service", "×");
    bench.push(ratio.values(ratios).goal(Stat::P50, GOAL));
    Ok(())
}

/// Returns a configuration of so many services, each on a host of its own; the first is the sink.
fn config(entries: &Entries, sink: SocketAddr, services: usize) -> String {
    let mut text = format!(
        "listen: {{ http: \"{}\" }}\nthreads: 1\nadmin: \"off\"\nservices:\n  s0: {{ endpoints: \
         [\"{sink}\"], policy: p2c }}\n",
        entries.plain
    );
    for service in 1..services {
        let endpoints: Vec<String> = (0..ENDPOINTS)
            .map(|slot| {
                let [_, high, middle, low] = u32::try_from(service * ENDPOINTS + slot)
                    .unwrap_or(u32::MAX)
                    .to_be_bytes();
                // Nobody is there: what looks is refused at once, and does not look again soon.
                format!("\"127.{}.{middle}.{low}:{}\"", high + 1, sink.port())
            })
            .collect();
        let _ = writeln!(
            text,
            "  s{service}: {{ endpoints: [{}], policy: p2c, check: {{ interval: 1h, fall: 10 }} }}",
            endpoints.join(", ")
        );
    }
    text.push_str("routes:\n");
    for service in 0..services {
        let _ = writeln!(
            text,
            "  - {{ match: {{ host: \"s{service}.test\", path_prefix: \"/\" }}, service: s{service} }}"
        );
    }
    text
}

fn await_calm(proxy: &Proxy, rig: &Rig<'_>) -> Result<()> {
    let look = rig
        .options
        .size(Duration::from_millis(500), Duration::from_millis(50));
    let began = Instant::now();
    loop {
        let before = proxy.cpu()?;
        std::thread::sleep(look);
        let used = proxy.cpu()?.saturating_sub(before);
        if used < look.mul_f64(CALM) || rig.options.tiny {
            return Ok(());
        }
        ensure!(
            began.elapsed() < CALM_DEADLINE,
            "it does not become calm with its services"
        );
    }
}

/// Returns the CPU µs of a request.
fn cost(proxy: &Proxy, sink: &Answering, rig: &Rig<'_>) -> Result<f64> {
    let load = Load {
        flags: vec!["-H".to_owned(), "Host: s0.test".to_owned()],
        ..Load::closed(
            proxy.url(Entry::Plain),
            CONNECTIONS,
            rig.options.size(RUN, Duration::from_millis(200)),
        )
    };
    let (requests, cpu) = (sink.answered(), proxy.cpu()?);
    let (_, report) = rig.hot.run(&load, rig.cores.client)?;
    let requests = sink.answered() - requests;
    ensure!(requests > 0, "no request reached the sink");
    ensure!(report.errors == 0, "{} requests failed", report.errors);
    let cpu = proxy.cpu()?.checked_sub(cpu).context("CPU time")?;
    Ok(cpu.as_secs_f64() * 1e6 / requests as f64)
}
