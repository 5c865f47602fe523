//! Heads of requests and answers, against a naive reader, httparse, and readers that are lenient.
#![no_main]

#[path = "../../http1/tests/oracle/mod.rs"]
mod oracle;

use ballast_http1::RequestKind;

libfuzzer_sys::fuzz_target!(|input: (u16, u8, &[u8])| {
    let (cut, kind, bytes) = input;
    match kind % 6 {
        0 => oracle::hold_response(bytes, cut.into(), RequestKind::Other),
        1 => oracle::hold_response(bytes, cut.into(), RequestKind::Head),
        2 => oracle::hold_response(bytes, cut.into(), RequestKind::Connect),
        _ => oracle::hold_request(bytes, cut.into()),
    }
});
