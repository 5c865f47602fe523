//! Placement constraints.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    ballast_fuzz::hold_text::<ballast_model::Constraint>(text);
});
