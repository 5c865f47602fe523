//! The command line: names and help texts, nothing that acts.

mod node;
mod placement;
mod plan;
mod pool;
mod role;
mod service;
mod simulate;
mod stack;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use node::{JoinRoleArg, NodeCommand, NodeUpdate};
pub use placement::{ApartArg, DeviceArg, NearArg, PlacementArgs, ResourceArg, SpreadArg};
pub use plan::{PlanArgs, PlanCommand, PlanServiceCommand, RebalanceArgs};
pub use pool::{PoolCommand, PoolSet};
pub use role::{AgentArgs, DevArgs, IngressArgs, IngressCommand, ManagerArgs};
pub use service::{CreateArgs, LogsArgs, ScaleArgs, ScaleTo, ServiceCommand, UpdateArgs, WaitArgs};
pub use service::{
    EnvArg, HealthArgs, KeyValue, RestartArg, RouteArg, SpecArgs, UlimitArg, UpdateOrderArg,
};
pub use simulate::{PolicyArg, ProtocolArg, SimulateArgs};
pub use stack::{DeployArgs, StackCommand};

/// Where the help of every command lists what holds for all.
const HEADING: &str = "Global options";

/// Runs services on a fleet and keeps them answering.
#[derive(Debug, Parser)]
#[command(
    name = "ballast",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    infer_long_args = false,
    after_help = "Start here: `ballast dev examples/hello.yaml` runs a whole cluster in one process."
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// The manager's API: `unix:///path`, `http://host:port` or `https://host:port`
    #[arg(
        long,
        global = true,
        env = "BALLAST_HOST",
        value_name = "URL",
        help_heading = HEADING
    )]
    pub host: Option<String>,
    /// How results are printed
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = HEADING
    )]
    pub output: Output,
    /// The client certificate for an `https://` host, PEM
    #[arg(
        long,
        global = true,
        env = "BALLAST_TLS_CERT",
        value_name = "FILE",
        hide_env = true,
        help_heading = HEADING
    )]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(
        long,
        global = true,
        env = "BALLAST_TLS_KEY",
        value_name = "FILE",
        hide_env = true,
        help_heading = HEADING
    )]
    pub tls_key: Option<PathBuf>,
    /// The cluster's CA for an `https://` host, PEM
    #[arg(
        long,
        global = true,
        env = "BALLAST_TLS_CA",
        value_name = "FILE",
        hide_env = true,
        help_heading = HEADING
    )]
    pub tls_ca: Option<PathBuf>,
    /// How the roles log: for people, or one JSON object a line. `BALLAST_LOG` filters
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = HEADING
    )]
    pub log: LogFormat,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the shapes are fixed.
    Json,
}

/// How the roles log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs manager, agent and ingress in one process on this machine; Ctrl-C stops all
    Dev(DevArgs),
    /// Runs a manager: keeps the cluster's state, schedules, serves the API
    Manager(ManagerArgs),
    /// Runs an agent: makes this machine a node
    Agent(AgentArgs),
    /// Runs an ingress: routes traffic to the healthy replicas
    Ingress(IngressArgs),
    /// Services: create, list, scale, update, remove
    #[command(subcommand, visible_alias = "services")]
    Service(ServiceCommand),
    /// Stacks: the services of a Compose file, together
    #[command(subcommand, visible_alias = "stacks")]
    Stack(StackCommand),
    /// Shows what a change would do, and why a task would not fit; changes nothing
    Plan(PlanArgs),
    /// Moves tasks: evens services out, or empties nodes
    Rebalance(RebalanceArgs),
    /// Nodes: list, drain, label; join tokens
    #[command(subcommand, visible_alias = "nodes")]
    Node(NodeCommand),
    /// Pools: how much of their nodes may be placed
    #[command(subcommand, visible_alias = "pools")]
    Pool(PoolCommand),
    /// Shows what happened, with times
    Events(EventsArgs),
    /// Answers what-if questions and replays traces with the very scheduler of production
    Simulate(SimulateArgs),
    /// Prints the completion script of a shell
    Completions(CompletionsArgs),
}

/// Of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Goes on with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Only events after this index
    #[arg(long, value_name = "INDEX")]
    pub after: Option<u64>,
}

/// Of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
