//! What the balancer answers itself: errors about size, resets, echoes.

use crate::checksum;
use crate::checksum::Difference;
use crate::family::{ETHERNET, Family, TYPE_V4, TYPE_V6, V4, V6, protocol};
use crate::flow::tcp;
use crate::forward::Journey;
use crate::layout::Verdict;
use crate::machine::{Action, Machine};

const TTL: u8 = 64;
/// Bytes of a packet that an error quotes: of IPv4 at least header and 8 (RFC 792).
const QUOTE_V4: usize = 64;
/// Of IPv6 "as much as possible"; the sender needs the headers (RFC 4443 §3.2).
const QUOTE_V6: usize = 128;

/// Tells the sender that a packet does not fit, `grown` bytes of headers added; counts and says
/// what becomes of the packet.
#[inline(never)]
pub fn too_big<F: Family, M: Machine>(machine: M, journey: &Journey<'_>, grown: u16) -> Action {
    let backend = journey.backend;
    let mtu = backend.mtu.saturating_sub(grown);
    let told = if F::HEADER == V4::HEADER {
        too_big_v4(machine, mtu)
    } else {
        too_big_v6(machine, mtu)
    };
    match told {
        Some(true) => {
            machine.count(backend.vip, Verdict::TooBig);
            Action::Transmit
        }
        Some(false) => {
            machine.count(backend.vip, Verdict::TooBigDropped);
            Action::Drop
        }
        None => {
            machine.count(backend.vip, Verdict::NoRoom);
            Action::Drop
        }
    }
}

/// Leaves the first `keep` bytes of the packet, and puts `before` in front of them.
#[inline(always)]
fn quote<M: Machine>(machine: M, keep: usize, before: usize) -> Option<()> {
    let less = machine.length() as i32 - keep as i32;
    (less >= 0 && machine.move_back(-less) && machine.move_front(-(before as i32))).then_some(())
}

/// Swaps the MAC addresses that now stand at `at`, and puts them in front with an ethertype.
#[inline(always)]
fn frame<M: Machine>(machine: M, at: usize, ethertype: u16) -> Option<()> {
    let old = machine.window::<12>(at)?;
    let (to, to_last) = (old.u32::<0>(), old.u16::<4>());
    let (from, from_last) = (old.u32::<6>(), old.u16::<10>());
    let new = machine.window::<ETHERNET>(0)?;
    new.set_u32::<0>(from);
    new.set_u16::<4>(from_last);
    new.set_u32::<6>(to);
    new.set_u16::<10>(to_last);
    new.set_u16::<12>(ethertype);
    Some(())
}

/// "Fragmentation needed" (RFC 792, RFC 1191); `Some(false)` if the packet may be fragmented, so
/// that nobody may be told.
#[inline(always)]
fn too_big_v4<M: Machine>(machine: M, mtu: u16) -> Option<bool> {
    let header = V4::header(&machine, ETHERNET)?;
    if header.u8::<6>() & 0x40 == 0 {
        return Some(false);
    }
    let (client, service) = (V4::source(header), V4::destination(header));
    quote(machine, ETHERNET + QUOTE_V4, 28)?;
    frame(machine, 28, TYPE_V4)?;
    write_v4(
        machine,
        (28 + QUOTE_V4) as u16,
        protocol::ICMP,
        service,
        client,
    )?;
    let icmp = machine.window::<{ 8 + QUOTE_V4 }>(V4::L4)?;
    icmp.set_u32::<0>(0x0304_0000_u32.to_be());
    icmp.set_u16::<4>(0);
    icmp.set_u16::<6>(mtu.to_be());
    icmp.set_u16::<2>(checksum::field(icmp.sum()));
    Some(true)
}

/// "Packet too big" (RFC 4443 §3.2).
#[inline(always)]
fn too_big_v6<M: Machine>(machine: M, mtu: u16) -> Option<bool> {
    let header = V6::header(&machine, ETHERNET)?;
    let (client, service) = (V6::source(header), V6::destination(header));
    quote(machine, ETHERNET + QUOTE_V6, 48)?;
    frame(machine, 48, TYPE_V6)?;
    let length = (8 + QUOTE_V6) as u16;
    write_v6(machine, length, protocol::ICMPV6, service, client)?;
    let icmp = machine.window::<{ 8 + QUOTE_V6 }>(V6::L4)?;
    icmp.set_u32::<0>(0x0200_0000_u32.to_be());
    icmp.set_u32::<4>(u32::from(mtu).to_be());
    let pseudo = pseudo_v6(service, client, length, protocol::ICMPV6);
    icmp.set_u16::<2>(checksum::field(icmp.sum() + pseudo));
    Some(true)
}

#[inline(always)]
fn pseudo_v6(source: [u32; 4], destination: [u32; 4], length: u16, protocol: u8) -> u64 {
    V6::sum(source)
        + V6::sum(destination)
        + u64::from(length.to_be())
        + u64::from(u16::from(protocol).to_be())
}

#[inline(always)]
fn write_v4<M: Machine>(machine: M, total: u16, inside: u8, from: u32, to: u32) -> Option<()> {
    let header = V4::header(&machine, ETHERNET)?;
    let time = u16::from_ne_bytes([TTL, inside]);
    let first = u16::from_ne_bytes([0x45, 0]);
    let total = total.to_be();
    header.set_u16::<0>(first);
    header.set_u16::<2>(total);
    header.set_u32::<4>(0);
    header.set_u16::<8>(time);
    header.set_u32::<12>(from);
    header.set_u32::<16>(to);
    let sum = u64::from(first) + u64::from(total) + u64::from(time);
    header.set_u16::<10>(checksum::field(sum + u64::from(from) + u64::from(to)));
    Some(())
}

#[inline(always)]
fn write_v6<M: Machine>(
    machine: M,
    length: u16,
    inside: u8,
    from: [u32; 4],
    to: [u32; 4],
) -> Option<()> {
    let header = V6::header(&machine, ETHERNET)?;
    header.set_u32::<0>(0x6000_0000_u32.to_be());
    header.set_u16::<4>(length.to_be());
    header.set_u16::<6>(u16::from_ne_bytes([inside, TTL]));
    V6::write(header, from, to);
    Some(())
}

/// Answers a TCP segment with RST (RFC 9293 §3.10.7.1), as the service that it was sent to.
#[inline(never)]
pub fn reset<F: Family, M: Machine>(machine: M, backend: u32, vip: u32) -> Action {
    match reset_segment::<F, M>(machine) {
        Some(true) => {
            if let Some(counters) = machine.counters(backend) {
                // SAFETY: this CPU's own counters.
                unsafe { (*counters).resets += 1 };
            }
            machine.count(vip, Verdict::Reset);
            Action::Transmit
        }
        Some(false) => {
            // A RST is not answered; the flow is over on both sides.
            machine.count(vip, Verdict::Reset);
            Action::Drop
        }
        None => {
            machine.count(vip, Verdict::NoRoom);
            Action::Drop
        }
    }
}

#[inline(always)]
fn reset_segment<F: Family, M: Machine>(machine: M) -> Option<bool> {
    let header = F::header(&machine, ETHERNET)?;
    let segment = machine.window::<20>(F::L4)?;
    let flags = segment.u8::<13>();
    if flags & tcp::RST != 0 {
        return Some(false);
    }
    let (client, service) = (F::source(header), F::destination(header));
    let ports = crate::nat::swapped(segment.u32::<0>());
    let (sequence, acknowledged, answer) = if flags & tcp::ACK != 0 {
        (segment.u32::<8>(), 0, tcp::RST)
    } else {
        let offset = usize::from(segment.u8::<12>() >> 4) * 4;
        let payload = F::length(header).saturating_sub(F::HEADER + offset) as u32;
        let controls = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        let next = u32::from_be(segment.u32::<4>()).wrapping_add(payload + controls);
        (0, next.to_be(), tcp::RST | tcp::ACK)
    };
    let length = F::L4 + 20;
    quote(machine, length, 0)?;
    frame(machine, 0, F::TYPE)?;
    if F::HEADER == V4::HEADER {
        let (from, to) = (F::address(service).0[3], F::address(client).0[3]);
        write_v4(machine, 40, protocol::TCP, from, to)?;
    } else {
        let (from, to) = (F::address(service).0, F::address(client).0);
        write_v6(machine, 20, protocol::TCP, from, to)?;
    }
    let segment = machine.window::<20>(F::L4)?;
    segment.set_u32::<0>(ports);
    segment.set_u32::<4>(sequence);
    segment.set_u32::<8>(acknowledged);
    segment.set_u32::<12>(u32::from_ne_bytes([0x50, answer, 0, 0]));
    segment.set_u32::<16>(0);
    let pseudo = F::sum(service)
        + F::sum(client)
        + u64::from(20_u16.to_be())
        + u64::from(u16::from(protocol::TCP).to_be());
    segment.set_u16::<16>(checksum::field(segment.sum() + pseudo));
    Some(true)
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 §4.2).
#[inline(always)]
pub fn echo<F: Family, M: Machine>(machine: M) -> Option<()> {
    let header = F::header(&machine, ETHERNET)?;
    let icmp = machine.window::<8>(F::L4)?;
    let (client, service) = (F::source(header), F::destination(header));
    let reply = if F::HEADER == V4::HEADER { 0 } else { 129 };
    let old = icmp.u16::<0>();
    icmp.set_u8::<0>(reply);
    let mut difference = Difference::new();
    difference.half(old, icmp.u16::<0>());
    icmp.set_u16::<2>(difference.apply(icmp.u16::<2>()));
    F::refresh(header, TTL);
    F::write(header, service, client);
    frame(machine, 0, F::TYPE)
}
