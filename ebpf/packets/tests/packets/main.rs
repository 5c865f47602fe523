//! The decision about packets: fixtures, random packets, floods; on the host and in the kernel.

mod fixtures;
mod flood;
mod fuzz;
mod verifier;

use ballast_ebpf_packets::{Kernel, Sizes, absent};

/// Returns the programs in this kernel, or says why they cannot be there.
fn kernel(sizes: Sizes) -> Option<Kernel> {
    if let Some(why) = absent() {
        println!("SKIP of the kernel's part: {why}");
        return None;
    }
    let object = ballast_ebpf_loader::object();
    Some(Kernel::load(object, sizes).expect("the kernel takes every program"))
}
