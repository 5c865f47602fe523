//! A packet whose flow has no way: a flow begins, or one goes on that began elsewhere.

use crate::balance::{Decision, dropped, passed, unserved};
use crate::family::Family;
use crate::flow::{Flow, tcp};
use crate::flows;
use crate::layout::event::{Event, kind};
use crate::layout::flow::{FlowKey, Meta, QUIC, class};
use crate::layout::quic::{self, QuicKey};
use crate::layout::{Backend, Config, Verdict, Vip, backend_flag, flag, mode, state, vip_flag};
use crate::limit;
use crate::machine::Machine;
use crate::service::{NOBODY, choose, guess, record, service, state_of};

/// Decides about a packet that is not plainly one of an established flow.
#[inline(never)]
pub fn settle<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>) -> Decision {
    if let Some((way, meta)) = flows::find(&machine, config, flow.tag) {
        let decision = turn::<F, M>(machine, flow, meta);
        match decision {
            Turn::Leave => way.clear(),
            Turn::Stay(meta) => {
                way.set(meta);
                return Decision::to(meta.backend());
            }
            Turn::Other(index) => return Decision::to(index),
            Turn::Reset => {
                note_reset::<F, M>(machine, config, flow, meta.backend());
                return Decision::reset(meta.backend());
            }
        }
    }
    begin::<F, M>(machine, config, flow)
}

/// What becomes of a flow that has a way.
enum Turn {
    /// It loses it: it is a new flow.
    Leave,
    /// It stays where it is, and this is what is known now.
    Stay(Meta),
    /// This packet goes elsewhere.
    Other(u32),
    /// Its real is dead.
    Reset,
}

/// A flow that has a way, at a turn: it begins, goes on for the first time, ends, is QUIC, or its
/// real is not what it was.
#[inline(always)]
fn turn<F: Family, M: Machine>(machine: M, flow: &Flow<F>, meta: Meta) -> Turn {
    let Some(backend) = machine.backend(meta.backend()) else {
        return Turn::Leave;
    };
    let state = state_of(backend);
    let leaves = match state {
        state::FREE => true,
        state::DEAD => flow.opens() || !flow.is_tcp(),
        state::DRAINING => flow.opens(),
        _ => false,
    };
    if leaves || backend.generation != meta.generation() {
        return Turn::Leave;
    }
    if state == state::DEAD {
        return Turn::Reset;
    }
    if meta.is_quic() {
        let index = by_connection_id::<F, M>(machine, backend.vip);
        if index != NOBODY {
            machine.count(backend.vip, Verdict::QuicId);
            return Turn::Other(index);
        }
    }
    let next = if !flow.is_tcp() {
        class::UDP | class::ESTABLISHED
    } else if flow.flags & (tcp::FIN | tcp::RST) != 0 {
        class::CLOSING
    } else if flow.flags & tcp::SYN != 0 {
        // A SYN of an established flow proves nothing: anybody may send it.
        if meta.class() == class::CLOSING {
            class::NEW
        } else {
            meta.class()
        }
    } else if meta.class() == class::NEW {
        class::ESTABLISHED
    } else {
        meta.class()
    };
    Turn::Stay(meta.with(flow.now, next))
}

/// Decides about a packet whose flow has no way.
#[inline(never)]
fn begin<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>) -> Decision {
    let mut vip = Vip::default();
    if !service::<F, M>(machine, config, flow, &mut vip) {
        if !record::<F, M>(machine, config, flow.destination, &mut vip) {
            return Decision::done(passed(machine));
        }
        return Decision::done(unserved(machine, &vip));
    }
    if flow.is_malformed() {
        return Decision::done(dropped(machine, vip.index, Verdict::Malformed));
    }
    if vip.flags & vip_flag::QUIC != 0 {
        let index = by_connection_id::<F, M>(machine, vip.index);
        if index != NOBODY {
            machine.count(vip.index, Verdict::QuicId);
            return Decision::to(index);
        }
    }
    if flow.is_tcp() && !flow.opens() {
        return go_on::<F, M>(machine, config, flow, &vip);
    }
    let limit = if vip.source_limit == 0 {
        config.source_limit
    } else {
        vip.source_limit
    };
    if !limit::admits::<F, M>(machine, config, flow.source, limit, flow.now) {
        return Decision::done(dropped(machine, vip.index, Verdict::Limited));
    }
    let index = choose(machine, config, &vip, flow);
    let Some(backend) = machine.backend(index) else {
        return Decision::done(dropped(machine, vip.index, Verdict::NoReal));
    };
    if vip.flags & vip_flag::NO_FLOWS == 0 {
        keep::<F, M>(machine, config, flow, &vip, named(index, backend));
        note::<F, M>(machine, config, flow, &vip, index);
    }
    Decision::to(index)
}

/// A TCP flow that began elsewhere, or whose way was lost: the real of its slot has it, or the
/// slot's previous one.
#[inline(never)]
fn go_on<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    flow: &Flow<F>,
    vip: &Vip,
) -> Decision {
    let guess = guess(machine, config, vip, flow);
    let (mut index, previous) = (guess.index(), guess.previous());
    if previous != NOBODY {
        match second::<M>(machine, index, previous) {
            Second::Both => return Decision::chain(index, previous),
            Second::PreviousOnly => index = previous,
            Second::CurrentOnly => {}
        }
    }
    let Some(backend) = machine.backend(index) else {
        return Decision::done(dropped(machine, vip.index, Verdict::NoReal));
    };
    match state_of(backend) {
        state::ACTIVE | state::DRAINING => {}
        state::DEAD => {
            note_reset::<F, M>(machine, config, flow, index);
            return Decision::reset(index);
        }
        _ => return Decision::done(dropped(machine, vip.index, Verdict::NoReal)),
    }
    let ends = flow.flags & (tcp::FIN | tcp::RST) != 0;
    if vip.flags & vip_flag::NO_FLOWS == 0 && !ends {
        keep::<F, M>(machine, config, flow, vip, named(index, backend));
    }
    Decision::to(index)
}

/// Who of a slot's two members may have a flow.
enum Second {
    Both,
    PreviousOnly,
    CurrentOnly,
}

#[inline(always)]
fn second<M: Machine>(machine: M, current: u32, previous: u32) -> Second {
    let (Some(current), Some(previous)) = (machine.backend(current), machine.backend(previous))
    else {
        return Second::CurrentOnly;
    };
    let lives = |backend: &Backend| {
        let state = state_of(backend);
        state == state::ACTIVE || state == state::DRAINING
    };
    if !lives(previous) || previous.vip != current.vip {
        return Second::CurrentOnly;
    }
    if !lives(current) {
        return Second::PreviousOnly;
    }
    let chains = current.flags & previous.flags & backend_flag::CHAINS != 0
        && current.mode == mode::IPIP
        && previous.mode == mode::IPIP
        && current.address.is_v4() == previous.address.is_v4();
    if chains {
        Second::Both
    } else {
        // Nobody at the reals can tell us. Whoever goes on without a way began before we knew it,
        // and most of those did before the slot changed.
        Second::PreviousOnly
    }
}

/// Tells of a flow of a dead real, by sample.
#[inline(always)]
fn note_reset<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>, index: u32) {
    if flow.tag as u32 & config.sample_mask == 0 {
        let vip = machine.backend(index).map_or(0, |backend| backend.vip);
        tell::<F, M>(machine, flow, vip, index, kind::RESET);
    }
}

/// Returns the part of a meta word that names a backend.
#[inline(always)]
fn named(index: u32, backend: &Backend) -> Meta {
    Meta::new(index, backend.generation, 0, class::NEW)
}

/// Gives a flow a way, if there is one.
#[inline(never)]
fn keep<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    flow: &Flow<F>,
    vip: &Vip,
    named: Meta,
) {
    let kind = if flow.is_tcp() {
        class::NEW
    } else {
        class::UDP | class::NEW
    };
    let mut meta = named.with(flow.now, kind);
    if vip.flags & vip_flag::QUIC != 0 {
        meta.0 |= QUIC;
    }
    let place = flows::insert(machine, config, flow.tag, meta, flow.now);
    if place == NOBODY {
        machine.count(vip.index, Verdict::TableFull);
    } else if config.flags & flag::FLOW_KEYS != 0
        && let Some(kept) = machine.flow_key(place)
    {
        // SAFETY: an entry of the table of keys; readers check its tag.
        unsafe { kept.write(key(machine, flow)) };
    }
}

#[inline(always)]
fn key<F: Family, M: Machine>(machine: M, flow: &Flow<F>) -> FlowKey {
    let (client_port, service_port) = flow.split();
    let mut client_mac = [0; 6];
    if let Some(ethernet) = machine.window::<12>(0) {
        client_mac[..4].copy_from_slice(&ethernet.u32::<6>().to_ne_bytes());
        client_mac[4..].copy_from_slice(&ethernet.u16::<10>().to_ne_bytes());
    }
    FlowKey {
        client: F::address(flow.source),
        service: F::address(flow.destination),
        client_port,
        service_port,
        tag: flow.tag as u32,
        client_mac,
        protocol: flow.protocol,
        spare: [0; 17],
    }
}

/// Counts a new flow, and tells of it by sample.
#[inline(always)]
fn note<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    flow: &Flow<F>,
    vip: &Vip,
    backend: u32,
) {
    if let Some(counters) = machine.counters(backend) {
        // SAFETY: this CPU's own counters.
        unsafe { (*counters).flows += 1 };
    }
    if flow.tag as u32 & config.sample_mask == 0 {
        tell::<F, M>(machine, flow, vip.index, backend, kind::NEW);
    }
}

#[inline(never)]
fn tell<F: Family, M: Machine>(machine: M, flow: &Flow<F>, vip: u32, backend: u32, kind: u8) {
    let (client_port, service_port) = flow.split();
    machine.tell(&Event {
        time: machine.now(),
        client: F::address(flow.source),
        service: F::address(flow.destination),
        backend,
        vip,
        client_port,
        service_port,
        protocol: flow.protocol,
        kind,
        verdict: if kind == kind::RESET {
            Verdict::Reset as u8
        } else {
            Verdict::NewFlow as u8
        },
        spare: 0,
    });
}

/// Returns the backend that a QUIC packet's connection id names, if it lives, else [`NOBODY`].
#[inline(never)]
fn by_connection_id<F: Family, M: Machine>(machine: M, vip: u32) -> u32 {
    named_by_id::<F, M>(machine, vip).unwrap_or(NOBODY)
}

#[inline(always)]
fn named_by_id<F: Family, M: Machine>(machine: M, vip: u32) -> Option<u32> {
    // The first byte, and behind it (short header) the id at once.
    let short = machine.window::<{ 1 + quic::LENGTH }>(F::L4 + 8)?;
    let first = short.u8::<0>();
    let id = if first & 0x80 == 0 {
        // The fixed bit is set in all of version 1 and 2 (RFC 9000 §17.3).
        if first & 0x40 == 0 {
            return None;
        }
        [
            short.u8::<1>(),
            short.u8::<2>(),
            short.u8::<3>(),
            short.u8::<4>(),
            short.u8::<5>(),
        ]
    } else {
        // Version, length of the id, id. Initial (0) and 0-RTT (1) carry the client's own.
        let long = machine.window::<{ 6 + quic::LENGTH }>(F::L4 + 8)?;
        if first & 0x30 < 0x20 || usize::from(long.u8::<5>()) < quic::LENGTH {
            return None;
        }
        [
            long.u8::<6>(),
            long.u8::<7>(),
            long.u8::<8>(),
            long.u8::<9>(),
            long.u8::<10>(),
        ]
    };
    let server = quic::server(id)?;
    let index = machine.quic(&QuicKey { vip, server })?;
    let backend = machine.backend(index)?;
    let state = state_of(backend);
    (state == state::ACTIVE || state == state::DRAINING).then_some(index)
}
