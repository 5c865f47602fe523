//! The service: a task template, how many of it, and how it is reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{HealthCheck, Placement, PortSpec, RestartPolicy, RouteSpec, UpdatePolicy};
use crate::{Millis, Resources};

/// A service as a user asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Unique in the cluster: one DNS label.
    #[schema(example = "web")]
    pub name: String,
    /// The stack it belongs to; its tasks and name are listed under it.
    #[serde(default)]
    pub stack: Option<String>,
    /// The user's own labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many tasks, and where.
    #[serde(default)]
    pub mode: Mode,
    /// What one task is.
    pub task: TaskTemplate,
    /// Where a task may run.
    #[serde(default)]
    pub placement: Placement,
    /// Ports that a task serves.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Host and path routes on the ingresses' shared HTTP listeners.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// How tasks are replaced when the spec changes.
    #[serde(default)]
    pub update: UpdatePolicy,
}

/// How many tasks a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// This many, anywhere that fits.
    Replicated {
        /// Desired count; 0 stops all and keeps the service.
        replicas: u32,
    },
    /// One on each ready node that meets the constraints.
    Global {},
    /// Runs to completion.
    Job {
        /// Successful completions wanted.
        completions: u32,
        /// How many run at once.
        parallelism: u32,
    },
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// What one task runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskTemplate {
    /// The program and its arguments, run without a shell. `$PORT`, `${PORT}` and the other
    /// `BALLAST_…` variables of the task's environment are expanded; `$$` is a dollar sign.
    #[schema(example = json!(["ballast-hello"]))]
    pub command: Vec<String>,
    /// Environment variables besides Ballast's own.
    pub env: BTreeMap<String, String>,
    /// Working directory; the task's own scratch folder if not given.
    pub working_dir: Option<String>,
    /// User name or id, with an optional group (`www-data`, `1000:1000`); the agent's if not given.
    pub user: Option<String>,
    /// CPU and memory that are reserved, and where cgroups can be written also the limit.
    pub resources: Resources,
    /// Limits by name (`nofile`, `nproc`, `core`, `memlock`, `stack`, …).
    pub ulimits: BTreeMap<String, Ulimit>,
    /// How it is judged healthy. Not given: HTTP services must answer any HTTP response on their
    /// first HTTP port, TCP services must accept, others count as healthy while they run.
    pub health: Option<HealthCheck>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// How it is stopped.
    pub stop: StopPolicy,
}

/// A soft and a hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// What the task starts with.
    pub soft: u64,
    /// What it may raise it to.
    pub hard: u64,
}

/// How a task is stopped: deregister, drain, signal, grace, kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopPolicy {
    /// The longest wait for requests in flight to end before the signal.
    #[schema(value_type = String, example = "10s")]
    pub drain: Millis,
    /// From the signal to SIGKILL.
    #[schema(value_type = String, example = "10s")]
    pub grace: Millis,
    /// The signal's name.
    #[schema(example = "SIGTERM")]
    pub signal: String,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            drain: Millis::from_secs(10),
            grace: Millis::from_secs(10),
            signal: "SIGTERM".to_owned(),
        }
    }
}
