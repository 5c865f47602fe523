//! What hostile clients cost a proxy, and whether others are served meanwhile.
//!
//! One thread attacks, in batches with a pause between them, so that it takes no core from those
//! who are to be served; a generator with a modest open loop plays those.

mod h1;
mod h2;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{BODY_BYTES, Rig};
use crate::figures::{Figure, Stat};
use crate::peers::{Entry, Load, Proxy};
use crate::{Bench, child};

pub(super) const CASE: &str = "attacks";
/// Who is attacked.
const SUBJECTS: [&str; 3] = ["ballast", "nginx", "haproxy"];
/// How long each attack lasts.
const RUN: Duration = Duration::from_secs(2);
/// What others ask for meanwhile.
const RATE: f64 = 1000.0;
const CONNECTIONS: usize = 16;
/// Between two batches of an attack.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at the proxy's memory.
const LOOK: Duration = Duration::from_millis(50);

/// One kind of attack.
struct Attack {
    name: &'static str,
    /// What is counted.
    unit: &'static str,
    entry: Entry,
    /// The body of each answer of the sink.
    body_bytes: usize,
    run: fn(SocketAddr, &Siege),
}

const ATTACKS: [Attack; 9] = [
    Attack {
        name: "none",
        unit: "none",
        entry: Entry::Plain,
        body_bytes: BODY_BYTES,
        run: |_, _| {},
    },
    Attack {
        name: "connection flood",
        unit: "connections",
        entry: Entry::Plain,
        body_bytes: BODY_BYTES,
        run: h1::connections,
    },
    Attack {
        name: "slowloris",
        unit: "bytes",
        entry: Entry::Plain,
        body_bytes: BODY_BYTES,
        run: h1::slowloris,
    },
    Attack {
        name: "slow read",
        unit: "requests",
        entry: Entry::Plain,
        body_bytes: 64 << 10,
        run: h1::slow_read,
    },
    Attack {
        name: "header bomb",
        unit: "fields of 1 KiB",
        entry: Entry::Plain,
        body_bytes: BODY_BYTES,
        run: h1::header_bomb,
    },
    Attack {
        name: "h2 rapid reset",
        unit: "streams",
        entry: Entry::H2c,
        body_bytes: BODY_BYTES,
        run: h2::rapid_reset,
    },
    Attack {
        name: "h2 CONTINUATION flood",
        unit: "frames",
        entry: Entry::H2c,
        body_bytes: BODY_BYTES,
        run: h2::continuations,
    },
    Attack {
        name: "HPACK bomb",
        unit: "requests",
        entry: Entry::H2c,
        body_bytes: BODY_BYTES,
        run: h2::hpack_bomb,
    },
    Attack {
        name: "h2 SETTINGS flood",
        unit: "frames",
        entry: Entry::H2c,
        body_bytes: BODY_BYTES,
        run: h2::settings,
    },
];

/// What an attack and who looks on share.
#[derive(Debug, Default)]
struct Siege {
    over: AtomicBool,
    done: AtomicU64,
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn did(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

fn pause() {
    std::thread::sleep(PAUSE);
}

pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) -> Result<()> {
    for attack in &ATTACKS {
        let wanted = |name: &str| SUBJECTS.contains(&name);
        let (_sink, proxies) = rig.stage(bench, attack.body_bytes, wanted)?;
        for proxy in &proxies {
            if let Err(error) = measure(bench, rig, attack, proxy) {
                let what = (attack.name, proxy.name());
                bench.missing(format!("{CASE}: {} on {}: {error:#}", what.0, what.1));
            }
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench, rig: &Rig<'_>, attack: &Attack, proxy: &Proxy) -> Result<()> {
    let run = rig.options.size(RUN, Duration::from_millis(200));
    let url = proxy.url(Entry::Plain);
    let load = Load::open(url, CONNECTIONS, run, RATE);
    let core = rig.cores.client;
    let folder = tempfile::tempdir()?;
    let mut command = rig.hot.command(&load, core, folder.path())?;
    let siege = Siege::default();
    let (memory, cpu) = (proxy.own_bytes()?, proxy.cpu()?);
    let mut most = memory;
    let began = Instant::now();
    let target = proxy.address(attack.entry);
    let finished = std::thread::scope(|scope| {
        scope.spawn(|| (attack.run)(target, &siege));
        let finished = child::run_with(&mut command, run + Duration::from_secs(30), |_| {
            while began.elapsed() < run {
                most = most.max(proxy.own_bytes()?);
                std::thread::sleep(LOOK);
            }
            Ok(())
        });
        siege.over.store(true, Ordering::Relaxed);
        finished
    })?;
    let report = rig.hot.report(&finished, folder.path())?;
    let took = finished.took.as_secs_f64();
    let busy = proxy.cpu()?.saturating_sub(cpu).as_secs_f64() * 100.0 / took;
    ensure!(report.requests > 0, "others made no request");
    let case = format!("{CASE}: {}", attack.name);
    let figure = |name: &str, unit, value: f64| {
        Figure::new((case.as_str(), proxy.name()), name, unit).values([value])
    };
    bench.push(figure("part of its core", "%", busy));
    let done = siege.done.load(Ordering::Relaxed) as f64 / took;
    bench.push(figure(
        &format!("attacked with {}", attack.unit),
        "1/s",
        done,
    ));
    let more = most.saturating_sub(memory) as f64 / f64::from(1 << 20);
    bench.push(figure("own memory, most beyond before", "MiB", more));
    let failed = figure("others' failed requests", "1", report.errors as f64);
    bench.push(if proxy.is_ours() {
        failed.goal(Stat::Sum, 0.0)
    } else {
        failed
    });
    if let Some(p99) = report.latency_us[1] {
        bench.push(figure("others' p99 latency", "µs", p99));
    }
    Ok(())
}
