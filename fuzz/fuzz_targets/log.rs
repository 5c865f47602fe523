//! The Raft log, an entry at a time.
#![no_main]

use ballast_fuzz::hold_message;
use ballast_wire::log::Batch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hold_message::<Batch>(bytes));
