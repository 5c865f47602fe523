//! The programs that run in the kernel.

#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use ballast_ebpf_common::{balance, decapsulate};
use ballast_xdp::Kernel;

/// The balancer.
#[xdp]
pub fn ballast_balance(context: XdpContext) -> u32 {
    balance(Kernel(context.ctx)) as u32
}

/// The decapsulator of a real's node.
#[xdp]
pub fn ballast_decap(context: XdpContext) -> u32 {
    decapsulate(Kernel(context.ctx)) as u32
}

/// Lets every packet through.
#[xdp]
pub fn ballast_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
