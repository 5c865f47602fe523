//! Ports: where a service is reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BalanceSpec, UpstreamSpec};

/// A port that each task of a service serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Its name within the service; `BALLAST_PORT_<NAME>` holds its number.
    #[schema(example = "http")]
    pub name: String,
    /// Which port of the node the task listens on.
    #[serde(default)]
    pub target: Target,
    /// The port that every ingress listens on for this service.
    #[serde(default)]
    pub published: Option<u16>,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: Protocol,
    /// How its requests or connections are spread over the tasks; the defaults if not given.
    #[serde(default)]
    pub balance: Option<BalanceSpec>,
    /// How ingresses speak to the tasks; plain HTTP/1.1 if not given.
    #[serde(default)]
    pub upstream: Option<UpstreamSpec>,
}

/// Which port of its node a task listens on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One from the node's range, told to the task in its environment.
    #[default]
    Dynamic,
    /// This one: at most one such task on a node.
    Fixed(u16),
}

/// What is spoken on a port.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2: balanced request by request (L7).
    #[default]
    Http,
    /// Any TCP: balanced connection by connection (L4).
    Tcp,
    /// UDP (L4).
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A `--publish` argument or Compose port that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not PUBLISHED:NAME[/PROTOCOL], such as `8080:http`, `6379:redis/tcp` or `8080:80/http`"
)]
pub struct InvalidPublish(pub String);

impl FromStr for PortSpec {
    type Err = InvalidPublish;

    /// Reads `PUBLISHED:NAME[/PROTOCOL]` (dynamic port) or `PUBLISHED:NUMBER[/PROTOCOL]` (fixed).
    /// Without a protocol, the names `http…` mean HTTP and everything else TCP.
    fn from_str(text: &str) -> Result<Self, InvalidPublish> {
        let invalid = || InvalidPublish(text.chars().take(64).collect());
        let (published, rest) = text.split_once(':').ok_or_else(invalid)?;
        let published: u16 = published.parse().map_err(|_| invalid())?;
        let (name, protocol) = match rest.split_once('/') {
            None => (rest, None),
            Some((name, "http")) => (name, Some(Protocol::Http)),
            Some((name, "tcp")) => (name, Some(Protocol::Tcp)),
            Some((name, "udp")) => (name, Some(Protocol::Udp)),
            Some(_) => return Err(invalid()),
        };
        let default = if name.starts_with("http") {
            Protocol::Http
        } else {
            Protocol::Tcp
        };
        let target = match name.parse::<u16>() {
            Ok(0) => return Err(invalid()),
            Ok(number) => Target::Fixed(number),
            Err(_) => Target::Dynamic,
        };
        if name.is_empty() || published == 0 {
            return Err(invalid());
        }
        let name = if let Target::Fixed(number) = target {
            format!("p{number}")
        } else {
            name.to_owned()
        };
        Ok(Self {
            name,
            target,
            published: Some(published),
            protocol: protocol.unwrap_or(default),
            balance: None,
            upstream: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_reads_names_numbers_and_protocols() {
        let port: PortSpec = "8080:http".parse().expect("reads");
        assert_eq!(
            (
                port.published,
                port.name.as_str(),
                port.target,
                port.protocol
            ),
            (Some(8080), "http", Target::Dynamic, Protocol::Http)
        );
        let port: PortSpec = "6379:redis".parse().expect("reads");
        assert_eq!(
            (port.target, port.protocol),
            (Target::Dynamic, Protocol::Tcp)
        );
        let port: PortSpec = "8080:80/http".parse().expect("reads");
        assert_eq!(
            (port.target, port.protocol),
            (Target::Fixed(80), Protocol::Http)
        );
        for bad in [
            "",
            "8080",
            "0:http",
            "70000:http",
            "8080:",
            "8080:http/quic",
            "8080:0",
            "x:y",
        ] {
            assert!(bad.parse::<PortSpec>().is_err(), "{bad}");
        }
    }
}
