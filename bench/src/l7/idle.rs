//! What a connection costs that has asked once and then says nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stage;
use crate::figures::{Figure, Stat};
use crate::peers::Cores;
use crate::{Bench, Options};

pub(super) const CASE: &str = "idle connections";
const BODY_BYTES: usize = 128;
/// Enough that what a process has anyhow does not matter, few enough for default limits.
const CONNECTIONS: usize = 400;
/// The goal for our own HTTP/1.1 path, bytes of one connection.
const GOAL: f64 = 400.0;
/// For one answer.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn run(bench: &mut Bench, options: &Options, cores: Cores) -> Result<()> {
    let (_sink, proxies) = stage(bench, cores, BODY_BYTES)?;
    let count = options.size(CONNECTIONS, 20);
    for proxy in &proxies {
        // What it needs for its first requests is not what idle ones cost.
        let warm = open(proxy.address(), count.min(20))?;
        let before = proxy.resident_bytes()?;
        let idle = open(proxy.address(), count)?;
        let after = proxy.resident_bytes()?;
        drop((warm, idle));
        let each = after.saturating_sub(before) as f64 / count as f64;
        let figure = Figure::new((CASE, proxy.name()), "resident memory of one", "B");
        let figure = figure.values([each]);
        bench.push(if proxy.name() == "ballast" {
            figure.goal(Stat::Max, GOAL)
        } else {
            figure
        });
    }
    Ok(())
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
