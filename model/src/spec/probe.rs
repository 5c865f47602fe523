//! How a task is judged healthy.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// A probe and how its results are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: ProbeKind,
    /// Between the starts of two probes of a running task.
    #[serde(default = "HealthCheck::default_interval")]
    #[schema(value_type = String, example = "5s")]
    pub interval: Millis,
    /// After which a probe has failed.
    #[serde(default = "HealthCheck::default_timeout")]
    #[schema(value_type = String, example = "1s")]
    pub timeout: Millis,
    /// Failures in a row that make a healthy task unhealthy.
    #[serde(default = "HealthCheck::default_failures")]
    pub failure_threshold: u32,
    /// Successes in a row that make an unhealthy task healthy.
    #[serde(default = "HealthCheck::default_successes")]
    pub success_threshold: u32,
    /// How long failures do not count after a start. Until the first success in it a task is
    /// probed often (every few milliseconds at first), so that it takes traffic when it can.
    #[serde(default = "HealthCheck::default_start_period")]
    #[schema(value_type = String, example = "30s")]
    pub start_period: Millis,
}

impl HealthCheck {
    /// Returns this probe with every other field at its default.
    pub fn with_defaults(probe: ProbeKind) -> Self {
        Self {
            probe,
            interval: Self::default_interval(),
            timeout: Self::default_timeout(),
            failure_threshold: Self::default_failures(),
            success_threshold: Self::default_successes(),
            start_period: Self::default_start_period(),
        }
    }

    /// Slow on purpose: exits are seen at once and stalls are reported by the ingress.
    fn default_interval() -> Millis {
        Millis::from_secs(5)
    }
    fn default_timeout() -> Millis {
        Millis::from_secs(1)
    }
    fn default_failures() -> u32 {
        3
    }
    fn default_successes() -> u32 {
        1
    }
    fn default_start_period() -> Millis {
        Millis::from_secs(30)
    }
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProbeKind {
    /// GET over HTTP/1.1.
    Http {
        /// The port's name.
        port: String,
        /// Path and query.
        path: String,
        /// Lowest and highest status that count as success, both included. `[100, 599]` takes any
        /// answer.
        status: (u16, u16),
    },
    /// A TCP connection is accepted.
    Tcp {
        /// The port's name.
        port: String,
    },
    /// A command ends with exit status 0; it runs as the task does, in its cgroup.
    Command {
        /// The program and its arguments, without a shell.
        argv: Vec<String>,
    },
}
