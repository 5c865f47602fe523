//! Translation: for reals that know nothing of us.
//!
//! The client's packets go to the real from an address of ours, from a port that the flow's hash
//! gives; the real's answers find the client by the tuple that they carry. A balancer that lost
//! everything gives a flow the port that it had, for nothing but the hash decides.

use crate::checksum::Difference;
use crate::family::{ETHERNET, Family, protocol};
use crate::flow::{Flow, join, split, tcp};
use crate::flows::{self, Candidate, IDLE};
use crate::forward::{Journey, leave};
use crate::hash;
use crate::layout::flow::{CLAIMED, class};
use crate::layout::{Backend, Config, Ticks, Verdict, limits::NAT_TRIES, nat::Translation};
use crate::machine::{Action, Machine};
use crate::reply;

/// Addresses and ports that a packet gets.
#[derive(Clone, Copy)]
struct Rewrite<F: Family> {
    source: F::Addr,
    destination: F::Addr,
    ports: u32,
}

/// An entry of the table.
#[derive(Clone, Copy)]
struct Kept(*mut Translation);

impl Kept {
    #[inline(always)]
    fn tag(self) -> u64 {
        // SAFETY: an entry that `Machine::translation` returned.
        unsafe { (&raw const (*self.0).tag).read_volatile() }
    }

    /// Returns whether it is the one of this client and service.
    #[inline(always)]
    fn is_of<F: Family>(self, flow: &Flow<F>) -> bool {
        let (client_port, service_port) = flow.split();
        // SAFETY: as above; a torn read of an entry that is being replaced compares unequal or is
        // of the same flow.
        let kept = unsafe { &*self.0 };
        kept.client_port == client_port
            && kept.service_port == service_port
            && F::addr(&kept.client) == flow.source
            && F::addr(&kept.service) == flow.destination
    }

    /// Returns how willingly it is given up: see [`flows::worth`].
    #[inline(always)]
    fn worth<M: Machine>(self, machine: &M, config: &Config, tag: u64, now: Ticks) -> u32 {
        // SAFETY: as above.
        let (seen, class) = unsafe {
            (
                (&raw const (*self.0).seen).read_volatile(),
                (&raw const (*self.0).class).read_volatile(),
            )
        };
        flows::worth(machine, config, Candidate { tag, seen, class }, now)
    }

    #[inline(always)]
    fn refresh(self, now: Ticks, kind: u8) {
        // SAFETY: as above; both are refreshed by whoever sees a packet, and either is right.
        unsafe {
            if (&raw const (*self.0).seen).read_volatile() != now {
                (&raw mut (*self.0).seen).write_volatile(now);
            }
            if kind & 3 != class::NEW && (&raw const (*self.0).class).read_volatile() != kind {
                (&raw mut (*self.0).class).write_volatile(kind);
            }
        }
    }
}

/// Returns the class that a packet shows its flow to be in.
#[inline(always)]
fn kind<F: Family>(flow: &Flow<F>) -> u8 {
    if !flow.is_tcp() {
        class::UDP | class::ESTABLISHED
    } else if flow.flags & tcp::SYN != 0 {
        class::NEW
    } else if flow.flags & (tcp::FIN | tcp::RST) != 0 {
        class::CLOSING
    } else {
        class::ESTABLISHED
    }
}

/// Returns the ports that a flow may have, by try; as on the wire.
#[inline(always)]
pub fn port(config: &Config, tag: u64, turn: u32) -> u16 {
    let offset = hash::scale(hash::again(tag, turn), u32::from(config.nat_count));
    config.nat_base.wrapping_add(offset as u16).to_be()
}

/// Returns the port that a client's packet goes out from, as on the wire; 0: it cannot go.
#[inline(never)]
pub fn depart<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    journey: &Journey<'_>,
    flow: &Flow<F>,
) -> u16 {
    let backend = journey.backend;
    let verdict = if !F::is(&backend.address) || config.nat_count == 0 {
        Verdict::NoReal
    } else if flow.ttl <= 1 {
        Verdict::Expired
    } else {
        let port = translation::<F, M>(machine, config, journey, flow);
        if port != 0 {
            return port;
        }
        Verdict::NatFull
    };
    machine.count(backend.vip, verdict);
    0
}

/// Sends a client's packet to its real, from the port that [`depart`] gave.
#[inline(never)]
pub fn forth<F: Family, M: Machine>(
    machine: M,
    journey: &Journey<'_>,
    flow: &Flow<F>,
    port: u16,
) -> Action {
    let backend = journey.backend;
    if journey.length > usize::from(backend.mtu) {
        return reply::too_big::<F, M>(machine, journey, 0);
    }
    let rewrite = Rewrite::<F> {
        source: F::addr(&backend.source),
        destination: F::addr(&backend.address),
        ports: join(port, real_port(backend, flow)),
    };
    machine.count_backend(journey.index, journey.length as u64);
    if !apply(machine, &rewrite, flow.protocol) {
        return Action::Drop;
    }
    if !crate::forward::write_next_hop(machine, backend) {
        return Action::Drop;
    }
    leave(machine, backend)
}

/// Returns the source port of a flow, as on the wire: the one it has, or a new one; 0 if there is
/// none.
#[inline(always)]
fn translation<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    journey: &Journey<'_>,
    flow: &Flow<F>,
) -> u16 {
    let backend = journey.backend;
    let half = answer_half::<F>(config, backend);
    let real_port = real_port(backend, flow);
    // The best that is free: worth, and in the lowest bits try and side.
    let mut best = 0_u32;
    let mut turn = 0;
    while turn < NAT_TRIES {
        let port = port(config, flow.tag, turn);
        let tag = hash::whole(config.key, half, join(real_port, port), flow.protocol);
        let mut free = 0;
        let mut side = 0;
        while side < 2 {
            let Some(entry) = machine.translation((tag as u32 ^ side) & config.nat_mask) else {
                return 0;
            };
            let entry = Kept(entry);
            let there = entry.tag();
            let worth = entry.worth(&machine, config, there, flow.now);
            if there == tag {
                if entry.is_of(flow) {
                    entry.refresh(flow.now, kind(flow));
                    return port;
                }
                if worth < IDLE {
                    // A port that another flow has towards this real cannot be shared.
                    free = 0;
                    break;
                }
            }
            if worth > free >> 3 {
                free = worth << 3 | turn << 1 | side;
            }
            side += 1;
        }
        if free >> 3 > best >> 3 {
            best = free;
        }
        turn += 1;
    }
    if best == 0 {
        return 0;
    }
    let port = port(config, flow.tag, best >> 1 & (NAT_TRIES - 1));
    let tag = hash::whole(config.key, half, join(real_port, port), flow.protocol);
    let Some(entry) = machine.translation((tag as u32 ^ best & 1) & config.nat_mask) else {
        return 0;
    };
    if !take(machine, journey, flow, Kept(entry)) {
        return 0;
    }
    // SAFETY: claimed in `take`; a volatile store stays behind those before it.
    unsafe { (&raw mut (*entry).tag).write_volatile(tag) };
    port
}

/// Returns the state of the hash of what a real answers to, after the addresses.
#[inline(always)]
fn answer_half<F: Family>(config: &Config, backend: &Backend) -> u64 {
    F::half(
        config.key,
        F::addr(&backend.address),
        F::addr(&backend.source),
    )
}

/// Returns the port that a flow goes to at its real.
#[inline(always)]
fn real_port<F: Family>(backend: &Backend, flow: &Flow<F>) -> u16 {
    if backend.port == 0 {
        flow.split().1
    } else {
        backend.port
    }
}

/// Claims an entry and fills all of it but the tag.
#[inline(always)]
fn take<F: Family, M: Machine>(
    machine: M,
    journey: &Journey<'_>,
    flow: &Flow<F>,
    entry: Kept,
) -> bool {
    let there = entry.tag();
    // SAFETY: an entry of the table.
    if there == CLAIMED || !machine.claim(unsafe { &raw mut (*entry.0).tag }, there, CLAIMED) {
        return false;
    }
    let Some(ethernet) = machine.window::<12>(0) else {
        return false;
    };
    let (client_port, service_port) = flow.split();
    let mut client_mac = [0; 6];
    client_mac[..4].copy_from_slice(&ethernet.u32::<6>().to_ne_bytes());
    client_mac[4..].copy_from_slice(&ethernet.u16::<10>().to_ne_bytes());
    // SAFETY: claimed, so nobody else writes; readers see it by its tag only, stored later.
    unsafe {
        entry.0.write(Translation {
            tag: CLAIMED,
            client: F::address(flow.source),
            service: F::address(flow.destination),
            client_port,
            service_port,
            backend: journey.index,
            ingress: machine.ingress(),
            seen: flow.now,
            class: if flow.is_tcp() {
                kind(flow)
            } else {
                class::UDP | class::NEW
            },
            generation: journey.backend.generation,
            client_mac,
        });
    }
    true
}

/// Sends a real's answer back to the client, if the packet is one.
#[inline(never)]
pub fn back<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>) -> Option<Action> {
    let entry = answered::<M>(machine, config, flow.tag)?;
    // SAFETY: an entry of the table.
    let kept = unsafe { entry.0.read() };
    if entry.tag() != flow.tag {
        return None;
    }
    let vip = machine
        .backend(kept.backend)
        .map_or(0, |backend| backend.vip);
    if flow.ttl <= 1 {
        machine.count(vip, Verdict::Expired);
        return Some(Action::Drop);
    }
    entry.refresh(flow.now, kind(flow));
    let rewrite = Rewrite::<F> {
        source: F::addr(&kept.service),
        destination: F::addr(&kept.client),
        ports: join(kept.service_port, kept.client_port),
    };
    let done = apply(machine, &rewrite, flow.protocol) && turn_round(machine, kept.client_mac);
    if !done {
        return Some(Action::Drop);
    }
    machine.count(vip, Verdict::NatReturned);
    Some(home(machine, kept.ingress))
}

/// Returns the translation of a tuple that a real answers to.
#[inline(always)]
fn answered<M: Machine>(machine: M, config: &Config, tag: u64) -> Option<Kept> {
    let mut side = 0;
    while side < 2 {
        let entry = Kept(machine.translation((tag as u32 ^ side) & config.nat_mask)?);
        if entry.tag() == tag {
            return Some(entry);
        }
        side += 1;
    }
    None
}

/// Sends a packet out where its client is.
#[inline(always)]
fn home<M: Machine>(machine: M, ingress: u32) -> Action {
    if ingress == machine.ingress() {
        Action::Transmit
    } else {
        machine.redirect(ingress)
    }
}

/// Addresses a frame to `to`, from the address that it came to.
#[inline(always)]
fn turn_round<M: Machine>(machine: M, to: [u8; 6]) -> bool {
    let Some(ethernet) = machine.window::<ETHERNET>(0) else {
        return false;
    };
    let (own, own_last) = (ethernet.u32::<0>(), ethernet.u16::<4>());
    ethernet.set_u32::<0>(u32::from_ne_bytes([to[0], to[1], to[2], to[3]]));
    ethernet.set_u16::<4>(u16::from_ne_bytes([to[4], to[5]]));
    ethernet.set_u32::<6>(own);
    ethernet.set_u16::<10>(own_last);
    true
}

/// Writes addresses, ports, time to live and checksums.
#[inline(always)]
fn apply<F: Family, M: Machine>(machine: M, rewrite: &Rewrite<F>, protocol: u8) -> bool {
    let Some(header) = F::header(&machine, ETHERNET) else {
        return false;
    };
    let Some(first) = machine.window::<8>(F::L4) else {
        return false;
    };
    let mut difference = Difference::new();
    difference.sum(F::sum(F::source(header)), F::sum(rewrite.source));
    difference.sum(F::sum(F::destination(header)), F::sum(rewrite.destination));
    F::hop(header, difference);
    F::write(header, rewrite.source, rewrite.destination);
    difference.word(first.u32::<0>(), rewrite.ports);
    first.set_u32::<0>(rewrite.ports);
    if protocol == protocol::UDP {
        let old = first.u16::<6>();
        if old != 0 {
            let new = difference.apply(old);
            // A sum of 0 is written as all ones (RFC 768).
            first.set_u16::<6>(if new == 0 { 0xffff } else { new });
        }
        return true;
    }
    let Some(tcp) = machine.window::<20>(F::L4) else {
        return false;
    };
    tcp.set_u16::<16>(difference.apply(tcp.u16::<16>()));
    true
}

/// Sends an ICMP error about a packet of a translated real on to that real, who knows the flow by
/// other addresses and `ports` (ours, its).
#[inline(never)]
pub fn error_forth<F: Family, M: Machine>(
    machine: M,
    backend: &Backend,
    index: u32,
    ports: u32,
) -> Action {
    let real = F::addr(&backend.address);
    let ours = F::addr(&backend.source);
    // Quoted is what the real sent: from itself to our address.
    let quoted = Rewrite::<F> {
        source: real,
        destination: ours,
        ports: swapped(ports),
    };
    let length = F::header(&machine, ETHERNET).map_or(0, F::length);
    machine.count_backend(index, length as u64);
    let done = apply_to_error::<F, M>(machine, &quoted, ours, real)
        && crate::forward::write_next_hop(machine, backend);
    if !done {
        return Action::Drop;
    }
    leave(machine, backend)
}

/// Returns the ports by which the real knows a client's flow: ours, its; 0 if it does not.
#[inline(never)]
pub fn known_by_real<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    backend: &Backend,
    flow: &Flow<F>,
) -> u32 {
    let half = answer_half::<F>(config, backend);
    let real_port = real_port(backend, flow);
    let mut turn = 0;
    while turn < NAT_TRIES {
        let port = port(config, flow.tag, turn);
        let tag = hash::whole(config.key, half, join(real_port, port), flow.protocol);
        if let Some(entry) = answered::<M>(machine, config, tag)
            && entry.is_of(flow)
        {
            return join(port, real_port);
        }
        turn += 1;
    }
    0
}

/// Sends an ICMP error about a packet that we translated on to its client, if it is one; `tag` is
/// that of the quoted tuple turned round, as the real would answer.
#[inline(never)]
pub fn error_back<F: Family, M: Machine>(machine: M, config: &Config, tag: u64) -> Option<Action> {
    let entry = answered::<M>(machine, config, tag)?;
    // SAFETY: an entry of the table.
    let kept = unsafe { &*entry.0 };
    let vip = machine
        .backend(kept.backend)
        .map_or(0, |backend| backend.vip);
    let (client, service) = (F::addr(&kept.client), F::addr(&kept.service));
    let quoted = Rewrite::<F> {
        source: client,
        destination: service,
        ports: join(kept.client_port, kept.service_port),
    };
    let done = apply_to_error::<F, M>(machine, &quoted, service, client)
        && turn_round(machine, kept.client_mac);
    if !done {
        return Some(Action::Drop);
    }
    machine.count(vip, Verdict::IcmpRouted);
    Some(home(machine, kept.ingress))
}

/// Rewrites an ICMP error (sent from `source` now, to `destination`) and what it quotes.
///
/// The quoted packet's own checksums follow, as far as they are quoted (RFC 5508 §4.2): the header's
/// always, the datagram's of UDP.
#[inline(always)]
fn apply_to_error<F: Family, M: Machine>(
    machine: M,
    quoted: &Rewrite<F>,
    source: F::Addr,
    destination: F::Addr,
) -> bool {
    let (Some(header), Some(icmp), Some(inner), Some(first)) = (
        F::header(&machine, ETHERNET),
        machine.window::<8>(F::L4),
        F::header(&machine, F::L4 + 8),
        machine.window::<8>(F::L4 + 8 + F::HEADER),
    ) else {
        return false;
    };
    let mut outside = Difference::new();
    outside.sum(F::sum(F::source(header)), F::sum(source));
    outside.sum(F::sum(F::destination(header)), F::sum(destination));
    let mut inside = Difference::new();
    inside.sum(F::sum(F::source(inner)), F::sum(quoted.source));
    inside.sum(F::sum(F::destination(inner)), F::sum(quoted.destination));
    let protocol = F::protocol(inner);
    // What changes in the body of the error: addresses, ports and checksums that are quoted.
    let mut body = inside;
    body.add(F::checksum(inner, inside));
    F::write(inner, quoted.source, quoted.destination);
    let mut transport = inside;
    transport.word(first.u32::<0>(), quoted.ports);
    body.word(first.u32::<0>(), quoted.ports);
    first.set_u32::<0>(quoted.ports);
    if protocol == protocol::UDP && first.u16::<6>() != 0 {
        let old = first.u16::<6>();
        first.set_u16::<6>(transport.apply(old));
        body.half(old, first.u16::<6>());
    }
    if F::HEADER != 20 {
        // ICMP for IPv6 covers the outer addresses, too.
        body.add(outside);
    }
    icmp.set_u16::<2>(body.apply(icmp.u16::<2>()));
    F::hop(header, outside);
    F::write(header, source, destination);
    true
}

/// Returns the ports of a word in the other order.
#[inline(always)]
pub const fn swapped(ports: u32) -> u32 {
    let (source, destination) = split(ports);
    join(destination, source)
}
