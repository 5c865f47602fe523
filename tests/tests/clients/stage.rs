//! An ingress before a backend, and programs that are run against it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_bench::child;
use ballast_bench::peers::{Certificate, Entry, Proxy, Setup, find};

use crate::backend;

/// For a client to end: browsers are slow to start where other tests run.
const DEADLINE: Duration = Duration::from_secs(100);

/// An ingress with all of its entries.
pub struct Stage {
    pub certificate: Certificate,
    proxy: Proxy,
}

impl Stage {
    /// Starts the ingress before a backend of its own.
    pub fn start() -> Result<Self> {
        ballast_tests::cluster::program("ballast")?;
        let certificate = Certificate::make()?;
        let setup = Setup {
            sink: backend::start()?,
            core: None,
            certificate: &certificate,
        };
        let (mut proxies, missing) = Proxy::those(&setup, |name| name == "ballast");
        let proxy = proxies.pop().with_context(|| format!("{missing:?}"))?;
        Ok(Self { certificate, proxy })
    }

    /// Returns the URL of a path over an entry.
    pub fn url(&self, entry: Entry, path: &str) -> String {
        let base = self.proxy.url(entry);
        format!("{}{path}", base.trim_end_matches('/'))
    }

    /// Returns the port of an entry.
    pub fn port(&self, entry: Entry) -> u16 {
        self.proxy.address(entry).port()
    }
}

/// Returns a command of the first of these programs that is installed; says SKIP if none is.
pub fn client(programs: &[&str]) -> Option<Command> {
    let found = programs.iter().find_map(|program| find(program));
    if found.is_none() {
        eprintln!("SKIP: {} is not installed", programs[0]);
    }
    Some(child::command(found?, None))
}

/// Runs a client to its end; returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let finished = child::run(command, DEADLINE)?;
    ensure!(
        finished.status.success(),
        "{}: {} {}",
        finished.status,
        finished.output,
        finished.errors
    );
    Ok(finished.output)
}
