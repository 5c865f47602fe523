//! ICMP to an address of ours: echo requests, and errors about what a real sent.
//!
//! An error quotes the packet that it is about, sent from the service to a client: the flow is the
//! quoted tuple turned round, and the error goes to that flow's real.

use crate::balance::{dropped, passed, pinged, unserved};
use crate::family::{ETHERNET, Family, V4, protocol};
use crate::flow::Flow;
use crate::flows;
use crate::forward::{Journey, forward};
use crate::layout::{Config, TICK_SHIFT, Verdict, Vip, flag, mode, state};
use crate::machine::{Action, Machine};
use crate::nat::{self, swapped};
use crate::service::{NOBODY, guess, record, service, state_of};

/// Decides about an ICMP packet.
#[inline(always)]
pub fn arrive<F: Family, M: Machine>(machine: M, config: &Config) -> Action {
    // In steps that each return a word, for the stack of the kernel's machine holds 512 bytes: each
    // reads the packet again.
    let tag = error_tag::<F, M>(machine, config);
    if tag == 0 {
        return ask::<F, M>(machine, config);
    }
    if config.flags & flag::NAT != 0
        && let Some(action) = nat::error_back::<F, M>(machine, config, tag)
    {
        return action;
    }
    let found = judge::<F, M>(machine, config);
    deliver::<F, M>(machine, config, found)
}

/// Returns the tag of the flow that an error is about; 0: it is none.
#[inline(never)]
fn error_tag<F: Family, M: Machine>(machine: M, config: &Config) -> u64 {
    let Some(icmp) = machine.window::<8>(F::L4) else {
        return 0;
    };
    if !is_error::<F>(icmp.u8::<0>()) {
        return 0;
    }
    quoted::<F, M>(machine, config).map_or(0, |flow| flow.tag)
}

/// What is no error about a flow: echo requests, and whatever else there is.
#[inline(never)]
fn ask<F: Family, M: Machine>(machine: M, config: &Config) -> Action {
    let Some(header) = F::header(&machine, ETHERNET) else {
        return dropped(machine, 0, Verdict::Malformed);
    };
    let mut vip = Vip::default();
    if !record::<F, M>(machine, config, F::destination(header), &mut vip) {
        return passed(machine);
    }
    let Some(icmp) = machine.window::<8>(F::L4) else {
        return dropped(machine, vip.index, Verdict::Malformed);
    };
    let kind = icmp.u8::<0>();
    if is_echo_request::<F>(kind) {
        return pinged::<F, M>(machine, &vip);
    }
    if is_error::<F>(kind) {
        // About what no real of ours can have sent.
        return dropped(machine, vip.index, Verdict::Malformed);
    }
    unserved(machine, &vip)
}

#[inline(always)]
fn is_error<F: Family>(kind: u8) -> bool {
    if F::HEADER == V4::HEADER {
        // Unreachable (with "fragmentation needed"), time exceeded, parameter problem (RFC 792).
        kind == 3 || kind == 11 || kind == 12
    } else {
        // Unreachable, too big, time exceeded, parameter problem (RFC 4443).
        (1..=4).contains(&kind)
    }
}

#[inline(always)]
fn is_echo_request<F: Family>(kind: u8) -> bool {
    kind == if F::HEADER == V4::HEADER { 8 } else { 128 }
}

/// Returns the flow that a quoted packet is an answer in; `length` and the rest are the error's.
#[inline(always)]
fn quoted<F: Family, M: Machine>(machine: M, config: &Config) -> Option<Flow<F>> {
    let outer = F::header(&machine, ETHERNET)?;
    let inner = F::header(&machine, F::L4 + 8)?;
    let first = machine.window::<8>(F::L4 + 8 + F::HEADER)?;
    let protocol = F::protocol(inner);
    if !F::plain(inner) || protocol != protocol::TCP && protocol != protocol::UDP {
        return None;
    }
    // Who sent what is quoted is who gets the error.
    if F::source(inner) != F::destination(outer) {
        return None;
    }
    let ports = swapped(first.u32::<0>());
    let (source, destination) = (F::destination(inner), F::source(inner));
    Some(Flow {
        tag: F::hash(config.key, source, destination, ports, protocol),
        source,
        destination,
        ports,
        protocol,
        flags: 0,
        class: F::class(outer),
        ttl: F::ttl(outer),
        now: (machine.now() >> TICK_SHIFT) as u16,
        length: F::length(outer) as u16,
    })
}

/// The backend that an error goes to, in one word.
///
/// # Shapes
/// Its index in the low half, or [`NOBODY`]; the ports that the real knows the flow by in the high
/// half, if it is translated.
#[derive(Clone, Copy)]
struct Found(u64);

/// Returns the backend that has the flow that an error is about, or would have it.
#[inline(never)]
fn judge<F: Family, M: Machine>(machine: M, config: &Config) -> Found {
    let nobody = Found(u64::from(NOBODY));
    let Some(flow) = quoted::<F, M>(machine, config) else {
        return nobody;
    };
    let index = real_of::<F, M>(machine, config, &flow);
    let Some(backend) = machine.backend(index) else {
        return nobody;
    };
    let mut ports = 0;
    if backend.mode == mode::NAT && F::is(&backend.address) {
        ports = nat::known_by_real::<F, M>(machine, config, backend, &flow);
        if ports == 0 {
            return nobody;
        }
    }
    Found(u64::from(ports) << 32 | u64::from(index))
}

#[inline(never)]
fn deliver<F: Family, M: Machine>(machine: M, config: &Config, found: Found) -> Action {
    let index = found.0 as u32;
    let Some(backend) = machine.backend(index) else {
        return ask::<F, M>(machine, config);
    };
    let Some(header) = F::header(&machine, ETHERNET) else {
        return Action::Drop;
    };
    let state = state_of(backend);
    if state != state::ACTIVE && state != state::DRAINING {
        return dropped(machine, backend.vip, Verdict::NoReal);
    }
    machine.count(backend.vip, Verdict::IcmpRouted);
    if backend.mode == mode::NAT {
        let ports = (found.0 >> 32) as u32;
        return nat::error_forth::<F, M>(machine, backend, index, ports);
    }
    let journey = Journey {
        backend,
        index,
        // Errors of one flow need not spread as its packets do.
        tag: found.0,
        length: F::length(header),
        class: F::class(header),
    };
    forward::<F, M>(machine, config, &journey)
}

/// Returns the backend that has a flow, or would have it, or [`NOBODY`].
#[inline(never)]
fn real_of<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>) -> u32 {
    if let Some((_, meta)) = flows::find(&machine, config, flow.tag)
        && let Some(backend) = machine.backend(meta.backend())
        && backend.generation == meta.generation()
    {
        return meta.backend();
    }
    let mut vip = Vip::default();
    if !service::<F, M>(machine, config, flow, &mut vip) {
        return NOBODY;
    }
    guess(machine, config, &vip, flow).index()
}
