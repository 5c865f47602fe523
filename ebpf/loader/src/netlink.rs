//! Questions to the kernel about interfaces, routes and neighbours.
//!
//! A few messages of rtnetlink, written and read by hand: the crates that know all of it are as
//! large as the rest of the loader.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const XDP_ATTACHED_SKB: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_VIA: u16 = 18;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States of a neighbour whose address may be used.
const NUD_VALID: u16 = 0xde;

/// Nested attributes have this bit in their type.
const NESTED: u16 = 0x8000;
/// Any port does: whoever asks wants the neighbour to be looked for, not an answer.
const DISCARD: u16 = 9;

/// What the kernel says of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its kind (`veth`, `vlan`, …); empty for hardware.
    pub kind: String,
    /// The interface at its other end, if that is in this network namespace.
    pub peer: Option<u32>,
    /// Whether its other end is in another network namespace.
    pub peer_elsewhere: bool,
    /// Whether an XDP program is attached to it.
    pub has_xdp: bool,
    /// Whether that runs in the network stack and not in the driver.
    pub generic_xdp: bool,
}

/// The way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface it leaves by.
    pub interface: u32,
    /// The neighbour that it is handed to: a gateway, or the address itself.
    pub next: IpAddr,
    /// The address that it leaves from.
    pub source: Option<IpAddr>,
}

/// Returns what the kernel says of the interface `name`.
///
/// # Errors
/// [`Error::NoInterface`], [`Error::Netlink`].
pub fn link(name: &str) -> Result<Link, Error> {
    let mut body = vec![0; 16];
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    attribute(&mut body, IFLA_IFNAME, &text);
    match ask(RTM_GETLINK, &body) {
        Ok(answer) => Ok(read_link(&answer)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(Error::NoInterface(name.to_owned()))
        }
        Err(source) => Err(Error::Netlink {
            what: "an interface",
            source,
        }),
    }
}

/// Returns what the kernel says of an interface by its number.
///
/// # Errors
/// [`Error::NoInterface`], [`Error::Netlink`].
pub fn link_at(index: u32) -> Result<Link, Error> {
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    match ask(RTM_GETLINK, &body) {
        Ok(answer) => Ok(read_link(&answer)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Err(Error::NoInterface(format!("number {index}")))
        }
        Err(source) => Err(Error::Netlink {
            what: "an interface",
            source,
        }),
    }
}

/// Returns the way to `address`.
///
/// # Errors
/// [`Error::NoRoute`], [`Error::Netlink`].
pub fn route(address: IpAddr) -> Result<Route, Error> {
    let bytes = octets(address);
    let mut body = vec![0; 12];
    body[0] = family(address);
    body[1] = u8::try_from(bytes.len() * 8).unwrap_or(0);
    attribute(&mut body, RTA_DST, &bytes);
    let answer = match ask(RTM_GETROUTE, &body) {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {
            return Err(Error::NoRoute(address));
        }
        Err(source) => {
            return Err(Error::Netlink {
                what: "a route",
                source,
            });
        }
    };
    let mut found = Route {
        interface: 0,
        next: address,
        source: None,
    };
    for (kind, value) in attributes(answer.get(12..).unwrap_or_default()) {
        match kind {
            RTA_OIF => found.interface = word(value),
            RTA_GATEWAY => found.next = ip(value).unwrap_or(found.next),
            // Family, then the address: a gateway of the other family.
            RTA_VIA => found.next = ip(value.get(2..).unwrap_or_default()).unwrap_or(found.next),
            RTA_PREFSRC => found.source = ip(value),
            _ => {}
        }
    }
    if found.interface == 0 {
        return Err(Error::NoRoute(address));
    }
    Ok(found)
}

/// Returns the MAC address of a neighbour, if the kernel knows it.
///
/// # Errors
/// [`Error::Netlink`].
pub fn neighbour(interface: u32, address: IpAddr) -> Result<Option<[u8; 6]>, Error> {
    let mut body = vec![0; 12];
    body[0] = family(address);
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    attribute(&mut body, NDA_DST, &octets(address));
    let answer = match ask(RTM_GETNEIGH, &body) {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(source) => {
            return Err(Error::Netlink {
                what: "a neighbour",
                source,
            });
        }
    };
    let state = answer.get(8..10).map_or(0, half);
    if state & NUD_VALID == 0 {
        return Ok(None);
    }
    let mut found = attributes(answer.get(12..).unwrap_or_default());
    Ok(found.find_map(|(kind, value)| {
        (kind == NDA_LLADDR)
            .then(|| value.try_into().ok())
            .flatten()
    }))
}

/// Makes the kernel look for a neighbour, or see whether the one it knows is still there: it does
/// so when something is sent there.
pub fn ask_for(address: IpAddr) {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Whatever fails here is seen when the neighbour is asked for.
    let sent = UdpSocket::bind((any, 0)).and_then(|socket| socket.send_to(&[], (address, DISCARD)));
    if let Err(error) = sent {
        tracing::debug!(%address, %error, "neighbour not asked for");
    }
}

fn read_link(answer: &[u8]) -> Link {
    let mut link = Link {
        index: answer.get(4..8).map_or(0, word),
        ..Link::default()
    };
    for (kind, value) in attributes(answer.get(16..).unwrap_or_default()) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value),
            IFLA_LINK => link.peer = Some(word(value)),
            IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            IFLA_XDP => {
                let attached = attributes(value).find(|(kind, _)| *kind == IFLA_XDP_ATTACHED);
                let attached = attached.and_then(|(_, value)| value.first().copied());
                link.has_xdp = attached.is_some_and(|mode| mode != 0);
                link.generic_xdp = attached == Some(XDP_ATTACHED_SKB);
            }
            _ => {}
        }
    }
    if link.peer_elsewhere {
        link.peer = None;
    }
    link
}

/// Asks one question with one answer, and returns the answer without its header.
fn ask(kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // `NETLINK_ROUTE` is 0.
        None,
    )?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(body);
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    // An interface with many addresses and statistics is a few thousand bytes.
    let mut answer = vec![0; 32 * 1024];
    let (received, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(received);
    let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = answer.get(4..6).map(half).ok_or_else(truncated)?;
    if kind == NLMSG_ERROR {
        let code = answer
            .get(HEADER..HEADER + 4)
            .map(word)
            .ok_or_else(truncated)?;
        return Err(io::Error::from_raw_os_error(
            code.cast_signed().wrapping_neg(),
        ));
    }
    Ok(answer.split_off(HEADER.min(answer.len())))
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Returns the attributes in some bytes, as far as they are whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes.get(..2)?));
        let kind = half(bytes.get(2..4)?) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn half(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_ne_bytes)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    four.map(IpAddr::from)
        .or_else(|_| sixteen.map(IpAddr::from))
        .ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

const _: () = assert!(AF_UNSPEC == 0, "questions about links are of no family");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_an_unknown_interface_is_named() {
        let lo = link("lo").expect("every machine has it");
        assert_eq!(lo.name, "lo");
        assert!(lo.mtu >= 1280, "{lo:?}");
        assert_eq!(link_at(lo.index).expect("by its number"), lo);
        let error = link("no-such-one").expect_err("it is not there");
        assert_eq!(error.to_string(), "there is no interface `no-such-one`");
    }

    #[test]
    fn way_to_oneself_is_the_loopback() {
        let lo = link("lo").expect("every machine has it");
        let way = route(Ipv4Addr::LOCALHOST.into()).expect("there is one");
        assert_eq!(way.interface, lo.index);
        assert_eq!(way.next, IpAddr::from(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn attributes_that_are_cut_off_end_the_list() {
        let mut bytes = Vec::new();
        attribute(&mut bytes, 7, &[1, 2, 3]);
        attribute(&mut bytes, 9 | NESTED, &[4]);
        let all: Vec<(u16, &[u8])> = attributes(&bytes).collect();
        assert_eq!(all, [(7, &[1, 2, 3][..]), (9, &[4][..])]);
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() < 2 || end >= bytes.len() - 3);
        }
    }
}
