//! What a cluster is made of, and its start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ballast_model::NodeStatus;
use ballast_model::view::JoinTokenView;

use super::host::{Host, Role};
use super::network::{Isolation, Network, PREFIX, isolation};
use super::sweep::{Watchdog, sweep};
use super::{Cluster, POLL};

/// From the start of the processes until all nodes are ready; most of it is a slow machine's.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Ours in detail; the libraries below would say several lines for each request.
const LOG: &str = "info,ballast=debug";
/// Ports of one agent.
const AGENT_PORTS: u16 = 1000;

/// Port of the manager's links.
pub(super) const MANAGER_PORT: u16 = 7400;
/// Port of an ingress's feed.
pub(super) const FEED_PORT: u16 = 7430;
/// Port of an ingress's shared HTTP listener.
pub(super) const HTTP_PORT: u16 = 8000;
/// Ports of `/metrics`.
pub(super) const MANAGER_ADMIN: u16 = 7410;
const AGENT_ADMIN: u16 = 7420;
const INGRESS_ADMIN: u16 = 7431;

/// A cluster to be.
#[derive(Debug, Clone)]
pub struct Builder {
    managers: usize,
    agents: usize,
    ingresses: usize,
    isolation: Option<Isolation>,
    extra: Vec<(Role, Vec<OsString>)>,
    env: Vec<(String, String)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            managers: 1,
            agents: 3,
            ingresses: 1,
            isolation: None,
            extra: Vec::new(),
            env: vec![("BALLAST_LOG".to_owned(), LOG.to_owned())],
        }
    }
}

impl Builder {
    /// Sets the number of managers.
    pub fn managers(mut self, count: usize) -> Self {
        self.managers = count;
        self
    }

    /// Sets the number of agents.
    pub fn agents(mut self, count: usize) -> Self {
        self.agents = count;
        self
    }

    /// Sets the number of ingresses.
    pub fn ingresses(mut self, count: usize) -> Self {
        self.ingresses = count;
        self
    }

    /// Uses loopback addresses even where namespaces could be had.
    pub fn on_loopback(mut self) -> Self {
        self.isolation = Some(Isolation::Loopback("asked for".to_owned()));
        self
    }

    /// Adds a flag with its values to every process of a role; it wins over the harness's own.
    pub fn role_args(mut self, role: Role, args: &[&str]) -> Self {
        self.extra
            .push((role, args.iter().map(OsString::from).collect()));
        self
    }

    /// Sets an environment variable of every process, such as `BALLAST_LOG`.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts every process; returns once all nodes and ingresses are ready.
    ///
    /// # Errors
    /// If one of them does not come up in time; the logs of all are shown then.
    pub fn start(self) -> Result<Cluster> {
        let cluster = self.build()?;
        let manager = cluster.manager();
        manager.start()?;
        cluster
            .wait_until("the manager answers", START_DEADLINE, |c| {
                c.api("GET", "/readyz", None)
                    .is_ok_and(|response| response.status == 200)
            })
            .context("starting the manager")?;
        for role in [Role::Agent, Role::Ingress] {
            let token = join_token(&cluster, role)?;
            for host in cluster
                .hosts()
                .iter()
                .filter(|host| host.role() == Some(role))
            {
                let mut args = host.args();
                args.extend(["--join".into(), OsString::from(&token)]);
                host.set_args(args);
                host.start()?;
            }
        }
        self.wait_ready(&cluster)?;
        Ok(cluster)
    }

    /// Makes the hosts and starts nothing.
    ///
    /// # Errors
    /// If the network cannot be made.
    pub fn build(&self) -> Result<Cluster> {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        if self.managers != 1 {
            bail!("a cluster has one manager: raft has one voter so far");
        }
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        std::fs::create_dir_all(dir.join("logs"))
            .with_context(|| format!("making {}", dir.display()))?;
        let isolation = self.isolation.clone().unwrap_or_else(isolation);
        let mut network = Network::new(&id, number, isolation)?;
        let mut hosts = Vec::new();
        for (role, name) in self.names() {
            let place = network.place(&name)?;
            hosts.push(Host::new(&name, Some(role), place, &dir));
        }
        let client = Host::new("client", None, network.place("client")?, &dir);
        let watchdog = Watchdog::start(&dir, network.namespaces())?;
        let cluster = Cluster {
            hosts,
            client,
            // The kernel allows 107 bytes.
            socket: dir.join("api.sock"),
            network,
            dir,
            started: Instant::now(),
            finished: false,
            watchdog,
        };
        self.set_args(&cluster);
        Ok(cluster)
    }

    fn names(&self) -> Vec<(Role, String)> {
        let agents = (1..=self.agents).map(|n| (Role::Agent, format!("node-{n}")));
        let ingresses = (1..=self.ingresses).map(|n| (Role::Ingress, format!("ingress-{n}")));
        std::iter::once((Role::Manager, "manager".to_owned()))
            .chain(agents)
            .chain(ingresses)
            .collect()
    }

    fn set_args(&self, cluster: &Cluster) {
        let manager = cluster.manager().address(MANAGER_PORT).to_string();
        let mut first_port = 20_000_u16;
        for host in cluster.hosts() {
            let Some(role) = host.role() else { continue };
            let mut args: Vec<OsString> = vec![role.to_string().into()];
            args.extend(["--data-dir".into(), path(host.data_dir())]);
            match role {
                Role::Manager => {
                    args.extend(["--socket".into(), path(cluster.socket())]);
                    args.extend(words(&["--listen", &manager, "--advertise", &manager]));
                    args.extend(admin(host, MANAGER_ADMIN));
                }
                Role::Agent => {
                    let ports = format!("{first_port}-{}", first_port + AGENT_PORTS - 1);
                    first_port += AGENT_PORTS;
                    args.extend(words(&["--name", host.name(), "--manager", &manager]));
                    args.extend(words(&["--address", &host.ip().to_string()]));
                    args.extend(words(&["--ports", &ports]));
                    args.extend(admin(host, AGENT_ADMIN));
                }
                Role::Ingress => {
                    let feed = host.address(FEED_PORT).to_string();
                    let http = host.address(HTTP_PORT).to_string();
                    args.extend(words(&["--name", host.name(), "--manager", &manager]));
                    args.extend(words(&["--bind", &host.ip().to_string()]));
                    args.extend(words(&["--listen", &http, "--feed", &feed]));
                    args.extend(words(&["--advertise-feed", &feed]));
                    args.extend(admin(host, INGRESS_ADMIN));
                }
            }
            for (of, extra) in &self.extra {
                if *of == role {
                    override_with(&mut args, extra);
                }
            }
            host.set_args(args);
            for (key, value) in &self.env {
                host.set_env(key, value);
            }
        }
    }

    fn wait_ready(&self, cluster: &Cluster) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        cluster
            .wait_until("every node is ready", START_DEADLINE, |c| {
                c.nodes().is_ok_and(|nodes| {
                    let ready = |node: &&_| is_ready(node);
                    nodes.iter().filter(ready).count() == self.agents
                })
            })
            .context("starting the agents")?;
        for host in cluster.hosts() {
            if host.role() != Some(Role::Ingress) {
                continue;
            }
            loop {
                let answer = cluster.request(host.address(INGRESS_ADMIN), "GET", "/readyz", None);
                if answer.is_ok_and(|response| response.status == 200) {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("{} is not ready", host.name());
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Appends a flag and its values, in place of the same flag if it is there.
fn override_with(args: &mut Vec<OsString>, extra: &[OsString]) {
    if let Some(at) = extra
        .first()
        .and_then(|flag| args.iter().position(|arg| arg == flag))
    {
        args.drain(at..at + extra.len().min(args.len() - at));
    }
    args.extend(extra.iter().cloned());
}

fn is_ready(node: &ballast_model::view::NodeView) -> bool {
    node.status == NodeStatus::Ready
}

/// Returns the token with which a role joins.
pub(super) fn join_token(cluster: &Cluster, role: Role) -> Result<String> {
    let text = cluster.cli(&["--output", "json", "node", "join-token", &role.to_string()])?;
    let view: JoinTokenView =
        serde_json::from_str(&text).with_context(|| format!("a join token in {text:?}"))?;
    Ok(view.token)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn path(path: &Path) -> OsString {
    PathBuf::from(path).into_os_string()
}

fn admin(host: &Host, port: u16) -> Vec<OsString> {
    words(&["--admin", &host.address(port).to_string()])
}
