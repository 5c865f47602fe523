//! The node of a real: the outer headers come off.

use crate::balance::dropped;
use crate::family::{ETHERNET, Family, TYPE_V4, TYPE_V6, V4, V6, protocol};
use crate::layout::{Config, LAYOUT, Verdict, decap_flag, flag};
use crate::machine::{Action, Machine};

/// Decides about a packet on a node that only decapsulates.
#[inline(always)]
pub fn decapsulate<M: Machine>(machine: M) -> Action {
    let Some(config) = machine.config() else {
        return Action::Pass;
    };
    if config.flags & flag::ENABLED == 0 || config.layout != LAYOUT {
        return Action::Pass;
    }
    let Some(ethernet) = machine.window::<ETHERNET>(0) else {
        return Action::Pass;
    };
    let action = match ethernet.u16::<12>() {
        TYPE_V4 => take::<V4, M>(machine, config),
        TYPE_V6 => take::<V6, M>(machine, config),
        _ => None,
    };
    action.unwrap_or(Action::Pass)
}

/// Takes the outer headers off a packet that is encapsulated to us; `None`: it is not.
#[inline(always)]
pub fn take<O: Family, M: Machine>(machine: M, config: &Config) -> Option<Action> {
    let header = O::header(&machine, ETHERNET)?;
    let inside = O::protocol(header);
    let tunnel = inside == protocol::IPIP || inside == protocol::IPV6;
    if !tunnel && inside != protocol::UDP {
        return None;
    }
    if !tunnel {
        let datagram = machine.window::<8>(O::L4)?;
        if datagram.u16::<2>() != config.gue_port.to_be() {
            return None;
        }
    }
    let flags = machine.decap(&O::address(O::destination(header)))?;
    let wanted = if tunnel {
        decap_flag::IPIP
    } else {
        decap_flag::GUE
    };
    if flags & wanted == 0 {
        return None;
    }
    let refused = !O::plain(header)
        || O::fragment(header)
        || config.flags & flag::CHECK_PEERS != 0 && !machine.peer(&O::address(O::source(header)));
    if refused {
        return Some(dropped(machine, 0, Verdict::DecapRefused));
    }
    let outer = O::HEADER + if tunnel { 0 } else { 8 };
    Some(strip::<O, M>(machine, flags, outer, O::class(header)))
}

#[inline(always)]
fn strip<O: Family, M: Machine>(machine: M, flags: u32, outer: usize, class: u8) -> Action {
    let at = ETHERNET + outer;
    let Some(first) = machine.window::<20>(at) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    match first.u8::<0>() >> 4 {
        4 => inner::<O, V4, M>(machine, flags, outer, class),
        6 => inner::<O, V6, M>(machine, flags, outer, class),
        _ => dropped(machine, 0, Verdict::DecapRefused),
    }
}

#[inline(never)]
fn inner<O: Family, I: Family, M: Machine>(
    machine: M,
    flags: u32,
    outer: usize,
    class: u8,
) -> Action {
    // The verifier wants a number that it can see.
    let outer = if outer == O::HEADER {
        O::HEADER
    } else {
        O::HEADER + 8
    };
    let at = ETHERNET + outer;
    let Some(header) = I::header(&machine, at) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    if !I::version(header) || !machine.holds(at + I::length(header)) {
        return dropped(machine, 0, Verdict::DecapRefused);
    }
    let nested = matches!(I::protocol(header), protocol::IPIP | protocol::IPV6);
    if nested {
        return second::<I, M>(machine, flags, outer);
    }
    // Congestion that the way to us met goes on inside (RFC 6040 §4.2): a packet that cannot say
    // it is dropped.
    if class & 3 == 3 {
        match I::class(header) & 3 {
            0 => return dropped(machine, 0, Verdict::DecapRefused),
            3 => {}
            _ => I::congested(header),
        }
    }
    if !take_off::<I, M>(machine, outer) {
        return dropped(machine, 0, Verdict::NoRoom);
    }
    machine.count(0, Verdict::Decapsulated);
    Action::Pass
}

/// Takes `outer` bytes off behind the Ethernet header, which then says family `I`.
#[inline(always)]
fn take_off<I: Family, M: Machine>(machine: M, outer: usize) -> bool {
    let Some(old) = machine.window::<12>(0) else {
        return false;
    };
    let (first, last) = (old.u64::<0>(), old.u32::<8>());
    if !machine.move_front(outer as i32) {
        return false;
    }
    let Some(new) = machine.window::<ETHERNET>(0) else {
        return false;
    };
    new.set_u64::<0>(first);
    new.set_u32::<8>(last);
    new.set_u16::<12>(I::TYPE);
    true
}

/// A packet that two reals may have: inside is another tunnel, to the slot's previous real.
#[inline(always)]
fn second<I: Family, M: Machine>(machine: M, flags: u32, outer: usize) -> Action {
    let at = ETHERNET + outer + I::HEADER;
    let Some(first) = machine.window::<20>(at) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    match first.u8::<0>() >> 4 {
        4 => choose::<I, V4, M>(machine, flags, outer),
        6 => choose::<I, V6, M>(machine, flags, outer),
        _ => dropped(machine, 0, Verdict::DecapRefused),
    }
}

#[inline(always)]
fn choose<I: Family, P: Family, M: Machine>(machine: M, flags: u32, outer: usize) -> Action {
    let at = ETHERNET + outer + I::HEADER;
    let Some(packet) = P::header(&machine, at) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    let Some(segment) = machine.window::<20>(at + P::HEADER) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    if !P::plain(packet) || !machine.holds(at + P::length(packet)) {
        return dropped(machine, 0, Verdict::DecapRefused);
    }
    let client = P::address(P::source(packet));
    let service = P::address(P::destination(packet));
    let ours = flags & decap_flag::CHAIN == 0
        || P::protocol(packet) != protocol::TCP
        || machine.has_connection(&client, &service, segment.u32::<0>());
    if ours {
        if !take_off::<P, M>(machine, outer + I::HEADER) {
            return dropped(machine, 0, Verdict::NoRoom);
        }
        machine.count(0, Verdict::Decapsulated);
        return Action::Pass;
    }
    pass_on::<I, M>(machine, outer)
}

/// Takes the first tunnel off and sends the second on to its end.
#[inline(always)]
fn pass_on<I: Family, M: Machine>(machine: M, outer: usize) -> Action {
    let Some(header) = I::header(&machine, ETHERNET + outer) else {
        return dropped(machine, 0, Verdict::DecapRefused);
    };
    let source = I::address(I::source(header));
    let destination = I::address(I::destination(header));
    let hop = machine.route(&source, &destination);
    if !take_off::<I, M>(machine, outer) {
        return dropped(machine, 0, Verdict::NoRoom);
    }
    machine.count(0, Verdict::DecapChained);
    let Some(hop) = hop else {
        // The host's own routing finds the neighbour, if it may forward.
        return Action::Pass;
    };
    let Some(ethernet) = machine.window::<12>(0) else {
        return Action::Drop;
    };
    let word = |at: usize| {
        u32::from_ne_bytes([
            hop.macs[at],
            hop.macs[at + 1],
            hop.macs[at + 2],
            hop.macs[at + 3],
        ])
    };
    ethernet.set_u32::<0>(word(0));
    ethernet.set_u32::<4>(word(4));
    ethernet.set_u32::<8>(word(8));
    if hop.egress == machine.ingress() {
        Action::Transmit
    } else {
        machine.redirect(hop.egress)
    }
}
