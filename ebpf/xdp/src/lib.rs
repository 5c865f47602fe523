//! The kernel's side of [`Machine`]: the packet behind the context, and the maps.
//!
//! What is decided about packets is in `ballast-ebpf-common`, which runs on the host, too.

#![no_std]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "the target has compare-and-swap, but no `core::sync` for it")]

mod kernel;
pub mod maps;

pub use kernel::Kernel;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
