//! How it is operated: upgrades, and what is told of single requests.

use std::path::PathBuf;
use std::time::Duration;

use ballast_model::Millis;
use serde::Deserialize;

use super::ConfigError;
use crate::observe::{LogConfig, LogTarget, ObserveConfig, TraceConfig};
use crate::upgrade::UpgradeConfig;

/// A line for each request, or for some.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawAccessLog {
    /// A file's path, or `stdout`.
    pub to: String,
    /// The share of requests that get a line, 0 to 1; all if not given.
    #[serde(default)]
    pub sample: Option<f64>,
    /// Whether requests answered with 500 or more get one in any case; they do if not given.
    #[serde(default)]
    pub failures: Option<bool>,
}

/// Spans by OTLP.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawTraces {
    /// The collector's `host:port` for OTLP over HTTP, usually port 4318.
    pub otlp: String,
    /// The share of requests without a trace that begin one, 0 to 1; a hundredth if not given.
    /// Those with one are told of as the client's flag says.
    #[serde(default)]
    pub sample: Option<f64>,
}

/// How one process takes over from another.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RawUpgrade {
    /// The Unix socket between the two.
    pub socket: PathBuf,
    /// How long connections may take to end in the old process; a minute if not given.
    #[serde(default)]
    pub drain: Option<Millis>,
}

impl RawUpgrade {
    pub(super) fn config(&self) -> UpgradeConfig {
        UpgradeConfig {
            socket: self.socket.clone(),
            drain: self.drain.map_or(DRAIN, Millis::to_duration),
        }
    }
}

/// The time connections have unless something else is said.
const DRAIN: Duration = Duration::from_mins(1);
/// Traces begun unless something else is said.
const TRACE_SAMPLE: f64 = 0.01;

/// Proves what was asked for.
///
/// # Errors
/// [`ConfigError`] for a share that is none.
pub(super) fn observe(
    log: Option<&RawAccessLog>,
    request_id: bool,
    traces: Option<&RawTraces>,
) -> Result<ObserveConfig, ConfigError> {
    let access_log = log.map(|raw| {
        Ok(LogConfig {
            to: match raw.to.as_str() {
                "stdout" => LogTarget::Stdout,
                path => LogTarget::File(PathBuf::from(path)),
            },
            sample: share("access_log", raw.sample.unwrap_or(1.0))?,
            failures: raw.failures.unwrap_or(true),
        })
    });
    let traces = traces.map(|raw| {
        let address = raw.otlp.strip_prefix("http://").unwrap_or(&raw.otlp);
        let address = address.trim_end_matches('/');
        let port = address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            let message = format!("`{}` is not HOST:PORT for `traces.otlp`", raw.otlp);
            return Err(ConfigError::Invalid(message));
        }
        Ok(TraceConfig {
            collector: address.to_owned(),
            sample: share("traces", raw.sample.unwrap_or(TRACE_SAMPLE))?,
        })
    });
    Ok(ObserveConfig {
        access_log: access_log.transpose()?,
        request_id,
        traces: traces.transpose()?,
    })
}

fn share(key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    let message = format!("`{key}.sample` is a share from 0 to 1, not {share}");
    Err(ConfigError::Invalid(message))
}
