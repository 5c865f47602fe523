//! Who stands between a client and this ingress, and is believed about it.

use std::net::IpAddr;

use ballast_model::Network;

use super::forwarded::Forwarding;

/// What is believed of whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hops {
    /// Balancers whose connections begin with a PROXY header.
    pub proxies: Vec<Network>,
    /// Proxies whose fields name the client.
    pub forwarding: Forwarding,
}

impl Hops {
    /// Whether a connection of this peer begins with a PROXY header: it must then, and nobody
    /// else's may.
    pub fn sends_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(peer))
    }
}
