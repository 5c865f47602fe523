//! The hosts' network: namespaces on a bridge, or loopback addresses.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// First part of the name of every namespace and folder of ours; the owner's pid comes next.
pub(super) const PREFIX: &str = "ballast-t";

/// How hosts are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// A network namespace each.
    Namespaces,
    /// A loopback address each; the reason is why it is not more.
    Loopback(String),
}

/// Returns what this machine allows.
pub fn isolation() -> Isolation {
    static FOUND: OnceLock<Isolation> = OnceLock::new();
    FOUND.get_or_init(detect).clone()
}

fn detect() -> Isolation {
    if !rustix::process::geteuid().is_root() {
        return Isolation::Loopback("network namespaces need root".to_owned());
    }
    let probe = format!("{PREFIX}{}-probe", std::process::id());
    let made = ip(&["netns", "add", &probe]).and_then(|()| {
        let veth = ip(&[
            "-n", &probe, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1",
        ])
        .and_then(|()| ip(&["-n", &probe, "link", "add", "br0", "type", "bridge"]));
        let removed = ip(&["netns", "del", &probe]);
        veth.and(removed)
    });
    match made {
        Ok(()) => Isolation::Namespaces,
        Err(error) => Isolation::Loopback(format!("no network namespaces: {error:#}")),
    }
}

/// A network for one cluster.
#[derive(Debug)]
pub(super) struct Network {
    /// Unique among living clusters: pid of the owner and a counter.
    id: String,
    isolation: Isolation,
    /// Distinguishes loopback addresses of clusters.
    number: u8,
    places: u8,
    namespaces: Vec<String>,
}

/// One host's place in the network.
#[derive(Debug)]
pub(super) struct Place {
    pub address: Ipv4Addr,
    namespace: Option<Namespace>,
}

#[derive(Debug)]
struct Namespace {
    name: String,
    file: File,
    bridge: String,
    /// The host's port of the bridge.
    port: String,
}

impl Network {
    pub fn new(id: &str, number: u8, isolation: Isolation) -> Result<Self> {
        let mut network = Self {
            id: id.to_owned(),
            isolation,
            number,
            places: 0,
            namespaces: Vec::new(),
        };
        if network.isolation == Isolation::Namespaces {
            let bridge = network.bridge();
            ip(&["netns", "add", &bridge])?;
            network.namespaces.push(bridge.clone());
            ip_batch(
                &bridge,
                "link set lo up\nlink add br0 type bridge\nlink set br0 up\n",
            )?;
        }
        Ok(network)
    }

    pub fn isolation(&self) -> Isolation {
        self.isolation.clone()
    }

    /// Returns the namespaces made so far.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    fn bridge(&self) -> String {
        format!("{}-net", self.id)
    }

    /// Adds a host.
    pub fn place(&mut self, name: &str) -> Result<Place> {
        self.places = self.places.checked_add(1).context("at most 254 hosts")?;
        let host = self.places;
        if let Isolation::Loopback(_) = self.isolation {
            // The pid keeps clusters of test processes that run side by side apart.
            let [.., pid] = std::process::id().to_be_bytes();
            let block = pid.wrapping_mul(7).wrapping_add(self.number);
            return Ok(Place {
                address: Ipv4Addr::new(127, 1 + block % 200, self.number, host),
                namespace: None,
            });
        }
        let namespace = format!("{}-{name}", self.id);
        let bridge = self.bridge();
        let port = format!("p{host}");
        let address = Ipv4Addr::new(10, 77, self.number, host);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.push(namespace.clone());
        ip(&[
            "link", "add", &port, "netns", &bridge, "type", "veth", "peer", "name", "eth0",
            "netns", &namespace,
        ])?;
        ip_batch(
            &bridge,
            &format!("link set {port} master br0\nlink set {port} up\n"),
        )?;
        ip_batch(
            &namespace,
            &format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n"),
        )?;
        let path = format!("/run/netns/{namespace}");
        Ok(Place {
            address,
            namespace: Some(Namespace {
                file: File::open(&path).with_context(|| format!("opening {path}"))?,
                name: namespace,
                bridge,
                port,
            }),
        })
    }

    /// Removes every namespace; the links go with them.
    pub fn remove(&mut self) {
        for namespace in self.namespaces.drain(..) {
            if let Err(error) = ip(&["netns", "del", &namespace]) {
                eprintln!("namespace {namespace} stays: {error:#}");
            }
        }
    }
}

impl Drop for Network {
    /// For a cluster that fails before it is whole.
    fn drop(&mut self) {
        self.remove();
    }
}

impl Place {
    /// Returns the namespace's name, if the host has one of its own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().map(|space| space.name.as_str())
    }

    /// Runs `work` on a thread that lives in this host: what it starts and opens does, too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(namespace) = &self.namespace else {
            return Ok(work());
        };
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(
                        namespace.file.as_fd(),
                        Some(LinkNameSpaceType::Network),
                    )
                    .with_context(|| format!("entering {}", namespace.name))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this host, for good.
    pub fn enter(&self) -> Result<()> {
        match &self.namespace {
            None => Ok(()),
            Some(namespace) => {
                move_into_link_name_space(namespace.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering {}", namespace.name))
            }
        }
    }

    /// Returns a second handle of the same place.
    pub fn share(&self) -> Result<Self> {
        let namespace = self
            .namespace
            .as_ref()
            .map(|space| -> Result<Namespace> {
                Ok(Namespace {
                    name: space.name.clone(),
                    file: space.file.try_clone().context("sharing a namespace")?,
                    bridge: space.bridge.clone(),
                    port: space.port.clone(),
                })
            })
            .transpose()?;
        Ok(Self {
            address: self.address,
            namespace,
        })
    }

    /// Lets packets through, or drops them silently in both directions. The host's own link stays
    /// up, so that nothing on it is told.
    pub fn set_connected(&self, connected: bool) -> Result<()> {
        let Some(namespace) = &self.namespace else {
            bail!("a loopback address cannot be cut off");
        };
        // Off the bridge the port still has its carrier, unlike one that is down.
        let mut args = vec!["-n", &namespace.bridge, "link", "set", &namespace.port];
        args.extend(if connected {
            &["master", "br0"][..]
        } else {
            &["nomaster"][..]
        });
        ip(&args)
    }

    /// Returns the processes that live in this host; none known on loopback.
    pub fn pids(&self) -> Vec<u32> {
        self.namespace
            .as_ref()
            .map(|namespace| pids_in(&namespace.name))
            .unwrap_or_default()
    }
}

/// Returns the processes in a namespace.
pub(super) fn pids_in(namespace: &str) -> Vec<u32> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Runs `ip`.
pub(super) fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("starting ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn ip_batch(namespace: &str, lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting ip")?;
    child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(lines.as_bytes())
        .context("writing to ip")?;
    let output = child.wait_with_output().context("waiting for ip")?;
    if !output.status.success() {
        bail!(
            "ip in {namespace}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
