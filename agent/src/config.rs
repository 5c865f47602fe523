//! The agent's configuration: what a file or flags say, and what it means.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ballast_link::{JoinToken, paths};
use ballast_model::{Bytes, Device, MilliCpu, PortRange, Socket, limits, nearest, validate_name};
use serde::{Deserialize, Serialize};

use crate::logs::Bounds;
use crate::offer;

/// Where the agent serves its metrics unless told otherwise.
const DEFAULT_ADMIN: &str = "127.0.0.1:7420";
/// Where managers listen unless told otherwise.
const DEFAULT_MANAGER_PORT: u16 = 7400;

/// What a configuration file may hold; flags are written over it. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// A join token; needed once.
    pub join: Option<String>,
    /// Managers' addresses for links, `host[:port]`; the token's if not given.
    pub managers: Vec<String>,
    /// The node's name; the host's if not given.
    pub name: Option<String>,
    /// Where this node's tasks are reached; found out by asking how a manager is reached.
    pub address: Option<IpAddr>,
    /// Where state, logs and certificates are kept.
    pub data_dir: Option<PathBuf>,
    /// Ports for tasks, `FIRST-LAST`.
    pub ports: Option<String>,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Schedulable CPU; all if not given.
    pub cpu: Option<MilliCpu>,
    /// Schedulable memory; all but a reserve if not given.
    pub memory: Option<Bytes>,
    /// Schedulable disk; none if not given.
    pub disk: Option<Bytes>,
    /// Devices, `KIND[:MODEL][*N]`.
    pub devices: Vec<String>,
    /// Units of resources that the operator names.
    pub resources: BTreeMap<String, u32>,
    /// Sockets (NUMA nodes), `CORES:BYTES`; found out if not given.
    pub sockets: Vec<String>,
    /// The pool that the node joins.
    pub pool: Option<String>,
    /// Tasks at once.
    pub task_slots: Option<u32>,
    /// Where metrics are served; `off` for nowhere.
    pub admin: Option<String>,
    /// Whether tasks end with the agent.
    pub stop_tasks_on_exit: bool,
    /// Bytes of one log file.
    pub log_bytes: Option<Bytes>,
    /// Log files of one stream of a task.
    pub log_files: Option<u32>,
}

/// The keys of a [`RawConfig`], for the error that names the nearest one.
const KEYS: [&str; 19] = [
    "join",
    "managers",
    "name",
    "address",
    "data_dir",
    "ports",
    "labels",
    "cpu",
    "memory",
    "disk",
    "devices",
    "resources",
    "sockets",
    "pool",
    "task_slots",
    "admin",
    "stop_tasks_on_exit",
    "log_bytes",
    "log_files",
];

/// A configuration that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A join token, if one was given.
    pub join: Option<JoinToken>,
    /// Managers, `host:port`; the token's included. Empty: those of earlier lives.
    pub managers: Vec<String>,
    /// The node's name.
    pub name: String,
    /// Where its tasks are reached, if that was said.
    pub address: Option<IpAddr>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Ports for tasks.
    pub ports: PortRange,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Schedulable CPU, if it was said.
    pub cpu: Option<MilliCpu>,
    /// Schedulable memory, if it was said.
    pub memory: Option<Bytes>,
    /// Schedulable disk.
    pub disk: Bytes,
    /// Devices.
    pub devices: Vec<Device>,
    /// Units of resources that the operator names.
    pub resources: BTreeMap<String, u32>,
    /// Sockets, if they were said.
    pub sockets: Vec<Socket>,
    /// The pool that the node joins.
    pub pool: String,
    /// Tasks at once.
    pub task_slots: u32,
    /// Where metrics are served, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Whether tasks end with the agent.
    pub stop_tasks_on_exit: bool,
    /// How much of a task's output is kept.
    pub logs: Bounds,
    /// What a program is started through: this binary itself unless in tests.
    pub executable: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidConfig {
    /// The key, or the flag of the same name.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> InvalidConfig {
    InvalidConfig {
        field,
        reason: reason.into(),
    }
}

impl RawConfig {
    /// Reads a YAML file's text.
    ///
    /// # Errors
    /// With the line and, for a key that is not known, the nearest one that is.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidConfig> {
        serde_saphyr::from_str(text).map_err(|error| {
            let error = error.to_string();
            let unknown = error.split("unknown field `").nth(1);
            let hint = unknown
                .and_then(|rest| rest.split('`').next())
                .and_then(|key| nearest(key, KEYS))
                .map(|key| format!("; did you mean `{key}`?"))
                .unwrap_or_default();
            invalid("config", format!("{error}{hint}"))
        })
    }

    /// Proves it and fills in what was left out.
    ///
    /// # Errors
    /// [`InvalidConfig`] for the first key that is wrong.
    pub fn validate(self) -> Result<Config, InvalidConfig> {
        let join: Option<JoinToken> = self.join.map(|token| token.parse()).transpose().map_err(
            |error: ballast_link::token::InvalidToken| invalid("join", error.to_string()),
        )?;
        let mut managers: Vec<String> = self.managers.iter().map(|text| with_port(text)).collect();
        if let Some(manager) = join.as_ref().and_then(|token| token.manager.as_ref())
            && managers.is_empty()
        {
            managers.push(with_port(manager));
        }
        let name = match self.name {
            Some(name) => {
                validate_name("name", &name).map_err(|error| invalid("name", error.to_string()))?;
                name
            }
            None => host_name(),
        };
        let admin = match self.admin.as_deref().unwrap_or(DEFAULT_ADMIN) {
            "off" => None,
            text => Some(
                text.parse()
                    .map_err(|_| invalid("admin", format!("`{text}` is not IP:PORT, nor `off`")))?,
            ),
        };
        if self
            .address
            .is_some_and(|address| address.is_unspecified() || address.is_multicast())
        {
            let reason = "is not an address that others can connect to";
            return Err(invalid("address", reason));
        }
        if self.cpu == Some(MilliCpu(0)) || self.memory == Some(Bytes(0)) {
            return Err(invalid(
                "cpu, memory",
                "must be more than 0; leave it out for all there is",
            ));
        }
        let logs = Bounds {
            bytes: self
                .log_bytes
                .map_or(Bounds::default().bytes, |bytes| bytes.0),
            files: self.log_files.unwrap_or(Bounds::default().files),
        };
        if logs.bytes < 64 << 10 || logs.files == 0 {
            return Err(invalid("log_bytes, log_files", "at least 64k and 1 file"));
        }
        Ok(Config {
            join,
            managers,
            name,
            address: self.address,
            data_dir: self.data_dir.unwrap_or_else(|| paths::data_dir("agent")),
            ports: self
                .ports
                .as_deref()
                .map_or(Ok(PortRange::DEFAULT), parse_ports)?,
            labels: self.labels,
            cpu: self.cpu,
            memory: self.memory,
            disk: self.disk.unwrap_or_default(),
            devices: offer::devices(&self.devices)?,
            resources: offer::resources(self.resources)?,
            sockets: offer::sockets(&self.sockets)?,
            pool: offer::pool(self.pool)?,
            task_slots: self.task_slots.unwrap_or(limits::DEFAULT_TASK_SLOTS),
            admin,
            stop_tasks_on_exit: self.stop_tasks_on_exit,
            logs,
            executable: PathBuf::from("/proc/self/exe"),
        })
    }
}

/// Adds the default port to an address that has none.
fn with_port(text: &str) -> String {
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        format!("[{text}]:{DEFAULT_MANAGER_PORT}")
    } else if text
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        text.to_owned()
    } else {
        format!("{text}:{DEFAULT_MANAGER_PORT}")
    }
}

fn parse_ports(text: &str) -> Result<PortRange, InvalidConfig> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let range = PortRange {
            first: first.trim().parse().ok()?,
            last: last.trim().parse().ok()?,
        };
        (range.first > 0 && !range.is_empty()).then_some(range)
    });
    range.ok_or_else(|| {
        invalid(
            "ports",
            format!("`{text}` is not FIRST-LAST, such as 20000-29999"),
        )
    })
}

/// Returns the host's name made a DNS label.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let first = name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match validate_name("name", &first) {
        Ok(()) => first,
        Err(error) => error.nearest.unwrap_or_else(|| "node".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_names_the_nearest() {
        let error = RawConfig::from_yaml("manager: [a]").expect_err("is `managers`");
        assert!(error.reason.contains("did you mean `managers`?"), "{error}");
    }

    #[test]
    fn values_are_proved() {
        let raw = |change: fn(&mut RawConfig)| {
            let mut raw = RawConfig::default();
            change(&mut raw);
            raw.validate()
        };
        let config = raw(|raw| {
            raw.managers = vec!["a".to_owned(), "b:1".to_owned(), "::1".to_owned()];
            raw.ports = Some("30000-30010".to_owned());
            raw.admin = Some("off".to_owned());
        });
        let config = config.expect("is valid");
        assert_eq!(config.managers, ["a:7400", "b:1", "[::1]:7400"]);
        assert_eq!((config.ports.len(), config.admin), (11, None));
        for (change, field) in [
            (
                (|raw| raw.ports = Some("9-1".to_owned())) as fn(&mut RawConfig),
                "ports",
            ),
            (|raw| raw.name = Some(String::new()), "name"),
            (|raw| raw.join = Some("x".to_owned()), "join"),
            (|raw| raw.address = "0.0.0.0".parse().ok(), "address"),
            (|raw| raw.cpu = Some(MilliCpu(0)), "cpu, memory"),
        ] {
            assert_eq!(raw(change).expect_err(field).field, field);
        }
    }
}
