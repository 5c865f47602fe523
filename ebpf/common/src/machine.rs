//! What the decision needs of its surroundings: the kernel's, or tables in memory under test.

use crate::layout::{
    Address, Backend, BackendCounters, Config, NetKey, Verdict, Vip, VipKey, event::Event,
    flow::FlowKey, flow::Line, nat::Translation, quic::QuicKey,
};
use crate::window::Window;

/// What becomes of the packet; the codes of XDP.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Thrown away.
    Drop = 1,
    /// On to the host's stack.
    Pass = 2,
    /// Back out of the interface it came in by.
    Transmit = 3,
    /// Out of another one.
    Redirect = 4,
}

/// The next hop towards an address, as the host's routes have it.
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    /// The interface.
    pub egress: u32,
    /// Destination and source MAC address.
    pub macs: [u8; 12],
}

/// A packet and the maps.
///
/// Copied freely: it is a pointer in the kernel. Records come as pointers that live as long as the
/// maps; others write to them meanwhile.
pub trait Machine: Copy {
    /// Returns `N` bytes at `at` if the packet has them.
    fn window<const N: usize>(&self, at: usize) -> Option<Window<N>>;
    /// Returns `value`, of which the compiler then knows nothing: so that arithmetic stays arithmetic.
    ///
    /// The kernel's machine cannot turn a comparison into a number but by a branch, and each branch
    /// on what lies in a table is one more world that its verifier walks through.
    fn opaque(&self, value: u64) -> u64;
    /// Returns whether the packet has at least so many bytes.
    fn holds(&self, length: usize) -> bool;
    /// Returns the packet's length in bytes.
    fn length(&self) -> usize;
    /// Moves the packet's beginning; less than 0: grows.
    fn move_front(&self, by: i32) -> bool;
    /// Moves the packet's end; less than 0: shrinks.
    fn move_back(&self, by: i32) -> bool;
    /// Returns the interface that the packet came in by.
    fn ingress(&self) -> u32;
    /// Returns the monotonic clock in ns, coarse.
    fn now(&self) -> u64;
    /// Sends the packet out of another interface.
    fn redirect(&self, egress: u32) -> Action;

    /// The one entry of `CONFIG`.
    fn config(&self) -> Option<&Config>;
    /// A word of `FILTER`.
    fn filter(&self, word: u32) -> u64;
    /// `VIPS`.
    fn vip(&self, key: &VipKey) -> Option<&Vip>;
    /// `NETS`: the number of the longest net around an address.
    fn net(&self, key: &NetKey) -> Option<u32>;
    /// Whether `BLOCKED` has a net around an address.
    fn blocked(&self, key: &NetKey) -> bool;
    /// `RING`.
    fn slot(&self, index: u32) -> Option<u32>;
    /// `MEMBERS`.
    fn member(&self, index: u32) -> Option<u32>;
    /// `BACKENDS`.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// `QUIC_IDS`.
    fn quic(&self, key: &QuicKey) -> Option<u32>;
    /// `FLOWS`.
    fn line(&self, index: u32) -> Option<*mut Line>;
    /// `FLOW_KEYS`.
    fn flow_key(&self, index: u32) -> Option<*mut FlowKey>;
    /// `NAT`.
    fn translation(&self, index: u32) -> Option<*mut Translation>;
    /// `SOURCES`.
    fn cell(&self, index: u32) -> Option<*mut u64>;
    /// `DECAP`.
    fn decap(&self, address: &Address) -> Option<u32>;
    /// Whether `PEERS` has an address.
    fn peer(&self, address: &Address) -> bool;
    /// Swaps a tag if it is still `old`; whether it was.
    fn claim(&self, tag: *mut u64, old: u64, new: u64) -> bool;

    /// Counts a packet of a backend.
    fn count_backend(&self, backend: u32, bytes: u64);
    /// Returns a backend's counters of this CPU.
    fn counters(&self, backend: u32) -> Option<*mut BackendCounters>;
    /// Counts a verdict of a service; 0: of none.
    fn count(&self, vip: u32, verdict: Verdict);
    /// Tells an event, if there is room.
    fn tell(&self, event: &Event);

    /// Returns whether the host has a TCP connection of client and service (also one that is being
    /// set up), ports as on the wire.
    fn has_connection(&self, client: &Address, service: &Address, ports: u32) -> bool;
    /// Returns the next hop from the packet's interface towards an address.
    fn route(&self, source: &Address, destination: &Address) -> Option<NextHop>;
}
