//! Agent ↔ manager.
#![no_main]

use ballast_fuzz::hold_message;
use ballast_wire::agent::{AgentToManager, ManagerToAgent};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hold_message::<AgentToManager>(bytes);
    hold_message::<ManagerToAgent>(bytes);
});
