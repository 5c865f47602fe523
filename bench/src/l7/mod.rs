//! What `cargo xtask bench l7` measures: the ingress alone beside nginx, HAProxy and Envoy.
//!
//! Each proxy is alone on one core; the sink and the generator share the other. Requests are
//! counted by the sink, CPU time by the kernel. What part of its core a proxy used stands beside
//! its cost: far below 100 %, the generator and the sink were what kept it from more.
//!
//! - [`turns`]: cost and latency of requests, proxies taking turns
//! - [`idle`]: memory of connections that say nothing
//! - [`instructions`]: what a request costs without the kernel, by callgrind
//! - [`changes`]: reloads and swaps under load
//! - [`table`]: many services
//! - [`attacks`]: what hostile clients cost, and whether others are served

mod attacks;
mod changes;
mod idle;
pub mod instructions;
mod table;
mod turns;

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::peers::{Certificate, Cores, Generator, Proxy, Setup};
use crate::target::{Behaviour, Sink, Target};
use crate::{Bench, Options};

/// Bodies from which copying them would be the larger part of what a sink does.
const LARGE_BYTES: usize = 4096;
/// The body of most cases, bytes.
const BODY_BYTES: usize = 128;

/// Measures a case.
type Measure = fn(&mut Bench, &Rig<'_>) -> Result<()>;

/// Measures every case.
pub fn run(options: &Options) -> Bench {
    Bench::measure("l7", options, |bench| {
        let cores = Cores::two();
        if cores.client.is_none() {
            bench.missing("with a core for the proxy alone: this machine has only one");
        }
        let rig = Rig {
            options,
            cores,
            certificate: Certificate::make()?,
            hot: Generator::ours()?.swap_remove(0),
            general: Generator::general()?,
        };
        turns::run(bench, &rig);
        let cases: [(&str, Measure); 4] = [
            (idle::CASE, idle::run),
            (instructions::CASE, instructions::run),
            (table::CASE, table::run),
            (attacks::CASE, attacks::run),
        ];
        for (name, case) in cases {
            tried(bench, &rig, name, |bench| case(bench, &rig));
        }
        changes::run(bench, &rig);
        Ok(())
    })
}

/// Runs a case. One that cannot be measured says why: whether a machine was too busy for a proxy to
/// come up, or a peer does not do what is asked, is nothing that failed of ours.
fn tried(
    bench: &mut Bench,
    rig: &Rig<'_>,
    name: &str,
    measure: impl FnOnce(&mut Bench) -> Result<()>,
) {
    bench.case(name, rig.options, |bench| {
        if let Err(error) = measure(bench) {
            bench.missing(format!("{name}: {error:#}"));
        }
        Ok(())
    });
}

/// What all cases are measured with.
struct Rig<'a> {
    options: &'a Options,
    cores: Cores,
    certificate: Certificate,
    /// Drives plain HTTP/1.1.
    hot: Generator,
    /// Drives TLS and HTTP/2.
    general: Generator,
}

impl Rig<'_> {
    /// Starts a sink, and before it the proxies that `wanted` names; notes which are not there.
    fn stage(
        &self,
        bench: &mut Bench,
        body_bytes: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(Answering, Vec<Proxy>)> {
        let sink = self.sink(body_bytes)?;
        let (proxies, missing) = Proxy::those(&self.setup(sink.address()), wanted);
        for missing in missing {
            bench.missing(missing);
        }
        ensure!(!proxies.is_empty(), "no proxy came up");
        Ok((sink, proxies))
    }

    fn setup(&self, sink: SocketAddr) -> Setup<'_> {
        Setup {
            sink,
            core: self.cores.server,
            certificate: &self.certificate,
        }
    }

    fn sink(&self, body_bytes: usize) -> Result<Answering> {
        if body_bytes <= LARGE_BYTES {
            return Sink::start(body_bytes, self.cores.client).map(Answering::Fast);
        }
        let behaviour = Behaviour {
            core: self.cores.client,
            body_bytes,
            ..Behaviour::default()
        };
        Target::start(behaviour).map(Answering::Large)
    }
}

/// What answers.
enum Answering {
    /// On a ring, which copies what it sends.
    Fast(Sink),
    /// Writes where the response lies.
    Large(Target),
}

impl Answering {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Fast(sink) => sink.address(),
            Self::Large(target) => target.address(),
        }
    }

    fn answered(&self) -> u64 {
        match self {
            Self::Fast(sink) => sink.answered(),
            Self::Large(target) => target.answered(),
        }
    }
}
