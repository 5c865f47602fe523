//! Ingress ↔ manager.
#![no_main]

use ballast_fuzz::hold_message;
use ballast_wire::ingress::{IngressToManager, ManagerToIngress};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hold_message::<IngressToManager>(bytes);
    hold_message::<ManagerToIngress>(bytes);
});
