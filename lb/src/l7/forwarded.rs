//! Whom a request comes from, and what endpoints are told of it: one answer for both data paths.

use std::io::Write as _;
use std::net::IpAddr;

use ballast_model::Network;

use crate::route::FieldLookup;

mod nodes;

use nodes::{address_of, each_node};

/// The fields that only this ingress writes: what came of them is not passed on as it was.
pub const OWN_FIELDS: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Which fields name clients, from hops that are trusted and towards endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `X-Real-IP`.
    #[default]
    XForwarded,
    /// `Forwarded` of RFC 7239.
    Forwarded,
    /// All of them towards endpoints. `X-Forwarded-For` is what is believed, and `Forwarded` is
    /// written from it: a hop that keeps one of them passes the client's own on in the other.
    Both,
}

/// Who is believed about clients, and how endpoints are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// Proxies whose fields are believed.
    pub trust: Vec<Network>,
    /// Where clients are named.
    pub header: ForwardedHeader,
}

/// What this ingress itself saw of a request.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Who is connected, by the PROXY header if there was one.
    pub peer: IpAddr,
    /// Whether over TLS.
    pub tls: bool,
    /// The host that is asked for; empty if there is none.
    pub host: &'a str,
}

/// Where a head is written.
pub trait Sink {
    /// What may go wrong.
    type Error;

    /// Adds a field whose value the closure appends.
    ///
    /// # Errors
    /// If the head cannot hold it.
    fn field(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Self::Error>;
}

impl Forwarding {
    /// Returns the client's address: the rightmost one that is not trusted, or the leftmost if
    /// all are. Nobody vouches for what stands before a hop that names no address.
    pub fn client(&self, peer: IpAddr, fields: &dyn FieldLookup) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        // From left to right, so that nothing is kept: what the walk from the right would find if
        // the chain ended here.
        let mut found = None;
        let mut step = |node: Option<IpAddr>| {
            found = match node {
                Some(address) if self.trusts(address) => found.or(Some(address)),
                other => other,
            };
        };
        let mut sound = true;
        if self.header == ForwardedHeader::Forwarded {
            fields.each("forwarded", &mut |value| {
                sound &= each_node(value, &mut |node| step(node.and_then(address_of)));
            });
        } else {
            fields.each("x-forwarded-for", &mut |value| {
                let entries = value.split(|byte| *byte == b',');
                let said = entries.filter(|entry| !entry.trim_ascii().is_empty());
                said.for_each(|entry| step(address_of(entry)));
            });
        }
        found.filter(|_| sound).unwrap_or(peer)
    }

    /// Writes what an endpoint is told of the client, the whole of [`OWN_FIELDS`]. `fields` are
    /// those that came.
    ///
    /// # Errors
    /// The sink's.
    pub fn tell<S: Sink>(
        &self,
        seen: &Seen<'_>,
        fields: &dyn FieldLookup,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let peer = seen.peer.to_canonical();
        let trusted = self.trusts(peer);
        let secure = seen.tls;
        if self.header == ForwardedHeader::Forwarded {
            return sink.field("forwarded", |out| {
                if trusted {
                    append_forwarded(out, fields);
                }
                write_element(out, peer, Some((secure, seen.host)));
            });
        }
        let client = self.client(peer, fields);
        let last = |name| if trusted { last_of(fields, name) } else { None };
        let secure = last("x-forwarded-proto").and_then(scheme).unwrap_or(secure);
        let host = last("x-forwarded-host").and_then(host_like);
        let host = host.unwrap_or(seen.host);
        let port = last("x-forwarded-port").and_then(port_of);
        let port = port.unwrap_or_else(|| asked_port(host, secure));
        sink.field("x-forwarded-for", |out| {
            if trusted {
                append_all(out, fields, "x-forwarded-for");
            }
            write_address(out, peer);
        })?;
        sink.field("x-forwarded-proto", |out| {
            out.extend_from_slice(proto(secure));
        })?;
        if !host.is_empty() {
            sink.field("x-forwarded-host", |out| {
                out.extend_from_slice(host.as_bytes());
            })?;
        }
        sink.field("x-forwarded-port", |out| {
            ballast_http1::render::decimal(out, port.into());
        })?;
        sink.field("x-real-ip", |out| write_address(out, client))?;
        if self.header == ForwardedHeader::Both {
            sink.field("forwarded", |out| {
                write_element(out, client, Some((secure, host)));
                if client != peer {
                    out.extend_from_slice(b", ");
                    write_element(out, peer, None);
                }
            })?;
        }
        Ok(())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trust.iter().any(|network| network.contains(address))
    }
}

fn proto(secure: bool) -> &'static [u8] {
    if secure { b"https" } else { b"http" }
}

/// Appends what came of a list, ready for one more entry.
fn append_all(out: &mut Vec<u8>, fields: &dyn FieldLookup, name: &str) {
    fields.each(name, &mut |value| {
        if !value.trim_ascii().is_empty() {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    });
}

/// The same for `Forwarded`, unless it would swallow the next element (an open quote).
fn append_forwarded(out: &mut Vec<u8>, fields: &dyn FieldLookup) {
    let mut sound = true;
    fields.each("forwarded", &mut |value| {
        sound &= each_node(value, &mut |_| {});
    });
    if sound {
        append_all(out, fields, "forwarded");
    }
}

/// What the nearest hop said.
fn last_of<'a>(fields: &'a dyn FieldLookup, name: &str) -> Option<&'a [u8]> {
    let mut last = None;
    fields.each(name, &mut |value| last = Some(value));
    let entry = last?.rsplit(|byte| *byte == b',').next();
    entry.map(<[u8]>::trim_ascii)
}

fn scheme(text: &[u8]) -> Option<bool> {
    let secure = text.eq_ignore_ascii_case(b"https");
    (secure || text.eq_ignore_ascii_case(b"http")).then_some(secure)
}

fn host_like(text: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let host = std::str::from_utf8(text).ok()?;
    (!host.is_empty() && text.iter().all(fits)).then_some(host)
}

fn port_of(text: &[u8]) -> Option<u16> {
    let port = std::str::from_utf8(text).ok()?.parse().ok()?;
    (port != 0).then_some(port)
}

/// The port that the client asked at: its host says so, or its scheme.
fn asked_port(host: &str, secure: bool) -> u16 {
    let said = host
        .rsplit_once(':')
        .filter(|(name, _)| !name.contains(':') || name.ends_with(']'))
        .and_then(|(_, port)| port_of(port.as_bytes()));
    said.unwrap_or(if secure { 443 } else { 80 })
}

fn write_element(out: &mut Vec<u8>, node: IpAddr, about: Option<(bool, &str)>) {
    if node.is_ipv6() {
        out.extend_from_slice(b"for=\"[");
        write_address(out, node);
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(b"for=");
        write_address(out, node);
    }
    let Some((secure, host)) = about else {
        return;
    };
    if !host.is_empty() {
        out.extend_from_slice(b";host=\"");
        for byte in host.bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(proto(secure));
}

/// Appends an address; the usual kind without the machinery of formatting.
fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                ballast_http1::render::decimal(out, octet.into());
            }
        }
        IpAddr::V6(address) => {
            write!(out, "{address}").expect("writing to a vector does not fail");
        }
    }
}

#[cfg(test)]
mod tests;
