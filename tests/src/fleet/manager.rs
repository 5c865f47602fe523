//! A manager as a process of its own, on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_link::JoinToken;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::cluster::{Process, bin, http};

/// For it to found its cluster.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// The process, and how it is reached.
#[derive(Debug)]
pub struct FleetManager {
    process: Process,
    dir: PathBuf,
    /// Where links and joins arrive.
    pub links: SocketAddr,
}

impl FleetManager {
    /// Starts it with its data in `dir`.
    ///
    /// # Errors
    /// It does not serve in time.
    pub fn start(dir: &Path) -> Result<Self> {
        let links = ballast_test_ports::free_address();
        allow_files();
        let process = spawn(dir, links)?;
        let mut manager = Self {
            process,
            dir: dir.to_owned(),
            links,
        };
        manager.wait_until_it_serves()?;
        Ok(manager)
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.call("GET", "/readyz", None).is_err() || self.token().is_err() {
            if self.process.ended().is_some() || began.elapsed() > START_DEADLINE {
                bail!("the manager does not serve:\n{}", self.process.log());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Kills the process at once, and starts another on the same data and port.
    ///
    /// # Errors
    /// It does not serve in time.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = spawn(&self.dir, self.links)?;
        self.wait_until_it_serves()
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns all that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns what agents join with.
    ///
    /// # Errors
    /// It has not written it.
    pub fn token(&self) -> Result<JoinToken> {
        let text = std::fs::read_to_string(self.dir.join("manager/join-token.agent"))?;
        text.trim().parse().context("the join token")
    }

    /// Returns the API's answer.
    ///
    /// # Errors
    /// It is none, or a refusal.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string);
        let socket = self.dir.join("ballast.sock");
        let answer = http::over_socket(&socket, method, path, body.as_deref())?;
        if answer.status >= 300 {
            bail!("{method} {path}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Returns the folder of its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Lets this process, and what it starts, open as many files as the system allows it: each agent's
/// link is one on either side.
fn allow_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Whoever has too few is told by the link that fails.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn spawn(dir: &Path, links: SocketAddr) -> Result<Process> {
    let address = links.to_string();
    let mut command = Command::new(bin("ballast")?);
    command
        .arg("manager")
        .arg("--data-dir")
        .arg(dir.join("manager"))
        .arg("--socket")
        .arg(dir.join("ballast.sock"))
        .args(["--listen", &address, "--advertise", &address])
        .args(["--admin", "off"])
        .env("BALLAST_LOG", "warn");
    Process::start(&mut command, &dir.join("manager.log"))
}
