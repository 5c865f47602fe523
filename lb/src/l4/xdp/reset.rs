//! Clients of a real that died are told at once, also those that wait silently.
//!
//! The program answers what a client of a dead real sends with a reset that has the right number.
//! A client that only waits sends nothing. So each is sent an ACK out of nowhere, from the service's
//! address: it answers with an ACK of its own (RFC 9293 §3.10.7.4), which the program meets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ballast_ebpf_common::layout::TCP;
use ballast_ebpf_common::layout::flow::{self, FlowKey, Line, Meta};
use ballast_ebpf_common::layout::limits::WAYS;
use ballast_ebpf_loader::Shared;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `IPPROTO_RAW`: what is sent has its IP header.
const RAW: i32 = 255;
/// Offset of TCP data and the flag ACK.
const ACK: [u8; 2] = [5 << 4, 0x10];
/// What is offered to receive; nothing will be.
const WINDOW: [u8; 2] = [0x02, 0x00];
/// Hops that it may make.
const TTL: u8 = 64;

/// Sends every client that has a TCP flow with one of `backends` something to answer to. Does so
/// on a thread of its own: a look through all flows takes milliseconds, and whoever calls has
/// other things to take out.
pub(super) fn tell_clients(
    flows: Arc<Shared<Line>>,
    keys: Arc<Shared<FlowKey>>,
    backends: Vec<u32>,
) {
    let told = std::thread::Builder::new()
        .name("l4-reset".to_owned())
        .spawn(move || {
            let backends: BTreeSet<u32> = backends.into_iter().collect();
            let clients = clients_of(&flows, &keys, &backends);
            let count = clients.len();
            match send(&clients) {
                Ok(()) => tracing::info!(flows = count, "clients of a dead real told"),
                Err(error) => tracing::warn!(%error, "clients of a dead real not told"),
            }
        });
    if let Err(error) = told {
        tracing::warn!(%error, "clients of a dead real not told");
    }
}

/// Both ends of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    service: SocketAddr,
    client: SocketAddr,
}

fn clients_of(flows: &Shared<Line>, keys: &Shared<FlowKey>, backends: &BTreeSet<u32>) -> Vec<Ends> {
    let mut clients = Vec::new();
    for at in 0..flows.len() {
        let line = flows.load(at);
        for (way, entry) in line.ways.iter().enumerate() {
            let meta = Meta(entry.meta);
            if entry.tag <= flow::CLAIMED
                || meta.class() & flow::class::UDP != 0
                || !backends.contains(&meta.backend())
            {
                continue;
            }
            let key = keys.load(at * WAYS + way);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the low half is what it has"
            )]
            let own = key.tag == entry.tag as u32 && key.protocol == TCP;
            if own {
                clients.push(Ends {
                    service: SocketAddr::new(
                        IpAddr::from(key.service),
                        u16::from_be(key.service_port),
                    ),
                    client: SocketAddr::new(
                        IpAddr::from(key.client),
                        u16::from_be(key.client_port),
                    ),
                });
            }
        }
    }
    clients
}

fn send(clients: &[Ends]) -> std::io::Result<()> {
    for v4 in [true, false] {
        let own: Vec<&Ends> = clients
            .iter()
            .filter(|ends| ends.client.is_ipv4() == v4)
            .collect();
        if own.is_empty() {
            continue;
        }
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        for ends in own {
            let mut to = ends.client;
            // Ports of raw sockets are protocols, and must not be said.
            to.set_port(0);
            if let Err(error) = socket.send_to(&packet(ends), &SockAddr::from(to)) {
                tracing::debug!(client = %ends.client, %error, "client not told");
            }
        }
    }
    Ok(())
}

/// Returns an ACK from the service to the client, with any numbers.
fn packet(ends: &Ends) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(ends.service.port().to_be_bytes());
    tcp.extend(ends.client.port().to_be_bytes());
    tcp.extend([0; 8]);
    tcp.extend(ACK);
    tcp.extend(WINDOW);
    tcp.extend([0; 4]);
    let mut pseudo = Vec::new();
    let mut packet = match (ends.service.ip(), ends.client.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
            pseudo.extend([0, TCP, 0, 20]);
            let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, TTL, TCP, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (from, to) => {
            let six = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            pseudo.extend(six(from).octets());
            pseudo.extend(six(to).octets());
            pseudo.extend([0, 0, 0, 20, 0, 0, 0, TCP]);
            let mut header = vec![0x60, 0, 0, 0, 0, 20, TCP, TTL];
            header.extend(six(from).octets());
            header.extend(six(to).octets());
            header
        }
    };
    let sum = checksum(&[&pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    packet
}

/// Returns the Internet checksum (RFC 1071) of parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was folded into 16 bits"
    )]
    let sum = sum as u16;
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_a_packet_add_up_to_nothing() {
        for (service, client) in [
            ("10.0.0.100:80", "192.168.7.9:45678"),
            ("[fd00::100]:80", "[fd00::9]:45678"),
        ] {
            let ends = Ends {
                service: service.parse().expect("an address"),
                client: client.parse().expect("an address"),
            };
            let packet = packet(&ends);
            let (header, pseudo): (usize, Vec<u8>) = if ends.client.is_ipv4() {
                assert_eq!(checksum(&[&packet[..20]]), 0);
                (20, [&packet[12..20], &[0, TCP, 0, 20]].concat())
            } else {
                (40, [&packet[8..40], &[0, 0, 0, 20, 0, 0, 0, TCP]].concat())
            };
            assert_eq!(packet.len(), header + 20);
            assert_eq!(checksum(&[&pseudo, &packet[header..]]), 0);
            assert_eq!(packet[header + 13], 0x10, "an ACK and nothing else");
        }
    }
}
