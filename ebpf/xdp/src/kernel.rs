//! See [`Kernel`].

use core::arch::asm;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::mem::zeroed;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup, bpf_sock_tuple, xdp_md,
};
use aya_ebpf::helpers::{
    bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_redirect, bpf_sk_release, bpf_skc_lookup_tcp,
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
};
use aya_ebpf::maps::lpm_trie::Key;
use ballast_ebpf_common::layout::event::Event;
use ballast_ebpf_common::layout::flow::{FlowKey, Line};
use ballast_ebpf_common::layout::nat::Translation;
use ballast_ebpf_common::layout::quic::QuicKey;
use ballast_ebpf_common::layout::{
    Address, Backend, BackendCounters, Config, NetKey, Verdict, Vip, VipKey,
};
use ballast_ebpf_common::{Action, Machine, NextHop, Window};

use crate::maps;

/// State of a TCP socket that only listens.
const LISTEN: u32 = 10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The packet of an XDP program, and the maps.
#[derive(Clone, Copy)]
pub struct Kernel(pub *mut xdp_md);

impl Kernel {
    #[inline(always)]
    fn start(self) -> usize {
        // Volatile, or the compiler passes what it read to functions as a number, in which the
        // verifier sees no pointer any more.
        // SAFETY: the context is valid while the program runs.
        unsafe { (&raw const (*self.0).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).data_end).read_volatile() as usize }
    }
}

impl Machine for Kernel {
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Window<N>> {
        let start = self.start();
        if start + at + N > self.end() {
            return None;
        }
        // SAFETY: just compared; moving the packet makes the verifier forget every pointer to it.
        Some(unsafe { Window::new((start + at) as *mut u8) })
    }

    #[inline(always)]
    fn opaque(&self, mut value: u64) -> u64 {
        // A move onto itself: without any instruction the line table would have a place twice.
        // SAFETY: it changes nothing.
        unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        self.start() + length <= self.end()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // Opaque, or the compiler moves terms to the packet's end, which may not be reckoned with.
        self.opaque((self.end() - self.start()) as u64) as usize
    }

    #[inline(always)]
    fn move_front(&self, by: i32) -> bool {
        // SAFETY: the helper checks the room that there is.
        unsafe { bpf_xdp_adjust_head(self.0, by) == 0 }
    }

    #[inline(always)]
    fn move_back(&self, by: i32) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_tail(self.0, by) == 0 }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: as for `start`.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn redirect(&self, egress: u32) -> Action {
        // SAFETY: any number is allowed; one that is no interface drops the packet.
        if unsafe { bpf_redirect(egress, 0) } == Action::Redirect as i64 {
            Action::Redirect
        } else {
            Action::Drop
        }
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> u64 {
        let Some(words) = maps::FILTER.get_ptr(0) else {
            return 0;
        };
        // A mask that the verifier sees.
        let word = word as usize & (ballast_ebpf_common::layout::limits::FILTER_WORDS - 1);
        // SAFETY: within the array.
        unsafe { words.cast::<u64>().add(word).read() }
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<&Vip> {
        // SAFETY: copied at once; an entry that is replaced meanwhile is read old or new.
        unsafe { maps::VIPS.get(key) }
    }

    #[inline(always)]
    fn net(&self, key: &NetKey) -> Option<u32> {
        maps::NETS.get(Key::new(key.prefix, key.address)).copied()
    }

    #[inline(always)]
    fn blocked(&self, key: &NetKey) -> bool {
        maps::BLOCKED
            .get(Key::new(key.prefix, key.address))
            .is_some()
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        maps::RING.get(index).copied()
    }

    #[inline(always)]
    fn member(&self, index: u32) -> Option<u32> {
        maps::MEMBERS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        maps::BACKENDS.get(index)
    }

    #[inline(always)]
    fn quic(&self, key: &QuicKey) -> Option<u32> {
        // SAFETY: as for `vip`.
        unsafe { maps::QUIC_IDS.get(key) }.copied()
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*mut Line> {
        maps::FLOWS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn flow_key(&self, index: u32) -> Option<*mut FlowKey> {
        maps::FLOW_KEYS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn translation(&self, index: u32) -> Option<*mut Translation> {
        maps::NAT.get_ptr_mut(index)
    }

    #[inline(always)]
    fn cell(&self, index: u32) -> Option<*mut u64> {
        maps::SOURCES.get_ptr_mut(index)
    }

    #[inline(always)]
    fn decap(&self, address: &Address) -> Option<u32> {
        // SAFETY: as for `vip`.
        unsafe { maps::DECAP.get(address) }.copied()
    }

    #[inline(always)]
    fn peer(&self, address: &Address) -> bool {
        // SAFETY: as for `vip`.
        unsafe { maps::PEERS.get(address) }.is_some()
    }

    #[inline(always)]
    fn claim(&self, tag: *mut u64, old: u64, new: u64) -> bool {
        const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
        // SAFETY: an aligned word of a map.
        unsafe { atomic_cxchg::<u64, { ORDER }, { ORDER }>(tag, old, new).1 }
    }

    #[inline(always)]
    fn count_backend(&self, backend: u32, bytes: u64) {
        if let Some(counters) = maps::BACKEND_COUNT.get_ptr_mut(backend) {
            // SAFETY: this CPU's own, and XDP does not interrupt itself.
            unsafe {
                (*counters).packets += 1;
                (*counters).bytes += bytes;
            }
        }
    }

    #[inline(always)]
    fn counters(&self, backend: u32) -> Option<*mut BackendCounters> {
        maps::BACKEND_COUNT.get_ptr_mut(backend)
    }

    #[inline(always)]
    fn count(&self, vip: u32, verdict: Verdict) {
        if let Some(row) = maps::VIP_VERDICTS.get_ptr_mut(vip) {
            // SAFETY: as above; every verdict fits its row.
            unsafe { *row.cast::<u64>().add(verdict as usize & 31) += 1 };
        }
    }

    #[inline(always)]
    fn tell(&self, event: &Event) {
        // A full buffer drops the event.
        let _ = maps::EVENTS.output::<Event>(event, 0);
    }

    #[inline(always)]
    fn has_connection(&self, client: &Address, service: &Address, ports: u32) -> bool {
        // SAFETY: plain numbers.
        let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
        let bytes = ports.to_ne_bytes();
        let source = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let destination = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let size = if client.is_v4() {
            // SAFETY: the union's IPv4 half, all of it written.
            let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
            v4.saddr = client.0[3];
            v4.daddr = service.0[3];
            v4.sport = source;
            v4.dport = destination;
            12
        } else {
            // SAFETY: as above.
            let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
            v6.saddr = client.0;
            v6.daddr = service.0;
            v6.sport = source;
            v6.dport = destination;
            36
        };
        // SAFETY: the tuple has at least `size` bytes; a socket that is found is released.
        unsafe {
            let context = self.0.cast::<c_void>();
            let socket = bpf_skc_lookup_tcp(context, &raw mut tuple, size, u64::MAX, 0);
            if socket.is_null() {
                return false;
            }
            let listens = (*socket).state == LISTEN;
            bpf_sk_release(socket.cast());
            !listens
        }
    }

    #[inline(always)]
    fn route(&self, source: &Address, destination: &Address) -> Option<NextHop> {
        // SAFETY: plain numbers.
        let mut ask: FibLookup = unsafe { zeroed() };
        ask.ifindex = self.ingress();
        if destination.is_v4() {
            ask.family = AF_INET;
            ask.__bindgen_anon_3.ipv4_src = source.0[3];
            ask.__bindgen_anon_4.ipv4_dst = destination.0[3];
        } else {
            ask.family = AF_INET6;
            ask.__bindgen_anon_3.ipv6_src = source.0;
            ask.__bindgen_anon_4.ipv6_dst = destination.0;
        }
        let size = size_of::<FibLookup>() as i32;
        // SAFETY: the structure and its size.
        let found = unsafe { bpf_fib_lookup(self.0.cast(), &raw mut ask, size, 0) };
        if found != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            return None;
        }
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&ask.dmac);
        macs[6..].copy_from_slice(&ask.smac);
        Some(NextHop {
            egress: ask.ifindex,
            macs,
        })
    }
}
