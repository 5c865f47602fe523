//! Whether anybody notices when the ingress is told something new: reloads, certificates,
//! endpoints and binaries that are swapped under load, on kept-alive and HTTP/2 connections.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{BODY_BYTES, Rig, tried};
use crate::figures::{Figure, Stat};
use crate::peers::{Entries, Entry, Generator, Load, Proxy, ballast_config};
use crate::{Bench, Options, child};

/// How long each kind of change goes on.
const RUN: Duration = Duration::from_mins(1);
/// Between two changes.
const EVERY: Duration = Duration::from_secs(2);
/// Between two processes, of which the older one takes its time to end.
const EVERY_BINARY: Duration = Duration::from_secs(10);

/// For a successor to be started.
const SUCCESSOR_DEADLINE: Duration = Duration::from_secs(10);
/// The signal that asks for one.
const SIGUSR2: u32 = 12;

/// What clients ask for meanwhile: over which entry, how often a second, on how many connections,
/// and with which flags. 2,000 a second in all.
const CLIENTS: [(&str, Entry, f64, usize, &[&str]); 3] = [
    ("HTTP/1.1", Entry::Plain, 1000.0, 16, &[]),
    ("HTTP/1.1 over TLS", Entry::Tls, 500.0, 8, &["--insecure"]),
    (
        "HTTP/2 over TLS",
        Entry::Tls,
        500.0,
        4,
        &["--insecure", "--http2", "--streams", "8"],
    ),
];

/// What is changed under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// A route more or less, and SIGHUP.
    Reload,
    /// Another certificate in the files, and SIGHUP.
    Certificate,
    /// Another endpoint instead of the one that is there, and SIGHUP.
    Endpoint,
    /// Another process, which takes over.
    Binary,
}

const CHANGES: [(&str, Change); 4] = [
    ("2,000/s, reloads", Change::Reload),
    ("2,000/s, certificates swapped", Change::Certificate),
    ("2,000/s, endpoints swapped", Change::Endpoint),
    ("2,000/s, binary upgraded", Change::Binary),
];

pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) {
    for (name, change) in CHANGES {
        tried(bench, rig, name, |bench| measure(bench, rig, name, change));
    }
}

fn measure(bench: &mut Bench, rig: &Rig<'_>, case: &str, change: Change) -> Result<()> {
    let sinks = [rig.sink(BODY_BYTES)?, rig.sink(BODY_BYTES)?];
    let endpoints = [sinks[0].address(), sinks[1].address()];
    let setup = rig.setup(endpoints[0]);
    let folder = tempfile::tempdir().context("a folder")?;
    let upgrade = (change == Change::Binary).then(|| folder.path().join("upgrade.sock"));
    let mut shape = Shape {
        entries: None,
        endpoint: endpoints[0],
        route: false,
        upgrade,
    };
    let proxy = Proxy::ballast(&setup, |entries| {
        shape.entries = Some(*entries);
        shape.config(rig)
    })?;
    let before = sinks.each_ref().map(super::Answering::answered);
    let mut line = Line::of(proxy.pid());
    let every = if change == Change::Binary {
        rig.options.size(EVERY_BINARY, Duration::from_millis(600))
    } else {
        rig.options.size(EVERY, Duration::from_millis(300))
    };
    let clients = drive(rig, &proxy, every, |number| {
        match change {
            Change::Reload => shape.route = !shape.route,
            Change::Certificate => rig.certificate.replace()?,
            Change::Endpoint => shape.endpoint = endpoints[(number + 1) % 2],
            Change::Binary => return line.goes_on(),
        }
        write(&proxy, &shape.config(rig))?;
        signal(proxy.pid(), "-HUP")
    })?;
    let reached = sinks
        .iter()
        .zip(before)
        .filter(|(sink, before)| sink.answered() > *before);
    let reached = reached.count();
    let figure = |name: &str, unit, values: &[f64]| {
        Figure::new((case, "ballast"), name, unit).values(values.iter().copied())
    };
    bench.push(figure("changes", "1", &[clients.changes as f64]));
    if change == Change::Endpoint {
        bench.push(figure("endpoints that answered", "1", &[reached as f64]));
    }
    if change == Change::Certificate {
        match shown(rig, &proxy) {
            Ok(shown) => bench.push(
                figure("the last certificate is shown", "1", &[shown])
                    .goal_at_least(Stat::Min, 1.0),
            ),
            Err(error) => bench.missing(format!("{case}: what is shown: {error:#}")),
        }
    }
    for (client, requests, failed, p99) in clients.found {
        let of = (case, format!("ballast, {client}"));
        let figure = |name: &str, unit| Figure::new(of.clone(), name, unit);
        bench.push(figure("requests", "1").values([requests as f64]));
        let failed = figure("failed requests", "1").values([failed as f64]);
        bench.push(failed.goal(Stat::Sum, 0.0));
        bench.push(figure("p99 latency", "µs").values(p99));
    }
    for missing in clients.missing {
        bench.missing(format!("{case}: {missing}"));
    }
    Ok(())
}

/// What the configuration is to say.
struct Shape {
    entries: Option<Entries>,
    endpoint: SocketAddr,
    /// A route more.
    route: bool,
    /// Where one process takes over from another, if it may.
    upgrade: Option<PathBuf>,
}

impl Shape {
    fn config(&self, rig: &Rig<'_>) -> String {
        let Some(entries) = &self.entries else {
            return String::new();
        };
        let upgrade = self.upgrade.as_ref().map_or_else(String::new, |socket| {
            format!("upgrade: {{ socket: \"{}\" }}\n", socket.display())
        });
        let setup = rig.setup(self.endpoint);
        let mut text = ballast_config(&setup, entries, &[self.endpoint], &upgrade);
        if self.route {
            text.push_str("  - { match: { host: \"other.test\" }, service: sink }\n");
        }
        text
    }
}

fn write(proxy: &Proxy, config: &str) -> Result<()> {
    // At once: half a file is none that anybody wrote.
    let fresh = proxy.folder().join("fresh");
    std::fs::write(&fresh, config).context("the configuration")?;
    std::fs::rename(&fresh, proxy.file()).context("the configuration")
}

fn signal(pid: u32, which: &str) -> Result<()> {
    let status = Command::new("kill")
        .args([which, &pid.to_string()])
        .status();
    ensure!(status.context("kill")?.success(), "it has ended");
    Ok(())
}

/// The processes that served, the youngest last. Those that took over end when this is dropped.
struct Line(Vec<u32>);

impl Line {
    fn of(first: u32) -> Self {
        Self(vec![first])
    }

    /// Lets the youngest start its successor, and waits until that is there.
    fn goes_on(&mut self) -> Result<()> {
        let youngest = *self.0.last().context("a line begins with one")?;
        let until = Instant::now() + SUCCESSOR_DEADLINE;
        let wait = |what: &str| {
            ensure!(Instant::now() < until, "no process that {what}");
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        };
        // Whoever does not listen for the signal yet would end by it.
        while !child::catches(youngest, SIGUSR2) {
            wait("can be told to go on")?;
        }
        signal(youngest, "-USR2")?;
        loop {
            if let Some(successor) = child::children(youngest).first() {
                self.0.push(*successor);
                return Ok(());
            }
            wait("takes over")?;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in &self.0[1..] {
            // It may have ended already.
            let _ = signal(*pid, "-KILL");
        }
    }
}

/// What clients found.
#[derive(Default)]
struct Clients {
    changes: usize,
    /// Who, how many requests, how many of them failed, and their p99.
    found: Vec<(&'static str, u64, u64, Option<f64>)>,
    missing: Vec<String>,
}

/// Drives the ingress from all sides, and calls `change` now and then meanwhile.
fn drive(
    rig: &Rig<'_>,
    proxy: &Proxy,
    every: Duration,
    mut change: impl FnMut(usize) -> Result<()>,
) -> Result<Clients> {
    let length = rig.options.size(RUN, Duration::from_secs(1));
    std::thread::scope(|scope| {
        let running: Vec<_> = CLIENTS
            .iter()
            .map(|(name, entry, rate, connections, flags)| {
                let load = Load {
                    flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                    ..Load::open(
                        proxy.url(*entry),
                        *connections,
                        length,
                        rated(*rate, rig.options),
                    )
                };
                let driver: &Generator = if *entry == Entry::Plain {
                    &rig.hot
                } else {
                    &rig.general
                };
                let core = rig.cores.client;
                (*name, scope.spawn(move || driver.run(&load, core)))
            })
            .collect();
        let mut clients = Clients::default();
        let began = Instant::now();
        // The last one is to be lived with for a while.
        while began.elapsed() + every < length {
            std::thread::sleep(every);
            change(clients.changes)?;
            clients.changes += 1;
        }
        for (name, thread) in running {
            match thread.join() {
                Ok(Ok((_, report))) => {
                    let p99 = report.latency_us[1];
                    clients
                        .found
                        .push((name, report.requests, report.errors, p99));
                }
                Ok(Err(error)) => clients.missing.push(format!("{name}: {error:#}")),
                Err(_) => clients.missing.push(format!("{name}: it panicked")),
            }
        }
        Ok(clients)
    })
}

fn rated(published: f64, options: &Options) -> f64 {
    options.size(published, published / 10.0)
}

/// Returns 1 if the certificate that is in the files is the one that the ingress shows, 0 if not.
fn shown(rig: &Rig<'_>, proxy: &Proxy) -> Result<f64> {
    let trusted = rig.certificate.certificate().display().to_string();
    let flags = ["--ca-file", &trusted, "--server-name", "bench.test"];
    let load = Load {
        flags: flags.map(str::to_owned).to_vec(),
        ..Load::open(proxy.url(Entry::Tls), 1, Duration::from_millis(500), 20.0)
    };
    let (_, report) = rig.general.run(&load, rig.cores.client)?;
    Ok(f64::from(u8::from(
        report.errors == 0 && report.requests > 0,
    )))
}
