//! The programs, packet by packet.

use ballast_ebpf_packets::{Kernel, Sizes, absent};

#[test]
fn kernel_takes_every_program() {
    if let Some(why) = absent() {
        println!("SKIP: {why}");
        return;
    }
    Kernel::load(ballast_ebpf_loader::object(), Sizes::SMALL).expect("the kernel takes it");
}
