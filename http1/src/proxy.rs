//! The PROXY protocol, versions 1 and 2: who the client is, told by the balancer before us.
//!
//! # Source
//!
//! HAProxy's `doc/proxy-protocol.txt`, revision of 2020-03-05. A header is read whole or not at all;
//! where the specification lets a receiver be lenient, this one is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The longest header of version 1, its line end included, in bytes.
pub const V1_BYTES: usize = 107;
/// The longest header of version 2 that is read, in bytes: some balancers send certificates. Past it
/// the connection is refused.
pub const V2_BYTES: usize = 4 << 10;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before its addresses.
const V2_FIXED: usize = 16;
/// The extension that holds a checksum of the whole header.
const CRC32C: u8 = 0x03;

/// What a balancer says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whose connection it is. None: it is the balancer's own (a health check), or the client has no
    /// IP address; the addresses of the connection itself hold then.
    pub addresses: Option<Addresses>,
    /// Bytes of the header; what the client sent begins there.
    pub length: usize,
    extensions: &'a [u8],
}

impl<'a> Header<'a> {
    /// The extensions of a version 2 header: type and value of each.
    pub fn extensions(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.extensions;
        std::iter::from_fn(move || {
            let (kind, value, after) = extension(rest)?;
            rest = after;
            Some((kind, value))
        })
    }
}

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// Why a connection's first bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// They begin as neither version does.
    #[error("no PROXY header")]
    Missing,
    /// A line of version 1 that says nothing.
    #[error("a malformed PROXY header, version 1")]
    Line,
    /// A version 2 header of another version, command, family or protocol than are defined.
    #[error("a PROXY header of an unknown kind")]
    Kind,
    /// A version 2 header too short for its addresses, or extensions that do not fill it.
    #[error("a PROXY header with a wrong length")]
    Length,
    /// A header past [`V1_BYTES`] or [`V2_BYTES`].
    #[error("a PROXY header that is too long")]
    TooLong,
    /// The checksum of a version 2 header is wrong.
    #[error("a PROXY header with a wrong checksum")]
    Checksum,
}

/// Reads the header that a connection begins with. Returns none while it is not all there.
///
/// # Errors
///
/// If it is none. Close the connection without an answer: whoever sent this may not speak for others.
pub fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    if begins(bytes, V2_START) {
        parse_v2(bytes)
    } else if begins(bytes, V1_START) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

/// Whether these bytes begin so, as far as there are any.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    let line = &bytes[..bytes.len().min(V1_BYTES)];
    let Some(feed) = line.iter().position(|&byte| byte == b'\n') else {
        return if line.len() == V1_BYTES {
            Err(ProxyError::TooLong)
        } else {
            Ok(None)
        };
    };
    let text = line[..feed].strip_suffix(b"\r").ok_or(ProxyError::Line)?;
    let text = std::str::from_utf8(text).map_err(|_| ProxyError::Line)?;
    let mut words = text.split(' ');
    words.next();
    let addresses = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(line_addresses::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(line_addresses::<Ipv6Addr>(words)?),
        _ => return Err(ProxyError::Line),
    };
    Ok(Some(Header {
        addresses,
        length: feed + 1,
        extensions: &[],
    }))
}

fn line_addresses<'a, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Addresses, ProxyError> {
    let mut word = || words.next().ok_or(ProxyError::Line);
    let ip = |word: &str| word.parse::<A>().map_err(|_| ProxyError::Line);
    let (source, destination) = (ip(word()?)?.into(), ip(word()?)?.into());
    let addresses = Addresses {
        source: SocketAddr::new(source, port(word()?)?),
        destination: SocketAddr::new(destination, port(word()?)?),
    };
    match words.next() {
        None => Ok(addresses),
        Some(_) => Err(ProxyError::Line),
    }
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && !word.starts_with('0');
    if !is_plain && word != "0" {
        return Err(ProxyError::Line);
    }
    word.parse().map_err(|_| ProxyError::Line)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header<'_>>, ProxyError> {
    let Some(&command) = bytes.get(12) else {
        return Ok(None);
    };
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::Kind);
    }
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    if family >> 4 > 3 || family & 15 > 2 {
        return Err(ProxyError::Kind);
    }
    let Some(&[high, low]) = bytes.get(14..V2_FIXED) else {
        return Ok(None);
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES {
        return Err(ProxyError::TooLong);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    let (mut addresses, extensions) = addresses(family, &header[V2_FIXED..])?;
    check(header, extensions)?;
    if command == 0x20 {
        addresses = None;
    }
    Ok(Some(Header {
        addresses,
        length,
        extensions,
    }))
}

/// Takes apart what follows the fixed part: addresses, if they are of IP streams, and extensions.
fn addresses(family: u8, bytes: &[u8]) -> Result<(Option<Addresses>, &[u8]), ProxyError> {
    let size = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        // Of an unspecified family there is no saying where the extensions begin.
        _ => return Ok((None, &[])),
    };
    let (block, extensions) = bytes.split_at_checked(size).ok_or(ProxyError::Length)?;
    let ends = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let addresses = match family {
        0x11 => {
            let ip = |at: usize| {
                <[u8; 4]>::try_from(&block[at..at + 4]).expect("the block is 12 bytes long")
            };
            Some(Addresses {
                source: SocketAddr::new(ip(0).into(), ends(8)),
                destination: SocketAddr::new(ip(4).into(), ends(10)),
            })
        }
        0x21 => {
            let ip = |at: usize| {
                <[u8; 16]>::try_from(&block[at..at + 16]).expect("the block is 36 bytes long")
            };
            Some(Addresses {
                source: SocketAddr::new(ip(0).into(), ends(32)),
                destination: SocketAddr::new(ip(16).into(), ends(34)),
            })
        }
        _ => None,
    };
    Ok((addresses, extensions))
}

fn extension(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(length)?;
    Some((kind, value, rest))
}

/// Holds the extensions to their lengths and the header to its checksum, if it has one.
fn check(header: &[u8], extensions: &[u8]) -> Result<(), ProxyError> {
    let mut rest = extensions;
    while !rest.is_empty() {
        let (kind, value, after) = extension(rest).ok_or(ProxyError::Length)?;
        if kind == CRC32C {
            let wanted = value.try_into().map_err(|_| ProxyError::Length)?;
            let at = header.len() - after.len() - value.len();
            let parts = [&header[..at], &[0; 4], &header[at + 4..]];
            if crc32c(parts) != u32::from_be_bytes(wanted) {
                return Err(ProxyError::Checksum);
            }
        }
        rest = after;
    }
    Ok(())
}

/// The CRC of RFC 3720, B.4. Bit by bit: few send it, and it is at most 4 KiB once a connection.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in parts.into_iter().flatten() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Appends a header of version 1; `UNKNOWN` without addresses, or if they are of two families.
pub fn write_v1(out: &mut Vec<u8>, addresses: Option<&Addresses>) {
    use std::io::Write as _;
    let line = match addresses {
        Some(Addresses {
            source,
            destination,
        }) if source.is_ipv4() == destination.is_ipv4() => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            write!(out, "PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
        _ => write!(out, "PROXY UNKNOWN\r\n"),
    };
    line.expect("a vector takes everything");
}

/// Appends a header of version 2; `LOCAL` without addresses. Addresses of two families are written
/// as IPv6, an IPv4 one mapped into it. Extensions that would make it longer than [`V2_BYTES`] are
/// left out.
pub fn write_v2(out: &mut Vec<u8>, addresses: Option<&Addresses>, extensions: &[(u8, &[u8])]) {
    let start = out.len();
    out.extend_from_slice(V2_START);
    match addresses {
        None => out.extend_from_slice(&[0x20, 0, 0, 0]),
        Some(Addresses {
            source,
            destination,
        }) => {
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 0]);
                    out.extend_from_slice(&from.octets());
                    out.extend_from_slice(&to.octets());
                }
                (from, to) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 0]);
                    out.extend_from_slice(&v6(from).octets());
                    out.extend_from_slice(&v6(to).octets());
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
            for (kind, value) in extensions {
                if out.len() - start + 3 + value.len() <= V2_BYTES {
                    let length = u16::try_from(value.len()).expect("below 4 KiB");
                    out.push(*kind);
                    out.extend_from_slice(&length.to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
    }
    let length = u16::try_from(out.len() - start - V2_FIXED).expect("below 4 KiB");
    out[start + 14..start + V2_FIXED].copy_from_slice(&length.to_be_bytes());
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
