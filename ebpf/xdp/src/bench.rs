//! What is measured beside the balancer, and how.
//!
//! The kernel does not restore a packet between the repetitions of a test run, so `bench_prologue`
//! does: it brings the packet to its first length, writes its first bytes anew with the addresses of
//! the next flow, and calls the program under test. Every figure has the prologue in it, and so have
//! the floors: a program that drops, one that sends back, one that only encapsulates.

#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_tail_call, bpf_xdp_adjust_head};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use ballast_ebpf_common::{Machine, Window};
use ballast_xdp::Kernel;

/// The packet, and how it changes from one repetition to the next.
#[repr(C)]
pub struct Course {
    /// The first bytes of the packet.
    bytes: [u64; 16],
    /// How long it is.
    length: u32,
    /// How many of `bytes` are written, in words of 8.
    words: u32,
    /// Number of the next packet.
    next: u32,
    /// Flows − 1; a power of two − 1.
    mask: u32,
    /// Where the word is that the flow's number is added to (the last four bytes of an address).
    address_at: u32,
    /// Where the port is that the flow's number is added to; 0: none.
    port_at: u32,
}

#[map]
static COURSE: Array<Course> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Restores the packet and calls the program under test.
#[xdp]
pub fn bench_prologue(context: XdpContext) -> u32 {
    restore(context.ctx);
    // SAFETY: the map holds programs; one that is missing lets this one go on.
    unsafe { bpf_tail_call(context.ctx.cast(), (&raw const UNDER_TEST).cast_mut().cast(), 0) };
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn restore(context: *mut xdp_md) {
    let machine = Kernel(context);
    let Some(course) = COURSE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the one entry of the map; one CPU runs the test.
    let course = unsafe { &mut *course };
    let grown = machine.length() as i32 - course.length as i32;
    if grown != 0 {
        // SAFETY: the helper checks the room.
        unsafe { bpf_xdp_adjust_head(context, grown) };
    }
    let Some(packet) = machine.window::<64>(0) else {
        return;
    };
    write(packet, course, 0);
    let number = course.next;
    course.next = number.wrapping_add(1);
    let flow = number & course.mask;
    if course.words > 8
        && let Some(rest) = machine.window::<64>(64)
    {
        write(rest, course, 8);
    }
    // A client has 1,024 ports.
    let at = course.address_at as usize & 127;
    if let Some(address) = machine.window::<4>(at) {
        address.set_u32::<0>((u32::from_be(address.u32::<0>()) + (flow >> 10)).to_be());
    }
    let at = course.port_at as usize & 127;
    if at != 0
        && let Some(port) = machine.window::<2>(at)
    {
        port.set_u16::<0>((1_024 + (flow & 1_023) as u16).to_be());
    }
}

#[inline(always)]
fn write(packet: Window<64>, course: &Course, first: usize) {
    packet.set_u64::<0>(course.bytes[first]);
    packet.set_u64::<8>(course.bytes[first + 1]);
    packet.set_u64::<16>(course.bytes[first + 2]);
    packet.set_u64::<24>(course.bytes[first + 3]);
    packet.set_u64::<32>(course.bytes[first + 4]);
    packet.set_u64::<40>(course.bytes[first + 5]);
    packet.set_u64::<48>(course.bytes[first + 6]);
    packet.set_u64::<56>(course.bytes[first + 7]);
}

/// Floor: drops.
#[xdp]
pub fn floor_drop(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Floor: sends back.
#[xdp]
pub fn floor_tx(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Floor: puts an IPv4 header that never changes in front, and sends back.
#[xdp]
pub fn floor_encapsulate(context: XdpContext) -> u32 {
    // SAFETY: the helper checks the room.
    if unsafe { bpf_xdp_adjust_head(context.ctx, -20) } != 0 {
        return xdp_action::XDP_DROP;
    }
    let Some(packet) = Kernel(context.ctx).window::<34>(0) else {
        return xdp_action::XDP_DROP;
    };
    packet.set_u64::<0>(0x0200_0000_0002_0200);
    packet.set_u32::<8>(0x6200_0000);
    packet.set_u16::<12>(0x0008);
    packet.set_u64::<14>(0x0040_0000_5400_0045);
    packet.set_u32::<22>(0x1234_0440);
    packet.set_u32::<26>(0x0100_000a);
    packet.set_u32::<30>(0x0b00_000a);
    xdp_action::XDP_TX
}
