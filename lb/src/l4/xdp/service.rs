//! One service in the maps: its reals, its members, its ring.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ballast_ebpf_common::layout::limits::NO_MEMBER;
use ballast_ebpf_common::layout::{
    Address, Backend, TCP, UDP, Vip, VipKey, backend_flag, mode, slot, state, vip_flag,
};
use ballast_ebpf_loader::{Maps, Ring, Share};
use ballast_model::Protocol;

use super::L4Error;
use super::room::{Places, Spans};
use super::way::{Way, Ways};
use crate::l4::{Forward, L4Service};
use crate::table::{MemberState, Pool};

/// Members that a service has room for at least: a few more do not make it move.
const MEMBERS_MIN: u32 = 16;

/// Where there is room in the maps.
#[derive(Debug)]
pub(super) struct Room {
    pub rings: Spans,
    pub members: Spans,
    pub backends: Places,
    /// Rows of verdicts.
    pub indices: Places,
}

/// What a real is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Take new flows.
    Active,
    /// Keep what it has.
    Draining,
    /// Nothing: it is dead.
    Out,
}

impl From<MemberState> for Want {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Ready | MemberState::Suspect => Self::Active,
            MemberState::Draining => Self::Draining,
            MemberState::Out | MemberState::Unknown => Self::Out,
        }
    }
}

/// A real as it is in the maps.
#[derive(Debug, Clone)]
pub(super) struct Real {
    /// Its record.
    pub backend: u32,
    /// Its place among the members.
    pub member: u16,
    pub weight: u32,
    /// One of [`state`].
    pub state: u8,
    /// The pool has it no longer.
    pub left: bool,
}

/// A service as it is in the maps.
#[derive(Debug)]
pub(super) struct Service {
    pub spec: L4Service,
    pub index: u32,
    pub reals: BTreeMap<SocketAddr, Real>,
    ring: Ring,
    ring_at: u32,
    members_at: u32,
    /// How many there is room for.
    members_room: u32,
    members: Places,
    /// Where they began before: nobody else's until the entry names the new place.
    former_members: Vec<u32>,
    /// What was last followed.
    pool: Option<Arc<Pool>>,
    /// Whether a real waits for a way to it, or a way is another.
    pub waits: bool,
    /// Whether its entry is there.
    served: bool,
    /// Packets that were forwarded to reals that are gone.
    pub forwarded_before: u64,
}

/// What follows from a change.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Records whose flows are to be reset.
    pub died: Vec<u32>,
    /// Slots that changed.
    pub slots: usize,
}

impl Service {
    /// Makes room for a new one.
    pub(super) fn new(spec: L4Service, slots: u32, room: &mut Room) -> Result<Self, L4Error> {
        let name = Arc::clone(&spec.name);
        let full = |what| L4Error::Full {
            service: name.to_string(),
            what,
        };
        let index = room.indices.take().ok_or_else(|| full("services"))?;
        let ring_at = room
            .rings
            .take(slots)
            .ok_or_else(|| full("slots of rings"))?;
        let members_at = room.members.take(MEMBERS_MIN);
        let members_at = members_at.ok_or_else(|| full("members"))?;
        Ok(Self {
            spec,
            index,
            reals: BTreeMap::new(),
            ring: Ring::new(slots as usize),
            ring_at,
            members_at,
            members_room: MEMBERS_MIN,
            members: Places::new(0, u32::from(NO_MEMBER)),
            former_members: Vec::new(),
            pool: None,
            waits: false,
            served: false,
            forwarded_before: 0,
        })
    }

    /// Takes up one that an earlier life has left in the maps.
    pub(super) fn adopt(spec: L4Service, vip: Vip, maps: &Maps, room: &mut Room) -> Self {
        let slots = vip.ring..vip.ring + vip.ring_size;
        let words: Vec<u32> = slots.map(|at| maps.ring.load(at as usize)).collect();
        let named = words
            .iter()
            .flat_map(|word| [slot::member(*word), slot::previous(*word)]);
        let last = named.filter(|member| *member != NO_MEMBER).max();
        let count = last.map_or(0, |last| u32::from(last) + 1);
        let mut places = Places::new(0, u32::from(NO_MEMBER));
        let mut by_backend: BTreeMap<u32, u16> = BTreeMap::new();
        for member in 0..count {
            let backend = maps.members.load((vip.members + member) as usize);
            by_backend.insert(backend, u16::try_from(member).unwrap_or(NO_MEMBER));
        }
        let mut reals = BTreeMap::new();
        for at in 0..maps.backends.len() {
            let record = maps.backends.load(at);
            if record.state == state::FREE || record.vip != vip.index {
                continue;
            }
            let backend = u32::try_from(at).unwrap_or(u32::MAX);
            room.backends.keep(backend);
            let member = by_backend.get(&backend).copied();
            let port = match record.port {
                0 => spec.port.unwrap_or(0),
                port => u16::from_be(port),
            };
            let address = SocketAddr::new(IpAddr::from(record.address), port);
            if let Some(member) = member {
                places.keep(u32::from(member));
            }
            let real = Real {
                backend,
                member: member.unwrap_or(NO_MEMBER),
                weight: 0,
                state: record.state,
                left: false,
            };
            reals.insert(address, real);
        }
        let members_room = count.next_power_of_two().max(MEMBERS_MIN);
        Self {
            spec,
            index: vip.index,
            reals,
            ring: Ring::of(words),
            ring_at: vip.ring,
            members_at: vip.members,
            members_room,
            members: places,
            former_members: Vec::new(),
            pool: None,
            waits: false,
            served: true,
            forwarded_before: 0,
        }
    }

    /// Returns its key.
    pub(super) fn key(&self, address: Address) -> VipKey {
        let protocol = match self.spec.protocol {
            Protocol::Udp => UDP,
            _ => TCP,
        };
        VipKey::new(address, self.spec.port.unwrap_or(0), protocol)
    }

    /// Whether another pool than the last is to be followed, or something waits.
    pub(super) fn is_behind(&self, pool: Option<&Arc<Pool>>) -> bool {
        let same = match (&self.pool, pool) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => self.served,
            _ => false,
        };
        !same || self.waits
    }

    /// Takes the state of health alone: one byte for each real that is out or drains. Nothing
    /// else is written before this is done for every service.
    pub(super) fn take_out(
        &mut self,
        pool: Option<&Arc<Pool>>,
        maps: &Maps,
        outcome: &mut Outcome,
    ) {
        let wants = wants(&self.spec, pool);
        for (address, real) in &mut self.reals {
            let want = wants.get(address);
            real.left = want.is_none();
            let now = match (want, real.state) {
                (Some((Want::Out, _)), state::ACTIVE | state::DRAINING) => state::DEAD,
                (Some((Want::Draining, _)) | None, state::ACTIVE) => state::DRAINING,
                _ => continue,
            };
            maps.backends.set_state(real.backend as usize, now);
            real.state = now;
            if now == state::DEAD {
                outcome.died.push(real.backend);
            }
        }
    }

    /// Brings the maps to what the pool says.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses.
    pub(super) fn follow(
        &mut self,
        pool: Option<&Arc<Pool>>,
        (maps, room, ways): (&mut Maps, &mut Room, &Ways),
        ingress: u32,
        outcome: &mut Outcome,
    ) -> Result<(), L4Error> {
        self.waits = false;
        for (address, (want, weight)) in wants(&self.spec, pool) {
            self.take_in(address, want, weight, (maps, room, ways), ingress)?;
        }
        self.turn_ring(maps, outcome);
        self.pool = pool.map(Arc::clone);
        Ok(())
    }

    /// Makes one real what it is to be, its place in the ring aside.
    fn take_in(
        &mut self,
        address: SocketAddr,
        want: Want,
        weight: u32,
        (maps, room, ways): (&mut Maps, &mut Room, &Ways),
        ingress: u32,
    ) -> Result<(), L4Error> {
        let known = self.reals.get(&address).cloned();
        if want == Want::Out || (want == Want::Draining && known.is_none()) {
            return Ok(());
        }
        let Some(way) = ways.to(address.ip()) else {
            self.waits = true;
            return Ok(());
        };
        let Some(record) = record(&self.spec, address, way, ingress) else {
            self.waits = true;
            return Ok(());
        };
        let Some(mut real) = known else {
            let backend = room.backends.take();
            let backend = backend.ok_or_else(|| self.full("backends"))?;
            let member = self.new_member(backend, maps, room)?;
            let generation = maps
                .backends
                .load(backend as usize)
                .generation
                .wrapping_add(1);
            maps.clear_backend_counters(backend)?;
            let record = self.complete(record, generation, state::ACTIVE);
            maps.backends.publish(backend as usize, record);
            let real = Real {
                backend,
                member,
                weight,
                state: state::ACTIVE,
                left: false,
            };
            self.reals.insert(address, real);
            return Ok(());
        };
        if real.member == NO_MEMBER && want == Want::Active {
            real.member = self.new_member(real.backend, maps, room)?;
        }
        let at = real.backend as usize;
        let there = maps.backends.load(at);
        if real.state == state::DEAD && want == Want::Active {
            // Flows of its former life must not come back to it.
            let generation = there.generation.wrapping_add(1);
            maps.backends
                .publish(at, self.complete(record, generation, state::ACTIVE));
            real.state = state::ACTIVE;
        } else {
            let now = match want {
                Want::Active => state::ACTIVE,
                _ => real.state,
            };
            let record = self.complete(record, there.generation, now);
            if record != there {
                // In place: a record that were free for a moment would lose its flows.
                maps.backends.store(at, record);
            }
            real.state = now;
        }
        real.weight = weight;
        real.left = false;
        self.reals.insert(address, real);
        Ok(())
    }

    fn complete(&self, record: Backend, generation: u8, state: u8) -> Backend {
        Backend {
            vip: self.index,
            generation,
            state,
            ..record
        }
    }

    /// Gives a backend a place among the members; moves all of them if there is no room.
    fn new_member(&mut self, backend: u32, maps: &Maps, room: &mut Room) -> Result<u16, L4Error> {
        let place = self.members.take();
        let place = place.ok_or_else(|| self.full("members"))?;
        if place >= self.members_room {
            let larger = self.members_room * 2;
            let at = room
                .members
                .take(larger)
                .ok_or_else(|| self.full("members"))?;
            for member in 0..self.members_room {
                let of = maps.members.load((self.members_at + member) as usize);
                maps.members.set((at + member) as usize, of);
            }
            self.former_members.push(self.members_at);
            self.members_at = at;
            self.members_room = larger;
            self.served = false;
        }
        maps.members
            .set((self.members_at + place) as usize, backend);
        Ok(u16::try_from(place).unwrap_or(NO_MEMBER))
    }

    /// Gives the slots to those who are to have them.
    fn turn_ring(&mut self, maps: &Maps, outcome: &mut Outcome) {
        let open = self.reals.values().filter(|real| {
            real.state == state::ACTIVE && real.weight > 0 && real.member != NO_MEMBER
        });
        let shares: Vec<Share> = open
            .map(|real| Share {
                member: real.member,
                weight: real.weight,
            })
            .collect();
        let alive: std::collections::HashSet<u16> = self
            .reals
            .values()
            .filter(|real| real.state != state::DEAD)
            .map(|real| real.member)
            .collect();
        let changes = self.ring.update(&shares, |member| !alive.contains(&member));
        for change in &changes {
            maps.ring
                .set(self.ring_at as usize + change.slot, change.word);
        }
        outcome.slots += changes.len();
    }

    /// Writes its entry, if it is not there or another.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn serve(
        &mut self,
        address: Address,
        maps: &mut Maps,
        room: &mut Room,
    ) -> Result<(), L4Error> {
        if !self.served {
            maps.set_vip(self.key(address), self.vip())?;
            self.served = true;
        }
        for block in self.former_members.drain(..) {
            room.members.give_back(block);
        }
        Ok(())
    }

    /// Says that its entry is to be written again.
    pub(super) fn refresh(&mut self) {
        self.served = false;
    }

    /// Returns its entry.
    fn vip(&self) -> Vip {
        let mut flags = 0;
        if self.spec.quic {
            flags |= vip_flag::QUIC;
        }
        if self.spec.by_source {
            flags |= vip_flag::SOURCE_AFFINITY;
        }
        Vip {
            flags,
            index: self.index,
            ring: self.ring_at,
            ring_size: u32::try_from(self.ring.words().len()).unwrap_or(0),
            members: self.members_at,
            source_limit: 0,
        }
    }

    /// Returns how many slots a real has.
    pub(super) fn slots_of(&self, member: u16) -> usize {
        let words = self.ring.words().iter();
        words.filter(|word| slot::member(**word) == member).count()
    }

    /// Frees the records of reals that left and have no flows any more.
    pub(super) fn forget(&mut self, flows: &BTreeMap<u32, u64>, maps: &Maps, room: &mut Room) {
        let gone: Vec<SocketAddr> = self
            .reals
            .iter()
            .filter(|(_, real)| real.left && !flows.contains_key(&real.backend))
            .map(|(address, _)| *address)
            .collect();
        if gone.is_empty() {
            return;
        }
        let mut places = Vec::new();
        for address in gone {
            if let Some(real) = self.reals.remove(&address) {
                let counted = maps.backend_counters(real.backend).unwrap_or_default();
                self.forwarded_before += counted.packets;
                maps.backends.set_state(real.backend as usize, state::FREE);
                room.backends.give_back(real.backend);
                places.push(real.member);
                tracing::info!(service = %self.spec.name, real = %address, "real gone");
            }
        }
        // No slot may name them, not even as previous, before their places are another's.
        self.turn_ring(maps, &mut Outcome::default());
        for place in places.into_iter().filter(|place| *place != NO_MEMBER) {
            self.members.give_back(u32::from(place));
        }
    }

    /// Gives back all it has, once its entry is gone.
    pub(super) fn release(self, maps: &mut Maps, room: &mut Room) -> Result<(), L4Error> {
        for real in self.reals.into_values() {
            maps.backends.set_state(real.backend as usize, state::FREE);
            room.backends.give_back(real.backend);
        }
        for at in 0..self.ring.words().len() {
            maps.ring.set(self.ring_at as usize + at, slot::VACANT);
        }
        room.rings.give_back(self.ring_at);
        room.members.give_back(self.members_at);
        maps.clear_verdicts(self.index)?;
        room.indices.give_back(self.index);
        Ok(())
    }

    /// Keeps its spans from others, after it was adopted.
    pub(super) fn keep(&self, room: &mut Room) {
        let slots = u32::try_from(self.ring.words().len()).unwrap_or(0);
        room.rings.keep(self.ring_at, slots);
        room.members.keep(self.members_at, self.members_room);
        room.indices.keep(self.index);
    }

    fn full(&self, what: &'static str) -> L4Error {
        L4Error::Full {
            service: self.spec.name.to_string(),
            what,
        }
    }
}

/// Returns what each real of a pool is to do, and its weight.
fn wants(spec: &L4Service, pool: Option<&Arc<Pool>>) -> BTreeMap<SocketAddr, (Want, u32)> {
    let members = pool.into_iter().flat_map(|pool| &pool.members);
    let mut wants = BTreeMap::new();
    for member in members {
        let mut address = member.backend.address;
        if spec.forward != Forward::Nat {
            // Ports stay as clients wrote them.
            address.set_port(spec.port.unwrap_or(0));
        }
        let weight = u32::from(member.backend.weight().0);
        wants.insert(address, (Want::from(member.state), weight));
    }
    wants
}

/// Returns a real's record, but for what its service adds; none if its way does not do.
fn record(spec: &L4Service, real: SocketAddr, way: Way, ingress: u32) -> Option<Backend> {
    let address = Address::from(real.ip());
    let hop = match way {
        Way::Here => {
            return Some(Backend {
                mode: mode::LOCAL,
                mtu: u16::MAX,
                address,
                ..Backend::default()
            });
        }
        Way::Hop(hop) => hop,
    };
    let mode = match spec.forward {
        Forward::Ipip => mode::IPIP,
        Forward::Gue => mode::GUE,
        Forward::Nat => mode::NAT,
        Forward::L2 if hop.direct => mode::L2,
        Forward::L2 => {
            tracing::warn!(service = %spec.name, real = %real.ip(), "`mode: l2` needs reals on the same segment");
            return None;
        }
    };
    let source = spec.source.or(hop.source);
    let source = source.filter(|source| source.is_ipv4() == real.is_ipv4());
    if source.is_none() && spec.forward != Forward::L2 {
        tracing::warn!(service = %spec.name, real = %real.ip(), "no source address towards a real");
        return None;
    }
    let translates = spec.forward == Forward::Nat && Some(real.port()) != spec.port;
    Some(Backend {
        mode,
        flags: if spec.second_chance {
            backend_flag::CHAINS
        } else {
            0
        },
        port: if translates { real.port().to_be() } else { 0 },
        mtu: hop.mtu,
        egress: if hop.egress == ingress { 0 } else { hop.egress },
        address,
        source: source.map_or(Address::NONE, Address::from),
        next_hop: hop.next_hop,
        own: hop.own,
        ..Backend::default()
    })
}
