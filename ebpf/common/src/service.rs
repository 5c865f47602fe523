//! Which service a packet is for, and which real takes a flow of it.

use crate::family::Family;
use crate::flow::Flow;
use crate::hash;
use crate::layout::{
    Address, Backend, Config, NetKey, Verdict, Vip, VipKey, flag, limits::NO_MEMBER, slot, state,
    vip_flag,
};
use crate::machine::Machine;

/// Hashes that are tried for a new flow until one leads to a real that takes it.
const TURNS: u32 = 4;

/// Returns the state of a backend as it is this moment.
#[inline(always)]
pub fn state_of(backend: &Backend) -> u8 {
    // SAFETY: a byte that user space may store to at any time.
    unsafe { (&raw const backend.state).read_volatile() }
}

#[inline(always)]
fn lookup<M: Machine>(machine: &M, address: Address, port: u16, protocol: u8) -> Option<Vip> {
    let mut key = VipKey {
        address,
        port,
        protocol,
        spare: 0,
    };
    if let Some(vip) = machine.vip(&key) {
        return Some(*vip);
    }
    if port == 0 {
        return None;
    }
    key.port = 0;
    machine.vip(&key).copied()
}

#[inline(always)]
fn with_nets<M: Machine>(
    machine: &M,
    config: &Config,
    address: Address,
    port: u16,
    protocol: u8,
) -> Option<Vip> {
    if let Some(vip) = lookup(machine, address, port, protocol) {
        return Some(vip);
    }
    if config.flags & flag::NETS == 0 {
        return None;
    }
    let key = NetKey {
        prefix: 128,
        address,
    };
    let net = machine.net(&key)?;
    lookup(machine, Address::of_net(net), port, protocol)
}

/// Returns the service of a destination, `port` as on the wire.
#[inline(never)]
pub fn service<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    flow: &Flow<F>,
    into: &mut Vip,
) -> bool {
    let address = F::address(flow.destination);
    let found = with_nets(&machine, config, address, flow.split().1, flow.protocol);
    if let Some(vip) = found {
        *into = vip;
        return true;
    }
    false
}

/// Returns what is said of an address as such; `None`: it is none of ours.
#[inline(never)]
pub fn record<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    destination: F::Addr,
    into: &mut Vip,
) -> bool {
    let address = F::address(destination);
    if let Some(vip) = with_nets(&machine, config, address, 0, crate::layout::ADDRESS) {
        *into = vip;
        return true;
    }
    false
}

/// The index of no backend.
pub const NOBODY: u32 = u32::MAX;

/// Two backends that a flow may be at, in one word.
#[derive(Clone, Copy)]
pub struct Guess(u64);

impl Guess {
    /// Index of the slot's backend, or [`NOBODY`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Index of the backend that had the slot before, if that may have the flow, or [`NOBODY`].
    #[inline(always)]
    pub const fn previous(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Asks the ring for a real that takes new flows; counts if it was not the first choice.
#[inline(never)]
pub fn choose<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    vip: &Vip,
    flow: &Flow<F>,
) -> u32 {
    let mut turn = 0;
    while turn < TURNS {
        let index = member(machine, vip, slot_of(machine, config, vip, flow, turn));
        if let Some(backend) = machine.backend(index)
            && state_of(backend) == state::ACTIVE
        {
            if turn != 0 {
                machine.count(vip.index, Verdict::SecondTry);
            }
            return index;
        }
        turn += 1;
    }
    NOBODY
}

/// Asks the ring for the reals that a flow may be at that we know nothing of.
#[inline(never)]
pub fn guess<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    vip: &Vip,
    flow: &Flow<F>,
) -> Guess {
    let slot = slot_of(machine, config, vip, flow, 0);
    let index = member(machine, vip, slot);
    let previous = slot::previous(slot);
    let changed = previous != slot::member(slot);
    let previous = if changed {
        member(machine, vip, slot::new(previous, NO_MEMBER))
    } else {
        NOBODY
    };
    Guess(u64::from(previous) << 32 | u64::from(index))
}

#[inline(always)]
fn slot_of<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    vip: &Vip,
    flow: &Flow<F>,
    turn: u32,
) -> u32 {
    if vip.ring_size == 0 {
        return slot::VACANT;
    }
    let tag = if vip.flags & vip_flag::SOURCE_AFFINITY == 0 {
        flow.tag
    } else {
        F::source_hash(config.key, flow.source)
    };
    let hash = if turn == 0 {
        (tag >> 20) as u32
    } else {
        hash::again(tag, turn)
    };
    let index = vip.ring + hash::scale(hash, vip.ring_size);
    machine.slot(index).unwrap_or(slot::VACANT)
}

#[inline(always)]
fn member<M: Machine>(machine: M, vip: &Vip, slot: u32) -> u32 {
    let member = slot::member(slot);
    if member == NO_MEMBER {
        return NOBODY;
    }
    let index = vip.members + u32::from(member);
    machine.member(index).unwrap_or(NOBODY)
}
