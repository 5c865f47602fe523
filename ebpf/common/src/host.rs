//! The kernel's surroundings in memory: what the decision runs in under test.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{HashMap, HashSet};

use crate::layout::event::Event;
use crate::layout::flow::{FlowKey, Line};
use crate::layout::nat::Translation;
use crate::layout::quic::QuicKey;
use crate::layout::{
    Address, Backend, BackendCounters, Config, NetKey, Verdict, Vip, VipKey, limits,
};
use crate::machine::{Action, Machine, NextHop};
use crate::window::Window;

/// Bytes before a packet that headers may be put into: XDP's.
pub const HEADROOM: usize = 256;
/// Bytes that a packet and what grows behind it may have.
const ROOM: usize = 65_536;

/// What user space writes.
#[derive(Clone)]
pub struct Tables {
    /// `CONFIG`.
    pub config: Config,
    /// `FILTER`.
    pub filter: Box<[u64; limits::FILTER_WORDS]>,
    /// `VIPS`.
    pub vips: HashMap<VipKey, Vip>,
    /// `NETS`.
    pub nets: Vec<(NetKey, u32)>,
    /// `BLOCKED`.
    pub blocked: Vec<NetKey>,
    /// `RING`.
    pub ring: Vec<u32>,
    /// `MEMBERS`.
    pub members: Vec<u32>,
    /// `BACKENDS`.
    pub backends: Vec<Backend>,
    /// `QUIC_IDS`.
    pub quic: HashMap<QuicKey, u32>,
    /// `DECAP`.
    pub decap: HashMap<Address, u32>,
    /// `PEERS`.
    pub peers: HashSet<Address>,
    /// TCP connections of the host: client, service, ports.
    pub connections: HashSet<(Address, Address, u32)>,
}

impl Tables {
    /// Returns tables without any service, for a flow table of `config.flow_mask + 1` lines.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            filter: Box::new([0; limits::FILTER_WORDS]),
            vips: HashMap::new(),
            nets: Vec::new(),
            blocked: Vec::new(),
            ring: Vec::new(),
            members: Vec::new(),
            backends: Vec::new(),
            quic: HashMap::new(),
            decap: HashMap::new(),
            peers: HashSet::new(),
            connections: HashSet::new(),
        }
    }

    /// Sets an address' bit of the filter.
    pub fn admit(&mut self, address: Address) {
        let bit = address.filter_bit();
        self.filter[bit as usize / 64] |= 1 << (bit % 64);
    }
}

/// An array that programs write to through shared references.
struct Memory<T>(Box<[UnsafeCell<T>]>);

impl<T: Copy + Default> Memory<T> {
    fn new(length: usize) -> Self {
        Self((0..length).map(|_| UnsafeCell::default()).collect())
    }

    fn get(&self, index: u32) -> Option<*mut T> {
        self.0.get(index as usize).map(UnsafeCell::get)
    }

    fn read(&self) -> Vec<T> {
        // SAFETY: nobody runs a program while this copies: `World` is not `Sync`.
        self.0.iter().map(|cell| unsafe { *cell.get() }).collect()
    }
}

/// A packet with room around it.
struct Buffer {
    bytes: Box<[UnsafeCell<u8>]>,
    start: Cell<usize>,
    end: Cell<usize>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub action: Action,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Where it was redirected to.
    pub egress: Option<u32>,
}

/// A balancer in memory.
pub struct World {
    /// What user space writes; may be changed between packets.
    pub tables: Tables,
    /// The clock, in ns.
    pub now: u64,
    /// The interface packets come in by.
    pub ingress: u32,
    flows: Memory<Line>,
    keys: Memory<FlowKey>,
    nat: Memory<Translation>,
    cells: Memory<u64>,
    counters: Memory<BackendCounters>,
    verdicts: Memory<[u64; limits::VERDICTS as usize]>,
    events: RefCell<Vec<Event>>,
    buffer: Buffer,
    egress: Cell<Option<u32>>,
}

impl World {
    /// Returns a world with these tables, nothing known of any flow.
    pub fn new(tables: Tables) -> Self {
        let lines = tables.config.flow_mask as usize + 1;
        let vips = tables.vips.values().map(|vip| vip.index).max().unwrap_or(0) as usize + 1;
        Self {
            flows: Memory::new(lines),
            keys: Memory::new(lines * limits::WAYS),
            nat: Memory::new(tables.config.nat_mask as usize + 1),
            cells: Memory::new(2 * limits::SOURCE_CELLS as usize),
            counters: Memory::new(tables.backends.len()),
            verdicts: Memory::new(vips),
            events: RefCell::new(Vec::new()),
            buffer: Buffer {
                bytes: (0..HEADROOM + ROOM).map(|_| UnsafeCell::new(0)).collect(),
                start: Cell::new(0),
                end: Cell::new(0),
            },
            egress: Cell::new(None),
            now: 1 << 40,
            ingress: 1,
            tables,
        }
    }

    /// Runs the balancer on a packet.
    pub fn balance(&self, packet: &[u8]) -> Outcome {
        self.run(packet, |host| crate::balance(host))
    }

    /// Runs the decapsulator on a packet.
    pub fn decapsulate(&self, packet: &[u8]) -> Outcome {
        self.run(packet, |host| crate::decapsulate(host))
    }

    fn run(&self, packet: &[u8], program: impl FnOnce(Host<'_>) -> Action) -> Outcome {
        for (cell, byte) in self.buffer.bytes[HEADROOM..].iter().zip(packet) {
            // SAFETY: no program runs.
            unsafe { *cell.get() = *byte };
        }
        self.buffer.start.set(HEADROOM);
        self.buffer.end.set(HEADROOM + packet.len());
        self.egress.set(None);
        let action = program(Host(self));
        let range = self.buffer.start.get()..self.buffer.end.get();
        let packet = self.buffer.bytes[range]
            .iter()
            // SAFETY: the program has ended.
            .map(|cell| unsafe { *cell.get() })
            .collect();
        Outcome {
            action,
            packet,
            egress: self.egress.get(),
        }
    }

    /// Returns the flow table.
    pub fn flows(&self) -> Vec<Line> {
        self.flows.read()
    }

    /// Returns who began each flow.
    pub fn flow_keys(&self) -> Vec<FlowKey> {
        self.keys.read()
    }

    /// Returns the table of translations.
    pub fn translations(&self) -> Vec<Translation> {
        self.nat.read()
    }

    /// Returns the counters of backends.
    pub fn counters(&self) -> Vec<BackendCounters> {
        self.counters.read()
    }

    /// Returns how often a verdict was given on a service.
    pub fn count(&self, vip: u32, verdict: Verdict) -> u64 {
        let rows = self.verdicts.read();
        rows.get(vip as usize)
            .map_or(0, |row| row[verdict as usize])
    }

    /// Returns all verdicts, by service.
    pub fn verdicts(&self) -> Vec<[u64; limits::VERDICTS as usize]> {
        self.verdicts.read()
    }

    /// Takes the events that were told.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }
}

/// See [`World`].
#[derive(Clone, Copy)]
struct Host<'a>(&'a World);

/// Returns whether `net` has `address`.
fn within(net: &NetKey, address: &Address) -> bool {
    let bits = |address: &Address| u128::from_be_bytes(address.octets());
    let shift = 128 - net.prefix.min(128);
    shift == 128 || (bits(&net.address) ^ bits(address)) >> shift == 0
}

impl Machine for Host<'_> {
    fn window<const N: usize>(&self, at: usize) -> Option<Window<N>> {
        let buffer = &self.0.buffer;
        let start = buffer.start.get() + at;
        if start + N > buffer.end.get() {
            return None;
        }
        // SAFETY: within the buffer, which lives as long as the world; a slice of cells may be
        // written to.
        Some(unsafe { Window::new(buffer.bytes.as_ptr().add(start).cast_mut().cast()) })
    }

    fn opaque(&self, value: u64) -> u64 {
        value
    }

    fn holds(&self, length: usize) -> bool {
        length <= self.length()
    }

    fn length(&self) -> usize {
        self.0.buffer.end.get() - self.0.buffer.start.get()
    }

    fn move_front(&self, by: i32) -> bool {
        let buffer = &self.0.buffer;
        let Some(start) = buffer.start.get().checked_add_signed(by as isize) else {
            return false;
        };
        // XDP leaves at least an Ethernet header.
        let fits = start + 14 <= buffer.end.get();
        if fits {
            buffer.start.set(start);
        }
        fits
    }

    fn move_back(&self, by: i32) -> bool {
        let buffer = &self.0.buffer;
        let Some(end) = buffer.end.get().checked_add_signed(by as isize) else {
            return false;
        };
        let fits = end <= buffer.bytes.len() && end >= buffer.start.get() + 14;
        if fits {
            buffer.end.set(end);
        }
        fits
    }

    fn ingress(&self) -> u32 {
        self.0.ingress
    }

    fn now(&self) -> u64 {
        self.0.now
    }

    fn redirect(&self, egress: u32) -> Action {
        self.0.egress.set(Some(egress));
        Action::Redirect
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.0.tables.config)
    }

    fn filter(&self, word: u32) -> u64 {
        self.0.tables.filter[word as usize]
    }

    fn vip(&self, key: &VipKey) -> Option<&Vip> {
        self.0.tables.vips.get(key)
    }

    fn net(&self, key: &NetKey) -> Option<u32> {
        let nets = self.0.tables.nets.iter();
        nets.filter(|(net, _)| within(net, &key.address))
            .max_by_key(|(net, _)| net.prefix)
            .map(|(_, number)| *number)
    }

    fn blocked(&self, key: &NetKey) -> bool {
        let mut nets = self.0.tables.blocked.iter();
        nets.any(|net| within(net, &key.address))
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.0.tables.ring.get(index as usize).copied()
    }

    fn member(&self, index: u32) -> Option<u32> {
        self.0.tables.members.get(index as usize).copied()
    }

    fn backend(&self, index: u32) -> Option<&Backend> {
        self.0.tables.backends.get(index as usize)
    }

    fn quic(&self, key: &QuicKey) -> Option<u32> {
        self.0.tables.quic.get(key).copied()
    }

    fn line(&self, index: u32) -> Option<*mut Line> {
        self.0.flows.get(index)
    }

    fn flow_key(&self, index: u32) -> Option<*mut FlowKey> {
        self.0.keys.get(index)
    }

    fn translation(&self, index: u32) -> Option<*mut Translation> {
        self.0.nat.get(index)
    }

    fn cell(&self, index: u32) -> Option<*mut u64> {
        self.0.cells.get(index)
    }

    fn decap(&self, address: &Address) -> Option<u32> {
        self.0.tables.decap.get(address).copied()
    }

    fn peer(&self, address: &Address) -> bool {
        self.0.tables.peers.contains(address)
    }

    fn claim(&self, tag: *mut u64, old: u64, new: u64) -> bool {
        // SAFETY: a word of the flow table or the translations; one thread runs the world.
        unsafe {
            let was = tag.read() == old;
            if was {
                tag.write(new);
            }
            was
        }
    }

    fn count_backend(&self, backend: u32, bytes: u64) {
        if let Some(counters) = self.0.counters.get(backend) {
            // SAFETY: one thread runs the world.
            unsafe {
                (*counters).packets += 1;
                (*counters).bytes += bytes;
            }
        }
    }

    fn counters(&self, backend: u32) -> Option<*mut BackendCounters> {
        self.0.counters.get(backend)
    }

    fn count(&self, vip: u32, verdict: Verdict) {
        if let Some(row) = self.0.verdicts.get(vip) {
            // SAFETY: one thread runs the world.
            unsafe { (*row)[verdict as usize] += 1 };
        }
    }

    fn tell(&self, event: &Event) {
        self.0.events.borrow_mut().push(*event);
    }

    fn has_connection(&self, client: &Address, service: &Address, ports: u32) -> bool {
        let connections = &self.0.tables.connections;
        connections.contains(&(*client, *service, ports))
    }

    fn route(&self, _source: &Address, _destination: &Address) -> Option<NextHop> {
        None
    }
}
