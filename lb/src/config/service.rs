//! The services of the file and how their endpoints are checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ballast_model::{
    AssignmentId, Endpoint, Generation, Health, Millis, NodeId, PortTable, Protocol, RouteRule,
    ServiceId, ServiceTable,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig};

/// The node that stand-alone endpoints belong to: they have no agent.
pub const NO_NODE: NodeId = NodeId::from_bits(0);
/// The only policy so far: of two endpoints drawn at random, the one with less in flight.
const POLICIES: [&str; 1] = ["p2c"];

/// A stand-alone service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// `host:port` each.
    pub endpoints: Vec<Spanned<String>>,
    /// How endpoints are chosen.
    #[serde(default)]
    pub policy: Option<Spanned<String>>,
    /// How endpoints are checked; a TCP connection a second if not given.
    #[serde(default)]
    pub check: RawCheck,
}

/// How stand-alone endpoints are checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCheck {
    /// A path to GET, answered with a status below 400; without it, a connection is enough.
    pub http: Option<String>,
    /// Between two checks.
    pub interval: Option<Millis>,
    /// After which a check has failed.
    pub timeout: Option<Millis>,
    /// Failures in a row that take an endpoint out.
    pub fall: Option<u32>,
    /// Successes in a row that take it in again.
    pub rise: Option<u32>,
}

/// How stand-alone endpoints are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A path to GET, or only a connection.
    pub http: Option<String>,
    /// Between two checks.
    pub interval: Duration,
    /// After which a check has failed.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub fall: u32,
    /// Successes in a row that take it in again.
    pub rise: u32,
}

impl RawConfig {
    pub(super) fn service(
        &self,
        id: ServiceId,
        name: &str,
        raw: &RawService,
        routes: Vec<RouteRule>,
    ) -> Result<ServiceTable, ConfigError> {
        if let Some(policy) = &raw.policy
            && !POLICIES.contains(&policy.value.as_str())
        {
            let message = format!("`{}` is not a policy: p2c is", policy.value);
            return Err(self.at(policy, message));
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &raw.endpoints {
            let address = resolve(&text.value).map_err(|message| self.at(text, message))?;
            if endpoints.iter().any(|other| other.address == address) {
                return Err(self.at(text, format!("endpoint {address} is listed twice")));
            }
            endpoints.push(Endpoint {
                assignment: AssignmentId::from_bits(stable_hash(&[name, &address.to_string()])),
                node: NO_NODE,
                address,
                // Until the first check says otherwise: it must serve from the first moment.
                health: Health::Healthy,
            });
        }
        Ok(ServiceTable {
            service: id,
            name: name.to_owned(),
            generation: Generation(0),
            ports: vec![PortTable {
                name: "http".to_owned(),
                protocol: Protocol::Http,
                published: None,
                routes,
                endpoints,
            }],
        })
    }
}

impl RawCheck {
    pub(super) fn validate(&self, service: &str) -> Result<Check, ConfigError> {
        let span =
            |value: Option<Millis>, default: u64| value.unwrap_or(Millis(default)).to_duration();
        let check = Check {
            http: self.http.clone(),
            interval: span(self.interval, 1000),
            timeout: span(self.timeout, 1000),
            fall: self.fall.unwrap_or(1),
            rise: self.rise.unwrap_or(1),
        };
        let wrong = if check.interval < Duration::from_millis(10) {
            Some("`interval` must be 10ms or more")
        } else if check.timeout.is_zero() {
            Some("`timeout` must be more than 0")
        } else if check.fall == 0 || check.rise == 0 {
            Some("`fall` and `rise` must be 1 or more")
        } else if check
            .http
            .as_ref()
            .is_some_and(|path| !path.starts_with('/'))
        {
            Some("`http` is a path and starts with `/`")
        } else {
            None
        };
        match wrong {
            Some(wrong) => {
                let message = format!("check of service `{service}`: {wrong}");
                Err(ConfigError::Invalid(message))
            }
            None => Ok(check),
        }
    }
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = text.to_socket_addrs().map_err(|error| {
        format!("endpoint `{text}` is not ADDRESS:PORT, such as `127.0.0.1:9001` ({error})")
    })?;
    // IPv4 first: most programs that are told `localhost` listen there.
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| format!("endpoint `{text}` has no address"))
}

/// FNV-1a: the same names are the same endpoints after a reload, and in the next process, too.
pub(super) fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
