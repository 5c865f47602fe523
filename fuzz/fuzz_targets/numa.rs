//! Lists of hosts of two sockets, their racks, and requests for virtual machines.
#![no_main]

use std::collections::BTreeMap;

use ballast_simulate::numa::{read_hosts, read_racks, read_requests};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = read_racks(bytes);
    let _ = read_requests(bytes);
    let rack = |number: usize| (format!("host-{number}"), "a".to_owned());
    let racks: BTreeMap<_, _> = (0..4).map(rack).collect();
    let _ = read_hosts(bytes, &racks);
});
