//! An endpoint as pingora connects to it.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use ballast_http1::proxy::{Addresses, write_v1, write_v2};
use ballast_model::{ProxyVersion, UpstreamSpec};
use pingora::protocols::tls::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::Timeouts;
use super::balancer::UPGRADED_IDLE;
use super::dial::Dialer;
use crate::hub::random_bits;
use crate::table::Backend;
use crate::tls::{UnknownTlsName, Upstreams};

/// Requests that share one HTTP/2 connection to an endpoint at most; more open another.
const STREAMS: usize = 100;

/// What a connection to an endpoint is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// For a request that asks for an upgrade.
    pub upgrade: bool,
    /// Both ends of the client's connection.
    pub client: Option<Addresses>,
}

/// Returns the endpoint as its service wants it spoken to.
///
/// # Errors
/// [`UnknownTlsName`] if the configuration lacks what the service names.
pub fn peer(
    backend: &Backend,
    spec: &UpstreamSpec,
    upstreams: &Upstreams,
    timeouts: &Timeouts,
    purpose: Purpose,
) -> Result<Box<HttpPeer>, UnknownTlsName> {
    let epoch = backend.links.epoch();
    let mut peer = Box::new(HttpPeer::new(
        backend.address,
        spec.tls.is_some(),
        String::new(),
    ));
    // Connections are shared only within one epoch of one endpoint; for an upgrade, not at all.
    peer.group_key = if purpose.upgrade {
        random_bits()
    } else {
        backend.assignment.to_bits() ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    if !spec.is_plain() {
        decorate(&mut peer, spec, upstreams, backend.address)?;
    }
    let preface = spec.proxy_protocol.map(|version| {
        // One client's connection is no other's.
        peer.group_key ^= hash(&purpose.client);
        preface(version, purpose.client)
    });
    let options = &mut peer.options;
    if purpose.upgrade {
        options.alpn = ALPN::H1;
    }
    options.read_timeout = Some(if purpose.upgrade {
        UPGRADED_IDLE
    } else {
        timeouts.read
    });
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.keep);
    options.connection_timeout = spec.tls.is_some().then_some(timeouts.connect);
    let links = Arc::clone(&backend.links);
    let dialer = Dialer::new(links, epoch, timeouts.connect, purpose.upgrade);
    options.custom_l4 = Some(Arc::new(dialer.with_preface(preface.unwrap_or_default())));
    Ok(peer)
}

fn decorate(
    peer: &mut HttpPeer,
    spec: &UpstreamSpec,
    upstreams: &Upstreams,
    address: SocketAddr,
) -> Result<(), UnknownTlsName> {
    peer.group_key ^= hash(spec);
    if spec.http2 {
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = STREAMS;
    }
    let Some(tls) = &spec.tls else {
        return Ok(());
    };
    let material = upstreams.material(tls)?;
    peer.group_key ^= hash(&material.version);
    // pingora takes an empty name as leave to verify nothing.
    peer.sni = match &tls.server_name {
        Some(name) => name.clone(),
        None => address.ip().to_string(),
    };
    peer.options.verify_cert = !tls.insecure;
    peer.options.verify_hostname = !tls.insecure;
    peer.options.ca = Some(material.authority);
    peer.client_cert_key = material.identity;
    Ok(())
}

/// What tells an endpoint who the client is. A connection of no client's says so.
fn preface(version: ProxyVersion, client: Option<Addresses>) -> Vec<u8> {
    let mut bytes = Vec::new();
    match version {
        ProxyVersion::V1 => write_v1(&mut bytes, client.as_ref()),
        ProxyVersion::V2 => write_v2(&mut bytes, client.as_ref(), &[]),
    }
    bytes
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
