//! PROXY headers of both versions, against a naive reader.
#![no_main]

#[path = "../../http1/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    oracle::hold_proxy(bytes, cut.into());
});
