//! The balancer: what becomes of a packet.
//!
//! In order: is its destination one of ours at all (a bit of the filter); is it an answer of a
//! translated real; has its flow a way in the table; else, which service is it for and which real
//! takes it. The way of an established flow is one function without a call; everything else is
//! aside.

use crate::family::{ETHERNET, Family, TYPE_V4, TYPE_V6, V4, V6, protocol};
use crate::flow::{Flow, tcp};
use crate::flows;
use crate::forward::{self, Journey};
use crate::layout::flow::{Meta, class};
use crate::layout::{Backend, Config, LAYOUT, NetKey, Verdict, Vip, flag, mode, state, vip_flag};
use crate::machine::{Action, Machine};
use crate::service::{record, state_of};
use crate::{begin, decap, icmp, nat, reply};

/// Bits of a meta word that are the flow's class and whether it is QUIC.
const KIND: u64 = 0xf << 48;

/// Decides about a packet, rewrites it, and says where it goes.
#[inline(always)]
pub fn balance<M: Machine>(machine: M) -> Action {
    let Some(config) = machine.config() else {
        return Action::Pass;
    };
    if config.flags & flag::ENABLED == 0 || config.layout != LAYOUT {
        return Action::Pass;
    }
    let Some(ethernet) = machine.window::<ETHERNET>(0) else {
        return dropped(machine, 0, Verdict::Malformed);
    };
    match ethernet.u16::<12>() {
        TYPE_V4 => arrive::<V4, M>(machine, config),
        TYPE_V6 => arrive::<V6, M>(machine, config),
        // ARP and the rest are the host's.
        _ => Action::Pass,
    }
}

/// Counts and drops.
#[inline(always)]
pub fn dropped<M: Machine>(machine: M, vip: u32, verdict: Verdict) -> Action {
    machine.count(vip, verdict);
    Action::Drop
}

/// Counts and passes what is not ours.
#[inline(always)]
pub fn passed<M: Machine>(machine: M) -> Action {
    machine.count(0, Verdict::Passed);
    Action::Pass
}

#[inline(always)]
fn arrive<F: Family, M: Machine>(machine: M, config: &Config) -> Action {
    let Some(header) = F::header(&machine, ETHERNET) else {
        return dropped(machine, 0, Verdict::Malformed);
    };
    let bit = F::filter_bit(F::destination(header));
    if machine.filter(bit >> 6) >> (bit & 63) & 1 == 0 {
        return passed(machine);
    }
    if config.flags & (flag::BLOCK_LIST | flag::DECAP) != 0
        && let Some(action) = gate::<F, M>(machine, config)
    {
        return action;
    }
    let length = F::length(header);
    if !F::plain(header) || F::fragment(header) || !machine.holds(ETHERNET + length) {
        return odd::<F, M>(machine, config);
    }
    let mut flow = Flow::<F> {
        tag: 0,
        source: F::source(header),
        destination: F::destination(header),
        ports: 0,
        protocol: F::protocol(header),
        flags: 0,
        class: F::class(header),
        ttl: F::ttl(header),
        now: 0,
        length: length as u16,
    };
    if flow.protocol == protocol::TCP {
        let Some(segment) = machine.window::<20>(F::L4) else {
            return odd::<F, M>(machine, config);
        };
        if length < F::HEADER + 20 || segment.u8::<12>() < 0x50 {
            return odd::<F, M>(machine, config);
        }
        flow.ports = segment.u32::<0>();
        flow.flags = segment.u8::<13>();
    } else if flow.protocol == protocol::UDP {
        let Some(datagram) = machine.window::<8>(F::L4) else {
            return odd::<F, M>(machine, config);
        };
        if length < F::HEADER + 8 {
            return odd::<F, M>(machine, config);
        }
        flow.ports = datagram.u32::<0>();
    } else {
        return aside::<F, M>(machine, config);
    }
    flow.tag = F::hash(
        config.key,
        flow.source,
        flow.destination,
        flow.ports,
        flow.protocol,
    );
    flow.now = (machine.now() >> crate::layout::TICK_SHIFT) as u16;
    if config.flags & flag::NAT != 0 {
        let offset = u16::from_be(flow.split().1).wrapping_sub(config.nat_base);
        if offset < config.nat_count
            && let Some(action) = nat::back::<F, M>(machine, config, &flow)
        {
            return action;
        }
    }
    known::<F, M>(machine, config, &flow)
}

/// The hot path: an established flow that has a way.
#[inline(always)]
fn known<F: Family, M: Machine>(machine: M, config: &Config, flow: &Flow<F>) -> Action {
    if let Some((way, meta)) = flows::find(&machine, config, flow.tag)
        && let Some(backend) = machine.backend(meta.backend())
        && goes_on(flow, meta, backend)
    {
        if meta.seen() != flow.now {
            way.set(meta.with(flow.now, meta.class()));
        }
        let journey = journey(flow, backend, meta.backend());
        if backend.mode == mode::IPIP && F::is(&backend.address) {
            // The common case stays in this function: IPv4 in IPv4, IPv6 in IPv6.
            return forward::tunnel::<F, F, M>(machine, &journey, F::INSIDE);
        }
        return send::<F, M>(machine, config, flow, Decision::to(meta.backend()));
    }
    let decision = begin::settle::<F, M>(machine, config, flow);
    send::<F, M>(machine, config, flow, decision)
}

/// Returns whether nothing has to be thought about: an established flow of a living real.
#[inline(always)]
fn goes_on<F: Family>(flow: &Flow<F>, meta: Meta, backend: &Backend) -> bool {
    let usual = if flow.is_tcp() {
        let plain = flow.flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0;
        plain && meta.0 & KIND == (class::ESTABLISHED as u64) << 48
    } else {
        meta.0 & KIND == ((class::ESTABLISHED | class::UDP) as u64) << 48
    };
    let taken = state_of(backend).wrapping_sub(state::ACTIVE) <= 1;
    usual && taken && backend.generation == meta.generation()
}

/// What becomes of a packet, in one word: functions of the kernel's machine return no more.
///
/// # Shapes
/// Kind in bits 60 and 61, an action or the index of a backend in the lowest 24 bits, that of
/// another backend in the 24 above.
#[derive(Clone, Copy)]
pub struct Decision(u64);

impl Decision {
    const TO: u64 = 1 << 60;
    const CHAIN: u64 = 2 << 60;
    const RESET: u64 = 3 << 60;

    /// Nothing is left to be done.
    #[inline(always)]
    pub const fn done(action: Action) -> Self {
        Self(action as u64)
    }

    /// On to a backend.
    #[inline(always)]
    pub const fn to(backend: u32) -> Self {
        Self(Self::TO | (backend & 0xff_ffff) as u64)
    }

    /// On to a backend, with another one as second choice.
    #[inline(always)]
    pub const fn chain(backend: u32, second: u32) -> Self {
        Self(Self::CHAIN | (backend & 0xff_ffff) as u64 | ((second & 0xff_ffff) as u64) << 24)
    }

    /// To be answered with a reset, in the name of a backend.
    #[inline(always)]
    pub const fn reset(backend: u32) -> Self {
        Self(Self::RESET | (backend & 0xff_ffff) as u64)
    }

    #[inline(always)]
    const fn kind(self) -> u64 {
        self.0 & (3 << 60)
    }

    #[inline(always)]
    const fn backend(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }

    #[inline(always)]
    const fn second(self) -> u32 {
        (self.0 >> 24) as u32 & 0xff_ffff
    }
}

/// Does what was decided.
#[inline(never)]
fn send<F: Family, M: Machine>(
    machine: M,
    config: &Config,
    flow: &Flow<F>,
    decision: Decision,
) -> Action {
    let index = decision.backend();
    if decision.kind() == 0 {
        return if index == Action::Pass as u32 {
            Action::Pass
        } else {
            Action::Drop
        };
    }
    let Some(backend) = machine.backend(index) else {
        return dropped(machine, 0, Verdict::NoReal);
    };
    if decision.kind() == Decision::RESET {
        return reply::reset::<F, M>(machine, index, backend.vip);
    }
    let journey = journey(flow, backend, index);
    if decision.kind() == Decision::CHAIN {
        let Some(second) = machine.backend(decision.second()) else {
            return dropped(machine, backend.vip, Verdict::NoReal);
        };
        return forward::chain::<F, M>(machine, &journey, second);
    }
    if backend.mode == mode::NAT {
        let port = nat::depart::<F, M>(machine, config, &journey, flow);
        if port == 0 {
            return Action::Drop;
        }
        return nat::forth::<F, M>(machine, &journey, flow, port);
    }
    forward::forward::<F, M>(machine, config, &journey)
}

/// Returns the journey of a flow's packet.
#[inline(always)]
pub fn journey<'a, F: Family>(flow: &Flow<F>, backend: &'a Backend, index: u32) -> Journey<'a> {
    Journey {
        backend,
        index,
        tag: flow.tag,
        length: usize::from(flow.length),
        class: flow.class,
    }
}

/// What goes before all else if it is configured: decapsulation and the block list.
#[inline(never)]
fn gate<F: Family, M: Machine>(machine: M, config: &Config) -> Option<Action> {
    if config.flags & flag::DECAP != 0
        && let Some(action) = decap::take::<F, M>(machine, config)
    {
        return Some(action);
    }
    if config.flags & flag::BLOCK_LIST == 0 {
        return None;
    }
    let header = F::header(&machine, ETHERNET)?;
    let key = NetKey {
        prefix: 128,
        address: F::address(F::source(header)),
    };
    if !machine.blocked(&key) {
        return None;
    }
    let mut vip = Vip::default();
    // Only what is for a service: the filter lets others through, too.
    if !record::<F, M>(machine, config, F::destination(header), &mut vip) {
        return None;
    }
    Some(dropped(machine, vip.index, Verdict::Blocked))
}

/// What is no whole, plain packet.
#[inline(never)]
fn odd<F: Family, M: Machine>(machine: M, config: &Config) -> Action {
    let Some(header) = F::header(&machine, ETHERNET) else {
        return dropped(machine, 0, Verdict::Malformed);
    };
    let mut vip = Vip::default();
    if !record::<F, M>(machine, config, F::destination(header), &mut vip) {
        return passed(machine);
    }
    let verdict = if F::fragment(header) {
        Verdict::Fragment
    } else if F::options(header) {
        Verdict::Options
    } else {
        Verdict::Malformed
    };
    dropped(machine, vip.index, verdict)
}

/// Neither TCP nor UDP.
#[inline(always)]
fn aside<F: Family, M: Machine>(machine: M, config: &Config) -> Action {
    let Some(header) = F::header(&machine, ETHERNET) else {
        return dropped(machine, 0, Verdict::Malformed);
    };
    if F::extends(F::protocol(header)) {
        return odd::<F, M>(machine, config);
    }
    if F::protocol(header) == F::ICMP {
        return icmp::arrive::<F, M>(machine, config);
    }
    let mut vip = Vip::default();
    if !record::<F, M>(machine, config, F::destination(header), &mut vip) {
        return passed(machine);
    }
    unserved(machine, &vip)
}

/// To an address of ours, but to nothing that it serves.
#[inline(always)]
pub fn unserved<M: Machine>(machine: M, vip: &Vip) -> Action {
    machine.count(vip.index, Verdict::Unserved);
    if vip.flags & vip_flag::CLOSED == 0 {
        Action::Pass
    } else {
        Action::Drop
    }
}

/// Answers an echo request to an address of ours, if its record wants that.
#[inline(always)]
pub fn pinged<F: Family, M: Machine>(machine: M, vip: &Vip) -> Action {
    if vip.flags & vip_flag::ECHO == 0 {
        return unserved(machine, vip);
    }
    if reply::echo::<F, M>(machine).is_none() {
        return dropped(machine, vip.index, Verdict::Malformed);
    }
    machine.count(vip.index, Verdict::Echo);
    Action::Transmit
}
