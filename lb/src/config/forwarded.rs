//! Who is believed about clients, and how endpoints are told of them.

use ballast_model::Network;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, RawConfig};
use crate::l7::forwarded::{ForwardedHeader, Forwarding};

/// What came from clients through other proxies.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawForwarded {
    /// Networks of the proxies whose fields are believed.
    pub trust: Vec<Spanned<String>>,
    /// Which fields those are, and which endpoints get.
    pub header: RawForwardedHeader,
}

/// Which fields name clients.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawForwardedHeader {
    /// `X-Forwarded-*` and `X-Real-IP`.
    #[default]
    XForwarded,
    /// `Forwarded` of RFC 7239.
    Forwarded,
    /// All of them; the first are believed.
    Both,
}

impl RawConfig {
    pub(super) fn forwarding(&self) -> Result<Forwarding, ConfigError> {
        let trust = self.forwarded.trust.iter().map(|text| {
            let network = text.value.parse::<Network>();
            network.map_err(|error| self.at(text, error.to_string()))
        });
        Ok(Forwarding {
            trust: trust.collect::<Result<_, _>>()?,
            header: match self.forwarded.header {
                RawForwardedHeader::XForwarded => ForwardedHeader::XForwarded,
                RawForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
                RawForwardedHeader::Both => ForwardedHeader::Both,
            },
        })
    }
}
