//! Agent ↔ ingress.
#![no_main]

use ballast_fuzz::hold_message;
use ballast_wire::feed::{AgentToIngress, IngressToAgent};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hold_message::<AgentToIngress>(bytes);
    hold_message::<IngressToAgent>(bytes);
});
