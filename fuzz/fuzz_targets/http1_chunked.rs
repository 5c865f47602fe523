//! Chunked bodies in pieces, against a naive reader of the whole.
#![no_main]

#[path = "../../http1/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    oracle::hold_chunked(bytes, piece.into());
});
