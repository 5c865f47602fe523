//! CPU, sizes, spans, moments, ids.
#![no_main]

use ballast_fuzz::hold_text;
use ballast_model::{Bytes, MilliCpu, Millis, NodeId, Timestamp};

libfuzzer_sys::fuzz_target!(|text: &str| {
    hold_text::<MilliCpu>(text);
    hold_text::<Millis>(text);
    hold_text::<Timestamp>(text);
    hold_text::<NodeId>(text);
    // Prints rounded.
    let _ = text.parse::<Bytes>();
});
