//! The services of the file and how their endpoints are checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ballast_model::{
    AssignmentId, BalancePolicy, BalanceSpec, Endpoint, Generation, Health, Millis, NodeId,
    PortTable, Protocol, RouteRule, ServiceId, ServiceTable, UpstreamSpec, Weight,
};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig, with_nearest};

/// The node that stand-alone endpoints belong to: they have no agent.
pub const NO_NODE: NodeId = NodeId::from_bits(0);

/// A stand-alone service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    /// `host:port` each, or the same with a weight and a zone.
    pub endpoints: Vec<Spanned<RawEndpoint>>,
    /// How endpoints are chosen: short for `balance: {policy: …}`.
    #[serde(default)]
    pub policy: Option<Spanned<String>>,
    /// How requests are spread over the endpoints.
    #[serde(default)]
    pub balance: Option<Spanned<BalanceSpec>>,
    /// How endpoints are spoken to.
    #[serde(default)]
    pub upstream: Option<Spanned<UpstreamSpec>>,
    /// How endpoints are checked; a TCP connection a second if not given.
    #[serde(default)]
    pub check: RawCheck,
}

/// One endpoint: `host:port`, or `{address: host:port, weight: 50, zone: b}`.
#[derive(Debug, Clone)]
pub struct RawEndpoint {
    /// `host:port`.
    pub address: String,
    /// How much of the requests it gets, beside the others.
    pub weight: Weight,
    /// Where it is.
    pub zone: Option<String>,
}

impl<'de> Deserialize<'de> for RawEndpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndpointVisitor)
    }
}

struct EndpointVisitor;

impl<'de> Visitor<'de> for EndpointVisitor {
    type Value = RawEndpoint;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ADDRESS:PORT, or a map with `address`, `weight` and `zone`")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawEndpoint, E> {
        Ok(RawEndpoint {
            address: text.to_owned(),
            weight: Weight::DEFAULT,
            zone: None,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawEndpoint, A::Error> {
        /// The long form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            address: String,
            #[serde(default)]
            weight: Weight,
            #[serde(default)]
            zone: Option<String>,
        }
        let long = Long::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RawEndpoint {
            address: long.address,
            weight: long.weight,
            zone: long.zone,
        })
    }
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
        let balance = self.balance(raw)?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &raw.endpoints {
            let address = resolve(&text.value.address).map_err(|message| self.at(text, message))?;
            if endpoints.iter().any(|other| other.address == address) {
                return Err(self.at(text, format!("endpoint {address} is listed twice")));
            }
            if text.value.weight > Weight::MAX {
                let message = format!("a weight is 0 to {}", Weight::MAX.0);
                return Err(self.at(text, message));
            }
            endpoints.push(Endpoint {
                assignment: AssignmentId::from_bits(stable_hash(&[name, &address.to_string()])),
                node: NO_NODE,
                address,
                // Until the first check says otherwise: it must serve from the first moment.
                health: Health::Healthy,
                weight: text.value.weight,
                zone: text.value.zone.clone(),
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
                balance,
                upstream: self.upstream(name, raw)?,
            }],
        })
    }

    /// Proves how endpoints are spoken to: what it names must be in the file, too.
    fn upstream(
        &self,
        service: &str,
        raw: &RawService,
    ) -> Result<Option<UpstreamSpec>, ConfigError> {
        let Some(upstream) = &raw.upstream else {
            return Ok(None);
        };
        let spec = &upstream.value;
        if raw.check.http.is_some() && !spec.is_plain() {
            let message = "`check.http` asks in plain HTTP/1.1, which is not what `upstream` says \
                           the endpoints speak: leave it out, and a connection is checked";
            return Err(self.at(upstream, message.to_owned()));
        }
        spec.validate(&format!("service `{service}`: upstream"))
            .map_err(|error| self.at(upstream, error.to_string()))?;
        let tls = spec.tls.clone().unwrap_or_default();
        let here = self.tls.clone().unwrap_or_default();
        for (kind, name, known) in [
            (
                "authority",
                tls.authority,
                here.authorities.into_keys().collect(),
            ),
            (
                "identity",
                tls.identity,
                here.identities.into_keys().collect::<Vec<_>>(),
            ),
        ] {
            if let Some(name) = name
                && !known.contains(&name)
            {
                let message = format!("`tls` has no {kind} `{name}`");
                let known = known.iter().map(String::as_str);
                return Err(self.at(upstream, with_nearest(message, &name, known)));
            }
        }
        Ok(Some(spec.clone()))
    }

    /// Both ways of saying how requests are spread, as one.
    fn balance(&self, raw: &RawService) -> Result<Option<BalanceSpec>, ConfigError> {
        let mut spec = raw.balance.as_ref().map(|balance| balance.value.clone());
        if let Some(policy) = &raw.policy {
            let mut all = BalancePolicy::ALL.iter().copied();
            let Some(named) = all.find(|known| known.name() == policy.value) else {
                let names = BalancePolicy::ALL.iter().map(|known| known.name());
                let message = format!("`{}` is not a policy", policy.value);
                return Err(self.at(policy, with_nearest(message, &policy.value, names)));
            };
            spec.get_or_insert_default().policy = named;
        }
        if let (Some(spec), Some(at)) = (&spec, &raw.balance)
            && let Err(error) = spec.validate("balance")
        {
            return Err(self.at(at, error.to_string()));
        }
        Ok(spec)
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
