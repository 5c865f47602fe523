//! What a connection costs that has asked once and then says nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{BODY_BYTES, Rig};
use crate::figures::{Figure, Stat};
use crate::peers::{Entry, Load, Proxy};
use crate::{Bench, child, machine};

pub(super) const CASE: &str = "idle connections";
/// Connections in plain text, if there are descriptors for them.
const PLAIN: u64 = 10_000;
/// Descriptors of a process that are not for connections.
const SPARE: u64 = 300;
/// Connections over TLS and HTTP/2, each of which the generator holds.
const HELD: usize = 1000;
/// The goal for HTTP/1.1, bytes of one connection.
const GOAL: f64 = 400.0;
/// For one answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// For memory that is given back when idle.
const SETTLED: Duration = Duration::from_secs(1);
/// How long a generator holds its connections, and how often it asks meanwhile, in all.
const HOLD: Duration = Duration::from_secs(4);
const HOLD_RATE: f64 = 200.0;

pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) -> Result<()> {
    let (_sink, proxies) = rig.stage(bench, BODY_BYTES, |_| true)?;
    // HAProxy counts two for each.
    let possible = PLAIN.min(machine::descriptors() / 2 - SPARE);
    let count = rig.options.size(usize::try_from(possible)?, 20);
    if count as u64 != PLAIN {
        let limit = machine::descriptors();
        bench.raw["idle_connections"] = serde_json::json!({"held": count, "descriptors": limit});
    }
    for proxy in &proxies {
        let found = [
            ("HTTP/1.1", plain(proxy, count, rig)),
            ("TLS 1.3", held(proxy, Entry::Tls, rig)),
            ("h2c", held(proxy, Entry::H2c, rig)),
        ];
        for (what, each) in found {
            let name = format!("own memory of one, {what}");
            match each {
                Ok(each) => {
                    let figure = Figure::new((CASE, proxy.name()), name, "B").values([each]);
                    let judged = proxy.is_ours() && what == "HTTP/1.1";
                    bench.push(if judged {
                        figure.goal(Stat::Max, GOAL)
                    } else {
                        figure
                    });
                }
                Err(error) => bench.missing(format!("{CASE}: {}: {what}: {error:#}", proxy.name())),
            }
        }
    }
    Ok(())
}

/// Returns the bytes of one of `count` connections in plain text.
fn plain(proxy: &Proxy, count: usize, rig: &Rig<'_>) -> Result<f64> {
    let address = proxy.address(Entry::Plain);
    // What it needs for its first requests is not what idle ones cost.
    let warm = open(address, count.min(20))?;
    settle(rig);
    let before = proxy.own_bytes()?;
    let idle = open(address, count)?;
    settle(rig);
    let after = proxy.own_bytes()?;
    drop((warm, idle));
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

fn settle(rig: &Rig<'_>) {
    std::thread::sleep(rig.options.size(SETTLED, Duration::from_millis(50)));
}

/// Opens connections that have each asked once and been answered.
fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).context("connecting")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: idle.test\r\n\r\n")?;
            let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"xxxx") {
                let read = stream.read(&mut buffer).context("an answer")?;
                ensure!(read > 0, "the proxy closed the connection");
                answer.extend_from_slice(&buffer[..read]);
            }
            Ok(stream)
        })
        .collect()
}

/// Returns the bytes of one of the connections that a generator holds and hardly uses.
fn held(proxy: &Proxy, entry: Entry, rig: &Rig<'_>) -> Result<f64> {
    let flag = if entry == Entry::Tls {
        "--insecure"
    } else {
        "--http2"
    };
    let load = |connections, duration| Load {
        flags: vec![flag.to_owned()],
        ..Load::open(proxy.url(entry), connections, duration, HOLD_RATE)
    };
    let core = rig.cores.client;
    let tiny = Duration::from_millis(500);
    rig.general.run(&load(20, tiny), core)?;
    let (before, descriptors) = (proxy.own_bytes()?, child::descriptors(proxy.pid()));
    let count = rig.options.size(HELD, 20);
    let hold = rig.options.size(HOLD, tiny * 2);
    let folder = tempfile::tempdir().context("a folder")?;
    let mut command = rig
        .general
        .command(&load(count, hold), core, folder.path())?;
    let mut found = None;
    child::run_with(&mut command, hold + DEADLINE, |_| {
        let open = || child::descriptors(proxy.pid()).saturating_sub(descriptors);
        let began = Instant::now();
        while open() < count && began.elapsed() < hold / 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        settle(rig);
        found = Some((open(), proxy.own_bytes()?));
        Ok(())
    })?;
    let (open, after) = found.context("it was not looked at")?;
    // Some of what is open goes to the sink.
    let open = open.min(count);
    ensure!(
        open * 2 > count,
        "only {open} of {count} connections came up"
    );
    Ok(after.saturating_sub(before) as f64 / open as f64)
}
