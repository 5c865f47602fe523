//! What a request costs without the kernel: instructions in user space, counted by callgrind.
//!
//! A whole proxy runs under callgrind twice, for different numbers of requests; the difference is
//! what requests cost, without start and end. What goes on by the clock beside them is little: the
//! proxy has nothing else to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{BODY_BYTES, Rig};
use crate::Bench;
use crate::figures::{Figure, Stat};
use crate::peers::{Certificate, Entry, Proxy, Setup};
use crate::target::Sink;

pub(super) const CASE: &str = "instructions";
/// How many requests the two runs make: enough that what is rare shows, and few for callgrind.
const COUNTS: [u64; 2] = [200, 1200];
/// Connections that ask in turn.
const CONNECTIONS: usize = 8;
/// The goal, instructions.
const GOAL: f64 = 12_000.0;
/// Whom we are shown beside: what fits into one process.
const SUBJECTS: [&str; 4] = ["ballast", "ballast uring", "nginx", "haproxy"];
/// For an answer, and for an end: callgrind is fifty times slower than a processor.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn run(bench: &mut Bench, rig: &Rig<'_>) -> Result<()> {
    counter()?;
    // Each takes seconds to start under callgrind, many where the machine is busy.
    for name in &SUBJECTS[..rig.options.size(SUBJECTS.len(), 1)] {
        match per_request(name, &rig.certificate, rig.options.size(COUNTS, [50, 250])) {
            Ok(each) => {
                let figure = Figure::new((CASE, *name), "in user space for a request", "1");
                let figure = figure.values([each as f64]);
                bench.push(if name.starts_with("ballast") {
                    figure.goal(Stat::Max, GOAL)
                } else {
                    figure
                });
            }
            Err(error) => bench.missing(format!("{CASE}: {name}: {error:#}")),
        }
    }
    Ok(())
}

/// Returns how many instructions the ingress of that name spends on a request, with as many
/// requests as the gate has time for.
///
/// # Errors
/// See [`per_request`].
pub fn of_ingress(name: &str) -> Result<u64> {
    per_request(name, &Certificate::make()?, COUNTS)
}

/// Returns how many instructions a proxy spends on a request.
///
/// # Errors
/// It or valgrind is not there, or does not work under it.
fn per_request(name: &str, certificate: &Certificate, counts: [u64; 2]) -> Result<u64> {
    counter()?;
    let [few, many] = counts;
    let spent = spent(name, certificate, many)?.saturating_sub(spent(name, certificate, few)?);
    Ok(spent / (many - few))
}

fn counter() -> Result<()> {
    let there = crate::peers::find("valgrind").is_some();
    ensure!(there, "valgrind is not installed");
    Ok(())
}

/// Returns what a proxy spends in all when it answers so many requests.
fn spent(name: &str, certificate: &Certificate, requests: u64) -> Result<u64> {
    let sink = Sink::start(BODY_BYTES, None)?;
    let setup = Setup {
        sink: sink.address(),
        core: None,
        certificate,
    };
    let mut proxy = Proxy::counted(name, &setup)?;
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| connect(proxy.address(Entry::Plain)))
        .collect::<Result<_>>()?;
    for number in 0..requests {
        let at = usize::try_from(number)? % CONNECTIONS;
        ask(&mut connections[at])?;
    }
    let answered = sink.answered();
    ensure!(
        (requests..=requests + requests / 10).contains(&answered),
        "{requests} requests were made and {answered} answered"
    );
    drop(connections);
    let pid = proxy.pid().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    ensure!(
        killed.is_ok_and(|it| it.success()),
        "it cannot be told to end"
    );
    let began = Instant::now();
    while !proxy.ended() {
        ensure!(began.elapsed() < DEADLINE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = proxy.log();
    collected(&said).with_context(|| format!("callgrind says no count: {said}"))
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connecting")?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream
        .write_all(b"GET /some/path HTTP/1.1\r\nHost: count.test\r\nUser-Agent: bench\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"xxxx") {
        let read = stream.read(&mut buffer).context("an answer")?;
        if read == 0 {
            bail!("the proxy closed the connection");
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "it was refused");
    Ok(())
}

/// Reads `==12== Collected : 34567` out of what callgrind says.
fn collected(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_read_out_of_what_callgrind_says() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(text), Some(123_456));
        assert_eq!(collected("killed"), None);
    }
}
