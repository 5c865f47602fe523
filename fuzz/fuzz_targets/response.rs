//! Answers that the load generator reads, cut in two anywhere.
#![no_main]

use ballast_loadgen::engine::Memo;
use ballast_loadgen::engine::response::{Event, Response};

libfuzzer_sys::fuzz_target!(|input: (u16, bool, &[u8])| {
    let (cut, bodiless, bytes) = input;
    let whole = read(&[bytes], bodiless);
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[first, second], bodiless), whole);
});

/// Returns what the pieces came to: of each answer its status, its body and whether the connection
/// stays; and whether a fault ended it.
fn read(pieces: &[&[u8]], bodiless: bool) -> (Vec<(u16, Vec<u8>, Option<bool>)>, bool) {
    let (mut response, mut memo) = (Response::new(), Memo::default());
    let mut all = Vec::new();
    for piece in pieces {
        let mut data = *piece;
        loop {
            match response.next_like(&mut data, bodiless, Some(&mut memo)) {
                Ok(None) => break,
                Ok(Some(Event::Head { status, .. })) => all.push((status, Vec::new(), None)),
                Ok(Some(Event::Body(bytes))) => {
                    all.last_mut().expect("a head came first").1.extend(bytes);
                }
                Ok(Some(Event::End { reusable })) => {
                    all.last_mut().expect("a head came first").2 = Some(reusable);
                }
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}
