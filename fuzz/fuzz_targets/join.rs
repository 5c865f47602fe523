//! A joiner ↔ manager.
#![no_main]

use ballast_fuzz::hold_message;
use ballast_wire::join::{JoinRequest, JoinResponse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hold_message::<JoinRequest>(bytes);
    hold_message::<JoinResponse>(bytes);
});
