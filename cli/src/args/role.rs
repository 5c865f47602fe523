//! `ballast dev`, `manager`, `agent`, `ingress`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{KeyValue, ResourceArg};

/// Of `dev`.
#[derive(Debug, Default, Args)]
pub struct DevArgs {
    /// A Compose file to deploy as a stack of the file's name; `-` reads standard input
    pub file: Option<String>,
    /// Where state, certificates and logs are kept; state of an earlier run is taken up again
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the API listens
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The address of published ports
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub bind: Option<IpAddr>,
    /// The shared HTTP listener for routes by host and path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: Option<String>,
    /// The ports that tasks get
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: Option<String>,
    /// Leaves the tasks running on exit; the next `dev` on the same data folder takes them over
    #[arg(long)]
    pub keep_tasks: bool,
}

/// Of `manager`.
#[derive(Debug, Default, Args)]
pub struct ManagerArgs {
    /// A YAML file with the same settings; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where state and certificates are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the API listens on this machine
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where agents, ingresses and remote API clients connect
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// The address that others are told to connect to
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
    /// Where /metrics, /healthz and /readyz are served; `off` for nowhere
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
}

/// Of `agent`.
#[derive(Debug, Default, Args)]
pub struct AgentArgs {
    /// The token from `ballast node join-token agent`; needed for the first start only
    #[arg(
        long,
        value_name = "TOKEN",
        env = "BALLAST_JOIN",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// A manager's address; the token's own if not given
    #[arg(long = "manager", value_name = "ADDR")]
    pub managers: Vec<String>,
    /// A YAML file with the same settings; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's name; the host name if not given
    #[arg(long)]
    pub name: Option<String>,
    /// The address at which the node's tasks are reached
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where certificates, logs and the tasks' folders are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The ports that tasks get
    #[arg(long, value_name = "FIRST-LAST")]
    pub ports: Option<String>,
    /// Labels of the node
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<KeyValue>,
    /// The CPU to offer; all of it if not given
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<String>,
    /// The memory to offer; all of it if not given
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// The disk to offer; none if not given
    #[arg(long, value_name = "BYTES")]
    pub disk: Option<String>,
    /// Devices to offer, such as gpu:T4*2
    #[arg(long = "device", value_name = "KIND[:MODEL][*N]")]
    pub devices: Vec<String>,
    /// Units of a resource to offer, such as ssd=4
    #[arg(long = "resource", value_name = "NAME=N")]
    pub resources: Vec<ResourceArg>,
    /// A socket (NUMA node), once for each; found out if not given
    #[arg(long = "socket", value_name = "CORES:BYTES")]
    pub sockets: Vec<String>,
    /// The pool that the node joins
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Where /metrics, /healthz and /readyz are served; `off` for nowhere
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Stops the tasks when the agent stops; otherwise they go on and the next agent adopts them
    #[arg(long)]
    pub stop_tasks_on_exit: bool,
}

/// Of `ingress`.
#[derive(Debug, Default, Args)]
pub struct IngressArgs {
    /// What to do with one that runs; without it, one is run
    #[command(subcommand)]
    pub command: Option<IngressCommand>,
    /// The token from `ballast node join-token ingress`; needed for the first start only
    #[arg(
        long,
        value_name = "TOKEN",
        env = "BALLAST_JOIN",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// A manager's address; the token's own if not given
    #[arg(long = "manager", value_name = "ADDR")]
    pub managers: Vec<String>,
    /// A YAML file with the same settings, flags win; with `services` and `routes` in it, the ingress
    /// is a balancer of its own, without a manager
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The ingress's name; the host name if not given
    #[arg(long)]
    pub name: Option<String>,
    /// The shared HTTP listener for routes by host and path
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// The address of published ports
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Where agents push health
    #[arg(long, value_name = "ADDR")]
    pub feed: Option<String>,
    /// The feed's address as agents are told it
    #[arg(long, value_name = "ADDR")]
    pub advertise_feed: Option<String>,
    /// Where certificates are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the status page and /metrics are served or, with a command, asked; `off` for nowhere
    #[arg(long, value_name = "ADDR", global = true)]
    pub admin: Option<String>,
}

/// What to do with an ingress that runs on this machine, or whose admin address is reached.
#[derive(Debug, Clone, Subcommand)]
pub enum IngressCommand {
    /// Shows what is routed where, and why each endpoint takes requests or does not
    Dump {
        /// Only services with this in their name
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
        /// What the balancer in the kernel has: services, reals, slots, flows, verdicts
        #[arg(long, conflicts_with = "service")]
        l4: bool,
        /// Again every second, with rates
        #[arg(long, requires = "l4")]
        watch: bool,
    },
    /// Takes the balancer's programs and maps out of the kernel: flows end
    Detach {
        /// Where they are pinned, if the ingress's file says `xdp: {pin: …}`
        #[arg(long, value_name = "FOLDER")]
        pin: Option<std::path::PathBuf>,
    },
    /// Shows what it logs, or changes it until it ends
    Log {
        /// Such as `info` or `warn,ballast_lb=debug`
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
}
