//! The way to a real: encapsulation, rewriting of MAC addresses, or none.

use crate::checksum;
use crate::family::{ETHERNET, Family, TYPE_V4, TYPE_V6, V4, V6, protocol};
use crate::layout::{Backend, Config, Verdict, backend_flag, mode};
use crate::machine::{Action, Machine};
use crate::reply;

/// Time to live of outer headers.
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// A packet on its way.
#[derive(Clone, Copy)]
pub struct Journey<'a> {
    /// Where to.
    pub backend: &'a Backend,
    /// Its index.
    pub index: u32,
    /// The flow's tag.
    pub tag: u64,
    /// Bytes from the IP header on.
    pub length: usize,
    /// Traffic class of the packet.
    pub class: u8,
}

/// Sends a packet to its real and counts it.
#[inline(never)]
pub fn forward<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    journey: &Journey<'_>,
) -> Action {
    let backend = journey.backend;
    match backend.mode {
        mode::IPIP if backend.address.is_v4() => tunnel::<F, V4, M>(machine, journey, F::INSIDE),
        mode::IPIP => tunnel::<F, V6, M>(machine, journey, F::INSIDE),
        mode::GUE if backend.address.is_v4() => tunnel_udp::<F, V4, M>(machine, config, journey),
        mode::GUE => tunnel_udp::<F, V6, M>(machine, config, journey),
        mode::L2 => rewrite_macs::<F, M>(machine, journey),
        mode::LOCAL => {
            machine.count_backend(journey.index, journey.length as u64);
            Action::Pass
        }
        // Translation needs the tuple: it is done where that is at hand.
        _ => {
            machine.count(backend.vip, Verdict::NoReal);
            Action::Drop
        }
    }
}

/// Encapsulates.
#[inline(always)]
pub fn tunnel<F: Family, O: Family, M: Machine>(
    machine: M,
    journey: &Journey<'_>,
    inside: u8,
) -> Action {
    let backend = journey.backend;
    if journey.length + O::HEADER > usize::from(backend.mtu) {
        return reply::too_big::<F, M>(machine, journey, O::HEADER as u16);
    }
    machine.count_backend(journey.index, journey.length as u64);
    if !machine.move_front(-(O::HEADER as i32)) {
        machine.count(backend.vip, Verdict::NoRoom);
        return Action::Drop;
    }
    let outer = Outer {
        backend,
        tag: journey.tag,
        length: journey.length as u16,
        class: journey.class,
        protocol: inside,
    };
    if !outer.write::<O, M>(machine) {
        return Action::Drop;
    }
    leave(machine, backend)
}

/// Encapsulates twice: for `journey`'s backend outside, for `second` inside.
#[inline(never)]
pub fn chain<F: Family, M: Machine>(machine: M, journey: &Journey<'_>, second: &Backend) -> Action {
    let first = journey.backend;
    // Both of one family: a mixed set is not chained.
    if F::is(&first.address) {
        chain_in::<F, F, M>(machine, journey, second)
    } else if first.address.is_v4() {
        chain_in::<F, V4, M>(machine, journey, second)
    } else {
        chain_in::<F, V6, M>(machine, journey, second)
    }
}

#[inline(always)]
fn chain_in<F: Family, O: Family, M: Machine>(
    machine: M,
    journey: &Journey<'_>,
    second: &Backend,
) -> Action {
    let first = journey.backend;
    if journey.length + 2 * O::HEADER > usize::from(first.mtu) {
        return reply::too_big::<F, M>(machine, journey, 2 * O::HEADER as u16);
    }
    machine.count_backend(journey.index, journey.length as u64);
    machine.count(first.vip, Verdict::Chained);
    let grown = machine.move_front(-(O::HEADER as i32));
    let inner = Outer {
        backend: second,
        tag: journey.tag,
        length: journey.length as u16,
        class: journey.class,
        protocol: F::INSIDE,
    };
    if !grown || !inner.write::<O, M>(machine) {
        return Action::Drop;
    }
    let grown = machine.move_front(-(O::HEADER as i32));
    let outer = Outer {
        backend: first,
        length: (journey.length + O::HEADER) as u16,
        protocol: O::INSIDE,
        ..inner
    };
    if !grown || !outer.write::<O, M>(machine) {
        return Action::Drop;
    }
    leave(machine, first)
}

/// An outer header, and the Ethernet header before it.
#[derive(Clone, Copy)]
struct Outer<'a> {
    backend: &'a Backend,
    tag: u64,
    /// Bytes of what is inside.
    length: u16,
    class: u8,
    protocol: u8,
}

impl Outer<'_> {
    #[inline(always)]
    fn write<O: Family, M: Machine>(&self, machine: M) -> bool {
        if O::HEADER == V4::HEADER {
            self.write_v4(machine)
        } else {
            self.write_v6(machine)
        }
    }

    #[inline(always)]
    fn write_v4<M: Machine>(&self, machine: M) -> bool {
        let Some(packet) = machine.window::<34>(0) else {
            return false;
        };
        let backend = self.backend;
        write_macs(packet, backend);
        packet.set_u16::<12>(TYPE_V4);
        let total = (self.length + 20).to_be();
        let version = u16::from_ne_bytes([0x45, self.class]);
        let time = u16::from_ne_bytes([TTL, self.protocol]);
        let mut source = V4::addr(&backend.source);
        if backend.flags & backend_flag::SPREAD != 0 {
            source = source & 0xffff_0000_u32.to_be() | (self.tag as u32 & 0xffff).to_be();
        }
        let destination = V4::addr(&backend.address);
        let sum = u64::from(version)
            + u64::from(total)
            + u64::from(DONT_FRAGMENT)
            + u64::from(time)
            + u64::from(source)
            + u64::from(destination);
        packet.set_u16::<14>(version);
        packet.set_u16::<16>(total);
        packet.set_u16::<18>(0);
        packet.set_u16::<20>(DONT_FRAGMENT);
        packet.set_u16::<22>(time);
        packet.set_u16::<24>(checksum::field(sum));
        packet.set_u32::<26>(source);
        packet.set_u32::<30>(destination);
        true
    }

    #[inline(always)]
    fn write_v6<M: Machine>(&self, machine: M) -> bool {
        let Some(packet) = machine.window::<54>(0) else {
            return false;
        };
        let backend = self.backend;
        write_macs(packet, backend);
        packet.set_u16::<12>(TYPE_V6);
        // The flow's hash as flow label, for routers that spread by it (RFC 6438).
        let label = (self.tag >> 40) as u32 & 0xf_ffff;
        packet.set_u32::<14>((6 << 28 | u32::from(self.class) << 20 | label).to_be());
        packet.set_u16::<18>(self.length.to_be());
        packet.set_u16::<20>(u16::from_ne_bytes([self.protocol, TTL]));
        let Some(header) = V6::header(&machine, ETHERNET) else {
            return false;
        };
        let mut source = V6::addr(&backend.source);
        if backend.flags & backend_flag::SPREAD != 0 {
            source[3] = source[3] & 0xffff_0000_u32.to_be() | (self.tag as u32 & 0xffff).to_be();
        }
        V6::write(header, source, V6::addr(&backend.address));
        true
    }
}

#[inline(always)]
fn write_macs<const N: usize>(packet: crate::window::Window<N>, backend: &Backend) {
    const { assert!(N >= ETHERNET) };
    // Both addresses lie side by side in the record, in the order of the wire.
    let macs = (&raw const backend.next_hop).cast::<u64>();
    // SAFETY: `next_hop` is at offset 48 of a record aligned to 64; 16 bytes of it follow.
    let (first, last) = unsafe { (macs.read(), macs.add(1).cast::<u32>().read()) };
    packet.set_u64::<0>(first);
    packet.set_u32::<8>(last);
}

/// Writes the MAC addresses of the way to a backend.
#[inline(always)]
pub fn write_next_hop<M: Machine>(machine: M, backend: &Backend) -> bool {
    let Some(packet) = machine.window::<ETHERNET>(0) else {
        return false;
    };
    write_macs(packet, backend);
    true
}

const _: () = assert!(core::mem::offset_of!(Backend, next_hop) == 48);
const _: () = assert!(core::mem::offset_of!(Backend, own) == 54);

/// Sends a finished packet out of the interface towards `backend`.
#[inline(always)]
pub fn leave<M: Machine>(machine: M, backend: &Backend) -> Action {
    if backend.egress == 0 {
        Action::Transmit
    } else {
        machine.redirect(backend.egress)
    }
}

#[inline(always)]
fn tunnel_udp<F: Family, O: Family, M: Machine>(
    machine: M,
    config: &Config,
    journey: &Journey<'_>,
) -> Action {
    let backend = journey.backend;
    let grown = O::HEADER + 8;
    if journey.length + grown > usize::from(backend.mtu) {
        return reply::too_big::<F, M>(machine, journey, grown as u16);
    }
    machine.count_backend(journey.index, journey.length as u64);
    if !machine.move_front(-(grown as i32)) {
        machine.count(backend.vip, Verdict::NoRoom);
        return Action::Drop;
    }
    let length = journey.length as u16 + 8;
    let outer = Outer {
        backend,
        tag: journey.tag,
        length,
        class: journey.class,
        protocol: protocol::UDP,
    };
    if !outer.write::<O, M>(machine) {
        return Action::Drop;
    }
    let Some(udp) = machine.window::<8>(O::L4) else {
        return Action::Drop;
    };
    // A source port for each flow, out of the dynamic ones: networks spread by it.
    udp.set_u16::<0>((0xc000 | (journey.tag >> 32) as u16 & 0x3fff).to_be());
    udp.set_u16::<2>(config.gue_port.to_be());
    udp.set_u16::<4>(length.to_be());
    // None: the inner packet has its own (RFC 768; for IPv6, RFC 6935 and 6936).
    udp.set_u16::<6>(0);
    leave(machine, backend)
}

#[inline(always)]
fn rewrite_macs<F: Family, M: Machine>(machine: M, journey: &Journey<'_>) -> Action {
    let backend = journey.backend;
    if journey.length > usize::from(backend.mtu) {
        return reply::too_big::<F, M>(machine, journey, 0);
    }
    machine.count_backend(journey.index, journey.length as u64);
    if !write_next_hop(machine, backend) {
        return Action::Drop;
    }
    leave(machine, backend)
}
