//! `ballast service …`

use std::str::FromStr;

use ballast_model::{
    Bytes, Constraint, MilliCpu, Millis, PortSpec, RestartCondition, RouteSpec, Ulimit, UpdateOrder,
};
use clap::{Args, Subcommand, ValueEnum};

use super::placement::{PlacementArgs, SpreadArg};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Creates a service and shows its replicas come up
    Create(Box<CreateArgs>),
    /// Lists services
    Ls,
    /// Lists the tasks of a service
    Ps {
        /// The services
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Shows one service: its spec, and how far it got
    Inspect {
        /// The service
        name: String,
    },
    /// Shows what the tasks of a service print
    Logs(LogsArgs),
    /// Changes the number of replicas
    Scale(ScaleArgs),
    /// Changes a service; its tasks are replaced by its update policy
    Update(Box<UpdateArgs>),
    /// Takes a service back to the spec before the last change
    Rollback {
        /// The service
        name: String,
        /// Whether and how long to wait
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Removes services and stops their tasks
    Rm {
        /// The services
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Whether and how long to wait for the replicas.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Returns at once instead of waiting for the replicas
    #[arg(long, short)]
    pub detach: bool,
    /// The longest wait; replicas that are not there then are a failure
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    pub timeout: Millis,
}

/// Of `service create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The service's name
    pub name: String,
    /// What is to run
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Whether and how long to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Of `service update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The service
    pub name: String,
    /// What is to change; what is not given stays
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Removes an environment variable
    #[arg(long, value_name = "KEY")]
    pub env_rm: Vec<String>,
    /// Removes a label
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Removes a port
    #[arg(long, value_name = "NAME")]
    pub publish_rm: Vec<String>,
    /// Removes all constraints; those of `--constraint` are set afterwards
    #[arg(long)]
    pub constraint_clear: bool,
    /// Removes all affinities, rules for other services and tolerations; those of `--affinity`,
    /// `--near`, `--apart` and `--toleration` are set afterwards
    #[arg(long)]
    pub rules_clear: bool,
    /// Removes all routes; those of `--route` are set afterwards
    #[arg(long)]
    pub route_clear: bool,
    /// Whether and how long to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What is to run, how many, where, and how it is reached.
#[derive(Debug, Default, Args)]
pub struct SpecArgs {
    /// How many tasks
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "global",
        allow_hyphen_values = true
    )]
    pub replicas: Option<u32>,
    /// One task on each node that meets the constraints
    #[arg(long, conflicts_with = "job")]
    pub global: bool,
    /// Runs to completion; `--replicas` says how many times
    #[arg(long)]
    pub job: bool,
    /// Of a job: how many run at once
    #[arg(long, value_name = "N", requires = "job", allow_hyphen_values = true)]
    pub parallelism: Option<u32>,
    /// Publishes a port on every ingress: `8080:http` (the task gets $PORT), `6379:redis/tcp`,
    /// `8080:80/http` (the task listens on 80)
    #[arg(long, short, value_name = "PUBLISHED:NAME[/PROTOCOL]")]
    pub publish: Vec<PortSpec>,
    /// Routes a host and path of the shared HTTP listener here: `shop.test/`, `*.shop.test/api`,
    /// `/api`
    #[arg(long, value_name = "HOST/PATH")]
    pub route: Vec<RouteArg>,
    /// CPU to reserve for each task
    #[arg(long, value_name = "CORES", allow_hyphen_values = true)]
    pub cpu: Option<MilliCpu>,
    /// Memory to reserve for each task, such as 64m
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<Bytes>,
    /// Sets an environment variable; without a value, takes this process's
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<EnvArg>,
    /// The working directory; a scratch folder if not given
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User name or id, with an optional group
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Sets a limit, such as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<UlimitArg>,
    /// Only nodes for which this holds, such as node.labels.zone==b
    #[arg(long, value_name = "EXPR")]
    pub constraint: Vec<Constraint>,
    /// Spreads tasks: `node`, `node.labels.KEY`, or `none` to fill nodes up; with :N, one may have
    /// at most N more than another
    #[arg(long, value_name = "OVER[:SKEW]")]
    pub spread: Vec<SpreadArg>,
    /// What else it reserves, where it would rather run, and who gives way to whom
    #[command(flatten)]
    pub rules: PlacementArgs,
    /// The most tasks of this service on one node; 0 sets no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub max_per_node: Option<u32>,
    /// Health
    #[command(flatten)]
    pub health: HealthArgs,
    /// Which ends of a task are followed by another try
    #[arg(long, value_enum, value_name = "WHEN")]
    pub restart: Option<RestartArg>,
    /// The delay before the second restart in a row; it doubles with each further one
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub restart_delay: Option<Millis>,
    /// Restarts allowed within the window; 0 sets no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub restart_attempts: Option<u32>,
    /// A task that ran this long starts the count anew
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub restart_window: Option<Millis>,
    /// How long a task has between the stop signal and SIGKILL
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub stop_grace: Option<Millis>,
    /// The stop signal
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// How long requests in flight may take to end before the stop signal
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub drain: Option<Millis>,
    /// Sets a label of the service
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub label: Vec<KeyValue>,
    /// Whether the new task runs before the old one stops
    #[arg(long, value_enum, value_name = "ORDER")]
    pub update_order: Option<UpdateOrderArg>,
    /// Slots replaced at once; 0 means all
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub update_parallelism: Option<u32>,
    /// The wait between two batches of an update
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub update_delay: Option<Millis>,
    /// A container image (needs the docker driver, which this version does not have)
    #[arg(long, value_name = "IMAGE", hide = true)]
    pub image: Option<String>,
    /// The program and its arguments, run without a shell; $PORT is the port it is to listen on
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// How a task is judged healthy.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub struct HealthArgs {
    /// Healthy if GET of this path on the first HTTP port answers 200 to 399
    #[arg(long, value_name = "PATH", group = "probe")]
    pub health_http: Option<String>,
    /// Healthy if the first port accepts connections
    #[arg(long, group = "probe")]
    pub health_tcp: bool,
    /// Healthy if this shell command ends with status 0
    #[arg(long, value_name = "COMMAND", group = "probe")]
    pub health_cmd: Option<String>,
    /// Between two probes
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub health_interval: Option<Millis>,
    /// After which a probe has failed
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub health_timeout: Option<Millis>,
    /// Failures in a row that make a task unhealthy
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub health_retries: Option<u32>,
    /// How long failures do not count after a start
    #[arg(long, value_name = "SPAN", allow_hyphen_values = true)]
    pub health_start_period: Option<Millis>,
}

/// Of `service scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Services and their numbers of replicas
    #[arg(required = true, value_name = "NAME=REPLICAS")]
    pub to: Vec<ScaleTo>,
    /// Whether and how long to wait
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Of `service logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The service
    pub name: String,
    /// Goes on with what is printed from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Begins with this many lines of each task
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    pub tail: u32,
    /// Only this slot
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<u32>,
    /// Prints the lines as they are, without the task before them
    #[arg(long)]
    pub raw: bool,
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub key: String,
    /// After it.
    pub value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(format!("`{text}` is not KEY=VALUE")),
        }
    }
}

/// `KEY=VALUE`, or `KEY` to take the value from this process's environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvArg {
    /// The variable.
    pub key: String,
    /// Its value, if given.
    pub value: Option<String>,
}

impl FromStr for EnvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err(format!("`{text}` has no name before the `=`"));
        }
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

/// `NAME=REPLICAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleTo {
    /// The service.
    pub name: String,
    /// Wanted replicas.
    pub replicas: u32,
}

impl FromStr for ScaleTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME=REPLICAS, such as web=5");
        let (name, replicas) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            replicas: replicas.parse().map_err(|_| wrong())?,
        })
    }
}

/// `HOST/PATH`, `HOST` or `/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteArg(pub RouteSpec);

impl FromStr for RouteArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains("://") {
            return Err(format!(
                "`{text}` is not HOST/PATH, such as shop.test/ or *.shop.test/api or /api"
            ));
        }
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        Ok(Self(RouteSpec::new(
            (!host.is_empty() && host != "*").then(|| host.to_owned()),
            if path.is_empty() { "/" } else { path },
        )))
    }
}

/// `NAME=SOFT[:HARD]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UlimitArg {
    /// The limit's name.
    pub name: String,
    /// Its values.
    pub limit: Ulimit,
}

impl FromStr for UlimitArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME=SOFT[:HARD], such as nofile=1024:4096");
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |text: &str| match text {
            "unlimited" | "-1" => Ok(u64::MAX),
            _ => text.parse::<u64>().map_err(|_| wrong()),
        };
        let limit = Ulimit {
            soft: number(soft)?,
            hard: number(hard)?,
        };
        if name.is_empty() || limit.soft > limit.hard {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            limit,
        })
    }
}

/// Which ends of a task are followed by another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartArg {
    /// Every one.
    Any,
    /// A status other than 0, a signal, a failed health check.
    OnFailure,
    /// None.
    None,
}

impl From<RestartArg> for RestartCondition {
    fn from(arg: RestartArg) -> Self {
        match arg {
            RestartArg::Any => Self::Any,
            RestartArg::OnFailure => Self::OnFailure,
            RestartArg::None => Self::None,
        }
    }
}

/// Whether the new task runs before the old one stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UpdateOrderArg {
    /// No capacity is lost.
    StartFirst,
    /// For programs that cannot run twice.
    StopFirst,
}

impl From<UpdateOrderArg> for UpdateOrder {
    fn from(arg: UpdateOrderArg) -> Self {
        match arg {
            UpdateOrderArg::StartFirst => Self::StartFirst,
            UpdateOrderArg::StopFirst => Self::StopFirst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_read_hosts_paths_and_both() {
        for (text, host, path) in [
            ("shop.test/", Some("shop.test"), "/"),
            ("shop.test", Some("shop.test"), "/"),
            ("*.shop.test/api", Some("*.shop.test"), "/api"),
            ("/api", None, "/api"),
            ("*/api", None, "/api"),
        ] {
            let RouteArg(route) = text.parse().expect(text);
            assert_eq!(
                (route.host.as_deref(), route.path_prefix.as_str()),
                (host, path)
            );
        }
        assert!("http://shop.test/".parse::<RouteArg>().is_err());
    }

    #[test]
    fn impossible_scales_and_limits_are_refused() {
        for text in ["web", "web=", "=3", "web=-1", "web=many", "web=5000000000"] {
            assert!(text.parse::<ScaleTo>().is_err(), "{text}");
        }
        for text in ["nofile", "nofile=x", "nofile=5:4", "=4"] {
            assert!(text.parse::<UlimitArg>().is_err(), "{text}");
        }
    }
}
