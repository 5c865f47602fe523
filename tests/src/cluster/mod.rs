//! Clusters of real processes on separate hosts.
//!
//! As root every host is a network namespace with its own `10.…` address, joined by a bridge in
//! one more namespace, so that nothing of it is seen in (or filtered by) the root namespace.
//! Without root the hosts are loopback addresses, and what needs a network of one's own
//! ([`Host::cut_off`]) says that it cannot be done.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use ballast_tests::cluster::Cluster;
//!
//! let cluster = Cluster::builder().agents(3).start()?;
//! let hello = cluster.bin("ballast-hello")?.display().to_string();
//! cluster.cli(&["service", "create", "web", "--replicas", "5", "--publish", "8080:http", "--", &hello])?;
//! cluster.wait_healthy("web", 5, Duration::from_secs(10))?;
//! cluster.agent(0).kill()?;
//! cluster.finish();
//! # Ok(()) }
//! ```
//!
//! Everything is synchronous: a test is a list of steps. A cluster that is dropped without
//! [`Cluster::finish`] counts as failed: its logs are kept and their last lines are shown. What it
//! started goes away in every case: on drop, by a watchdog process when the owner is killed, and
//! by a sweep at the next start for what is left even then.
//!
//! Absent on purpose: assertions about what Ballast should do, which belong to the tests.

mod bins;
mod builder;
mod host;
pub mod http;
mod load;
mod network;
mod process;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_model::view::{NodeView, ServiceView, TaskView};
use serde::de::DeserializeOwned;

pub(crate) use bins::bin;
pub use bins::{bin_dir, program};
pub use builder::Builder;
pub use host::{Host, Role};
pub use load::{Failure, Load, LoadPlan, LoadReport, Tally};
pub use network::{Isolation, isolation};
pub use process::{Process, alive, kill_pid, signal_pid};
pub use rustix::process::Signal;

use network::Network;
use sweep::Watchdog;

/// Between two looks at a condition: short beside what is measured, long beside what a look costs.
const POLL: Duration = Duration::from_millis(10);

/// A running cluster; everything it started ends with it.
#[derive(Debug)]
pub struct Cluster {
    hosts: Vec<Host>,
    client: Host,
    socket: PathBuf,
    /// Dropped after the hosts.
    network: Network,
    dir: PathBuf,
    started: Instant,
    finished: bool,
    watchdog: Watchdog,
}

impl Cluster {
    /// Returns a builder for one manager, three agents and one ingress.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns how its hosts are kept apart.
    pub fn isolation(&self) -> Isolation {
        self.network.isolation()
    }

    /// Returns the folder with data, logs and the socket; removed by [`Self::finish`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the manager's Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns when the cluster was made, for time lines.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Returns every host with a role, managers first, then agents, then ingresses.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Returns the host without a role, from which load and probes are sent.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// Returns the manager's host.
    pub fn manager(&self) -> &Host {
        self.of_role(Role::Manager, 0)
    }

    /// Returns an agent's host.
    ///
    /// # Panics
    /// If there is no such agent.
    pub fn agent(&self, index: usize) -> &Host {
        self.of_role(Role::Agent, index)
    }

    /// Returns the agents' hosts.
    pub fn agents(&self) -> impl Iterator<Item = &Host> {
        self.hosts
            .iter()
            .filter(|host| host.role() == Some(Role::Agent))
    }

    /// Returns an ingress's host.
    ///
    /// # Panics
    /// If there is no such ingress.
    pub fn ingress(&self, index: usize) -> &Host {
        self.of_role(Role::Ingress, index)
    }

    /// Returns the agent's host that `service ps` and `node ls` call `name`.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn host_named(&self, name: &str) -> Result<&Host> {
        self.hosts
            .iter()
            .find(|host| host.name() == name)
            .with_context(|| format!("no host is called {name}"))
    }

    fn of_role(&self, role: Role, index: usize) -> &Host {
        self.hosts
            .iter()
            .filter(|host| host.role() == Some(role))
            .nth(index)
            .unwrap_or_else(|| panic!("this cluster has no {role} {index}"))
    }

    /// Returns the path of a program of ours, such as `ballast-hello`.
    ///
    /// # Errors
    /// If it is not built and cannot be.
    pub fn bin(&self, name: &str) -> Result<PathBuf> {
        bins::bin(name)
    }

    /// Returns what `ballast ARGS` did, run against this cluster's manager on the manager's host.
    ///
    /// # Errors
    /// If it cannot be started; an exit status other than 0 is no error here.
    pub fn try_cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(bins::bin("ballast")?);
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(args)
            .env("NO_COLOR", "1")
            .current_dir(&self.dir);
        self.manager()
            .inside(|| command.output())?
            .with_context(|| format!("ballast {}", args.join(" ")))
    }

    /// Returns the standard output of `ballast ARGS`.
    ///
    /// # Errors
    /// If its exit status is not 0; the error holds what it wrote on standard error.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.try_cli(args)?;
        if !output.status.success() {
            bail!(
                "`ballast {}` ended with {}: {}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns the standard error and exit status of `ballast ARGS`, which must fail.
    ///
    /// # Errors
    /// If it succeeds.
    pub fn cli_refused(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.try_cli(args)?;
        match output.status.code() {
            Some(0) => bail!("`ballast {}` was not refused", args.join(" ")),
            Some(code) => Ok((code, String::from_utf8_lossy(&output.stderr).into_owned())),
            None => bail!("`ballast {}` ended with {}", args.join(" "), output.status),
        }
    }

    /// Returns the manager's answer over its Unix socket.
    ///
    /// # Errors
    /// If it does not answer; a status other than 2xx is no error here.
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> Result<http::Response> {
        http::over_socket(&self.socket, method, path, body)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.api("GET", path, None)?;
        if response.status != 200 {
            bail!("GET {path}: {} {}", response.status, response.text());
        }
        serde_json::from_slice(&response.body)
            .with_context(|| format!("GET {path}: {}", response.text()))
    }

    /// Returns a service's tasks, as `service ps` shows them.
    ///
    /// # Errors
    /// If the manager does not answer or does not know the service.
    pub fn tasks(&self, service: &str) -> Result<Vec<TaskView>> {
        self.get(&format!("/v1/services/{service}/tasks"))
    }

    /// Returns a service, as `service inspect` shows it.
    ///
    /// # Errors
    /// If the manager does not answer or does not know it.
    pub fn service(&self, name: &str) -> Result<ServiceView> {
        self.get(&format!("/v1/services/{name}"))
    }

    /// Returns the nodes, as `node ls` shows them.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub fn nodes(&self) -> Result<Vec<NodeView>> {
        self.get("/v1/nodes")
    }

    /// Returns how long it took until `condition` held.
    ///
    /// # Errors
    /// If it does not hold within `deadline`; the error names `what`.
    pub fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl FnMut(&Self) -> bool,
    ) -> Result<Duration> {
        let mut condition = condition;
        self.wait_for(what, deadline, |cluster| condition(cluster).then_some(()))
            .map(|((), took)| took)
    }

    /// Returns what `look` found, and how long it took until it found something.
    ///
    /// # Errors
    /// If it finds nothing within `deadline`; the error names `what`.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<(T, Duration)> {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return Ok((found, start.elapsed()));
            }
            if start.elapsed() >= deadline {
                bail!("not within {deadline:?}: {what}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Returns how long it took until exactly `count` tasks of a service were wanted and healthy.
    ///
    /// # Errors
    /// If that is not so within `deadline`; the error shows the service's tasks.
    pub fn wait_healthy(&self, service: &str, count: u32, deadline: Duration) -> Result<Duration> {
        self.wait_until(&format!("{count} healthy of {service}"), deadline, |c| {
            c.service(service).is_ok_and(|view| {
                view.replicas.desired == count
                    && view.replicas.running == count
                    && view.replicas.healthy == count
            })
        })
        .with_context(|| self.describe(service))
    }

    /// Returns a service's tasks in words, for messages of failed tests.
    pub fn describe(&self, service: &str) -> String {
        match self.tasks(service) {
            Ok(tasks) => tasks.iter().fold(String::new(), |text, task| {
                format!(
                    "{text}\n  {}.{} {} on {} pid {:?}: {} {:?} wanted {:?} restarts {} {}",
                    task.service,
                    task.slot,
                    task.id,
                    task.node.as_deref().unwrap_or("-"),
                    task.pid,
                    task.state,
                    task.health,
                    task.desired,
                    task.restarts,
                    task.message
                )
            }),
            Err(error) => format!("no tasks of {service}: {error:#}"),
        }
    }

    /// Returns the token with which an agent or ingress joins.
    ///
    /// # Errors
    /// If the manager does not tell.
    pub fn join_token(&self, role: Role) -> Result<String> {
        builder::join_token(self, role)
    }

    /// Returns a request's answer from an address, sent from the client's host.
    ///
    /// # Errors
    /// If nothing answers there.
    pub fn request(
        &self,
        address: std::net::SocketAddr,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<http::Response> {
        self.client
            .inside(|| http::over_tcp(address, method, path, body))?
    }

    /// Starts load from the client's host.
    ///
    /// # Errors
    /// If its threads cannot enter that host.
    pub fn load(&self, plan: LoadPlan) -> Result<Load> {
        Load::start(&self.client, plan)
    }

    /// Ends the cluster as one that did what it should: its folder is removed.
    pub fn finish(mut self) {
        self.finished = true;
    }

    fn stop_everything(&mut self) {
        for host in &self.hosts {
            // Frozen processes die of SIGKILL as well, so nothing needs to be resumed.
            host.kill_everything();
        }
        sweep::kill_marked(&self.dir);
        sweep::unmount(&self.dir);
        self.network.remove();
        sweep::remove_cgroups(&self.dir);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = !self.finished || std::thread::panicking();
        self.stop_everything();
        if failed {
            sweep::keep(&self.dir);
            eprintln!(
                "cluster failed; logs are kept in {}",
                self.dir.join("logs").display()
            );
            for host in &self.hosts {
                host.show_log_tail();
            }
        } else {
            // A folder that cannot be removed is swept at the next start.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        self.watchdog.dismiss();
    }
}
