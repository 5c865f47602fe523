//! Proxies, ours and others', each alone on one core before the same sink.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::nginx::{Nginx, free};
use crate::child::{self, Daemon};

/// For a proxy to come up.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    _nginx: Option<Nginx>,
    _daemon: Option<Daemon>,
    _folder: Option<TempDir>,
}

impl Proxy {
    /// Starts every proxy that is there before `sink`, ours first; returns why each of the rest is
    /// not.
    pub fn all(sink: SocketAddr, core: Option<usize>) -> (Vec<Self>, Vec<String>) {
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (name, started) in [
            ("ballast", ballast(sink, core)),
            ("nginx", nginx(sink, core)),
            ("haproxy", haproxy(sink, core)),
        ] {
            match started {
                Ok(proxy) => there.push(proxy),
                Err(error) => missing.push(format!("{name}: {error:#}")),
            }
        }
        (there, missing)
    }

    /// Returns its name, as figures have it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the CPU time that it has used.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        child::cpu(self.pid).with_context(|| format!("{} has ended", self.name))
    }

    /// Returns its resident memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        child::resident_bytes(self.pid).with_context(|| format!("{} has ended", self.name))
    }
}

fn nginx(sink: SocketAddr, core: Option<usize>) -> Result<Proxy> {
    let nginx = Nginx::proxying(sink, core)?;
    Ok(Proxy {
        name: "nginx",
        address: nginx.address(),
        pid: nginx.pid(),
        _nginx: Some(nginx),
        _daemon: None,
        _folder: None,
    })
}

fn ballast(sink: SocketAddr, core: Option<usize>) -> Result<Proxy> {
    let program = super::ours("ballast")?;
    let address = free()?;
    let config = format!(
        "listen: {{ http: \"{address}\" }}
threads: 1
admin: \"off\"
services:
  sink: {{ endpoints: [\"{sink}\"], policy: p2c }}
routes:
  - {{ match: {{ path_prefix: \"/\" }}, service: sink }}
"
    );
    daemon("ballast", address, &config, |file| {
        let mut command = child::command(program, core);
        command.args(["ingress", "--config"]).arg(file);
        command.env("BALLAST_LOG", "warn");
        command
    })
}

fn haproxy(sink: SocketAddr, core: Option<usize>) -> Result<Proxy> {
    let program = super::find("haproxy").context("it is not installed (Debian's haproxy)")?;
    let address = free()?;
    let config = format!(
        "global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend web
  bind {address}
  default_backend sink
backend sink
  server sink {sink} pool-max-conn 1024
"
    );
    daemon("haproxy", address, &config, |file| {
        let mut command = child::command(program, core);
        command.args(["-db", "-f"]).arg(file);
        command
    })
}

fn daemon(
    name: &'static str,
    address: SocketAddr,
    config: &str,
    command: impl FnOnce(&Path) -> Command,
) -> Result<Proxy> {
    let folder = tempfile::tempdir().context("a folder")?;
    let file = folder.path().join("config");
    std::fs::write(&file, config).context("its configuration")?;
    let log = folder.path().join("log");
    let output = std::fs::File::create(&log).context("its log")?;
    let mut daemon = Daemon::start(&mut command(&file), output)?;
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = daemon.ended();
        if ended.is_some() || began.elapsed() > DEADLINE {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().rfind(|line| !line.is_empty());
            bail!("it does not come up: {}", last.unwrap_or("it says nothing"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Proxy {
        name,
        address,
        pid: daemon.pid(),
        _nginx: None,
        _daemon: Some(daemon),
        _folder: Some(folder),
    })
}
