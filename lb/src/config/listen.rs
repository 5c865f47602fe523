//! The shared listeners of the file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ballast_model::Network;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig};
use crate::l7::Hops;
use crate::listeners::Shared;

/// Where the shared HTTP listener of a cluster's ingress listens by default.
pub(super) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8000);

/// The shared listeners.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// Plain HTTP/1.1 and HTTP/2.
    pub http: Option<SocketAddr>,
    /// The same over TLS.
    pub https: Option<SocketAddr>,
    /// Networks of the balancers whose connections begin with a PROXY header, version 1 or 2.
    pub proxy_protocol: Vec<Spanned<String>>,
}

impl RawConfig {
    pub(super) fn hops(&self) -> Result<Hops, ConfigError> {
        let networks = self.listen.proxy_protocol.iter().map(|text| {
            let network = text.value.parse::<Network>();
            network.map_err(|error| self.at(text, error.to_string()))
        });
        Ok(Hops {
            proxies: networks.collect::<Result<_, _>>()?,
            forwarding: self.forwarding()?,
        })
    }

    pub(super) fn listen(&self, stand_alone: bool) -> Result<Shared, ConfigError> {
        let RawListen { http, https, .. } = self.listen;
        let listen = Shared {
            http: http.or((!stand_alone).then_some(DEFAULT_LISTEN)),
            https,
        };
        // An L4 balancer may be all that is asked for.
        if listen == Shared::default() && self.l4.is_empty() {
            let message = "`listen` names neither `http` nor `https`";
            return Err(ConfigError::Invalid(message.to_owned()));
        }
        Ok(listen)
    }
}
